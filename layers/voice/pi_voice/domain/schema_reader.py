"""Read JSON Schema of any dialect into one normal form: draft 2020-12 with plain references to `#/$defs`.

Drafts 4 to 2020-12 and the dialect of OpenAPI 3.0 are told apart by `$schema`, or by the keywords themselves. Reading
never fails: a keyword that is not valid becomes a fault and is left out, so a normal form is always well-formed.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import unquote, urljoin

from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema

TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
MAX_STEPS: Final = 60
"""Maximum length of a pointer into a schema, in steps."""

TOO_DEEP: Final = "Is nested too deeply. Make the schema flatter, or move parts to $defs."

SCHEMAS_BY_NAME: Final = (
    "properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies",
)  # fmt: skip
LISTS_OF_SCHEMAS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
SCHEMAS: Final = (
    "items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "contains",
    "propertyNames", "not", "if", "then", "else", "contentSchema",
)  # fmt: skip

_ANNOTATIONS: Final = ("description", "propertyOrdering")
_CONTAINERS: Final = frozenset({"$defs", "definitions", "components"})
_LEFT_OUT: Final = (
    "Points to a definition, and the document has none. Any value is taken here, until you add the definition."
)
_UNREAD: Final = frozenset({"$defs", "definitions", "additionalItems", "dependencies", "nullable", "$recursiveRef"})
_DRAFTS: Final = (("2019-09", 2019), ("draft-07", 7), ("draft-06", 6), ("draft-04", 4), ("draft-03", 4))
_NEWEST: Final = 2020
_BESIDE_A_REFERENCE: Final = ("$ref", "$schema", "$id", "title", "description", "$defs", "definitions")
_IN_PLACE: Final = frozenset({"$ref", "allOf", "anyOf", "oneOf", "not", "if", "const"})
_SIBLINGS_IGNORED: Final = 7
"""The latest draft in which a `$ref` replaces the keywords beside it."""


def _is_count(value: JsonValue) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)  # type: ignore[operator,arg-type]


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: JsonValue) -> bool:
    return isinstance(value, str)


def _is_names(value: JsonValue) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(map(str, value))) == len(value)


def _is_type(value: JsonValue) -> bool:
    return value in TYPES if isinstance(value, str) else value != [] and _is_names(value) and _are_types(value)


def _are_types(value: JsonValue) -> bool:
    return isinstance(value, list) and all(each in TYPES for each in value)


def _is_schema(value: JsonValue) -> bool:
    return isinstance(value, dict | bool)


def _is_named(value: JsonValue) -> bool:
    return isinstance(value, dict)


def _is_list(value: JsonValue) -> bool:
    return isinstance(value, list)


class _Form(NamedTuple):
    accepts: Callable[[JsonValue], bool]
    words: str


_COUNT: Final = _Form(_is_count, "a whole number, 0 or more")
_NUMBER: Final = _Form(_is_number, "a number")
_TEXT: Final = _Form(_is_text, "a text")
_SCHEMA: Final = _Form(_is_schema, "a schema, which is an object or a boolean")
_NAMED: Final = _Form(_is_named, "an object of schemas by name")
_SCHEMA_LIST: Final = _Form(lambda value: _is_list(value) and value != [], "a list of at least one schema")
_BOUND: Final = _Form(lambda value: isinstance(value, bool) or _is_number(value), "a number")
FORMS: Final[dict[str, _Form]] = {
    "type": _Form(_is_type, f"one of {', '.join(TYPES)}, or a list of them"),
    "enum": _Form(_is_list, "a list of values"),
    "multipleOf": _Form(lambda value: _is_number(value) and value > 0, "a number more than 0"),  # type: ignore[operator]
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _BOUND,
    "exclusiveMaximum": _BOUND,
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains",
         "maxContains"),
        _COUNT,
    ),
    **dict.fromkeys(("pattern", "format", "$ref", "$dynamicRef", "$recursiveRef", "$schema", "title", "description",
                     "contentMediaType", "contentEncoding"), _TEXT),
    "uniqueItems": _Form(lambda value: isinstance(value, bool), "true or false"),
    "required": _Form(_is_names, "a list of property names, each once"),
    "propertyOrdering": _Form(
        lambda value: isinstance(value, list) and all(map(_is_text, value)), "a list of property names"
    ),
    "dependentRequired": _Form(
        lambda value: isinstance(value, dict) and all(map(_is_names, value.values())), "an object of lists of names"
    ),
    "dependencies": _NAMED,
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"), _NAMED),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMA_LIST),
    **dict.fromkeys(SCHEMAS, _SCHEMA),
    "items": _Form(lambda value: _is_schema(value) or _is_list(value), "a schema, or a list of schemas"),
    "$id": _TEXT,
    "$anchor": _Form(
        lambda value: isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z_][-A-Za-z0-9._]*", value)), "a plain name"
    ),
}  # fmt: skip
"""What each keyword has to be, in words that follow "Should be"."""


class Note(NamedTuple):
    """A fault or a remark about a schema, by its JSON pointer."""

    pointer: str
    message: str


class Place(NamedTuple):
    """A schema inside a document, with the base URI and the draft that hold there."""

    pointer: str
    schema: JsonValue
    base: str = ""
    draft: int = _NEWEST
    is_declared: bool = False

    def at(self, step: str, schema: JsonValue) -> "Place":
        """Return the place of a schema inside this one; its own `$schema` and `$id` are read later."""
        return self._replace(pointer=f"{self.pointer}/{step}", schema=schema)


@dataclass(frozen=True, slots=True)
class NormalSchema:
    """A schema in normal form, with what is wrong in the document that it was read from."""

    root: JsonValue
    definitions: JsonSchema
    """The targets of references, by name."""
    pointers: dict[int, str]
    """JSON pointers into the document by the identity of a schema."""
    is_declared: dict[str, bool]
    """Whether a dialect is declared at the place of a JSON pointer."""
    faults: list[Note]
    remarks: list[Note]

    def target(self, reference: JsonValue) -> JsonValue:
        """Return the schema that a reference of the normal form leads to."""
        return self.definitions[str(reference).removeprefix(_DEFS)]

    def document(self) -> JsonValue:
        """Return the normal form as one document."""
        if not self.definitions or not isinstance(self.root, dict):
            return self.root
        return {**self.root, "$defs": self.definitions}


_DEFS: Final = "#/$defs/"


def opened(document: JsonSchema) -> tuple[str, JsonSchema]:
    """Return the schema in an envelope of OpenAI's API, and its pointer; other documents are returned as they are."""
    pointer, inner = "", document
    response_format = document.get("json_schema")
    if isinstance(response_format, dict) and document.get("type", "json_schema") == "json_schema":
        pointer, inner = "/json_schema", response_format
    schema = inner.get("schema")
    is_envelope = pointer or document.get("type") == "json_schema" or isinstance(inner.get("name"), str)
    if isinstance(schema, dict) and is_envelope and inner.keys() <= _ENVELOPE:
        return f"{pointer}/schema", schema
    return "", document


_ENVELOPE: Final = {"type", "name", "schema", "strict", "description"}


def read_schema(document: JsonSchema) -> NormalSchema:
    """Read a schema of any dialect into normal form."""
    return _Reader(*opened(document)).read()


def inside(pointer: str, schema: JsonSchema) -> Iterator[tuple[str, str, JsonValue]]:
    """Yield the schemas directly inside a schema of any dialect: the keyword, the pointer and the schema."""
    for keyword, value in schema.items():
        if keyword in SCHEMAS_BY_NAME and isinstance(value, dict):
            for name, inner in value.items():
                if keyword != "dependencies" or not isinstance(inner, list):
                    yield keyword, f"{pointer}/{escaped(keyword)}/{escaped(name)}", inner
        elif keyword in LISTS_OF_SCHEMAS and isinstance(value, list):
            for number, inner in enumerate(value):
                yield keyword, f"{pointer}/{keyword}/{number}", inner
        elif keyword in SCHEMAS and isinstance(value, dict | bool):
            yield keyword, f"{pointer}/{keyword}", value


def escaped(step: str) -> str:
    """Escape one step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1")


@dataclass(slots=True)
class _Reader:
    prefix: str
    document: JsonSchema
    places: dict[str, Place] = field(default_factory=dict)
    resources: dict[str, Place] = field(default_factory=dict)
    anchors: dict[str, Place] = field(default_factory=dict)
    dynamic_anchors: list[str] = field(default_factory=list)
    ends: dict[str, Place] = field(default_factory=dict)
    """Where references that stand alone lead to in the end, by the pointers of their places."""
    names: dict[str, str] = field(default_factory=dict)
    """Names of definitions by the pointers of their places."""
    definitions: JsonSchema = field(default_factory=dict)
    waiting: list[Place] = field(default_factory=list)
    pointers: dict[int, str] = field(default_factory=dict)
    faults: list[Note] = field(default_factory=list)
    remarks: list[Note] = field(default_factory=list)

    def read(self) -> NormalSchema:
        root = Place(self.prefix, self.document)
        self.resources[""] = root
        self._index(root)
        read = self._read(self.places[root.pointer])
        for place in [*self.places.values()]:  # definitions that no reference leads to may have faults as well
            if self._is_definition(place):
                self._name(place)
        while self.waiting:
            place = self.waiting.pop()
            self.definitions[self.names[place.pointer]] = self._read(place)
        order = {pointer: number for number, pointer in enumerate(self.places)}
        self.faults.sort(key=lambda note: order.get(note.pointer.rpartition("/")[0], 0))
        is_declared = {pointer: place.is_declared for pointer, place in self.places.items()}
        return NormalSchema(read, self.definitions, self.pointers, is_declared, self.faults, self.remarks)

    def _is_definition(self, place: Place) -> bool:
        return place.pointer.rpartition("/")[0].endswith(("/$defs", "/definitions"))

    # ---- Places ----

    def _index(self, root: Place) -> None:
        """Find the places of all schemas in a document, and their ids and anchors."""
        waiting = [root]
        while waiting:
            place = waiting.pop()
            if place.pointer in self.places:
                continue
            if isinstance(place.schema, dict):
                place = self._entered(place, place.schema)
            self.places[place.pointer] = place
            if not isinstance(place.schema, dict):
                continue
            if place.pointer.count("/") > MAX_STEPS:
                self.faults.append(Note(place.pointer, TOO_DEEP))
                continue
            found = [place._replace(pointer=at, schema=each) for _, at, each in inside(place.pointer, place.schema)]
            if place is root or place.pointer == root.pointer:
                found += self._components(place)
            waiting += reversed(found)

    def _components(self, root: Place) -> list[Place]:
        components = self.document.get("components")
        schemas = components.get("schemas") if isinstance(components, dict) else None
        if not isinstance(schemas, dict):
            return []
        return [root.at(f"components/schemas/{escaped(name)}", each) for name, each in schemas.items()]

    def _entered(self, place: Place, schema: JsonSchema) -> Place:
        """Return a place with the draft and the base URI that its schema declares, and register its names."""
        if isinstance(dialect := schema.get("$schema"), str):
            drafts = [draft for words, draft in _DRAFTS if words in dialect]
            place = place._replace(draft=drafts[0] if drafts else _NEWEST, is_declared=True)
            if not drafts and "2020-12" not in dialect:
                self._remark(place, "$schema", "Is not a known dialect. The schema is read as draft 2020-12.")
        is_replaced = place.draft <= _SIBLINGS_IGNORED and isinstance(schema.get("$ref"), str)
        own = schema.get("id" if place.draft == 4 and place.is_declared else "$id")  # noqa: PLR2004 (the draft's name)
        if isinstance(own, str) and not is_replaced:
            uri = _joined(place.base, own)
            base, _, fragment = uri.partition("#")
            if fragment and place.draft > _SIBLINGS_IGNORED:
                self._fault(place, "$id", "Should be a URI without a fragment. Use $anchor to name a schema.")
            elif fragment:
                self.anchors.setdefault(uri, place)
            else:
                place = place._replace(base=base)
                self.resources.setdefault(base, place)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := schema.get(keyword), str):
                self.anchors.setdefault(f"{place.base}#{name}", place)
        if isinstance(name := schema.get("$dynamicAnchor"), str):
            self.dynamic_anchors.append(name)
        if schema.get("$recursiveAnchor") is True:
            self.dynamic_anchors.append("")
        return place

    # ---- References ----

    def _resolved(self, reference: str, place: Place) -> Place | None:
        """Return the place that a reference leads to, through references that stand alone; None if there is none."""
        passed: dict[str, None] = {}
        target = self._target(reference, place)
        while target is not None and target.pointer not in passed:
            if target.pointer in self.ends:
                target = self.ends[target.pointer]
                break
            passed[target.pointer] = None
            if (only := _lone_reference(target.schema)) is None or (onward := self._target(only, target)) is None:
                break
            target = onward
        if target is not None:
            self.ends.update(dict.fromkeys(passed, target))
        return target

    def _target(self, reference: str, place: Place) -> Place | None:
        document, _, fragment = _joined(place.base, reference).partition("#")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self.anchors.get(f"{document}#{fragment}")
        if (resource := self.resources.get(document)) and (found := self._at(resource.pointer, fragment)):
            return found
        own = fragment if reference.startswith("#") else ""
        if moved := re.fullmatch(r"/(?:components/schemas|\$defs|definitions)/([^/]+)", own):
            for container in ("$defs", "definitions", "components/schemas"):  # pasted without the rest of its document
                if found := self.places.get(f"{self.prefix}/{container}/{moved[1]}"):
                    return found
        if relative := re.fullmatch(r"([0-9]{1,2})((?:/[^#?]*)?)", reference):
            steps = place.pointer.split("/")
            above = "/".join(steps[: len(steps) - int(relative[1])])
            return self._at(above, relative[2]) if above.startswith(self.prefix) else None
        return None

    def _at(self, start: str, fragment: str) -> Place | None:
        """Return the place at a pointer below another one, also below keywords that are not JSON Schema."""
        pointer = self.prefix
        value: JsonValue = self.document
        nearest = self.places[self.prefix]
        for step in [*start.removeprefix(self.prefix).split("/")[1:], *fragment.split("/")[1:]]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list) and re.fullmatch("[0-9]{1,9}", name) and int(name) < len(value):
                value = value[int(name)]
            else:
                return None
            pointer = f"{pointer}/{escaped(name)}"
            nearest = self.places.get(pointer, nearest)
        is_container = pointer.rpartition("/")[2] in SCHEMAS_BY_NAME and pointer.rpartition("/")[0] in self.places
        if nearest.pointer == pointer:
            return nearest
        if not isinstance(value, dict | bool) or is_container:
            return None
        self._index(nearest._replace(pointer=pointer, schema=value))
        return self.places[pointer]

    def _name(self, place: Place) -> str:
        """Return the name of a definition in the normal form; a new one is read later."""
        if place.pointer not in self.names:
            last = place.pointer.removeprefix(self.prefix).rpartition("/")[2] or "root"
            plain = re.sub(r"[^A-Za-z0-9_.-]", "_", last.replace("~1", "_").replace("~0", "_"))[:60] or "_"
            name, number = plain, 2
            while name in self.definitions:
                name, number = f"{plain}_{number}", number + 1
            self.names[place.pointer] = name
            self.definitions[name] = {}
            self.waiting.append(place)
        return self.names[place.pointer]

    # ---- Schemas ----

    def _fault(self, place: Place, keyword: str, message: str) -> None:
        self.faults.append(Note(f"{place.pointer}/{escaped(keyword)}", message))

    def _remark(self, place: Place, keyword: str, message: str) -> None:
        self.remarks.append(Note(f"{place.pointer}/{escaped(keyword)}", message))

    def _inner(self, place: Place, step: str, schema: JsonValue) -> JsonValue:
        pointer = f"{place.pointer}/{step}"
        return self._read(self.places.get(pointer) or place._replace(pointer=pointer, schema=schema))

    def _read(self, place: Place) -> JsonValue:
        """Return the normal form of the schema at a place."""
        schema = place.schema
        if isinstance(schema, bool):
            return {} if schema else False
        if not isinstance(schema, dict):
            self.faults.append(Note(place.pointer, f"Should be {_SCHEMA.words}."))
            return {}
        if place.pointer.count("/") > MAX_STEPS:
            return {}
        out = self._read_keywords(place, schema)
        if schema.get("nullable") is True and not place.is_declared:
            out = self._nullable(place, out)
        self.pointers[id(out)] = place.pointer
        return out

    def _read_keywords(self, place: Place, schema: JsonSchema) -> JsonSchema:
        out: JsonSchema = {}
        is_replaced = place.draft <= _SIBLINGS_IGNORED and isinstance(schema.get("$ref"), str)
        for keyword, value in schema.items():
            form = FORMS.get(keyword)
            if is_replaced and keyword not in _BESIDE_A_REFERENCE:
                if form:
                    self._remark(place, keyword, f"Has no effect beside $ref in draft {place.draft}.")
            elif form and not form.accepts(value):
                self._fault(place, keyword, f"Should be {form.words}.")
            elif keyword not in _UNREAD:
                self._read_keyword(place, keyword, value, out)
        if not is_replaced:
            self._read_earlier_forms(place, schema, out)
        return out

    def _read_keyword(self, place: Place, keyword: str, value: JsonValue, out: JsonSchema) -> None:
        match value:
            case dict() if keyword in SCHEMAS_BY_NAME:
                step = escaped(keyword)
                out[keyword] = {
                    name: self._inner(place, f"{step}/{escaped(name)}", each) for name, each in value.items()
                }
            case list() if keyword in LISTS_OF_SCHEMAS:
                read = [self._inner(place, f"{keyword}/{number}", each) for number, each in enumerate(value)]
                if read:
                    name = "prefixItems" if keyword == "items" else keyword
                    out[name] = [*_list(out.get(name)), *read] if name == "allOf" else read
            case dict() | bool() if keyword in SCHEMAS:
                out[keyword] = self._inner(place, keyword, value)
            case str() if keyword in ("$ref", "$dynamicRef"):
                self._read_reference(place, keyword, value, out)
            case _ if keyword == "const" or (keyword in FORMS and not keyword.startswith("$") and keyword != "title"):
                out[keyword] = value

    def _read_reference(self, place: Place, keyword: str, reference: str, out: JsonSchema) -> None:
        target = self._resolved(reference, place)
        if target is None and self._is_left_out(reference):
            self._remark(place, keyword, _LEFT_OUT)
            return
        if target is None or not isinstance(target.schema, dict | bool):
            message = 'Should point to a schema in this document, such as "#/$defs/name". Put a copy of it there.'
            self._fault(place, keyword, message)
            return
        if "$ref" in out:
            out["allOf"] = [*_list(out.get("allOf")), {"$ref": f"{_DEFS}{self._name(target)}"}]
        else:
            out["$ref"] = f"{_DEFS}{self._name(target)}"

    def _is_left_out(self, reference: str) -> bool:
        """Return whether a generator left all definitions out of the document, as some do that write types in place.

        They still refer to a recursive type. In a document with definitions, the name is probably misspelled.
        """
        return reference.startswith("#/definitions/") and self.document.keys().isdisjoint(_CONTAINERS)

    def _read_earlier_forms(self, place: Place, schema: JsonSchema, out: JsonSchema) -> None:
        """Rewrite what earlier drafts write differently."""
        if isinstance(schema.get("items"), list) and _is_schema(schema.get("additionalItems")):
            out["items"] = self._inner(place, "additionalItems", schema["additionalItems"])
        elif "additionalItems" in schema:
            self._remark(place, "additionalItems", "Has no effect, because items is not a list.")
        for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(is_exclusive := out.get(exclusive), bool):
                del out[exclusive]
                if is_exclusive and bound in out:
                    out[exclusive] = out.pop(bound)
        for name, value in _dict(schema.get("dependencies")).items():
            keyword, read = (
                ("dependentRequired", value)
                if _is_names(value)
                else ("dependentSchemas", self._inner(place, f"dependencies/{escaped(name)}", value))
            )
            out[keyword] = {**_dict(out.get(keyword)), name: read}
        if isinstance(reference := schema.get("$recursiveRef"), str):
            self._read_reference(place, "$recursiveRef", reference, out)
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in schema and self.dynamic_anchors.count(str(schema[keyword]).rpartition("#")[2]) > 1:
                self._fault(place, keyword, "Depends on where it is reached from. Use $ref to one of the schemas.")

    def _nullable(self, place: Place, out: JsonSchema) -> JsonSchema:
        """Return the schema that allows null as well, as OpenAPI 3.0's `nullable` does."""
        if "type" in out and not out.keys() & _IN_PLACE:
            types = out["type"]
            kinds = types if isinstance(types, list) else [types]
            out["type"] = [*kinds, *([] if "null" in kinds else ["null"])]
            if isinstance(members := out.get("enum"), list) and None not in members:
                out["enum"] = [*members, None]
            return out
        annotations: JsonSchema = {name: out.pop(name) for name in _ANNOTATIONS if name in out}
        self.pointers[id(out)] = place.pointer
        return {**annotations, "anyOf": [out, {"type": "null"}]}


def _lone_reference(schema: JsonValue) -> str | None:
    if not isinstance(schema, dict) or any(name in FORMS for name in schema if name != "$ref"):
        return None
    return reference if isinstance(reference := schema.get("$ref"), str) else None


def _joined(base: str, reference: str) -> str:
    """Resolve a URI reference; a fragment also against a base that is not hierarchical, such as a URN."""
    try:
        return base + reference if reference.startswith("#") else urljoin(base, reference)
    except ValueError:
        return reference


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _dict(value: JsonValue) -> JsonSchema:
    return value if isinstance(value, dict) else {}

"""Compile tools to the function declarations of a Gemini Live setup.

Declarations have `parameters` in Google's own Schema, which running projects send. It has one type for each value, no
references and no formats, so a JSON Schema is first compiled as for results (`gemini_schema`) and then rewritten:
everything that is valid by the schema stays valid, and what is lost is in the descriptions.
"""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema
from pi_voice.domain.gemini_schema import gemini_schema, type_of
from pi_voice.domain.tools import HANG_UP, Tool

_MAX_DEPTH: Final = 12
"""Depth at which a recursive schema is cut."""

_ANYTHING: Final = ("STRING", "NUMBER", "BOOLEAN")
"""Types of a value of any type; Google's Schema needs one."""


_HANG_UP: Final[JsonSchema] = {
    "name": HANG_UP,
    "description": "End the call. Call it once, after you have said goodbye.",
    "parameters": {
        "type": "OBJECT",
        "properties": {"reason": {"type": "STRING", "description": "Why the call ends, in a few words"}},
        "required": ["reason"],
    },
}


def declarations(tools: Sequence[Tool], *, may_hang_up: bool) -> list[JsonSchema]:
    """Return the function declarations of an agent's tools, the built-in `hang_up` last."""
    return [*map(_declaration, tools), *[_HANG_UP] * may_hang_up]


def _declaration(tool: Tool) -> JsonSchema:
    parameters = parameters_of(tool.parameters) if tool.parameters is not None else None
    declared: JsonSchema = {"name": tool.name, "description": tool.description}
    return declared if parameters is None else {**declared, "parameters": parameters}


def parameters_of(schema: JsonSchema) -> JsonSchema | None:
    """Return Google's Schema of a tool's arguments; None if it takes none, because an empty object is refused."""
    compiled = _Compiler(gemini_schema(schema)).root()
    return compiled if compiled.get("properties") else None


class _Compiler:
    def __init__(self, schema: JsonSchema) -> None:
        self._schema = schema
        self._definitions: JsonSchema = _dict(schema.get("$defs"))

    def root(self) -> JsonSchema:
        branches = [_dict(each) for each in _list(self._schema.get("anyOf"))]
        if not branches:
            return self._compiled(self._schema, 0)
        # Arguments are one object, and not one of several: all properties, none of them required in all branches.
        merged: JsonSchema = {"type": "object", "properties": {}}
        for branch in [self._resolved(each) for each in branches]:
            merged["properties"] = {**_dict(branch.get("properties")), **_dict(merged["properties"])}
        if description := self._schema.get("description"):
            merged["description"] = description
        return self._compiled(merged, 0)

    def _resolved(self, schema: JsonSchema) -> JsonSchema:
        for _ in range(_MAX_DEPTH):
            if "$ref" not in schema:
                break
            schema = _dict(self._definitions.get(str(schema["$ref"]).rpartition("/")[2]))
        return schema

    def _compiled(self, schema: JsonValue, depth: int) -> JsonSchema:
        schema = self._resolved(_dict(schema))
        kinds = _kinds(schema)
        out: JsonSchema = {}
        if description := schema.get("description"):
            out["description"] = description
        if is_nullable := "null" in kinds:
            out["nullable"] = True
        kinds = [kind for kind in kinds if kind != "null"]
        branches = [each for each in _list(schema.get("anyOf")) if depth < _MAX_DEPTH]
        if branches and not kinds:
            self._alternatives(branches, out, depth)
        elif len(kinds) == 1:
            self._typed(kinds[0], schema, out, depth)
        elif kinds:
            out["anyOf"] = [self._typed(kind, schema, {}, depth) for kind in kinds]
        elif is_nullable:
            out["type"] = "NULL"
            del out["nullable"]
        else:
            out["anyOf"] = [{"type": kind} for kind in _ANYTHING]
        return out

    def _alternatives(self, branches: Sequence[JsonValue], out: JsonSchema, depth: int) -> None:
        compiled = [self._compiled(each, depth + 1) for each in branches]
        if any(each.get("type") == "NULL" or each.get("nullable") for each in compiled):
            out["nullable"] = True
        some = [each for each in compiled if each.get("type") != "NULL"]
        if len(some) == 1:
            out.update({name: value for name, value in some[0].items() if name not in out})
        else:
            out["anyOf"] = [*some]

    def _typed(self, kind: str, schema: JsonSchema, out: JsonSchema, depth: int) -> JsonSchema:
        out["type"] = kind.upper()
        if kind == "string":
            texts = [each for each in _list(schema.get("enum")) if isinstance(each, str)]
            if texts and "" not in texts:
                out["enum"] = [*texts]
            elif texts:
                _describe(out, f"one of {', '.join(texts)}, or empty")
        elif kind in ("integer", "number") and (numbers := _numbers(schema)):
            _describe(out, f"one of {', '.join(map(str, numbers))}")
        elif kind == "array":
            out["items"] = self._items(schema, depth)
        elif kind == "object" and depth < _MAX_DEPTH:
            properties: JsonSchema = {
                name: self._compiled(inner, depth + 1) for name, inner in _dict(schema.get("properties")).items()
            }
            if properties:
                out["properties"] = properties
                for keyword in ("required", "propertyOrdering"):
                    if names := [name for name in _list(schema.get(keyword)) if name in properties]:
                        out[keyword] = [*names]
        return out

    def _items(self, schema: JsonSchema, depth: int) -> JsonSchema:
        """Return the schema of an array's items; those of a tuple are any of its own."""
        inner = [*_list(schema.get("prefixItems")), *([schema["items"]] if "items" in schema else [])]
        if depth >= _MAX_DEPTH or not inner:
            return {"anyOf": [{"type": kind} for kind in _ANYTHING]}
        compiled: list[JsonValue] = []
        for each in inner:
            if (one := self._compiled(each, depth + 1)) not in compiled:
                compiled.append(one)
        return _dict(compiled[0]) if len(compiled) == 1 else {"anyOf": compiled}


def _kinds(schema: JsonSchema) -> list[str]:
    """Return the types that a schema names, or shows by its keywords."""
    if (types := schema.get("type")) is not None:
        return [str(each) for each in (types if isinstance(types, list) else [types])]
    if isinstance(members := schema.get("enum"), list):
        return [*dict.fromkeys(map(type_of, members))]
    if "properties" in schema or "additionalProperties" in schema:
        return ["object"]
    return ["array"] if schema.keys() & {"items", "prefixItems"} else []


def _numbers(schema: JsonSchema) -> list[JsonValue]:
    return [each for each in _list(schema.get("enum")) if isinstance(each, int | float)]


def _describe(out: JsonSchema, words: str) -> None:
    out["description"] = f"{out['description']} ({words})" if "description" in out else words


def _list(value: JsonValue) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: JsonValue) -> JsonSchema:
    return value if isinstance(value, dict) else {}

import json
from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema
from pi_voice.domain.errors import InvalidOutputSchema
from pi_voice.domain.evidence import with_evidence
from pi_voice.domain.gemini_schema import gemini_schema
from pi_voice.domain.output_schema import compile_output_schema, violations
from pi_voice.domain.output_schema_validation import validate_output_schema
from pi_voice.domain.schema_reader import read_schema
from tests.unit.hints import HINTS, compile_hints

NO_FORMATS: Final = FormatChecker(formats=())


def error_paths(field: str, schema: JsonValue) -> list[str]:
    """Return the paths of the errors; empty if the schema is valid."""
    fields: dict[str, Any] = {"output_schema": None, "output_schema_strict": None, field: schema}
    try:
        validate_output_schema(*fields.values())
    except InvalidOutputSchema as error:
        return [detail.path for detail in error.details]
    return []


def error_pointers(schema: dict[str, Any]) -> list[str]:
    """Return the JSON pointers of the errors in a strict schema, which gets an object at its root."""
    return [
        path.removeprefix("output_schema_strict#")
        for path in error_paths("output_schema_strict", {"type": "object", **schema})
    ]


def message_of(schema: dict[str, Any]) -> str:
    """Return the message of the only error in a strict schema."""
    with pytest.raises(InvalidOutputSchema) as raised:
        validate_output_schema(None, {"type": "object", **schema})
    [detail] = raised.value.details
    return detail.message


def warnings(schema: dict[str, Any]) -> dict[str, str]:
    """Return the warnings for a valid strict schema by their pointers."""
    details = validate_output_schema(None, {"type": "object", **schema})
    return {warning.path.removeprefix("output_schema_strict#"): warning.message for warning in details}


def validated(schema: dict[str, Any]) -> JsonSchema:
    """Validate a strict schema and return it with an object at its root."""
    root = {"type": "object", **schema}
    validate_output_schema(None, root)
    return root


def test_an_absent_or_empty_schema_is_valid() -> None:
    assert validate_output_schema(None, None) == []
    assert validate_output_schema({}, None) == []


def test_hints_are_validated_also_beside_a_strict_schema() -> None:
    with pytest.raises(InvalidOutputSchema):
        validate_output_schema({"town": 1}, {"type": "object"})


def test_hints_have_no_warnings() -> None:
    assert validate_output_schema({"city": "string", "people": [{"age": "integer"}]}, None) == []


# ---- Hints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hints", "path"),
    [
        ({"a": 1}, "output_schema.a"),
        ({"a": None}, "output_schema.a"),
        ({"a": True}, "output_schema.a"),
        ({"a": 1.5}, "output_schema.a"),
        ({"a": ""}, "output_schema.a"),
        ({"a": "  "}, "output_schema.a"),
        ({"a": []}, "output_schema.a"),
        ({"a": ["string", "string"]}, "output_schema.a"),
        ({"a": {}}, "output_schema.a"),
        ({"a": [7]}, "output_schema.a.0"),
        ({"a": [[]]}, "output_schema.a.0"),
        ({"a": [{}]}, "output_schema.a.0"),
        ({"a": {"b": {"c": None}}}, "output_schema.a.b.c"),
        ({"a": {"b": [{"c": 1}]}}, "output_schema.a.b.0.c"),
        ({"a.b": {"c": 1}}, "output_schema.a\\.b.c"),
        ({"": "string"}, "output_schema"),
        ({" ": "string"}, "output_schema"),
    ],
    ids=str,
)
def test_an_invalid_hint_is_rejected_with_its_path(hints: JsonValue, path: str) -> None:
    assert error_paths("output_schema", hints) == [path]


@pytest.mark.parametrize(
    ("hint", "path"),
    [
        ({"enum": ["a", "a"]}, "output_schema.a.enum"),
        ({"enum": ["a", " "]}, "output_schema.a.enum"),
        ({"enum": [1, 2]}, "output_schema.a.enum"),
        ({"enum": ["a", "b"], "note": "string"}, "output_schema.a.enum"),
    ],
    ids=str,
)
def test_a_choice_has_different_texts_and_stands_alone(hint: JsonValue, path: str) -> None:
    assert error_paths("output_schema", {"a": hint}) == [path]


def test_the_root_of_hints_is_no_choice() -> None:
    assert error_paths("output_schema", {"enum": ["low", "high"]}) == ["output_schema.enum"]


@pytest.mark.parametrize(
    ("hints", "path", "words"),
    [
        ({"a": "strng"}, "output_schema.a", '"string"'),
        ({"a": ["Integr"]}, "output_schema.a.0", '"integer"'),
        ({"a": {"b": "xyzzy"}}, "output_schema.a.b", "datetime"),
        ({"age": {"type": "integer", "description": "age in years"}}, "output_schema.age", "type, description"),
        ({"type": "object", "note": "what it is"}, "output_schema", "output_schema_strict"),
    ],
    ids=str,
)
def test_a_hint_that_is_probably_meant_differently_has_a_warning(hints: dict[str, Any], path: str, words: str) -> None:
    [first, *_] = [each for each in validate_output_schema(hints, None) if each.path == path]

    assert words in first.message


def test_hints_beside_a_strict_schema_have_no_warnings() -> None:
    assert validate_output_schema({"a": "strng"}, {"type": "object"}) == []


@pytest.mark.parametrize(
    ("hints", "is_schema"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, True),
        ({"type": "object", "properties": {"a": "string"}}, False),
        ({"type": "Object", "properties": {"a": {"type": "string"}}}, False),
        ({"properties": {"a": {"type": "string"}}}, False),
    ],
    ids=str,
)
def test_json_schema_where_hints_belong_is_rejected(hints: dict[str, Any], *, is_schema: bool) -> None:
    assert error_paths("output_schema", hints) == (["output_schema"] if is_schema else [])


def test_up_to_20_invalid_hints_are_reported() -> None:
    assert error_paths("output_schema", {"a": 1, "b": "string", "c": None}) == ["output_schema.a", "output_schema.c"]
    assert len(error_paths("output_schema", {f"k{number}": None for number in range(30)})) == 20


def test_hints_may_have_100_keys() -> None:
    hundred: dict[str, JsonValue] = {f"k{number}": "string" for number in range(100)}

    assert len(compile_hints(**hundred)["required"]) == 100  # type: ignore[arg-type]
    assert error_paths("output_schema", {**hundred, "one-more": "string"}) == ["output_schema"]


def test_keys_are_counted_at_every_level() -> None:
    nested: JsonValue = {"a": {f"k{number}": "string" for number in range(49)}, "b": [{"c": "string"}]}  # 52 keys
    more: JsonValue = {f"m{number}": "string" for number in range(47)}  # 48 with their own key

    assert error_paths("output_schema", {"n": nested["a"], "m": more, "l": ["string"]}) == []  # type: ignore[call-overload,index]
    assert error_paths("output_schema", {**nested, "m": more}) == []  # type: ignore[dict-item]
    assert error_paths("output_schema", {**nested, "m": more, "l": "string"}) == ["output_schema"]  # type: ignore[dict-item]


@pytest.mark.parametrize("field", ["output_schema", "output_schema_strict"])
@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_schema_may_have_32_kilobytes(field: str, letter: str) -> None:
    schema: dict[str, JsonValue] = {"description": ""} if field == "output_schema" else {"type": "object", "title": ""}
    key = list(schema)[-1]
    room = 32_768 - len(json.dumps(schema, separators=(",", ":")).encode())
    fitting = letter * (room // len(letter.encode())) + "a" * (room % len(letter.encode()))

    assert error_paths(field, {**schema, key: fitting}) == []
    assert error_paths(field, {**schema, key: fitting + "a"}) == [field]


@pytest.mark.parametrize(
    ("levels", "paths"), [(10, []), (11, ["output_schema" + ".a" * 11]), (90, ["output_schema" + ".a" * 11])]
)
def test_hints_may_be_nested_ten_levels_deep(levels: int, paths: list[str]) -> None:
    hint: JsonValue = "string"
    for _ in range(levels):
        hint = {"a": hint}

    assert error_paths("output_schema", hint) == paths


@given(HINTS)
def test_hints_compile_to_keywords_that_gemini_supports(hints: dict[str, Any]) -> None:
    assume(not any("nested" in message for message in strict_messages(compile_hints(**hints))))

    assert warnings(compile_hints(**hints)) == {}


def strict_messages(schema: JsonSchema) -> list[str]:
    """Return the messages of the errors in a strict schema."""
    try:
        validate_output_schema(None, schema)
    except InvalidOutputSchema as error:
        return [detail.message for detail in error.details]
    return []


# ---- Strict schemas -------------------------------------------------------------------------------------


def test_keywords_that_gemini_supports_are_valid_without_warnings() -> None:
    schema = {
        "$id": "https://example.com/results",
        "$defs": {"city": {"type": "string", "$anchor": "city"}, "a/b~c": {"type": "string"}},
        "title": "Results",
        "description": "What the call gave",
        "properties": {
            "city": {"$ref": "#/$defs/city"},
            "odd": {"$ref": "#/$defs/a~1b~0c"},
            "when": {"type": "string", "format": "date-time"},
            "day": {"type": ["string", "null"], "format": "date"},
            "at": {"type": "string", "format": "time"},
            "mood": {"type": "string", "enum": ["good", "bad"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "share": {"type": "number", "minimum": 0.5},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}]},
            "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 9},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "one": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            "open": {"type": "object", "additionalProperties": True},
            "texts": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["city"],
        "additionalProperties": False,
        "propertyOrdering": ["city", "when"],
    }

    assert list(warnings(schema)) == ["/properties/one/oneOf"]


@pytest.mark.parametrize(
    "root",
    [
        {"type": "object"},
        {"type": ["object"]},
        {"type": ["object", "null"]},
        {"properties": {}},
        {"allOf": [{"properties": {}}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]},
    ],
    ids=str,
)
def test_the_root_describes_an_object(root: JsonValue) -> None:
    assert error_paths("output_schema_strict", root) == []


@pytest.mark.parametrize(
    "root",
    [
        {},
        {"type": "array"},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "array"}, {"type": "string"}]},
        {"minimum": 1},
    ],
    ids=str,
)
def test_a_root_that_describes_no_object_is_rejected(root: JsonValue) -> None:
    assert error_paths("output_schema_strict", root) == ["output_schema_strict#"]


IGNORED_BY_GEMINI: list[tuple[dict[str, Any], JsonValue]] = [
    ({"pattern": "^x"}, "y"),
    ({"minLength": 2}, "x"),
    ({"maxLength": 2}, "xyz"),
    ({"exclusiveMinimum": 1}, 1),
    ({"exclusiveMaximum": 1}, 1),
    ({"multipleOf": 2}, 3),
    ({"uniqueItems": True}, [1, 1]),
    ({"contains": {"const": 1}}, [2]),
    ({"contains": {}, "minContains": 2}, [1]),
    ({"contains": {}, "maxContains": 1}, [1, 2]),
    ({"minProperties": 1}, {}),
    ({"maxProperties": 1}, {"a": 1, "b": 2}),
    ({"propertyNames": {"pattern": "^x"}}, {"a": 1}),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}),
    ({"not": {"type": "string"}}, "x"),
    ({"if": {"type": "string"}, "then": {"minLength": 2}}, "x"),
    ({"if": {"type": "string"}, "else": {"minimum": 2}}, 1),
    ({"prefixItems": [{}], "unevaluatedItems": False}, [1, 2]),
    ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"b": 1}),
]


@pytest.mark.parametrize(("it", "invalid"), IGNORED_BY_GEMINI, ids=str)
def test_a_keyword_that_gemini_ignores_has_a_warning_and_is_validated(it: dict[str, Any], invalid: JsonValue) -> None:
    schema = {"properties": {"it": it}}

    ignored = [keyword for keyword in it if keyword not in ("prefixItems", "properties")]
    assert list(warnings(schema)) == [f"/properties/it/{keyword}" for keyword in ignored]
    told = [message for message in warnings(schema).values() if "esults are validated against it" in message]
    assert len(told) == len(ignored) > 0
    assert violations({"it": invalid}, validated(schema)) != []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("$comment", "x"), ("default", 1), ("examples", [1]), ("deprecated", True), ("readOnly", True),
        ("writeOnly", False), ("contentEncoding", "base64"), ("contentMediaType", "text/plain"),
    ],
)  # fmt: skip
def test_an_annotation_has_a_warning(keyword: str, value: JsonValue) -> None:
    assert warnings({keyword: value}) == {f"/{keyword}": "Is left out: it is an annotation."}


@pytest.mark.parametrize(
    "keyword",
    ["id", "propretyOrdering", "x-order", "Type", "$ordering"],
)
def test_an_unknown_keyword_has_a_warning(keyword: str) -> None:
    value = "meta" if keyword.startswith("$") else 1

    assert warnings({keyword: value})[f"/{keyword}"].startswith("Is not a keyword of JSON Schema")


def test_nullable_means_nothing_in_a_declared_draft() -> None:
    nullable: dict[str, Any] = {"properties": {"a": {"type": "string", "nullable": True}}}
    declared = {**nullable, "$schema": "https://json-schema.org/draft/2020-12/schema"}

    assert warnings(nullable) == {}
    assert violations({"a": None}, validated(nullable)) == []
    assert list(warnings(declared)) == ["/properties/a/nullable"]
    assert [detail.path for detail in violations({"a": None}, validated(declared))] == ["a"]


def test_one_of_has_a_warning_and_is_validated() -> None:
    schema = {"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}}

    assert "reads this as anyOf" in warnings(schema)["/properties/a/oneOf"]
    assert [detail.path for detail in violations({"a": 1}, validated(schema))] == ["a"]


def test_schemas_that_gemini_does_not_see_have_no_further_warnings() -> None:
    schema = {"not": {"properties": {"a": {"pattern": "x", "enum": [True], "oneOf": [{}]}}}}

    assert list(warnings(schema)) == ["/not"]


def test_errors_are_found_also_in_schemas_that_gemini_does_not_see() -> None:
    assert error_pointers({"not": {"properties": {"a": {"$dynamicRef": "x"}}}}) == ["/not/properties/a/$dynamicRef"]
    assert error_pointers({"allOf": [{}, {"pattern": 1}]}) == ["/allOf/1/pattern"]
    assert error_pointers({"dependentSchemas": {"a/b": {"type": "text"}}}) == ["/dependentSchemas/a~1b/type"]


INVALID: dict[str, Any] = {"$dynamicRef": "x"}


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": {"a": INVALID}}, "/properties/a"),
        ({"properties": {"a/b~c": INVALID}}, "/properties/a~1b~0c"),
        ({"properties": {"": INVALID}}, "/properties/"),
        ({"properties": {"$dynamicRef": INVALID}}, "/properties/$dynamicRef"),
        ({"items": INVALID}, "/items"),
        ({"additionalProperties": INVALID}, "/additionalProperties"),
        ({"prefixItems": [{}, INVALID]}, "/prefixItems/1"),
        ({"anyOf": [INVALID]}, "/anyOf/0"),
        ({"$defs": {"d": INVALID}}, "/$defs/d"),
        (
            {"properties": {"a": {"items": {"anyOf": [{"properties": {"b": INVALID}}]}}}},
            "/properties/a/items/anyOf/0/properties/b",
        ),
    ],
    ids=str,
)
def test_errors_and_warnings_are_found_in_every_schema(schema: dict[str, Any], pointer: str) -> None:
    assert error_pointers(schema) == [f"{pointer}/$dynamicRef"]
    assert error_pointers({"oneOf": [{}, {}, schema]}) == [f"/oneOf/2{pointer}/$dynamicRef"]
    valid = json.loads(json.dumps(schema).replace("$dynamicRef", "pattern"))
    assert list(warnings(valid)) == [f"{pointer}/pattern".replace("$dynamicRef", "pattern")]


def test_a_pointer_escapes_slashes_and_tildes() -> None:
    assert list(warnings({"properties": {"a": {"pat/tern~": "x"}}})) == ["/properties/a/pat~1tern~0"]


@pytest.mark.parametrize("name", ["pattern", "$ref", "$id", "type", "items", "additionalProperties", "required"])
def test_a_property_may_have_the_name_of_a_keyword(name: str) -> None:
    assert error_pointers({"properties": {name: {"type": "string"}}, "required": [name]}) == []


JUNK: list[JsonValue] = [None, True, 0, -1, 1.5, "junk", "", [], [None], [[]], [{}], {}, {"a": 1}, [1, 1], ["a", "a"]]


@pytest.mark.parametrize("junk", JUNK, ids=str)
def test_an_invalid_type_is_rejected(junk: JsonValue) -> None:
    assert error_pointers({"properties": {"a": {"type": junk}}}) == ["/properties/a/type"]


@pytest.mark.parametrize("junk", [each for each in JUNK if not isinstance(each, str)], ids=str)
def test_a_format_that_is_not_a_string_is_rejected(junk: JsonValue) -> None:
    assert error_pointers({"properties": {"a": {"format": junk}}}) == ["/properties/a/format"]


@pytest.mark.parametrize(
    ("schema_format", "is_held"),
    [("email", True), ("uri", True), ("duration", True), ("Date", False), ("password", False), ("", False)],
)
def test_a_format_that_gemini_does_not_support_has_a_warning(schema_format: str, *, is_held: bool) -> None:
    schema = {"properties": {"a": {"format": schema_format}}}

    assert ("not validated" in warnings(schema)["/properties/a/format"]) is not is_held
    assert (violations({"a": "not it"}, validated(schema)) != []) is is_held


@pytest.mark.parametrize(
    "junk",
    [
        *(each for each in JUNK if each != ""),
        *("#/", "#/$defs", "#/$defs/", "#/$defs/absent", "#here/x", "here", "/$defs/here", "#/properties"),
        *("https://example.com/#/$defs/here", "#/$defs/here/type", "#/$defs/#/$defs/here"),
    ],
    ids=str,
)
def test_a_reference_to_anything_but_a_schema_of_the_document_is_rejected(junk: JsonValue) -> None:
    schema = {"$defs": {"here": {"type": "string"}}, "properties": {"a": {"$ref": junk}, "b": {"$ref": "#/$defs/here"}}}

    assert error_pointers(schema) == ["/properties/a/$ref"]


@pytest.mark.parametrize("definitions", [["here"], "here", 1, None, {}], ids=str)
def test_a_reference_without_definitions_is_rejected(definitions: JsonValue) -> None:
    schema = {"$defs": definitions, "properties": {"a": {"$ref": "#/$defs/here"}}}

    assert error_pointers(schema)[-1] == "/properties/a/$ref"


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("a b", "#/$defs/a b"),
        ("a b", "#/$defs/a%20b"),
        ("100%", "#/$defs/100%25"),
        ("a/b", "#/$defs/a~1b"),
        ("é", "#/$defs/é"),
    ],
)
def test_a_reference_is_resolved_as_validators_resolve_it(name: str, reference: str) -> None:
    schema = validated({"$defs": {name: {"type": "string"}}, "properties": {"a": {"$ref": reference}}})

    assert violations({"a": "text"}, schema) == []
    assert [detail.path for detail in violations({"a": 1}, schema)] == ["a"]


def test_a_reference_that_validators_would_resolve_differently_is_rejected() -> None:
    assert error_pointers({"$defs": {"100%25": {}}, "properties": {"a": {"$ref": "#/$defs/100%25"}}}) == [
        "/properties/a/$ref"
    ]


@pytest.mark.parametrize(
    ("definitions", "pointer"),
    [
        ({"a": {"$ref": "#/$defs/a"}}, "/$defs/a"),
        ({"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "/$defs/b"),
        ({"a": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/a"}]}}, "/$defs/a"),
        ({"a": {"not": {"$ref": "#/$defs/a"}}}, "/$defs/a"),
        ({"a": {"type": "object", "properties": {"x/y": {"$ref": "#/$defs/a"}}, "required": ["x/y"]}}, "/$defs/a"),
        ({"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}}, "/$defs/a"),
        ({"a": {"type": "array", "prefixItems": [{"$ref": "#/$defs/a"}], "minItems": 1}}, "/$defs/a"),
        (
            {
                "a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
                "b": {"type": "array", "items": {"$ref": "#/$defs/a"}, "contains": True},
            },
            "/$defs/a",
        ),
    ],
    ids=str,
)
def test_a_cycle_of_definitions_that_cannot_end_is_rejected_where_a_value_is_required(
    definitions: dict[str, Any], pointer: str
) -> None:
    schema = {"$defs": definitions, "properties": {"it": {"$ref": "#/$defs/a"}}, "required": ["it"]}

    assert error_pointers(schema) == [pointer]


def test_a_cycle_of_definitions_that_cannot_end_has_a_warning_where_no_value_is_required() -> None:
    endless: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}
    schema = {"$defs": {"a": endless}, "properties": {"it": {"$ref": "#/$defs/a"}}}

    assert list(warnings(schema)) == ["/$defs/a"]


@pytest.mark.parametrize(
    "end",
    [
        {"type": "array", "items": {"$ref": "#/$defs/a"}},
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/a"}},
        {
            "anyOf": [
                {"type": "null"},
                {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]},
            ]
        },
    ],
    ids=str,
)
def test_a_recursion_ends_in_an_empty_list_an_empty_object_or_null(end: dict[str, Any]) -> None:
    schema = {"$defs": {"a": end}, "properties": {"it": {"$ref": "#/$defs/a"}}, "required": ["it"]}

    assert error_pointers(schema) == []


def test_a_definition_may_contain_itself_in_a_property_that_is_not_required() -> None:
    person = {"type": "object", "properties": {"children": {"items": {"$ref": "#/$defs/person"}}}}
    schema = validated({"$defs": {"person": person}, "properties": {"head": {"$ref": "#/$defs/person"}}})

    assert violations({"head": {"children": [{"children": []}]}}, schema) == []
    assert [detail.path for detail in violations({"head": {"children": [7]}}, schema)] == ["head.children.0"]


def test_a_cycle_of_definitions_may_go_through_a_property_that_is_not_required() -> None:
    schema = validated(
        {
            "$defs": {
                "person": {"properties": {"home": {"$ref": "#/$defs/home"}}, "required": ["home"]},
                "home": {"properties": {"owner": {"$ref": "#/$defs/person"}}},
            },
            "properties": {"head": {"$ref": "#/$defs/person"}},
        }
    )

    assert violations({"head": {"home": {"owner": {"home": {}}}}}, schema) == []
    assert [detail.path for detail in violations({"head": {"home": {"owner": {}}}}, schema)] == ["head.home.owner"]


@pytest.mark.parametrize("beside", ["description", "type", "properties", "title", "enum"])
def test_keywords_are_valid_beside_a_reference(beside: str) -> None:
    value: Any = {"type": "string", "properties": {}, "enum": ["x"]}.get(beside, "x")
    schema = {"$defs": {"a": {}}, "properties": {"it": {"$ref": "#/$defs/a", beside: value}}}

    assert warnings(schema) == {}


def test_keywords_that_gemini_does_not_see_are_allowed_beside_a_reference() -> None:
    it = {"$ref": "#/$defs/a", "$comment": "x", "default": 1, "minLength": 2}
    schema = {"$defs": {"a": {"type": "string"}}, "properties": {"it": it}}

    assert list(warnings(schema)) == [f"/properties/it/{keyword}" for keyword in ("$comment", "default", "minLength")]
    assert [detail.path for detail in violations({"it": "x"}, validated(schema))] == ["it"]
    assert error_pointers({"not": {"$ref": "#/$defs/a", "description": "x"}, "$defs": {"a": {}}}) == []


def test_a_reference_is_resolved_against_the_id_around_it() -> None:
    inner = {"$id": "https://example.com/a", "$ref": "#/$defs/b", "$defs": {"b": {"type": "integer"}}}
    schema = validated({"properties": {"a": inner}, "$defs": {"b": {"type": "string"}}})

    assert violations({"a": 1}, schema) == []


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": []}, "/properties"),
        ({"properties": "a"}, "/properties"),
        ({"properties": None}, "/properties"),
        ({"properties": {"a": 1}}, "/properties/a"),
        ({"properties": {"a": None}}, "/properties/a"),
        ({"required": "a"}, "/required"),
        ({"required": {}}, "/required"),
        ({"required": None}, "/required"),
        ({"required": ["a", "a"]}, "/required"),
        ({"required": [1]}, "/required"),
        ({"required": [{}]}, "/required"),
        ({"required": ["a", []]}, "/required"),
        ({"enum": 1}, "/enum"),
        ({"enum": {}}, "/enum"),
        ({"enum": None}, "/enum"),
        ({"title": 1}, "/title"),
        ({"description": ["d"]}, "/description"),
        ({"minimum": "0"}, "/minimum"),
        ({"maximum": None}, "/maximum"),
        ({"minItems": -1}, "/minItems"),
        ({"maxItems": 1.5}, "/maxItems"),
        ({"minItems": True}, "/minItems"),
        ({"prefixItems": []}, "/prefixItems"),
        ({"prefixItems": {}}, "/prefixItems"),
        ({"anyOf": []}, "/anyOf"),
        ({"anyOf": {}}, "/anyOf"),
        ({"oneOf": [1]}, "/oneOf/0"),
        ({"additionalProperties": "no"}, "/additionalProperties"),
        ({"additionalProperties": None}, "/additionalProperties"),
        ({"$defs": []}, "/$defs"),
        ({"$anchor": "no spaces"}, "/$anchor"),
        ({"$anchor": 1}, "/$anchor"),
        ({"$id": 1}, "/$id"),
        ({"$id": "#fragment"}, "/$id"),
        ({"propertyOrdering": "a"}, "/propertyOrdering"),
        ({"propertyOrdering": [1]}, "/propertyOrdering"),
        ({"propertyOrdering": None}, "/propertyOrdering"),
    ],
    ids=str,
)
def test_a_keyword_with_an_invalid_value_is_rejected(schema: dict[str, Any], pointer: str) -> None:
    assert error_pointers(schema) == [pointer]


@pytest.mark.parametrize("members", [["x", "y"], [1, 2.5], [None, "x", 1]], ids=str)
def test_an_enum_may_have_strings_numbers_and_null(members: JsonValue) -> None:
    assert error_pointers({"properties": {"a": {"enum": members}}}) == []


@pytest.mark.parametrize("members", [[True], [None, []], ["x", {"type": "junk"}], [[[]]]], ids=str)
def test_an_enum_may_have_other_values(members: list[JsonValue]) -> None:
    schema = validated({"properties": {"a": {"enum": members}}})

    assert warnings(schema) == {}
    assert [violations({"a": member}, schema) for member in members] == [[]] * len(members)
    assert [detail.path for detail in violations({"a": "another"}, schema)] == ["a"]


def test_up_to_20_errors_are_reported() -> None:
    several = {"$dynamicRef": "x", "properties": {"a": {"type": "text"}, "b": {"enum": 1}}}

    assert sorted(error_pointers(several)) == ["/$dynamicRef", "/properties/a/type", "/properties/b/enum"]
    assert len(error_pointers({"properties": {f"p{number}": {"type": "x"} for number in range(30)}})) == 20


# ---- Patterns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["^[A-Z]{3}$", r"^\d+$", r"\p{L}+", "(?i)yes|no", "^(?:a|b)*?$", "", "^(a+)+$", r"[\w.-]+@[\w-]+"]
)
def test_a_pattern_that_re2_supports_is_valid_with_a_warning(pattern: str) -> None:
    assert list(warnings({"properties": {"a": {"pattern": pattern}}})) == ["/properties/a/pattern"]


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=x)", "(?!x)", "(?<=x)y", "(?<!x)y", r"(a)\1", "(?P<n>a)(?P=n)", "(", "[", "*", "a{2,1}", "(?>a)", "a++",
        r"\K", "a{1001}",
    ],
)  # fmt: skip
def test_a_pattern_that_re2_cannot_read_has_a_warning_and_is_not_held(
    pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    schema = validated({"properties": {"a": {"pattern": pattern}}})

    assert "not validated" in warnings(schema)["/properties/a/pattern"]
    assert violations({"a": "no match"}, schema) == []
    assert capfd.readouterr().err == ""


# ---- Limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["items", "additionalProperties"])
def test_a_schema_may_be_nested_ten_levels_deep(wrap: str) -> None:
    def nested(levels: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(levels):
            schema = {wrap: schema}
        return schema

    assert error_pointers(nested(10)) == []
    assert error_pointers(nested(11)) == [f"/{wrap}" * 11]
    assert error_pointers(nested(190))[0] == f"/{wrap}" * 11  # JSON nested 200 levels deep is rejected before
    assert len(error_pointers(nested(190))) == 20


def test_the_depth_counts_objects_and_arrays_but_not_alternatives() -> None:
    def nested(levels: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(levels):
            schema = {"anyOf": [{"properties": {"a": schema}}]}
        return schema

    assert error_pointers(nested(10)) == []
    assert error_pointers(nested(11)) == ["/anyOf/0/properties/a" * 11]


def test_the_nesting_of_alternatives_is_limited() -> None:
    schema: dict[str, Any] = {}
    for _ in range(90):
        schema = {"anyOf": [schema]}

    [pointer] = error_pointers(schema)
    assert pointer.startswith("/anyOf/0/anyOf/0")


def properties(count: int) -> dict[str, Any]:
    """Return a schema with a number of properties, half of them nested."""
    inner: dict[str, Any] = {f"i{number}": {} for number in range(count // 2)}
    return {
        "properties": {"in": {"properties": inner}, **{f"p{number}": {} for number in range(count - len(inner) - 1)}}
    }


def enumerated(count: int) -> dict[str, Any]:
    """Return a schema with a number of enum values in two enums."""
    first = list(range(count // 2))
    return {"properties": {"a": {"enum": first}, "b": {"items": {"enum": list(range(count - len(first)))}}}}


def named(characters: int) -> dict[str, Any]:
    """Return a schema whose names and enum values have a number of characters."""
    return {"properties": {"n" * 1_000: {"enum": ["é" * 1_000, "v" * (characters - 2_000)]}}}


@pytest.mark.parametrize(
    ("make_schema", "limit", "message"),
    [
        (properties, 200, "201 properties in all; at most 200"),
        (enumerated, 500, "501 enumerated values in all; at most 500"),
        (named, 15_000, "15,001 characters of names and enumerated values in all; at most 15,000"),
    ],
)
def test_a_schema_that_is_too_large_for_gemini_is_rejected(make_schema: Any, limit: int, message: str) -> None:
    assert error_pointers(make_schema(limit)) == []
    assert error_pointers(make_schema(limit + 1)) == [""]
    assert message_of(make_schema(limit + 1)).startswith(f"Has {message} are taken")


# ---- Hard cases from public issue threads ---------------------------------------------------------------


def test_bounds_of_arrays_are_valid_and_not_sent() -> None:
    """See googleapis/python-genai#2170 and vercel/ai#21192: the sum of maxItems over all of a schema is at most 960."""
    schema = validated({"properties": {f"list{number}": {"type": "array", "maxItems": 300} for number in range(9)}})

    assert warnings(schema) == {}
    assert "maxItems" not in json.dumps(gemini_schema(schema))
    assert [detail.path for detail in violations({"list3": [0] * 301}, schema)] == ["list3"]


def test_long_enums_are_rejected() -> None:
    """See googleapis/python-genai#660, #950 and #2133: long names and values exceed Gemini's limit of states."""
    values = [f"a rather long value of an enumeration, number {number}" for number in range(400)]

    assert error_pointers({"properties": {"topic": {"enum": values}}}) == [""]
    assert error_pointers({"properties": {"topic": {"enum": values[:100]}}}) == []


def test_bounds_and_formats_are_described_in_words() -> None:
    """See flutter/genui#428: bounds of numbers and array limits are "complex value matchers"."""
    card = {
        "properties": {
            "stars": {"type": "integer", "minimum": 1, "maximum": 5},
            "mail": {"type": "string", "format": "email"},
        },
        "required": ["stars"],
    }
    schema = validated({"properties": {"cards": {"type": "array", "minItems": 1, "maxItems": 5, "items": card}}})

    sent: Any = gemini_schema(schema)
    assert sent["properties"]["cards"]["description"] == "at least 1 items, at most 5 items"
    assert sent["properties"]["cards"]["items"]["properties"] == {
        "stars": {"type": "integer", "description": "at least 1, at most 5"},
        "mail": {"type": "string", "description": "an email address, as in ana@example.com"},
    }


@pytest.mark.parametrize(
    ("dialect", "warned"),
    [
        ("https://json-schema.org/draft/2020-12/schema", False),
        ("http://json-schema.org/draft-07/schema#", False),
        ("https://json-schema.org/draft/2019-09/schema", False),
        ("https://example.com/my-own", True),
    ],
)
def test_a_dialect_is_read_and_not_sent(dialect: str, *, warned: bool) -> None:
    """See Helicone/helicone#5585: Gemini does not know $schema, which generators of schemas write at the root."""
    schema: dict[str, Any] = {"$schema": dialect, "properties": {"a": {"type": "string"}}}

    assert list(warnings(schema)) == (["/$schema"] if warned else [])
    assert "$schema" not in gemini_schema(schema)


@pytest.mark.parametrize("types", [["string", "null"], ["array", "null"], ["integer", "string", "null"]], ids=str)
def test_lists_of_types_are_valid_and_sent_unchanged(types: list[JsonValue]) -> None:
    """See langchain-ai/langchainjs#11328: responseSchema rejects lists of types, responseJsonSchema accepts them."""
    schema = validated({"properties": {"a": {"type": types}}})

    assert warnings(schema) == {}
    assert gemini_schema(schema) == schema
    assert violations({"a": None}, schema) == []


def test_a_recursive_model_of_pydantic_is_valid_if_the_recursive_field_is_not_required() -> None:
    """See genkit-ai/genkit#3776: cycles are allowed in properties that are not required; null does not end a cycle."""
    node: dict[str, Any] = {
        "title": "Node",
        "type": "object",
        "properties": {
            "title": {"title": "Title", "type": "string"},
            "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}], "default": None},
        },
        "required": ["title"],
    }
    schema: dict[str, Any] = {
        "$defs": {"Node": node},
        "properties": {"first": {"$ref": "#/$defs/Node"}},
        "required": ["first"],
    }

    assert list(warnings(schema)) == ["/$defs/Node/properties/next/default"]
    node["required"] = ["title", "next"]
    assert error_pointers(schema) == []
    sent: Any = gemini_schema(schema)
    assert sent["$defs"]["Node"]["required"] == ["title"]


# ---- Arbitrary input ------------------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYWORDS = [
    "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems",
    "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required",
    "propertyOrdering", "pattern", "a", "not", "allOf", "if", "contains", "propertyNames", "dependentSchemas",
    "dependentRequired", "unevaluatedProperties", "const", "minLength", "definitions", "$schema",
]  # fmt: skip
WORDS = st.sampled_from(
    [
        "object",
        "string",
        "array",
        "null",
        "date",
        "time",
        "a",
        "b",
        "#/$defs/a",
        "#/$defs/b",
        "#/$defs/a~1b",
        "http://[/",
    ]
)
NEARLY_SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.deferred(
    lambda: st.dictionaries(st.sampled_from(KEYWORDS), NEARLY_VALUES, max_size=4)
)
NEARLY_VALUES: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        SCALARS
        | WORDS
        | NEARLY_SCHEMAS
        | st.lists(WORDS | SCALARS | NEARLY_SCHEMAS, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "a/b", "%25"]), NEARLY_SCHEMAS, max_size=3)
    )
)


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Generate schemas that are valid, except that their references may be cyclic."""
    leaf = st.sampled_from(
        [
            {"type": "string"},
            {"type": ["integer", "null"], "minimum": 1},
            {"enum": ["a", 1, None]},
            {"type": "string", "format": "date"},
            {"$ref": "#/$defs/a"},
            {"$ref": "#/$defs/b"},
            {},
        ]
    )
    inner = st.recursive(
        leaf,
        lambda part: (
            st.fixed_dictionaries({"items": part}, optional={"maxItems": st.integers(0, 3)})
            | st.fixed_dictionaries({"anyOf": st.lists(part, min_size=1, max_size=2)})
            | st.fixed_dictionaries({"oneOf": st.lists(part, min_size=1, max_size=2)})
            | st.fixed_dictionaries({"prefixItems": st.lists(part, min_size=1, max_size=2)})
            | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), part, max_size=2)})
            | st.fixed_dictionaries({"additionalProperties": part | st.booleans()})
        ),
        max_leaves=6,
    )
    return st.fixed_dictionaries(
        {
            "type": st.just("object"),
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "$defs": st.fixed_dictionaries({"a": inner, "b": inner}),
        }
    )


@settings(max_examples=300)
@given(
    NEARLY_SCHEMAS
    | NEARLY_SCHEMAS.map(lambda schema: {**schema, "type": "object"})
    | st.dictionaries(st.text(max_size=5), ANY_JSON, max_size=3)
)
def test_any_object_is_a_valid_strict_schema_or_raises_invalid_output_schema(schema: dict[str, Any]) -> None:
    try:
        details = validate_output_schema(None, schema)
    except InvalidOutputSchema:
        return

    assert all(warning.path.startswith("output_schema_strict#/") for warning in details)
    normal: Any = read_schema(schema).document()  # the schema itself may be of an earlier draft
    Draft202012Validator.check_schema(normal, format_checker=NO_FORMATS)  # a pattern may be one that nothing can read
    for sent in (gemini_schema(schema), with_evidence(gemini_schema(schema))):
        Draft202012Validator.check_schema(sent)


@given(st.dictionaries(st.text(max_size=5), ANY_JSON, max_size=3))
def test_any_object_is_valid_hints_or_raises_invalid_output_schema(hints: dict[str, Any]) -> None:
    try:
        validate_output_schema(hints, None)
    except InvalidOutputSchema:
        return

    compiled = compile_output_schema(hints, None)
    assert (compiled is None) == (hints == {})
    if compiled is not None:
        Draft202012Validator.check_schema(compiled)


RESULTS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["2027-01-15", "x", 1, None, True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@given(schemas(), st.dictionaries(st.sampled_from("ab"), RESULTS, max_size=2))
def test_a_valid_schema_can_validate_any_results(schema: dict[str, Any], results: JsonValue) -> None:
    try:
        validate_output_schema(None, schema)
    except InvalidOutputSchema as error:
        assume(not all("without end" in detail.message for detail in error.details))
        raise

    assert isinstance(violations(results, schema), list)
    assert isinstance(violations(results, gemini_schema(schema)), list)


@given(schemas())
def test_results_that_are_valid_by_the_schema_are_valid_by_the_sent_one(schema: dict[str, Any]) -> None:
    assume(strict_messages(schema) == [])
    results: JsonValue = {"a": {"a": ["x"], "b": None}}
    read_by_gemini = json.loads(json.dumps(gemini_schema(schema)).replace('"oneOf"', '"anyOf"'))

    assert violations(results, schema) or not violations(results, read_by_gemini)

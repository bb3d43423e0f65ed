import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from pi_voice.agents import AgentSpec
from pi_voice.errors import InvalidOutputSchema
from pi_voice.schema import JsonSchema, schema_of, violations, without_bounds
from tests.unit.examples import spec

UNSUPPORTED = "Gemini does not support this keyword. Remove it."


def hinted(**hints: JsonValue) -> JsonSchema:
    """Compile hints."""
    schema = schema_of(spec(output_schema=hints))
    assert schema is not None
    return schema


def strict(schema: dict[str, Any]) -> JsonSchema:
    """Check a strict schema that is an object at its root."""
    checked = schema_of(spec(output_schema_strict={"type": "object", **schema}))
    assert checked is not None
    return checked


def faults(field: str, schema: JsonValue) -> list[str]:
    """Return the places that are refused, none when the schema is fine."""
    try:
        schema_of(spec(**{field: schema}))
    except InvalidOutputSchema as error:
        return [fault.path for fault in error.faults]
    return []


def strict_faults(schema: dict[str, Any]) -> list[str]:
    """Return the pointers that are refused in a strict schema that is an object at its root."""
    return [
        path.removeprefix("output_schema_strict#")
        for path in faults("output_schema_strict", {"type": "object", **schema})
    ]


# ---- Which schema ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"output_schema": None}, {"output_schema": {}}], ids=str)
def test_an_agent_that_wants_no_results_has_no_schema(fields: dict[str, JsonValue]) -> None:
    assert schema_of(spec(**fields)) is None


def test_a_strict_schema_is_taken_as_it_is_and_wins_over_hints() -> None:
    wanted: JsonValue = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    assert schema_of(spec(output_schema={"town": "string"}, output_schema_strict=wanted)) == wanted


def test_hints_are_checked_even_where_a_strict_schema_wins() -> None:
    with pytest.raises(InvalidOutputSchema):
        schema_of(spec(output_schema={"town": 1}, output_schema_strict={"type": "object"}))


# ---- Hints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "compiled"),
    [
        ("string", {"type": ["string", "null"]}),
        ("number", {"type": ["number", "null"]}),
        ("integer", {"type": ["integer", "null"]}),
        ("boolean", {"type": ["boolean", "null"]}),
        ("array", {"type": ["array", "null"], "items": {"type": "string"}}),
        ("object", {"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
        ("the caller's city", {"type": ["string", "null"], "description": "the caller's city"}),
        ("String", {"type": ["string", "null"], "description": "String"}),
        ("null", {"type": ["string", "null"], "description": "null"}),
        (["integer"], {"type": ["array", "null"], "items": {"type": "integer"}}),
        (["a symptom"], {"type": ["array", "null"], "items": {"type": "string", "description": "a symptom"}}),
        ([["number"]], {"type": ["array", "null"], "items": {"type": "array", "items": {"type": "number"}}}),
        (
            {"street": "string"},
            {
                "type": ["object", "null"],
                "properties": {"street": {"type": ["string", "null"]}},
                "required": ["street"],
                "additionalProperties": False,
                "propertyOrdering": ["street"],
            },
        ),
        (
            [{"name": "string"}],
            {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": ["string", "null"]}},
                    "required": ["name"],
                    "additionalProperties": False,
                    "propertyOrdering": ["name"],
                },
            },
        ),
    ],
    ids=str,
)
def test_a_hint_becomes_a_property_that_may_be_null(hint: JsonValue, compiled: JsonSchema) -> None:
    assert hinted(value=hint) == {
        "type": "object",
        "properties": {"value": compiled},
        "required": ["value"],
        "additionalProperties": False,
        "propertyOrdering": ["value"],
    }


def test_all_keys_are_required_and_keep_their_order() -> None:
    schema = hinted(zip="string", city="string", age="integer")

    assert schema["required"] == ["zip", "city", "age"]
    assert schema["propertyOrdering"] == ["zip", "city", "age"]


@pytest.mark.parametrize(
    ("hints", "place"),
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
        ({"": "string"}, "output_schema"),
        ({" ": "string"}, "output_schema"),
    ],
    ids=str,
)
def test_a_hint_that_says_nothing_is_named(hints: JsonValue, place: str) -> None:
    assert faults("output_schema", hints) == [place]


def test_every_hint_that_is_wrong_is_named_up_to_twenty() -> None:
    assert faults("output_schema", {"a": 1, "b": "string", "c": None}) == ["output_schema.a", "output_schema.c"]
    assert len(faults("output_schema", {f"k{number}": None for number in range(30)})) == 20


def test_a_hundred_keys_are_taken_and_one_more_is_not() -> None:
    hundred: dict[str, JsonValue] = {f"k{number}": "string" for number in range(100)}

    assert len(hinted(**hundred)["required"]) == 100  # type: ignore[arg-type]
    assert faults("output_schema", {**hundred, "one-more": "string"}) == ["output_schema"]


def test_keys_are_counted_at_every_level() -> None:
    nested: JsonValue = {"a": {f"k{number}": "string" for number in range(49)}, "b": [{"c": "string"}]}  # 52 keys
    more: JsonValue = {f"m{number}": "string" for number in range(47)}  # and their own one: 48

    assert faults("output_schema", {"n": nested["a"], "m": more, "l": ["string"]}) == []  # type: ignore[call-overload,index]
    assert faults("output_schema", {**nested, "m": more}) == []  # type: ignore[dict-item]
    assert faults("output_schema", {**nested, "m": more, "l": "string"}) == ["output_schema"]  # type: ignore[dict-item]


@pytest.mark.parametrize("field", ["output_schema", "output_schema_strict"])
@pytest.mark.parametrize("letter", ["a", "é"])
def test_thirty_two_kilobytes_are_taken_and_one_byte_more_is_not(field: str, letter: str) -> None:
    schema: dict[str, JsonValue] = {"description": ""} if field == "output_schema" else {"type": "object", "title": ""}
    key = list(schema)[-1]
    room = 32_768 - len(json.dumps(schema, separators=(",", ":")).encode())
    fitting = letter * (room // len(letter.encode())) + "a" * (room % len(letter.encode()))

    assert faults(field, {**schema, key: fitting}) == []
    assert faults(field, {**schema, key: fitting + "a"}) == [field]


HINTS = st.recursive(
    st.sampled_from(["string", "number", "integer", "boolean", "array", "object"])
    | st.text(min_size=1).filter(str.strip),
    lambda inner: (
        st.dictionaries(st.text(min_size=1).filter(str.strip), inner, min_size=1, max_size=4)
        | st.lists(inner, min_size=1, max_size=1)
    ),
    max_leaves=20,
)
HINTED: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(min_size=1).filter(str.strip), HINTS, min_size=1, max_size=4
)


@given(HINTED)
def test_hints_compile_to_a_schema_that_takes_null_for_every_key(hints: dict[str, Any]) -> None:
    schema = hinted(**hints)

    Draft202012Validator.check_schema(schema)
    assert violations(dict.fromkeys(hints), schema) == []


@given(HINTED, st.data())
def test_hints_compile_to_a_schema_that_misses_a_missing_key_and_an_unknown_one(
    hints: dict[str, Any], data: st.DataObject
) -> None:
    schema = hinted(**hints)
    missing = data.draw(st.sampled_from(sorted(hints)))
    unknown = data.draw(st.text().filter(lambda name: name not in hints))

    assert violations({name: None for name in hints if name != missing}, schema) != []
    assert violations({**dict.fromkeys(hints), unknown: None}, schema) != []


@given(HINTED)
def test_hints_compile_to_nothing_that_gemini_does_not_support(hints: dict[str, Any]) -> None:
    assert strict_faults(hinted(**hints)) == []


# ---- Strict schemas -------------------------------------------------------------------------------------


def test_every_keyword_that_gemini_supports_is_taken() -> None:
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

    assert strict_faults(schema) == []
    assert strict(schema) == {"type": "object", **schema}


@pytest.mark.parametrize(
    "root", [{}, {"type": "array"}, {"type": ["object"]}, {"type": ["object", "null"]}, {"properties": {}}], ids=str
)
def test_the_root_is_an_object_and_says_so(root: JsonValue) -> None:
    assert faults("output_schema_strict", root) == ["output_schema_strict#"]


KEYWORDS_OF_OTHERS = [
    "$schema", "$comment", "$vocabulary", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "allOf", "not", "if",
    "then", "else", "dependentSchemas", "dependentRequired", "contains", "minContains", "maxContains",
    "patternProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "const", "multipleOf",
    "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "pattern", "uniqueItems", "minProperties",
    "maxProperties", "default", "examples", "deprecated", "readOnly", "writeOnly", "contentEncoding", "nullable",
    "definitions", "id", "propretyOrdering",
]  # fmt: skip


@pytest.mark.parametrize("keyword", KEYWORDS_OF_OTHERS)
def test_a_keyword_that_gemini_would_ignore_is_named_by_its_pointer(keyword: str) -> None:
    assert strict_faults({keyword: 1}) == [f"/{keyword}"]


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": {"a": {"pattern": "x"}}}, "/properties/a/pattern"),
        ({"properties": {"a/b~c": {"pattern": "x"}}}, "/properties/a~1b~0c/pattern"),
        ({"properties": {"": {"pattern": "x"}}}, "/properties//pattern"),
        ({"properties": {"pattern": {"pattern": "x"}}}, "/properties/pattern/pattern"),
        ({"properties": {"a": {"pat/tern~": "x"}}}, "/properties/a/pat~1tern~0"),
        ({"items": {"pattern": "x"}}, "/items/pattern"),
        ({"additionalProperties": {"pattern": "x"}}, "/additionalProperties/pattern"),
        ({"prefixItems": [{}, {"pattern": "x"}]}, "/prefixItems/1/pattern"),
        ({"anyOf": [{"pattern": "x"}]}, "/anyOf/0/pattern"),
        ({"oneOf": [{}, {}, {"pattern": "x"}]}, "/oneOf/2/pattern"),
        ({"$defs": {"d": {"pattern": "x"}}}, "/$defs/d/pattern"),
        (
            {"properties": {"a": {"items": {"anyOf": [{"properties": {"b": {"pattern": "x"}}}]}}}},
            "/properties/a/items/anyOf/0/properties/b/pattern",
        ),
    ],
    ids=str,
)
def test_a_fault_is_found_wherever_a_schema_may_stand(schema: dict[str, Any], pointer: str) -> None:
    assert strict_faults(schema) == [pointer]


@pytest.mark.parametrize("name", ["pattern", "$ref", "$id", "type", "items", "additionalProperties", "required"])
def test_a_property_may_be_called_like_a_keyword(name: str) -> None:
    assert strict_faults({"properties": {name: {"type": "string"}}, "required": [name]}) == []


JUNK: list[JsonValue] = [None, True, 0, -1, 1.5, "junk", "", [], [None], [[]], [{}], {}, {"a": 1}, [1, 1], ["a", "a"]]


@pytest.mark.parametrize("junk", JUNK, ids=str)
def test_a_type_is_one_of_json_s_or_a_list_of_them(junk: JsonValue) -> None:
    assert strict_faults({"properties": {"a": {"type": junk}}}) == ["/properties/a/type"]


@pytest.mark.parametrize("junk", [*JUNK, "email", "uri", "duration", "Date"], ids=str)
def test_a_format_is_a_date_a_time_or_both(junk: JsonValue) -> None:
    assert strict_faults({"properties": {"a": {"format": junk}}}) == ["/properties/a/format"]


@pytest.mark.parametrize(
    "junk",
    [
        *JUNK,
        *("#", "#/", "#/$defs", "#/$defs/", "#/$defs/absent", "#here/x", "here", "/$defs/here", "#/properties/a"),
        *("https://example.com/#/$defs/here", "#/$defs/here/type", "#/$defs/#/$defs/here"),
    ],
    ids=str,
)
def test_a_reference_leads_to_a_definition_of_the_root(junk: JsonValue) -> None:
    schema = {"$defs": {"here": {"type": "string"}}, "properties": {"a": {"$ref": junk}, "b": {"$ref": "#/$defs/here"}}}

    assert strict_faults(schema) == ["/properties/a/$ref"]


@pytest.mark.parametrize("definitions", [["here"], "here", 1, None, {}], ids=str)
def test_a_reference_without_definitions_leads_nowhere(definitions: JsonValue) -> None:
    schema = {"$defs": definitions, "properties": {"a": {"$ref": "#/$defs/here"}}}

    assert strict_faults(schema) == ["/properties/a/$ref"]


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
def test_a_reference_is_read_as_validators_read_it(name: str, reference: str) -> None:
    schema = strict({"$defs": {name: {"type": "string"}}, "properties": {"a": {"$ref": reference}}})

    assert violations({"a": "text"}, schema) == []
    assert [fault.path for fault in violations({"a": 1}, schema)] == ["a"]


def test_a_reference_that_validators_would_read_as_another_is_refused() -> None:
    assert strict_faults({"$defs": {"100%25": {}}, "properties": {"a": {"$ref": "#/$defs/100%25"}}}) == [
        "/properties/a/$ref"
    ]


@pytest.mark.parametrize(
    ("definitions", "pointers"),
    [
        ({"a": {"$ref": "#/$defs/a"}}, ["/$defs/a"]),
        ({"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, ["/$defs/a", "/$defs/b"]),
        ({"a": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/a"}]}}, ["/$defs/a"]),
        ({"a": {"anyOf": [{}], "oneOf": [{"anyOf": [{"$ref": "#/$defs/a~1b"}]}]}, "a/b": {"$ref": "#/$defs/a"}},
         ["/$defs/a", "/$defs/a~1b"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_definition_that_is_itself_and_nothing_else_is_refused(
    definitions: dict[str, Any], pointers: list[str]
) -> None:
    assert strict_faults({"$defs": definitions}) == pointers


def test_a_definition_may_hold_itself_in_a_property_or_an_item() -> None:
    person = {"type": "object", "properties": {"children": {"items": {"$ref": "#/$defs/person"}}}}
    schema = strict({"$defs": {"person": person}, "properties": {"head": {"$ref": "#/$defs/person"}}})

    assert violations({"head": {"children": [{"children": []}]}}, schema) == []
    assert [fault.path for fault in violations({"head": {"children": [7]}}, schema)] == ["head.children[0]"]


def test_only_the_root_has_an_id_because_every_reference_starts_there() -> None:
    assert strict_faults({"$id": "https://example.com/results"}) == []
    assert strict_faults({"properties": {"a": {"$id": "https://example.com/a"}}}) == ["/properties/a/$id"]


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": []}, "/properties"),
        ({"properties": "a"}, "/properties"),
        ({"properties": None}, "/properties"),
        ({"properties": {"a": 1}}, "/properties/a"),
        ({"properties": {"a": None}}, "/properties/a"),
        ({"properties": {"a": True}}, "/properties/a"),
        ({"properties": {"additionalProperties": True}}, "/properties/additionalProperties"),
        ({"required": "a"}, "/required"),
        ({"required": {}}, "/required"),
        ({"required": None}, "/required"),
        ({"required": ["a", "a"]}, "/required"),
        ({"required": [1]}, "/required/0"),
        ({"required": [{}]}, "/required/0"),
        ({"required": ["a", []]}, "/required/1"),
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
        ({"items": [{}]}, "/items"),
        ({"items": True}, "/items"),
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
def test_a_keyword_s_value_has_the_form_that_json_schema_gives_it(schema: dict[str, Any], pointer: str) -> None:
    assert strict_faults(schema) == [pointer]


def test_an_enum_may_hold_any_json() -> None:
    assert strict_faults({"properties": {"a": {"enum": [None, True, 1, "x", [], {}, [[]], {"type": "junk"}]}}}) == []


def test_every_fault_is_named_up_to_twenty() -> None:
    several = {"pattern": "x", "properties": {"a": {"type": "text"}, "b": {"format": "uri"}}}

    assert sorted(strict_faults(several)) == ["/pattern", "/properties/a/type", "/properties/b/format"]
    assert len(strict_faults({"properties": {f"p{number}": {"const": 1} for number in range(30)}})) == 20


def test_a_fault_says_what_to_do() -> None:
    with pytest.raises(InvalidOutputSchema) as refusal:
        strict({"pattern": "x"})

    assert [fault.message for fault in refusal.value.faults] == [UNSUPPORTED]


@pytest.mark.parametrize("wrap", ["items", "additionalProperties"])
def test_a_schema_that_is_nested_too_deeply_is_refused_and_breaks_nothing(wrap: str) -> None:
    def nested(levels: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(levels):
            schema = {wrap: schema}
        return schema

    assert strict_faults(nested(40)) == []
    assert strict_faults(nested(41)) == [f"/{wrap}" * 41]
    assert strict_faults(nested(190)) == [f"/{wrap}" * 41]  # JSON that is nested 200 deep does not even get this far


# ---- Whatever anybody sends -----------------------------------------------------------------------------

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
    "propertyOrdering", "pattern", "a",
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
    """Generate schemas that are right, apart from where their references lead."""
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


def fields_of(schema: object) -> AgentSpec:
    """Make an agent of any JSON object at all."""
    return AgentSpec.model_validate({"name": "Ana", "instructions": "i", "output_schema_strict": schema})


@settings(max_examples=300)
@given(
    NEARLY_SCHEMAS
    | NEARLY_SCHEMAS.map(lambda schema: {**schema, "type": "object"})
    | st.dictionaries(st.text(max_size=5), ANY_JSON, max_size=3)
)
def test_any_object_is_a_strict_schema_that_validators_take_or_an_invalid_output_schema(schema: dict[str, Any]) -> None:
    try:
        checked = schema_of(fields_of(schema))
    except InvalidOutputSchema:
        return

    Draft202012Validator.check_schema(checked)  # type: ignore[arg-type]


@given(st.dictionaries(st.text(max_size=5), ANY_JSON, max_size=3))
def test_any_object_is_hints_that_compile_or_an_invalid_output_schema(hints: dict[str, Any]) -> None:
    try:
        compiled = schema_of(spec(output_schema=hints))
    except InvalidOutputSchema:
        return

    assert (compiled is None) == (hints == {})
    if compiled is not None:
        Draft202012Validator.check_schema(compiled)


RESULTS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["2027-01-15", "x", 1, None, True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@given(schemas(), st.dictionaries(st.sampled_from("ab"), RESULTS, max_size=2))
def test_a_schema_that_was_taken_can_judge_any_results(schema: dict[str, Any], results: JsonValue) -> None:
    try:
        checked = schema_of(fields_of(schema))
    except InvalidOutputSchema as refusal:
        assume(not all("without end" in fault.message for fault in refusal.faults))
        raise
    assert checked is not None

    assert isinstance(violations(results, checked), list)


# ---- Results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema_format", "good"),
    [
        ("date-time", "2027-01-15T08:00:00Z"),
        ("date-time", "2027-01-15T08:00:00.5+01:00"),
        ("date", "2027-01-15"),
        ("date", "2028-02-29"),
        ("time", "08:00:00Z"),
        ("time", "08:00:00+01:00"),
    ],
)
def test_a_value_of_its_format_is_taken(schema_format: str, good: str) -> None:
    schema = strict({"properties": {"at": {"type": "string", "format": schema_format}}})

    assert violations({"at": good}, schema) == []


@pytest.mark.parametrize(
    ("schema_format", "bad"),
    [
        ("date-time", "2027-01-15"),
        ("date-time", "2027-01-15T08:00:00"),
        ("date-time", "2027-02-30T08:00:00Z"),
        ("date-time", "tomorrow"),
        ("date", "2027-02-29"),
        ("date", "20270115"),
        ("date", "15.01.2027"),
        ("date", ""),
        ("time", "25:00:00Z"),
        ("time", "08:00"),
        ("time", "8 o'clock"),
    ],
)
def test_a_value_of_another_format_is_found(schema_format: str, bad: str) -> None:
    schema = strict({"properties": {"at": {"type": "string", "format": schema_format}}})

    assert [(fault.path, fault.message) for fault in violations({"at": bad}, schema)] == [("at", "Breaks format.")]


@pytest.mark.parametrize(
    ("results", "found"),
    [
        ({"city": "Oslo", "people": [{"age": 7}]}, []),
        ({}, [("", "Breaks required.")]),
        ({"city": None}, [("city", "Breaks type.")]),
        ({"city": "Oslo", "people": [{"age": -1}]}, [("people[0].age", "Breaks minimum.")]),
        ({"city": "Oslo", "people": [{}, {"age": "7"}]}, [("people[1].age", "Breaks type.")]),
        ({"city": "Oslo", "town": "Oslo"}, [("", "Breaks additionalProperties.")]),
        ([], [("", "Breaks type.")]),
        (None, [("", "Breaks type.")]),
        ("Oslo", [("", "Breaks type.")]),
    ],
    ids=str,
)
def test_what_does_not_obey_is_named_by_its_path(results: JsonValue, found: list[tuple[str, str]]) -> None:
    schema = strict(
        {
            "properties": {
                "city": {"type": "string"},
                "people": {"items": {"properties": {"age": {"type": "integer", "minimum": 0}}}},
            },
            "required": ["city"],
            "additionalProperties": False,
        }
    )

    assert [(fault.path, fault.message) for fault in violations(results, schema)] == found


def test_what_does_not_obey_is_never_repeated() -> None:
    schema = strict({"properties": {"city": {"type": "string", "enum": ["Oslo"]}}})

    assert "4711" not in repr(violations({"city": "secret-4711", "other": "4711"}, schema))


def test_no_more_than_twenty_violations_are_named() -> None:
    schema = strict({"additionalProperties": {"type": "string"}})

    assert len(violations({f"k{number}": 1 for number in range(30)}, schema)) == 20


def test_bounds_are_left_to_us_and_everything_else_goes_to_the_model() -> None:
    strict: JsonSchema = {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "minimum": 1, "maximum": 5},
            "tags": {"type": "array", "maxItems": 2000, "items": {"anyOf": [{"type": "number", "minimum": 0}]}},
            "other": {"$ref": "#/$defs/other"},
        },
        "$defs": {"other": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
        "additionalProperties": False,
        "required": ["minimum"],
    }

    assert without_bounds(strict) == {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer"},
            "tags": {"type": "array", "items": {"anyOf": [{"type": "number"}]}},
            "other": {"$ref": "#/$defs/other"},
        },
        "$defs": {"other": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
        "required": ["minimum"],
    }
    assert [fault.path for fault in violations({"minimum": 9}, strict)] == ["minimum"]

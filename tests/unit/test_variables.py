import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter, ValidationError

from pi_voice.domain import variables
from pi_voice.domain.errors import InvalidVariables
from pi_voice.domain.variables import Variable, Variables, fill, phrases, resolved, written

ADAPTER: TypeAdapter[dict[str, Variable]] = TypeAdapter(Variables)


def declared(**fields: JsonValue) -> dict[str, Variable]:
    """Parse variables by name; a text declares a required one of this type."""
    each = {name: {"type": field} if isinstance(field, str) else field for name, field in fields.items()}
    return ADAPTER.validate_json(json.dumps(each))


def faults(fields: JsonValue) -> list[str]:
    """Return the paths of the faults of a declaration."""
    try:
        ADAPTER.validate_json(json.dumps(fields))
    except ValidationError as error:
        return [".".join(str(step) for step in fault["loc"]) for fault in error.errors()]
    return []


# ---- Declarations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"a": {"type": "string"}},
        {"a" * 64: {"type": "number"}, "guest_name": {"type": "boolean"}, "Room2": {"type": "string"}},
        {f"v{number}": {"type": "string"} for number in range(50)},
        {"a": {"type": "string", "description": "d" * 200, "default": "x" * 10_000, "max_length": 10_000}},
        {"a": {"type": "string", "description": None, "default": None, "max_length": None}},
        {"a": {"type": "string", "default": ""}},
        {"a": {"type": "string", "default": "x" * 1_000}},
        {"a": {"type": "number", "default": 0}},
        {"a": {"type": "number", "default": -1.5}},
        {"a": {"type": "number", "default": 2**53 - 1}},
        {"a": {"type": "boolean", "default": False}},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_a_declaration_within_its_bounds_is_valid(fields: JsonValue) -> None:
    assert faults(fields) == []


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ([], ""),
        ({"a": None}, "a"),
        ({"a": "string"}, "a"),
        ({"a": {}}, "a.type"),
        ({"a": {"type": "text"}}, "a.type"),
        ({"a": {"type": "String"}}, "a.type"),
        ({"a": {"type": ["string"]}}, "a.type"),
        ({"a": {"type": "string", "required": True}}, "a.required"),
        ({"a": {"type": "string", "description": "d" * 201}}, "a.description"),
        ({"a": {"type": "string", "max_length": 0}}, "a.max_length"),
        ({"a": {"type": "string", "max_length": 10_001}}, "a.max_length"),
        ({"a": {"type": "string", "max_length": "9"}}, "a.max_length"),
        ({"a": {"type": "number", "max_length": 9}}, "a.max_length"),
        ({"a": {"type": "string", "default": 1}}, "a.default"),
        ({"a": {"type": "string", "default": ["x"]}}, "a.default"),
        ({"a": {"type": "string", "default": "x" * 1_001}}, "a.default"),
        ({"a": {"type": "string", "default": "xx", "max_length": 1}}, "a.default"),
        ({"a": {"type": "number", "default": "1"}}, "a.default"),
        ({"a": {"type": "number", "default": True}}, "a.default"),
        ({"a": {"type": "number", "default": 2**53}}, "a.default"),
        ({"a": {"type": "number", "default": 10**4_000}}, "a.default"),
        ({"a": {"type": "boolean", "default": 1}}, "a.default"),
        ({"a": {"type": "boolean", "default": "true"}}, "a.default"),
        ({f"v{number}": {"type": "string"} for number in range(51)}, ""),
        ({f"v{number}": 0 for number in range(16_000)}, ""),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_invalid_declaration_has_a_fault_with_its_path(fields: JsonValue, path: str) -> None:
    assert faults(fields) == [path]


@pytest.mark.parametrize(
    "name", ["", " ", "1a", "_a", "a-b", "a.b", "a b", "a\n", "é", "a" * 65, "date", "time_zone", "participant.name"]
)
def test_a_name_is_letters_digits_and_underscores_and_not_a_built_in_one(name: str) -> None:
    assert faults({name: {"type": "string"}}) == [f"{name}.[key]"]


# ---- Values ---------------------------------------------------------------------------------------------


def refused(given_values: dict[str, JsonValue], **fields: JsonValue) -> list[str]:
    with pytest.raises(InvalidVariables) as raised:
        resolved(declared(**fields), given_values)
    return [detail.path for detail in raised.value.details]


def test_each_variable_has_the_given_value_or_its_default() -> None:
    values: dict[str, JsonValue] = {"guest": "Ada", "room": 7, "price": 9.5, "vip": False}
    fields: dict[str, JsonValue] = {"guest": "string", "room": "number", "price": "number", "vip": "boolean"}
    defaults: dict[str, JsonValue] = {
        "city": {"type": "string", "default": "Oslo"},
        "late": {"type": "boolean", "default": False},
        "guests": {"type": "number", "default": 0},
        "note": {"type": "string", "default": ""},
    }

    assert resolved(declared(**fields, **defaults), values) == {
        **values,
        "city": "Oslo",
        "late": False,
        "guests": 0,
        "note": "",
    }
    assert resolved(declared(**defaults), {"city": "Rome", "late": True})["city"] == "Rome"
    assert resolved({}, {}) == {}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (1, "string"),
        (None, "string"),
        (True, "string"),
        (["Ada"], "string"),
        ({"name": "Ada"}, "string"),
        ("x" * 1_001, "string"),
        ("xxx", {"type": "string", "max_length": 2}),
        ("xxx", {"type": "string", "max_length": 2, "default": "x"}),
        (None, {"type": "string", "default": "x"}),
        ("7", "number"),
        (True, "number"),
        (2**53, "number"),
        (-1e300, "number"),
        ("true", "boolean"),
        (1, "boolean"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_of_the_wrong_type_or_size_is_refused_by_its_path(value: JsonValue, field: JsonValue) -> None:
    assert refused({"a": value}, a=field) == ["variables.a"]


def test_missing_and_unknown_values_are_refused_together_by_their_paths() -> None:
    assert refused({"gest": "Ada", "a.b": 1, "room": "7"}, guest="string", room="number", city="string") == [
        "variables.gest",
        "variables.a\\.b",
        "variables.guest",
        "variables.room",
        "variables.city",
    ]


def test_values_are_refused_if_they_are_too_large_together() -> None:
    fields: dict[str, JsonValue] = {f"v{number}": {"type": "string", "max_length": 10_000} for number in range(3)}
    fits: dict[str, JsonValue] = {"v0": "x" * 9_900, "v1": "x" * 9_900, "v2": ""}

    assert resolved(declared(**fields), fits) == fits
    assert refused({**fits, "v2": "x" * 200}, **fields) == ["variables"]
    assert refused({**fits, "v0": "é" * 9_900}, **fields) == ["variables"]


def test_no_fault_repeats_a_value() -> None:
    secret = "The caller's secret"
    with pytest.raises(InvalidVariables) as raised:
        resolved(declared(a="number", b={"type": "string", "max_length": 3}), {"a": secret, "b": secret, "c": secret})

    assert len(raised.value.details) == 3
    assert secret not in f"{raised.value} {raised.value.details}"


def test_short_texts_are_phrases_for_the_transcription() -> None:
    values: dict[str, JsonValue] = {
        "guest": "Ada\u202e Lovelace\n",
        "same": "Ada Lovelace",
        "room": 7,
        "vip": True,
        "note": "x" * 61,
        "none": " ",
    }

    assert phrases(values) == ("Ada Lovelace",)


# ---- Texts ----------------------------------------------------------------------------------------------

BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
VALUES = {"guest": "Ada", "participant.name": "Kim", "empty": "", "trap": "{{guest}} \\{{ {{"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", ""),
        ("Hello.", "Hello."),
        ("Hello {{guest}}.", "Hello Ada."),
        ("{{guest}}{{guest}}", "AdaAda"),
        ("{{  guest }} {{participant.name}}", "Ada Kim"),
        ("[{{empty}}]", "[]"),
        ("{{trap}}", "{{guest}} \\{{ {{"),
        (r"\{{guest}} and \{{", "{{guest}} and {{"),
        ("{guest} {{{guest}}}", "{guest} {{{guest}}}"),
        ("{{unknown}} {{ {{}} {{guest} {{Guest}} {{\nguest}}", "{{unknown}} {{ {{}} {{guest} {{Guest}} {{\nguest}}"),
        ("{{guest}", "{{guest}"),
        ("}} {{guest}} {{", "}} Ada {{"),
    ],
)
def test_a_text_is_filled_once_and_everything_else_stays(text: str, filled: str) -> None:
    assert fill(text, VALUES) == filled


@given(st.text(st.sampled_from("{}\\ gues.t\n")))
def test_a_text_without_known_names_or_escapes_stays_as_it_is(text: str) -> None:
    assert r"\{{" in text or fill(text, {}) == text


def test_many_braces_and_spaces_take_time_in_proportion_to_their_number() -> None:
    for text in ("{{ " * 7_000, "{{" + " " * 20_000, "{{a" * 6_000, "\\{{" * 6_000, "{{" + "a" * 20_000):
        assert fill(text, {}) == text.replace(r"\{{", "{{")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Ada Lovelace", "\u27e6Ada Lovelace\u27e7"),
        ("", ""),
        (" \n\t", ""),
        ("\u202e", ""),
        ("Zoë 東京 🙂", "\u27e6Zoë 東京 🙂\u27e7"),
        ("two\nlines\r\nand\u2028more\x85here", "\u27e6two lines and more here\u27e7"),
        ("a\x00b\x1b[2J", "\u27e6a b [2J\u27e7"),
        ("\u27e7 not data \u27e6", "\u27e6] not data [\u27e7"),
        ("क्\u200dष 👩\u200d🚀", "\u27e6क्\u200dष 👩\u200d🚀\u27e7"),
        ("half \ud83d", "\u27e6half \ufffd\u27e7"),
        (7, "7"),
        (-2.5, "-2.5"),
        (3.0, "3"),
        (1e15, "1000000000000000"),
        (True, "true"),
        (False, "false"),
        (None, ""),
    ],
)
def test_a_value_is_written_on_one_line_and_a_text_between_marks(value: JsonValue, text: str) -> None:
    assert written(value) == text


@given(st.text(st.characters()) | st.text("\u27e6\u27e7\n\u2028\ud800\u202e a"))
def test_whatever_a_text_holds_it_stays_on_one_line_between_its_marks(value: str) -> None:
    text = written(value)

    inner = text.removeprefix(variables.OPEN).removesuffix(variables.CLOSE)
    assert text == (f"{variables.OPEN}{inner}{variables.CLOSE}" if inner else "")
    assert variables.OPEN not in inner
    assert variables.CLOSE not in inner
    assert len(text.splitlines()) <= 1
    assert not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in inner)
    assert not any(unicodedata.bidirectional(each) in BIDI for each in inner)
    assert len(inner) <= len(value)

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from pi_voice.domain import evidence
from pi_voice.domain.evidence import contains_quote, leaves, split_answer, verify_evidence, with_evidence
from pi_voice.domain.extractions import Evidence
from pi_voice.domain.output_schema import violations
from pi_voice.domain.transcripts import TranscriptTurn

# ruff: noqa: RUF001 (letters that look alike are what is folded)

CALL: list[TranscriptTurn] = [
    {"role": "agent", "text": "Which city, and for how many?"},
    {"role": "user", "text": "Oslo. For 4 people — no, wait: five, it’s my  mother's\nbirthday!"},
    {"role": "agent", "text": "Five people in Oslo."},
]
UNVERIFIED = Evidence(status="unverified")
NOT_MENTIONED = Evidence(status="not_mentioned")


def claim(path: str, status: str = "found", turn: JsonValue = 1, quote: JsonValue = "Oslo") -> JsonValue:
    """Claim what the model claims of one value."""
    return {"path": path, "status": status, "turn": turn, "quote": quote}


def of_city(value: JsonValue, *claims: JsonValue) -> Evidence:
    """Return what is known of one value after its claims were checked."""
    return verify_evidence({"city": value}, list(claims), CALL)["city"]


# ---- Quotes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("Oslo.", "Oslo."),
        ("Oslo.", "oslo"),
        ("It is in OSLO, I think", "oslo"),
        ("my  mother's\nbirthday", "my mother's birthday"),
        ("my mother's birthday", "  my\tmother's\n"),
        ("it’s mine", "it's mine"),
        ("it's mine", "it’s mine"),
        ("he said “yes” twice", 'said "yes"'),
        ("from 9–17 o'clock", "9-17"),
        ("from 9 — no, 10", "9 - no"),
        ("Straße", "STRASSE"),
        ("STRASSE", "straße"),
        ("Cafe\u0301 Zürich", "café zu\u0308rich"),
        ("ｏｓｌｏ ４２", "oslo 42"),
        ("oﬃce", "office"),
        ("ΟΔΟΣ", "οδος"),
        ("我住在東京。", "東京"),
        ("मैं दिल्ली में हूँ", "दिल्ली"),
        ("أنا في القاهرة", "القاهرة"),
        ("ทำงานที่กรุงเทพ", "กรุงเทพ"),
        ("It costs 1.250 kroner", "1.250"),
        ("Seventeen, five", "five"),
        ("\u00a0twelve\u202feuros ", "twelve euros"),
        ("well... yes", "…yes"),
        ("Oslo", '"Oslo"'),
    ],
)
def test_a_quote_is_there_however_it_is_spelled_spaced_or_quoted(text: str, quote: str) -> None:
    assert contains_quote(text, quote)


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("Oslo.", "Bergen"),
        ("Oslo.", ""),
        ("Oslo.", " "),
        ("Oslo.", "..."),
        ("Oslo. Five.", "Oslo five"),
        ("for 15 people", "5"),
        ("for 15 people", "1"),
        ("Osloer", "Oslo"),
        ("the art of it", "he"),
        ("пятнадцать", "пят"),
        ("", "Oslo"),
        ("I said no", "I said no thanks"),
        ("for 15 people", "15 people in Oslo"),
        ("Seventeen", "seven"),
    ],
)
def test_a_quote_that_is_not_there_word_for_word_is_none(text: str, quote: str) -> None:
    assert not contains_quote(text, quote)


def test_a_word_is_looked_for_behind_one_that_only_begins_like_it() -> None:
    assert contains_quote("Osloer are from Oslo", "Oslo")
    assert contains_quote("15 or 5", "5")


@given(
    st.lists(st.sampled_from(["Oslo", "five", "ÆØÅ", "straße", "東京", "42", "it’s"]), min_size=1, max_size=8),
    st.data(),
)
def test_words_in_a_row_are_always_found(words: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))

    assert contains_quote("  ".join(words), " ".join(words[first : last + 1]).upper().replace("IT’S", "it's"))


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(text: str, quote: str) -> None:
    assert contains_quote(text, quote) in (True, False)


# ---- Claims ---------------------------------------------------------------------------------------------


def test_a_value_whose_quote_is_in_its_turn_is_found() -> None:
    assert of_city("Oslo", claim("city")) == Evidence(status="found", turn=1, quote="Oslo")


def test_values_on_which_the_call_does_not_settle_conflict() -> None:
    told = of_city("Oslo", claim("city", "conflicting", 1, "no, wait"))

    assert told == Evidence(status="conflicting", turn=1, quote="no, wait")


@pytest.mark.parametrize(
    "made_up",
    [
        claim("city", quote="Bergen"),
        claim("city", turn=0),
        claim("city", turn=2, quote="birthday"),
        claim("city", turn=3),
        claim("city", turn=-2),
        claim("city", turn=10**30),
        claim("city", turn=None),
        claim("city", turn=True),
        claim("city", turn=1.0),
        claim("city", turn="1"),
        claim("city", quote=None),
        claim("city", quote=""),
        claim("city", quote="?!"),
        claim("city", quote=["Oslo"]),
        claim("city", "conflicting", quote="Bergen"),
    ],
    ids=str,
)
def test_a_quote_that_is_not_in_its_turn_proves_nothing(made_up: JsonValue) -> None:
    assert of_city("Oslo", made_up) == UNVERIFIED


@pytest.mark.parametrize(
    "claims",
    [
        [],
        [claim("town")],
        [claim("city", "not_mentioned", None, None)],
        [claim("city", "unverified")],
        [claim("city", "sure")],
        [{"path": "city"}],
        [{"path": 7, "status": "found", "turn": 1, "quote": "Oslo"}],
        ["city", None, 7, []],
    ],
    ids=str,
)
def test_a_value_of_which_nothing_good_is_claimed_is_unverified(claims: list[JsonValue]) -> None:
    assert of_city("Oslo", *claims) == UNVERIFIED


@pytest.mark.parametrize("claims", [None, "city", {}, {"city": "found"}, 7], ids=str)
def test_claims_that_are_no_list_are_none(claims: JsonValue) -> None:
    assert verify_evidence({"city": "Oslo"}, claims, CALL) == {"city": UNVERIFIED}


@pytest.mark.parametrize("nothing", [None, [], {}], ids=str)
def test_a_value_that_is_nothing_was_not_mentioned_unless_it_is_claimed_to_be(nothing: JsonValue) -> None:
    assert of_city(nothing) == NOT_MENTIONED
    assert of_city(nothing, claim("city", "not_mentioned", None, None)) == NOT_MENTIONED
    assert of_city(nothing, claim("city", quote="no")) == Evidence(status="found", turn=1, quote="no")
    assert of_city(nothing, claim("city", quote="made up")) == UNVERIFIED


@pytest.mark.parametrize("value", [0, False, "", 0.0], ids=repr)
def test_zero_no_and_an_empty_text_are_values(value: JsonValue) -> None:
    assert of_city(value) == UNVERIFIED


def test_of_several_claims_about_one_value_the_last_counts() -> None:
    assert of_city("Oslo", claim("city", quote="made up"), claim("city")).status == "found"


def test_claims_about_what_is_not_in_the_results_are_left_out() -> None:
    assert verify_evidence({"city": "Oslo"}, [claim("city"), claim("town"), claim("")], CALL).keys() == {"city"}


def test_a_long_quote_is_cut() -> None:
    long: list[TranscriptTurn] = [{"role": "user", "text": "word " * 300}]

    told = verify_evidence({"it": "x"}, [claim("it", turn=0, quote="word " * 200)], long)["it"]

    assert told.quote is not None
    assert len(told.quote) == 500


def test_every_single_value_has_its_evidence() -> None:
    results: JsonValue = {
        "city": "Oslo",
        "guests": [{"name": "Kim", "age": None}, {"name": "Lea", "age": 7}],
        "tags": ["a", "b"],
        "notes": [],
        "more": {},
    }

    told = verify_evidence(results, [claim("guests.1.age", quote="five"), claim("tags.0", turn=2)], CALL)

    assert {path: known.status for path, known in told.items()} == {
        "city": "unverified",
        "guests.0.name": "unverified",
        "guests.0.age": "not_mentioned",
        "guests.1.name": "unverified",
        "guests.1.age": "found",
        "tags.0": "found",
        "tags.1": "unverified",
        "notes": "not_mentioned",
        "more": "not_mentioned",
    }


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_each_path_leads_to_its_value(results: Any) -> None:
    for path, value in leaves(results):
        found = results
        for step in path.split(".") if path else []:
            found = found[int(step)] if isinstance(found, list) else found[step]
        assert found == value


@given(JSON, JSON)
def test_whatever_is_claimed_of_whatever_nothing_is_found_that_nobody_said(results: Any, claims: Any) -> None:
    told = verify_evidence(results, claims, CALL)

    assert told.keys() == dict(leaves(results)).keys()
    assert {known.status for known in told.values()} <= {"unverified", "not_mentioned"}


# ---- What is asked --------------------------------------------------------------------------------------


def test_the_schema_of_an_answer_holds_results_and_a_list_of_claims() -> None:
    sent: Any = with_evidence({"type": "object", "properties": {"city": {"type": "string"}}})

    assert sent["required"] == sent["propertyOrdering"] == ["results", "evidence"]
    assert sent["properties"]["results"] == {"type": "object", "properties": {"city": {"type": "string"}}}
    entry = sent["properties"]["evidence"]["items"]
    assert entry["required"] == ["path", "status", "turn", "quote"]
    assert entry["properties"]["status"]["enum"] == ["found", "not_mentioned", "conflicting"]
    assert "$defs" not in sent


def test_definitions_stay_at_the_root_where_references_look_for_them() -> None:
    definitions: JsonValue = {"city": {"type": "string"}}
    sent = with_evidence({"type": "object", "properties": {"a": {"$ref": "#/$defs/city"}}, "$defs": definitions})

    assert sent["$defs"] == definitions
    assert violations({"results": {"a": "Oslo"}, "evidence": []}, sent) == []
    assert [fault.path for fault in violations({"results": {"a": 1}, "evidence": []}, sent)] == ["results.a"]


def test_an_answer_is_taken_apart() -> None:
    assert split_answer({"results": {"city": "Oslo"}, "evidence": []}) == ({"city": "Oslo"}, [])
    assert split_answer({"city": "Oslo"}) == (None, None)
    assert split_answer(["x"]) == (["x"], None)
    assert split_answer(None) == (None, None)


def test_the_model_is_told_what_each_status_means_and_how_to_quote() -> None:
    for word in ("found", "not_mentioned", "conflicting", "`path`", "`turn`", "`quote`", "letter by letter"):
        assert word in evidence.INSTRUCTION

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from pi_voice.domain import evidence
from pi_voice.domain.evidence import contains_quote, leaves, split_answer, verify_evidence, with_evidence
from pi_voice.domain.extractions import Evidence
from pi_voice.domain.output_schema import violations
from pi_voice.domain.tool_calls import ToolCall, ToolCallStatus
from pi_voice.domain.transcripts import TranscriptTurn

# ruff: noqa: RUF001 (similar letters are test data)

CALL: list[TranscriptTurn] = [
    {"role": "agent", "text": "Which city, and for how many?"},
    {"role": "user", "text": "Oslo. For 4 people — no, wait: five, it’s my  mother's\nbirthday!"},
    {"role": "agent", "text": "Five people in Oslo."},
]
UNVERIFIED = Evidence(status="unverified")
NOT_MENTIONED = Evidence(status="not_mentioned")


def claim(path: str, status: str = "found", turn: JsonValue = 1, quote: JsonValue = "Oslo") -> JsonValue:
    """Return the model's claim about one value."""
    return {"path": path, "status": status, "turn": turn, "quote": quote}


def evidence_of_city(value: JsonValue, *claims: JsonValue) -> Evidence:
    """Verify claims about the value of `city`."""
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
def test_a_quote_is_found_despite_case_spaces_quotation_marks_and_unicode_forms(text: str, quote: str) -> None:
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
def test_a_quote_that_does_not_match_in_whole_words_is_not_found(text: str, quote: str) -> None:
    assert not contains_quote(text, quote)


def test_a_word_is_found_after_a_longer_word_that_contains_it() -> None:
    assert contains_quote("Osloer are from Oslo", "Oslo")
    assert contains_quote("15 or 5", "5")


# Each quote is a whole number of its text.
WHOLE_NUMBERS = [
    ("It is 500.", "500"),
    ("It is 500", "500."),
    ("500, please", "500"),
    ("500.Then", "500"),
    ("500: that is it", "500"),
    ("$500", "500"),
    ("$500", "$500"),
    ("500€ or 20%", "500"),
    ("500€ or 20%", "20"),
    ("1,500 kroner", "1,500"),
    ("5.5 or so", "5.5"),
    ("(500)", "500"),
    ("twenty-5", "5"),
    ("room 4-5", "5"),
    ("room 4-5", "4"),
    ("room 4-5", "4-5"),
    ("9–17 o'clock", "17"),
    ("at -5 degrees", "-5"),
    ("at −5 degrees", "-5"),
    ("at -$5", "-$5"),
    ("- 5", "5"),
    ("--5", "5"),
    ("+5", "5"),
    ("at .5 percent", ".5"),
    ("well...5", "5"),
    ("no.5", "5"),
    ("at 10:30.", "10:30"),
    ("at 10:30.", "at 10:30"),
    ("on 29/11", "29/11"),
    ("on 29.11.2026.", "29.11.2026"),
    ("on 2026-11-29", "2026-11-29"),
    ("2½ cups", "2½"),
    ("下午3點", "3"),
    ("ตอน 5 โมง", "5"),
    ("٥٠٠ دينار", "٥٠٠"),
    ("५०० रुपये", "५००"),
]


@pytest.mark.parametrize(("text", "quote"), WHOLE_NUMBERS)
def test_a_whole_number_is_found_beside_punctuation_signs_and_currencies(text: str, quote: str) -> None:
    assert contains_quote(text, quote)


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("1,500", "500"),
        ("1,500", "1"),
        ("500.5", "500"),
        ("5001", "500"),
        ("1500", "500"),
        ("5.5", "5"),
        ("1'500", "500"),
        ("1’500", "500"),
        ("-5", "5"),
        ("−5", "5"),
        ("-5", "5 degrees"),
        ("-$5", "5"),
        ("$-5", "5"),
        ("-.5", ".5"),
        (".5", "5"),
        ("5", "-5"),
        ("room 4-5", "-5"),
        ("at 10:30", "30"),
        ("at 10:30", "10"),
        ("on 29.11.2026", "11"),
        ("on 29/11", "29"),
        ("½", "1"),
        ("2½", "2"),
        ("500kg", "500"),
        ("the 5th", "5"),
        ("v2.5", "5"),
        ("١٬٥٠٠", "٥٠٠"),
        ("٥٫٥", "٥"),
    ],
)
def test_a_number_inside_a_longer_one_is_not_found(text: str, quote: str) -> None:
    assert not contains_quote(text, quote)


@pytest.mark.parametrize(
    ("text", "word", "part"),
    [
        ("أنا بالقاهرة", "بالقاهرة", "القاهرة"),
        ("דיברתי עברית", "עברית", "ברית"),
        ("मैं नयीदिल्ली में", "नयीदिल्ली", "दिल्ली"),
        ("मैं दिल्ली में", "दिल्ली", "दिल्ल"),
        ("서울에서 왔어요", "서울에서", "서울"),
        ("ቤቱ ነው", "ቤቱ", "ቤ"),
        ("می\u200cخواهم", "می\u200cخواهم", "خواهم"),
    ],
    ids=["Arabic", "Hebrew", "Hindi", "a Hindi vowel sign", "Korean", "Amharic", "Persian with a joiner"],
)
def test_a_part_of_a_word_is_not_found_in_scripts_that_separate_words_by_spaces(
    text: str, word: str, part: str
) -> None:
    assert contains_quote(text, word)
    assert not contains_quote(text, part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("我住在東京都", "東京"),
        ("とうきょうタワー", "タワー"),
        ("ทำงานที่กรุงเทพมหานคร", "กรุงเทพ"),
        ("ຢູ່ວຽງຈັນ", "ວຽງຈັນ"),
        ("នៅភ្នំពេញ", "ភ្នំពេញ"),
        ("ရန်ကုန်မြို့", "ရန်ကုန်"),
    ],
    ids=["Chinese", "Japanese", "Thai", "Lao", "Khmer", "Burmese"],
)
def test_scripts_without_spaces_are_quoted_from_any_letter(text: str, part: str) -> None:
    assert contains_quote(text, part)


def test_a_letter_without_its_marks_is_not_found() -> None:
    assert contains_quote("กุ้ง", "กุ้ง")
    assert not contains_quote("กุ้ง", "ก")
    assert not contains_quote("กุ้ง", "ุ้ง")


@pytest.mark.parametrize("mark", ["\u200f", "\u2066", "\u00ad", "\ufeff"])
def test_invisible_characters_do_not_matter(mark: str) -> None:
    assert contains_quote(f"in {mark}Os{mark}lo", "Oslo")
    assert contains_quote("in Oslo", f"{mark}Oslo{mark}")


@given(
    st.lists(st.sampled_from(["Oslo", "five", "ÆØÅ", "straße", "東京", "42", "it’s"]), min_size=1, max_size=8),
    st.data(),
)
def test_consecutive_words_of_a_text_are_found(words: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))

    assert contains_quote("  ".join(words), " ".join(words[first : last + 1]).upper().replace("IT’S", "it's"))


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(text: str, quote: str) -> None:
    assert contains_quote(text, quote) in (True, False)


# ---- Claims ---------------------------------------------------------------------------------------------


def test_a_value_with_a_quote_from_its_turn_is_found() -> None:
    assert evidence_of_city("Oslo", claim("city")) == Evidence(status="found", turn=1, role="user", quote="Oslo")


def test_a_conflicting_value_with_a_quote_from_its_turn_is_conflicting() -> None:
    checked = evidence_of_city("Oslo", claim("city", "conflicting", 1, "no, wait"))

    assert checked == Evidence(status="conflicting", turn=1, role="user", quote="no, wait")


@pytest.mark.parametrize(
    "invalid",
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
def test_a_claim_without_a_quote_from_its_turn_is_unverified(invalid: JsonValue) -> None:
    assert evidence_of_city("Oslo", invalid) == UNVERIFIED


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
def test_a_value_without_a_usable_claim_is_unverified(claims: list[JsonValue]) -> None:
    assert evidence_of_city("Oslo", *claims) == UNVERIFIED


@pytest.mark.parametrize("claims", [None, "city", {}, {"city": "found"}, 7], ids=str)
def test_claims_that_are_not_a_list_are_ignored(claims: JsonValue) -> None:
    assert verify_evidence({"city": "Oslo"}, claims, CALL) == {"city": UNVERIFIED}


@pytest.mark.parametrize("empty", [None, [], {}], ids=str)
def test_an_empty_value_was_not_mentioned_unless_the_model_claims_otherwise(empty: JsonValue) -> None:
    assert evidence_of_city(empty) == NOT_MENTIONED
    assert evidence_of_city(empty, claim("city", "not_mentioned", None, None)) == NOT_MENTIONED
    assert evidence_of_city(empty, claim("city", quote="no")) == Evidence(
        status="found", turn=1, role="user", quote="no"
    )
    assert evidence_of_city(empty, claim("city", quote="made up")) == UNVERIFIED


@pytest.mark.parametrize("value", [0, False, "", 0.0], ids=repr)
def test_zero_false_and_an_empty_text_are_not_empty_values(value: JsonValue) -> None:
    assert evidence_of_city(value) == UNVERIFIED


def test_the_last_of_several_claims_about_a_value_counts() -> None:
    assert evidence_of_city("Oslo", claim("city", quote="made up"), claim("city")).status == "found"


def test_claims_about_unknown_paths_are_ignored() -> None:
    assert verify_evidence({"city": "Oslo"}, [claim("city"), claim("town"), claim("")], CALL).keys() == {"city"}


def test_a_quote_has_the_role_of_its_turn() -> None:
    checked = verify_evidence(["Oslo", "Oslo", 7], [claim("0", turn=1), claim("1", turn=2)], CALL)

    assert [found.role for found in checked.values()] == ["user", "agent", None]


def test_a_key_with_a_dot_and_a_nested_key_have_different_paths() -> None:
    results: JsonValue = {"a.b": "Oslo", "a": {"b": "Bergen", "": None}, "a\\": {"b": None}, "": {"b": None}}

    checked = verify_evidence(results, [claim("a\\.b"), claim("a.b")], CALL)

    assert {path: found.status for path, found in checked.items()} == {
        "a\\.b": "found",
        "a.b": "found",
        "a.": "not_mentioned",
        "a\\\\.b": "not_mentioned",
        ".b": "not_mentioned",
    }


def test_a_long_quote_is_truncated_to_500_characters() -> None:
    long: list[TranscriptTurn] = [{"role": "user", "text": "word " * 300}]

    checked = verify_evidence({"it": "x"}, [claim("it", turn=0, quote="word " * 200)], long)["it"]

    assert checked.quote is not None
    assert len(checked.quote) == 500


def test_every_value_has_evidence() -> None:
    results: JsonValue = {
        "city": "Oslo",
        "guests": [{"name": "Kim", "age": None}, {"name": "Lea", "age": 7}],
        "tags": ["a", "b"],
        "notes": [],
        "more": {},
    }

    checked = verify_evidence(results, [claim("guests.1.age", quote="five"), claim("tags.0", turn=2)], CALL)

    assert {path: found.status for path, found in checked.items()} == {
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
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "a.b", "", ".", "\\", "a\\", "0"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def steps_of(path: str) -> list[str]:
    """Split a path at the dots that have no backslash before them."""
    return [re.sub(r"\\(.)", r"\1", step) for step in re.findall(r"(?:^|\.)((?:[^.\\]|\\.)*)", path)]


@given(JSON)
def test_each_value_has_a_path_of_its_own_that_leads_to_it(results: Any) -> None:
    found = list(leaves(results))

    assert len(dict(found)) == len(found)
    for path, value in found:
        value_at_path = results
        for step in steps_of(path) if isinstance(results, dict | list) and results else []:
            value_at_path = value_at_path[int(step)] if isinstance(value_at_path, list) else value_at_path[step]
        assert value_at_path == value


@given(JSON, JSON)
def test_arbitrary_claims_never_give_found_evidence(results: Any, claims: Any) -> None:
    checked = verify_evidence(results, claims, CALL)

    assert checked.keys() == dict(leaves(results)).keys()
    assert {found.status for found in checked.values()} <= {"unverified", "not_mentioned"}


# ---- Schema and instruction -----------------------------------------------------------------------------


def test_the_answer_schema_has_results_and_a_list_of_claims() -> None:
    sent: Any = with_evidence({"type": "object", "properties": {"city": {"type": "string"}}})

    assert sent["required"] == sent["propertyOrdering"] == ["results", "evidence"]
    assert sent["properties"]["results"] == {"type": "object", "properties": {"city": {"type": "string"}}}
    entry = sent["properties"]["evidence"]["items"]
    assert entry["required"] == ["path", "status", "turn", "quote"]
    assert entry["properties"]["status"]["enum"] == ["found", "not_mentioned", "conflicting"]
    assert "$defs" not in sent


def test_definitions_stay_at_the_root_of_the_answer_schema() -> None:
    definitions: JsonValue = {"city": {"type": "string"}}
    sent = with_evidence({"type": "object", "properties": {"a": {"$ref": "#/$defs/city"}}, "$defs": definitions})

    assert sent["$defs"] == definitions
    assert violations({"results": {"a": "Oslo"}, "evidence": []}, sent) == []
    assert [detail.path for detail in violations({"results": {"a": 1}, "evidence": []}, sent)] == ["results.a"]


def test_an_answer_is_split_into_results_and_claims() -> None:
    assert split_answer({"results": {"city": "Oslo"}, "evidence": []}) == ({"city": "Oslo"}, [])
    assert split_answer({"city": "Oslo"}) == (None, None)
    assert split_answer(["x"]) == (["x"], None)
    assert split_answer(None) == (None, None)


def test_the_instruction_explains_each_status_and_how_to_quote() -> None:
    for word in ("found", "not_mentioned", "conflicting", "`path`", "`turn`", "`quote`", "letter by letter"):
        assert word in evidence.INSTRUCTION


# ---- Tool calls -----------------------------------------------------------------------------------------


def tool_call(status: ToolCallStatus = "succeeded", **response: JsonValue) -> ToolCall:
    return ToolCall(
        call_id="one",
        name="book",
        arguments={"day": "2026-05-01"},
        status=status,
        response=response,
        called_at=1_800_000_000,
    )


BOOKED: list[TranscriptTurn] = [
    {"role": "user", "text": "A table for six on the first of May."},
    {"role": "agent", "text": "Done, your number is K7Q2, at the window."},
]
TOLD = "You book tables at the window."


def evidence_of_number(
    claim_of_it: JsonValue, calls: list[ToolCall], value: JsonValue = "K7Q2", told: str | None = TOLD
) -> Evidence:
    return verify_evidence({"number": value}, [claim_of_it], BOOKED, calls, told)["number"]


def of_call(call: JsonValue = 0, quote: JsonValue = "K7Q2", turn: JsonValue = None) -> JsonValue:
    return {"path": "number", "status": "found", "turn": turn, "tool_call": call, "quote": quote}


def test_a_value_that_a_tool_answered_is_found_in_its_call() -> None:
    found = Evidence(status="found", tool_call=0, quote="K7Q2")

    assert evidence_of_number(of_call(), [tool_call(number="K7Q2")]) == found
    assert evidence_of_number(of_call(quote="2026-05-01"), [tool_call()], "2026-05-01").tool_call == 0


@pytest.mark.parametrize(
    ("claimed", "calls"),
    [
        (of_call(), [tool_call(number="K7Q3")]),
        (of_call(), [tool_call("failed", number="K7Q2")]),
        (of_call(), [tool_call("timeout", number="K7Q2")]),
        (of_call(1), [tool_call(number="K7Q2")]),
        (of_call(-1), [tool_call(number="K7Q2")]),
        (of_call(True), [tool_call(number="K7Q2")]),
        (of_call("0"), [tool_call(number="K7Q2")]),
        (of_call(quote=None), [tool_call(number="K7Q2")]),
        (of_call(quote=""), [tool_call(number="K7Q2")]),
        (of_call(quote="7Q2"), [tool_call(number="K7Q2")]),
        (of_call(), []),
    ],
    ids=["another", "failed", "timeout", "index", "negative", "boolean", "text", "no quote", "empty", "part", "none"],
)
def test_a_claim_that_no_successful_call_holds_is_unverified(claimed: JsonValue, calls: list[ToolCall]) -> None:
    assert evidence_of_number(claimed, calls) == UNVERIFIED


def test_what_only_an_agent_with_tools_says_is_unverified_without_a_successful_call() -> None:
    spoken = claim("number", quote="your number is K7Q2")

    assert evidence_of_number(spoken, []) == UNVERIFIED
    assert evidence_of_number(spoken, [tool_call("failed", number="K7Q2")]) == UNVERIFIED
    assert evidence_of_number(spoken, [tool_call(number="K7Q2")]).role == "agent"


def test_what_the_agent_was_told_or_the_caller_said_needs_no_tool() -> None:
    window = claim("number", quote="at the window")

    assert evidence_of_number(window, [], "the window").status == "found"
    assert evidence_of_number(claim("number", turn=0, quote="A table for six"), [], "six").status == "found"


def test_without_tools_the_agent_s_words_are_found() -> None:
    assert evidence_of_number(claim("number", quote="K7Q2"), [], told=None).status == "found"


def test_a_value_that_is_not_in_the_words_cannot_be_checked_and_is_found() -> None:
    assert evidence_of_number(claim("number", quote="Done"), [], value=True).status == "found"
    assert evidence_of_number(claim("number", quote="Done"), [], value="confirmed").status == "found"


def test_the_schema_asks_for_tool_calls_only_where_there_are_some() -> None:
    def entry(schema: Any) -> Any:
        return schema["properties"]["evidence"]["items"]["properties"].keys()

    assert "tool_call" not in entry(with_evidence({}))
    assert "tool_call" in entry(with_evidence({}, has_tool_calls=True))

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from pi_voice import transcript
from pi_voice.evidence import leaves
from pi_voice.sessions import Evidence
from pi_voice.transcript import Turn
from pi_voice.windows import OVERLAP_TURNS, Part, merged, split


def said(*lengths: int) -> list[Turn]:
    """Say turns that take so many characters each, as the model gets them."""
    turns: list[Turn] = []
    for number, length in enumerate(lengths):
        [line] = transcript.lines([{"role": "user", "text": ""}], number)
        turns.append({"role": "user", "text": "x" * (length - len(line))})
    return turns


def sizes(turns: list[Turn]) -> list[int]:
    """Return how many characters each turn takes as the model gets it."""
    return [len(line) for line in transcript.lines(turns)]


def cut(turns: list[Turn], characters: int) -> list[tuple[int, int]]:
    """Return which turns each window has: the first, and the one after the last."""
    return [(window.first, window.first + len(window.turns)) for window in split(turns, characters)]


# ---- Cutting --------------------------------------------------------------------------------------------


def test_a_call_that_fits_is_one_window() -> None:
    assert cut(said(100, 100, 100), 300) == [(0, 3)]
    assert cut(said(100), 300) == [(0, 1)]


def test_one_character_more_makes_two_windows_that_share_turns() -> None:
    assert cut(said(100, 100, 100), 299) == [(0, 2), (1, 3)]


def test_neighbours_share_four_turns_where_these_leave_room() -> None:
    assert cut(said(*[100] * 20), 1_000) == [(0, 10), (6, 16), (12, 20)]
    assert OVERLAP_TURNS == 4


def test_neighbours_share_fewer_turns_where_four_leave_no_room() -> None:
    assert cut(said(100, 400, 400, 100, 900), 1_000) == [(0, 4), (3, 5)]
    assert cut(said(500, 500, 900), 1_000) == [(0, 2), (2, 3)]


def test_a_turn_that_is_longer_than_a_window_is_one_alone() -> None:
    assert cut(said(100, 5_000, 100), 1_000) == [(0, 1), (1, 2), (2, 3)]
    assert cut(said(5_000), 1_000) == [(0, 1)]
    assert cut(said(5_000, 5_000), 1_000) == [(0, 1), (1, 2)]


@given(st.lists(st.integers(60, 400), min_size=1, max_size=60), st.integers(100, 2_000))
def test_every_turn_is_in_some_window_in_order_and_no_window_is_too_long(lengths: list[int], characters: int) -> None:
    turns = said(*lengths)

    windows = split(turns, characters)

    assert windows[0].first == 0
    assert windows[-1].first + len(windows[-1].turns) == len(turns)
    for window in windows:
        assert list(window.turns) == turns[window.first : window.first + len(window.turns)]
        assert len(window.turns) == 1 or sum(sizes(turns)[window.first :][: len(window.turns)]) <= characters
    for before, after in pairwise(windows):
        end = before.first + len(before.turns)
        assert before.first < after.first <= end < after.first + len(after.turns)
        assert end - after.first <= OVERLAP_TURNS


@given(st.lists(st.integers(60, 400), min_size=1, max_size=30))
def test_with_room_enough_nothing_is_cut(lengths: list[int]) -> None:
    assert cut(said(*lengths), sum(lengths)) == [(0, len(lengths))]


def test_a_window_goes_on_as_long_as_the_next_turn_fits() -> None:
    for first, end in cut(said(*[100] * 20), 450)[:-1]:
        assert end - first == 4


# ---- Merging --------------------------------------------------------------------------------------------


def whole(*results: JsonValue) -> JsonValue:
    """Merge what parts gave, without evidence."""
    return merged([Part(each, {}) for each in results]).results


@pytest.mark.parametrize(
    ("earlier", "later", "both"),
    [
        ("Oslo", "Bergen", "Bergen"),
        ("Oslo", None, "Oslo"),
        (None, "Bergen", "Bergen"),
        (None, None, None),
        (1, 0, 0),
        (True, False, False),
        ("Oslo", "", ""),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 1}, {"b": 2, "c": 2}, {"a": 1, "b": 2, "c": 2}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": 1}, {"a": None}, {"a": 1}),
        ({"a": 1}, {}, {"a": 1}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, None, {"a": 1}),
        (None, {"a": 1}, {"a": 1}),
        ([1, 2], [2, 3], [1, 2, 3]),
        ([1, 2], [], [1, 2]),
        ([], [1], [1]),
        ([1], None, [1]),
        ([1, 1], [1], [1, 1]),
        ([{"n": 1}], [{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 2}]),
        ([{"n": 1}], [{"n": 1, "m": None}], [{"n": 1}, {"n": 1, "m": None}]),
        ([1], "x", "x"),
        ("x", [1], [1]),
        ({"a": 1}, "x", "x"),
        ([], {}, []),
    ],
    ids=str,
)
def test_two_parts_become_one(earlier: JsonValue, later: JsonValue, both: JsonValue) -> None:
    assert whole(earlier, later) == both


def test_of_several_parts_the_last_word_counts() -> None:
    assert whole({"city": "Oslo"}, {"city": "Bergen"}, {"city": None}, {"city": "Bodø"}) == {"city": "Bodø"}


def test_one_part_stays_as_it_is() -> None:
    only = Part({"a": [1, {"b": None}], "c": {}}, {"a.0": Evidence(status="found", turn=1, quote="x")})

    assert merged([only]) == only


def found(turn: int, quote: str = "x") -> Evidence:
    return Evidence(status="found", turn=turn, quote=quote)


NOT_MENTIONED = Evidence(status="not_mentioned")
UNVERIFIED = Evidence(status="unverified")


def evidence_of(*told: tuple[JsonValue, Evidence]) -> Evidence:
    """Return what is known of one value that several parts told of."""
    return merged([Part({"it": value}, {"it": evidence}) for value, evidence in told]).fields["it"]


def test_two_parts_that_found_different_values_conflict() -> None:
    told = evidence_of(("Oslo", found(1)), ("Bergen", found(9, "Bergen")))

    assert told == Evidence(status="conflicting", turn=9, quote="Bergen")


def test_a_conflict_stays_one_whatever_later_parts_find() -> None:
    for last in ("Oslo", "Bergen", "Bodø"):
        assert evidence_of(("Oslo", found(1)), ("Bergen", found(5)), (last, found(9))) == Evidence(
            status="conflicting", turn=9, quote="x"
        )


def test_two_parts_that_found_the_same_value_agree() -> None:
    assert evidence_of(("Oslo", found(1)), ("Oslo", found(9))) == found(9)


@pytest.mark.parametrize("earlier", [(None, NOT_MENTIONED), ("Bergen", UNVERIFIED), (None, found(1))], ids=str)
def test_what_an_earlier_part_did_not_find_is_no_conflict(earlier: tuple[JsonValue, Evidence]) -> None:
    assert evidence_of(earlier, ("Oslo", found(9))) == found(9)


@pytest.mark.parametrize("later", [UNVERIFIED, Evidence(status="conflicting", turn=9, quote="y")], ids=str)
def test_a_later_value_brings_its_own_evidence(later: Evidence) -> None:
    assert evidence_of(("Oslo", found(1)), ("Bergen", later)) == later


def test_a_value_that_stays_keeps_its_evidence() -> None:
    assert evidence_of(("Oslo", found(1)), (None, NOT_MENTIONED)) == found(1)


def test_evidence_travels_with_its_item_to_the_place_that_it_has_in_the_whole() -> None:
    first = Part({"items": [{"n": "a"}, {"n": "b"}]}, {"items.0.n": found(1), "items.1.n": found(2)})
    second = Part({"items": [{"n": "b"}, {"n": "c"}]}, {"items.0.n": found(7), "items.1.n": found(8)})
    third = Part({"items": [{"n": "d"}]}, {"items.0.n": found(9)})

    together = merged([first, second, third])

    assert together.results == {"items": [{"n": "a"}, {"n": "b"}, {"n": "c"}, {"n": "d"}]}
    assert together.fields == {
        "items.0.n": found(1),
        "items.1.n": found(2),
        "items.2.n": found(8),
        "items.3.n": found(9),
    }


def test_what_was_empty_and_is_not_any_more_has_no_evidence_of_its_own_left() -> None:
    together = merged([Part({"items": []}, {"items": NOT_MENTIONED}), Part({"items": ["a"]}, {"items.0": found(3)})])

    assert together.fields == {"items.0": found(3)}


VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.lists(
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3).map(
        lambda results: Part(results, {path: found(len(path)) for path, _ in leaves(results)})
    ),
    min_size=1,
    max_size=4,
)


@given(PARTS)
def test_every_value_of_the_whole_has_its_evidence_and_nothing_else_has(parts: list[Part]) -> None:
    together = merged(parts)

    assert together.fields.keys() == {path for path, _ in leaves(together.results)}


@given(PARTS)
def test_a_part_that_comes_twice_changes_no_value(parts: list[Part]) -> None:
    assert merged([*parts, parts[-1]]).results == merged(parts).results

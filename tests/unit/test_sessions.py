import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from pi_voice.domain.agents import Behaviors, OwnedAgent
from pi_voice.domain.errors import TtlTooShort
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import WorkspaceId
from pi_voice.domain.session_api import (
    AddParticipantRequest,
    CompleteSessionRequest,
    CreateSessionRequest,
    ListSessionsQuery,
    SaveTranscriptRequest,
)
from pi_voice.domain.sessions import CallLimits, ReopenedRoom, Session, state_of, summary_of
from tests.unit.examples import AGENT_ID, GIVEN_UP, NOW, SESSION_ID, TURNS, agent, ending, new_session, session

ABSENT = object()
CAPS = st.integers(60, 1800)
TTLS = st.integers(60, 3600)


def agreed(ttl: int | object, cap: int | object | None, agent_s_cap: int | None) -> CallLimits:
    """Settle the terms of a request that may leave fields out."""
    said = {"ttl_seconds": ttl, "max_duration_seconds": cap}
    fields: dict[str, JsonValue] = {name: value for name, value in said.items() if value is not ABSENT}  # type: ignore[misc]
    return CallLimits.agree(new_session(**fields), Behaviors(max_duration_seconds=agent_s_cap))


# ---- The duration and ttl rule --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl", "cap", "agent_s_cap", "terms"),
    [
        (ABSENT, ABSENT, None, CallLimits(600, None)),
        (ABSENT, ABSENT, 600, CallLimits(600, 600)),
        (ABSENT, 300, 600, CallLimits(600, 300)),
        (ABSENT, None, 600, CallLimits(600, None)),
        (ABSENT, None, 1800, CallLimits(600, None)),
        (60, None, 1800, CallLimits(60, None)),
        (60, 60, 1800, CallLimits(60, 60)),
        (900, 900, None, CallLimits(900, 900)),
        (3600, ABSENT, 1800, CallLimits(3600, 1800)),
        (3600, 1800, 60, CallLimits(3600, 1800)),
    ],
)
def test_the_terms_of_a_call_are_the_request_s_else_the_agent_s(
    ttl: object, cap: object, agent_s_cap: int | None, terms: CallLimits
) -> None:
    assert agreed(ttl, cap, agent_s_cap) == terms


@pytest.mark.parametrize(
    ("ttl", "cap", "agent_s_cap"),
    [(ABSENT, 601, None), (ABSENT, ABSENT, 601), (599, 600, None), (1799, ABSENT, 1800), (60, 61, 60)],
)
def test_connections_that_would_expire_before_the_call_may_end_are_refused(
    ttl: object, cap: object, agent_s_cap: int | None
) -> None:
    with pytest.raises(TtlTooShort):
        agreed(ttl, cap, agent_s_cap)


@given(TTLS, CAPS, st.none() | CAPS)
def test_a_cap_of_the_request_s_own_wins_over_the_agent_s(ttl: int, cap: int, agent_s_cap: int | None) -> None:
    if ttl >= cap:
        assert agreed(ttl, cap, agent_s_cap) == CallLimits(ttl, cap)
    else:
        with pytest.raises(TtlTooShort):
            agreed(ttl, cap, agent_s_cap)


@given(TTLS, CAPS)
def test_the_agent_s_cap_holds_where_the_request_says_none(ttl: int, agent_s_cap: int) -> None:
    if ttl >= agent_s_cap:
        assert agreed(ttl, ABSENT, agent_s_cap) == CallLimits(ttl, agent_s_cap)
    else:
        with pytest.raises(TtlTooShort):
            agreed(ttl, ABSENT, agent_s_cap)


@given(TTLS, st.none() | CAPS)
def test_a_cap_of_null_is_no_cap_whatever_the_agent_says(ttl: int, agent_s_cap: int | None) -> None:
    assert agreed(ttl, None, agent_s_cap) == CallLimits(ttl, None)


@given(TTLS, st.none() | CAPS | st.just(ABSENT), st.none() | CAPS)
def test_a_ttl_that_is_refused_comes_with_one_that_is_not(ttl: int, cap: object, agent_s_cap: int | None) -> None:
    try:
        agreed(ttl, cap, agent_s_cap)
    except TtlTooShort as refusal:
        advised = re.search(r"Ask for a ttl_seconds of at least (\d+)\.$", refusal.message)
        assert advised is not None
        smallest = int(advised[1])
        assert agreed(smallest, cap, agent_s_cap).ttl_seconds == smallest
        with pytest.raises(TtlTooShort):
            agreed(smallest - 1, cap, agent_s_cap)


# ---- What a caller asks for -----------------------------------------------------------------------------


def refusals(
    model: type[CreateSessionRequest | AddParticipantRequest | CompleteSessionRequest | SaveTranscriptRequest],
    **fields: JsonValue,
) -> list[str]:
    """Return the places that are refused, none when the request is fine."""
    required: dict[str, JsonValue] = {
        "NewSession": {"agent_id": AGENT_ID, "participant": {"identity": "caller-1"}},
        "NewParticipant": {"identity": "colleague"},
        "Ending": {"transcript": []},
        "Checkpoint": {},
    }
    try:
        model.model_validate_json(json.dumps({**dict(required[model.__name__]), **fields}))  # type: ignore[arg-type]
    except ValidationError as error:
        return [".".join(str(step) for step in fault["loc"]) for fault in error.errors()]
    return []


def test_a_session_needs_an_agent_and_a_participant_and_nothing_else() -> None:
    order = CreateSessionRequest.model_validate_json('{"agent_id": "a", "participant": {"identity": "caller-1"}}')

    assert order.participant.name == ""
    assert order.ttl_seconds == 600
    assert order.max_duration_seconds is None
    assert order.media == ("microphone",)
    assert order.metadata == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"ttl_seconds": 60},
        {"ttl_seconds": 3600},
        {"max_duration_seconds": 60},
        {"max_duration_seconds": 1800},
        {"max_duration_seconds": None},
        {"participant": {"identity": "i"}},
        {"participant": {"identity": "i" * 128, "name": "n" * 128}},
        {"participant": {"identity": "i", "name": ""}},
        {"media": ["microphone"]},
        {"media": ["microphone", "camera"]},
        {"media": ["camera", "microphone"]},
        {"metadata": {"order": "4711"}},
    ],
    ids=str,
)
def test_a_session_s_fields_are_taken_up_to_their_bounds(fields: dict[str, JsonValue]) -> None:
    assert refusals(CreateSessionRequest, **fields) == []


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"agent_id": None}, "agent_id"),
        ({"agent_id": 7}, "agent_id"),
        ({"ttl_seconds": 59}, "ttl_seconds"),
        ({"ttl_seconds": 3601}, "ttl_seconds"),
        ({"ttl_seconds": None}, "ttl_seconds"),
        ({"ttl_seconds": "600"}, "ttl_seconds"),
        ({"ttl_seconds": 600.5}, "ttl_seconds"),
        ({"ttl_seconds": True}, "ttl_seconds"),
        ({"max_duration_seconds": 59}, "max_duration_seconds"),
        ({"max_duration_seconds": 1801}, "max_duration_seconds"),
        ({"max_duration_seconds": "900"}, "max_duration_seconds"),
        ({"max_duration_seconds": 900.5}, "max_duration_seconds"),
        ({"max_duration_seconds": False}, "max_duration_seconds"),
        ({"participant": None}, "participant"),
        ({"participant": "caller-1"}, "participant"),
        ({"participant": {}}, "participant.identity"),
        ({"participant": {"identity": ""}}, "participant.identity"),
        ({"participant": {"identity": " "}}, "participant.identity"),
        ({"participant": {"identity": "i" * 129}}, "participant.identity"),
        ({"participant": {"identity": 1}}, "participant.identity"),
        ({"participant": {"identity": "i", "name": "n" * 129}}, "participant.name"),
        ({"participant": {"identity": "i", "name": None}}, "participant.name"),
        ({"participant": {"identity": "i", "kind": "agent"}}, "participant.kind"),
        ({"participant": {"identity": "i", "hidden": True}}, "participant.hidden"),
        ({"media": []}, "media"),
        ({"media": ["camera"]}, "media"),
        ({"media": ["microphone", "microphone"]}, "media"),
        ({"media": ["microphone", "camera", "camera"]}, "media"),
        ({"media": ["microphone", "screen_share"]}, "media.1"),
        ({"media": "microphone"}, "media"),
        ({"media": None}, "media"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"room": "another"}, "room"),
        ({"client_token": "pi_sess_x"}, "client_token"),
    ],
    ids=str,
)
def test_a_session_s_field_that_is_out_of_bounds_is_named(fields: dict[str, JsonValue], place: str) -> None:
    assert refusals(CreateSessionRequest, **fields) == [place]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"identity": ""}, "identity"),
        ({"identity": "i" * 129}, "identity"),
        ({"identity": None}, "identity"),
        ({"name": "n" * 129}, "name"),
        ({"name": 1}, "name"),
        ({"media": []}, "media"),
        ({"media": ["camera"]}, "media"),
        ({"roomConfig": {}}, "roomConfig"),
    ],
    ids=str,
)
def test_another_participant_is_held_to_the_same_bounds(fields: dict[str, JsonValue], place: str) -> None:
    assert refusals(AddParticipantRequest, identity="i" * 128, name="n" * 128, media=["microphone", "camera"]) == []
    assert refusals(AddParticipantRequest, **fields) == [place]


@pytest.mark.parametrize("status", ["active", "completed", "failed", None])
def test_sessions_are_listed_by_a_status_that_there_is(status: str | None) -> None:
    assert ListSessionsQuery.model_validate({"status": status} if status else {}).status == status


@pytest.mark.parametrize("status", ["", "Active", "ended", "pending"])
def test_sessions_are_listed_by_no_other_status(status: str) -> None:
    with pytest.raises(ValidationError):
        ListSessionsQuery.model_validate({"status": status})


# ---- What a client tells at the end ---------------------------------------------------------------------


def test_an_ending_needs_a_transcript_and_nothing_else() -> None:
    end = CompleteSessionRequest.model_validate_json('{"transcript": []}')

    assert (end.transcript, end.duration_seconds, end.end_reason) == ([], None, "completed")


@pytest.mark.parametrize(
    "fields",
    [
        {"transcript": [{"role": "agent", "text": ""}, {"role": "user", "text": "Hi", "start_ms": 0, "end_ms": 1}]},
        {"transcript": [{"role": "user", "text": "Hi", "start_ms": None, "end_ms": None}]},
        {"duration_seconds": None},
        {"duration_seconds": 0},
        {"duration_seconds": 86_400},
        {"duration_seconds": 12.5},
        {"end_reason": "x"},
        {"end_reason": "hang_up_2"},
        {"end_reason": "r" * 40},
    ],
    ids=str,
)
def test_an_ending_s_fields_are_taken_up_to_their_bounds(fields: dict[str, JsonValue]) -> None:
    assert refusals(CompleteSessionRequest, **fields) == []


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"transcript": {}}, "transcript"),
        ({"transcript": "Hi"}, "transcript"),
        ({"transcript": ["Hi"]}, "transcript.0"),
        ({"transcript": [{"role": "user"}]}, "transcript.0.text"),
        ({"transcript": [{"text": "Hi"}]}, "transcript.0.role"),
        ({"transcript": [{"role": "model", "text": "Hi"}]}, "transcript.0.role"),
        ({"transcript": [{"role": "User", "text": "Hi"}]}, "transcript.0.role"),
        ({"transcript": [{"role": "user", "text": None}]}, "transcript.0.text"),
        ({"transcript": [{"role": "user", "text": 5}]}, "transcript.0.text"),
        ({"transcript": [{"role": "user", "text": "Hi", "start_ms": -1}]}, "transcript.0.start_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "start_ms": 1.5}]}, "transcript.0.start_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "end_ms": "9"}]}, "transcript.0.end_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "end_ms": True}]}, "transcript.0.end_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "speaker": "Kim"}]}, "transcript.0.speaker"),
        ({"duration_seconds": -0.001}, "duration_seconds"),
        ({"duration_seconds": 86_400.5}, "duration_seconds"),
        ({"duration_seconds": "60"}, "duration_seconds"),
        ({"duration_seconds": True}, "duration_seconds"),
        ({"end_reason": ""}, "end_reason"),
        ({"end_reason": "r" * 41}, "end_reason"),
        ({"end_reason": "Hang up"}, "end_reason"),
        ({"end_reason": "2late"}, "end_reason"),
        ({"end_reason": "done\n"}, "end_reason"),
        ({"end_reason": None}, "end_reason"),
        ({"results": {}}, "results"),
    ],
    ids=str,
)
def test_an_ending_s_field_that_is_out_of_bounds_is_named(fields: dict[str, JsonValue], place: str) -> None:
    assert refusals(CompleteSessionRequest, **fields) == [place]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("95", "95"),
        ("95.0", "95"),
        ("95.5", "95.5"),
        ("95.1234", "95.123"),
        ("95.9996", "96"),
        ("0.0001", "0"),
        ("-0.0", "0"),
        ("8.64e4", "86400"),
    ],
)
def test_a_duration_is_kept_to_the_millisecond_and_whole_seconds_as_whole_numbers(said: str, kept: str) -> None:
    end = CompleteSessionRequest.model_validate_json(f'{{"transcript": [], "duration_seconds": {said}}}')

    assert repr(end.duration_seconds) == kept


def test_an_ending_without_a_transcript_is_not_one_with_an_empty_transcript() -> None:
    assert CompleteSessionRequest.model_validate_json("{}").transcript is None
    assert CompleteSessionRequest.model_validate_json('{"transcript": null}').transcript is None
    assert CompleteSessionRequest.model_validate_json('{"transcript": []}').transcript == []


TURN = {"role": "user", "text": "Hi"}


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({"from": 0, "turns": [TURN]}, []),
        ({"from": 5_000, "turns": [TURN] * 500}, []),
        ({"from": 0, "turns": []}, ["turns"]),
        ({"from": 0, "turns": [TURN] * 501}, ["turns"]),
        ({"from": -1, "turns": [TURN]}, ["from"]),
        ({"from": 5_001, "turns": [TURN]}, ["from"]),
        ({"from": "0", "turns": [TURN]}, ["from"]),
        ({"from": True, "turns": [TURN]}, ["from"]),
        ({"turns": [TURN]}, ["from"]),
        ({"from": 0}, ["turns"]),
        ({"from": 0, "turns": [{"role": "user"}]}, ["turns.0.text"]),
        ({"from": 0, "turns": [TURN], "at": 0}, ["at"]),
        ({"from": 0, "turns": [TURN], "final": True}, ["final"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_checkpoint_is_some_turns_and_where_they_begin(fields: dict[str, JsonValue], places: list[str]) -> None:
    assert refusals(SaveTranscriptRequest, **fields) == places


# ---- A session's life -----------------------------------------------------------------------------------


def test_a_session_begins_active_with_the_version_of_its_agent_and_a_room_of_its_own_name() -> None:
    order = new_session(
        ttl_seconds=900,
        participant={"identity": "kim", "name": "Kim"},
        media=["microphone", "camera"],
        metadata={"order": "4711"},
    )
    owned = OwnedAgent(WorkspaceId("acme"), agent(version=7, behaviors={"max_duration_seconds": 300}))

    begun = Session.new(SESSION_ID, owned, order, NOW, grace_seconds=3_600)

    assert begun.status == "active"
    assert begun.workspace == "acme"
    assert (begun.agent_id, begun.agent_version) == (AGENT_ID, 7)
    assert (begun.ttl_seconds, begun.max_duration_seconds) == (900, 300)
    assert (begun.created_at, begun.expires_at) == (1_800_000_000, 1_800_000_900)
    assert (begun.given_up_at, begun.due_at) == (1_800_004_500, 1_800_004_500)
    assert begun.livekit.room_name == SESSION_ID
    assert begun.livekit.room_sid is None
    assert begun.media == ("microphone", "camera")
    assert begun.metadata == {"order": "4711"}


def test_a_session_notes_its_room() -> None:
    opened = session().opened("RM_xyz", started_at=NOW + 1)

    assert opened.livekit.room_sid == "RM_xyz"
    assert opened.livekit.started_at == 1_800_000_001
    assert opened.livekit.room_name == SESSION_ID


def test_a_session_that_fails_keeps_why() -> None:
    why = ErrorInfo(code="livekit_unavailable", message="Try again in a moment.")

    failed = session().failed(why, "failed", now=NOW + 5)

    assert failed.status == "failed"
    assert failed.failed_at == 1_800_000_005
    assert failed.end_reason == "failed"
    assert failed.due_at is None
    assert failed.failure == why


@pytest.mark.parametrize(
    ("changes", "is_on"),
    [
        ({}, True),
        ({"hung_up_at": NOW}, False),
        ({"status": "completed"}, False),
        ({"status": "failed"}, False),
        ({"expires_at": NOW - 1}, True),
    ],
    ids=str,
)
def test_a_call_is_on_until_it_ends_or_is_hung_up(changes: dict[str, Any], *, is_on: bool) -> None:
    assert replace(session(), **changes).is_on == is_on


@pytest.mark.parametrize(
    ("cap", "joined", "others", "over_at"),
    [
        (None, None, [], None),
        (None, NOW, [], None),
        (60, None, [], None),
        (60, NOW, [], NOW + 75),
        (60, NOW + 9, [NOW + 3, None], NOW + 78),
        (60, None, [None, NOW + 3], NOW + 78),  # nobody came before our room had closed
    ],
)
def test_a_call_is_over_its_cap_so_long_after_the_first_join_and_a_little_more(
    cap: int | None, joined: int | None, others: list[int | None], over_at: int | None
) -> None:
    rooms = [ReopenedRoom(room_sid=f"RM_{number}", first_joined_at=at) for number, at in enumerate(others)]
    facts = session().livekit.model_copy(update={"first_joined_at": joined, "other_rooms": rooms})
    call = replace(session(), max_duration_seconds=cap, livekit=facts)

    assert call.cap_ends_at == over_at
    assert call.next_due_at == (GIVEN_UP if over_at is None else over_at)
    assert replace(call, hung_up_at=NOW + 80).next_due_at == GIVEN_UP


def test_a_session_that_is_renewed_is_waited_for_longer() -> None:
    assert replace(session(), expires_at=NOW + 900).next_due_at == GIVEN_UP + 300


LISTED = {
    "session_id", "agent_id", "agent_version", "status", "participant", "max_duration_seconds", "ttl_seconds",
    "created_at", "expires_at", "completed_at", "failed_at", "failure", "duration_seconds", "end_reason",
    "completed_by", "hung_up_at", "checkpoint_turns", "livekit", "metadata",
}  # fmt: skip
ROOM = {"room_name", "room_sid", "started_at", "first_joined_at", "finished_at", "metadata", "other_rooms"}


def test_a_session_s_state_has_exactly_the_fields_of_the_contract() -> None:
    shown = json.loads(state_of(session(), None).model_dump_json())

    assert shown.keys() == LISTED | {"transcript", "results", "extraction"}
    assert shown["livekit"].keys() == ROOM
    assert shown["participant"] == {"identity": "caller-1", "name": "Kim"}


def test_a_list_shows_a_session_without_transcript_results_and_extraction() -> None:
    assert json.loads(summary_of(session()).model_dump_json()).keys() == LISTED


SKIPPED: dict[str, Any] = {
    "status": "skipped",
    "model": None,
    "attempts": 0,
    "error": None,
    "agent_version": None,
    "extracted_at": None,
    "milliseconds": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "cost_usd": None,
    "windows": 1,
    "fields": None,
    "transcript": None,
    "runs": [],
}


def test_a_session_s_state_shows_what_is_known_of_it() -> None:
    known = replace(
        session(),
        status="completed",
        completed_at=NOW + 60,
        completed_by="client",
        duration_seconds=55.5,
        end_reason="completed",
        results={"city": "Oslo"},
        extraction=Extraction(status="succeeded", model="m", attempts=1),
    )

    shown = json.loads(state_of(known, TURNS).model_dump_json())

    assert shown["transcript"] == [{"role": "agent", "text": "Which city?"}, {"role": "user", "text": "Oslo."}]
    assert shown["results"] == {"city": "Oslo"}
    assert shown["extraction"] == {**SKIPPED, "status": "succeeded", "model": "m", "attempts": 1}
    assert (shown["completed_at"], shown["completed_by"]) == (1_800_000_060, "client")
    assert shown["duration_seconds"] == 55.5


def test_an_extraction_that_was_skipped_took_no_model_and_no_attempt() -> None:
    skipped = replace(session(), status="completed", extraction=Extraction(status="skipped"))

    shown = json.loads(state_of(skipped, []).model_dump_json())

    assert shown["extraction"] == SKIPPED


def test_what_is_the_workspace_s_or_the_store_s_alone_is_never_shown() -> None:
    shown = state_of(replace(session(workspace="a-secret-name")), ending().transcript).model_dump_json()

    assert "a-secret-name" not in shown
    assert "transcript_id" not in shown

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue, ValidationError

from pi_voice.domain.agents import Behaviors, OwnedAgent
from pi_voice.domain.connection_api import AddParticipantRequest, CreateSessionRequest
from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import InvalidRequest, TranscriptTooLarge, TtlTooShort
from pi_voice.domain.extraction_api import PreviewExtractionRequest
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import WorkspaceId
from pi_voice.domain.session_api import ListSessionsQuery, Session, SessionSummary
from pi_voice.domain.sessions import ReopenedRoom
from pi_voice.domain.transcript_api import CompleteSessionRequest, SaveTranscriptRequest
from tests.unit.examples import (
    AGENT_ID,
    NOW,
    SESSION_ID,
    TURNS,
    agent,
    complete_session_request,
    create_session_request,
    session,
)

ABSENT = object()
CAPS = st.integers(60, 1800)
TTLS = st.integers(60, 3600)


def call_limit(ttl: int | object, limit: int | object | None, agent_limit: int | None) -> int | None:
    """Return the time limit of a call whose request may omit fields."""
    values = {"ttl_seconds": ttl, "max_duration_seconds": limit}
    fields: dict[str, JsonValue] = {name: value for name, value in values.items() if value is not ABSENT}  # type: ignore[misc]
    return create_session_request(**fields).call_limit(Behaviors(max_duration_seconds=agent_limit))


# ---- Time limit and ttl ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl", "requested", "agent_limit", "limit"),
    [
        (ABSENT, ABSENT, None, None),
        (ABSENT, ABSENT, 600, 600),
        (ABSENT, 300, 600, 300),
        (ABSENT, None, 600, None),
        (ABSENT, None, 1800, None),
        (60, None, 1800, None),
        (60, 60, 1800, 60),
        (900, 900, None, 900),
        (3600, ABSENT, 1800, 1800),
        (3600, 1800, 60, 1800),
    ],
)
def test_the_time_limit_is_that_of_the_request_or_else_of_the_agent(
    ttl: object, requested: object, agent_limit: int | None, limit: int | None
) -> None:
    assert call_limit(ttl, requested, agent_limit) == limit


@pytest.mark.parametrize(
    ("ttl", "requested", "agent_limit"),
    [(ABSENT, 601, None), (ABSENT, ABSENT, 601), (599, 600, None), (1799, ABSENT, 1800), (60, 61, 60)],
)
def test_a_ttl_below_the_time_limit_is_rejected(ttl: object, requested: object, agent_limit: int | None) -> None:
    with pytest.raises(TtlTooShort):
        call_limit(ttl, requested, agent_limit)


@given(TTLS, CAPS, st.none() | CAPS)
def test_a_time_limit_in_the_request_overrides_the_agent_s(ttl: int, requested: int, agent_limit: int | None) -> None:
    if ttl >= requested:
        assert call_limit(ttl, requested, agent_limit) == requested
    else:
        with pytest.raises(TtlTooShort):
            call_limit(ttl, requested, agent_limit)


@given(TTLS, CAPS)
def test_the_agent_s_time_limit_applies_if_the_request_has_none(ttl: int, agent_limit: int) -> None:
    if ttl >= agent_limit:
        assert call_limit(ttl, ABSENT, agent_limit) == agent_limit
    else:
        with pytest.raises(TtlTooShort):
            call_limit(ttl, ABSENT, agent_limit)


@given(TTLS, st.none() | CAPS)
def test_null_in_the_request_removes_the_agent_s_time_limit(ttl: int, agent_limit: int | None) -> None:
    assert call_limit(ttl, None, agent_limit) is None


@given(TTLS, st.none() | CAPS | st.just(ABSENT), st.none() | CAPS)
def test_the_error_for_a_short_ttl_names_the_smallest_accepted_one(
    ttl: int, requested: object, agent_limit: int | None
) -> None:
    try:
        call_limit(ttl, requested, agent_limit)
    except TtlTooShort as error:
        advised = re.search(r"Ask for a ttl_seconds of at least (\d+)\.$", error.message)
        assert advised is not None
        smallest = int(advised[1])
        call_limit(smallest, requested, agent_limit)
        with pytest.raises(TtlTooShort):
            call_limit(smallest - 1, requested, agent_limit)


# ---- Create requests ------------------------------------------------------------------------------------


def invalid_paths(
    model: type[CreateSessionRequest | AddParticipantRequest | CompleteSessionRequest | SaveTranscriptRequest],
    **fields: JsonValue,
) -> list[str]:
    """Return the paths of the validation errors; empty if the request is valid."""
    required: dict[str, JsonValue] = {
        "CreateSessionRequest": {"agent_id": AGENT_ID, "participant": {"identity": "caller-1"}},
        "AddParticipantRequest": {"identity": "colleague"},
        "CompleteSessionRequest": {"transcript": []},
        "SaveTranscriptRequest": {},
    }
    try:
        model.model_validate_json(json.dumps({**dict(required[model.__name__]), **fields}))  # type: ignore[arg-type]
    except ValidationError as error:
        return [".".join(str(step) for step in detail["loc"]) for detail in error.errors()]
    return []


def test_a_create_request_requires_an_agent_and_a_participant_only() -> None:
    request = CreateSessionRequest.model_validate_json('{"agent_id": "a", "participant": {"identity": "caller-1"}}')

    assert request.participant.name == ""
    assert request.ttl_seconds == 600
    assert request.max_duration_seconds is None
    assert request.media == ("microphone",)
    assert (request.metadata, request.client_metadata) == ({}, {})


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
        {"metadata": {"order": "4711"}, "client_metadata": {"order": "4711"}},
    ],
    ids=str,
)
def test_a_create_request_is_valid_within_the_bounds_of_its_fields(fields: dict[str, JsonValue]) -> None:
    assert invalid_paths(CreateSessionRequest, **fields) == []


@pytest.mark.parametrize(
    ("fields", "path"),
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
        ({"client_metadata": {"k": 1}}, "client_metadata.k"),
        ({"room": "another"}, "room"),
        ({"client_token": "pi_sess_x"}, "client_token"),
    ],
    ids=str,
)
def test_a_create_request_with_an_invalid_field_is_rejected_with_its_path(
    fields: dict[str, JsonValue], path: str
) -> None:
    assert invalid_paths(CreateSessionRequest, **fields) == [path]


@pytest.mark.parametrize(
    ("fields", "path"),
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
def test_an_added_participant_has_the_same_bounds(fields: dict[str, JsonValue], path: str) -> None:
    assert (
        invalid_paths(AddParticipantRequest, identity="i" * 128, name="n" * 128, media=["microphone", "camera"]) == []
    )
    assert invalid_paths(AddParticipantRequest, **fields) == [path]


@pytest.mark.parametrize("status", ["active", "completed", "failed", None])
def test_a_list_can_be_filtered_by_status(status: str | None) -> None:
    assert ListSessionsQuery.model_validate({"status": status} if status else {}).status == status


@pytest.mark.parametrize("status", ["", "Active", "ended", "pending"])
def test_a_list_cannot_be_filtered_by_an_unknown_status(status: str) -> None:
    with pytest.raises(ValidationError):
        ListSessionsQuery.model_validate({"status": status})


# ---- Complete and transcript requests -------------------------------------------------------------------


def test_a_complete_request_with_only_a_transcript_has_defaults() -> None:
    request = CompleteSessionRequest.model_validate_json('{"transcript": []}')

    assert (request.transcript, request.duration_seconds, request.end_reason) == ([], None, "completed")


@pytest.mark.parametrize(
    "fields",
    [
        {"transcript": [{"role": "agent", "text": ""}, {"role": "user", "text": "Hi", "start_ms": 0, "end_ms": 1}]},
        {"transcript": [{"role": "user", "text": "Hi", "start_ms": None, "end_ms": None}]},
        {"transcript": [{"role": "user", "text": "Hi", "start_ms": 86_400_000, "end_ms": 86_400_000}]},
        {"transcript": [{"role": "user", "text": "Hi", "start_ms": 2.5, "end_ms": 2}]},
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
def test_a_complete_request_is_valid_within_the_bounds_of_its_fields(fields: dict[str, JsonValue]) -> None:
    assert invalid_paths(CompleteSessionRequest, **fields) == []


def test_times_are_rounded_to_milliseconds() -> None:
    turn: JsonValue = {"role": "user", "text": "Hi", "start_ms": 1204.4999, "end_ms": 2000.5001}

    request = CompleteSessionRequest.model_validate_json(json.dumps({"transcript": [turn]}))

    assert request.transcript == [{"role": "user", "text": "Hi", "start_ms": 1204, "end_ms": 2001}]


def test_of_many_faulty_turns_the_first_fifty_faults_are_returned() -> None:
    paths = invalid_paths(CompleteSessionRequest, transcript=[{"role": "user"}] * 120)

    assert paths == [f"transcript.{number}.text" for number in range(50)]


@pytest.mark.parametrize("model", [CompleteSessionRequest, PreviewExtractionRequest])
def test_a_transcript_of_more_than_5000_turns_is_too_large(model: type[BaseModel]) -> None:
    turns: JsonValue = [{"role": "user", "text": "Hi"}] * 5_001

    with pytest.raises(TranscriptTooLarge, match="transcript is too large"):
        model.model_validate_json(json.dumps({"transcript": turns}))


@pytest.mark.parametrize(
    ("fields", "path"),
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
        ({"transcript": [{"role": "user", "text": "Hi", "start_ms": -0.6}]}, "transcript.0.start_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "start_ms": 86_400_001}]}, "transcript.0.start_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "start_ms": int("9" * 400)}]}, "transcript.0.start_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "end_ms": 1e300}]}, "transcript.0.end_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "start_ms": 5, "end_ms": 4}]}, "transcript.0.end_ms"),
        ({"transcript": [*[{"role": "user", "text": "Hi"}] * 150, {"role": "user"}]}, "transcript.150.text"),
        ({"transcript": [{"role": "user", "text": "Hi", "end_ms": "9"}]}, "transcript.0.end_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "end_ms": True}]}, "transcript.0.end_ms"),
        ({"transcript": [{"role": "user", "text": "Hi", "speaker": "Kim"}]}, "transcript.0.speaker"),
        ({"duration_seconds": -0.001}, "duration_seconds"),
        ({"duration_seconds": 86_400.5}, "duration_seconds"),
        ({"duration_seconds": "60"}, "duration_seconds"),
        ({"duration_seconds": True}, "duration_seconds"),
        ({"end_reason": ""}, "end_reason"),
        ({"end_reason": "r" * 81}, "end_reason"),
        ({"end_reason": "Hang up"}, "end_reason"),
        ({"end_reason": "2late"}, "end_reason"),
        ({"end_reason": "done\n"}, "end_reason"),
        ({"end_reason": None}, "end_reason"),
        ({"results": {}}, "results"),
    ],
    ids=str,
)
def test_a_complete_request_with_an_invalid_field_is_rejected_with_its_path(
    fields: dict[str, JsonValue], path: str
) -> None:
    assert invalid_paths(CompleteSessionRequest, **fields) == [path]


@pytest.mark.parametrize(
    ("sent", "parsed"),
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
def test_a_duration_is_rounded_to_milliseconds_and_whole_seconds_are_integers(sent: str, parsed: str) -> None:
    request = CompleteSessionRequest.model_validate_json(f'{{"transcript": [], "duration_seconds": {sent}}}')

    assert repr(request.duration_seconds) == parsed


def test_an_absent_transcript_differs_from_an_empty_one() -> None:
    assert CompleteSessionRequest.model_validate_json("{}").transcript is None
    assert CompleteSessionRequest.model_validate_json('{"transcript": null}').transcript is None
    assert CompleteSessionRequest.model_validate_json('{"transcript": []}').transcript == []


TURN = {"role": "user", "text": "Hi"}


@pytest.mark.parametrize(
    ("fields", "paths"),
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
def test_a_transcript_request_has_turns_and_the_index_of_the_first(
    fields: dict[str, JsonValue], paths: list[str]
) -> None:
    assert invalid_paths(SaveTranscriptRequest, **fields) == paths


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"created_after": "0"},
        {"created_before": "0"},
        {"created_after": "1800000000", "created_before": "1800000001"},
        {"created_after": "253370764800"},
        {"participant": "x" * 128, "status": "failed", "agent_id": "", "limit": "1"},
    ],
    ids=str,
)
def test_a_list_query_is_valid_within_the_bounds_of_its_fields(query: dict[str, str]) -> None:
    ListSessionsQuery.model_validate(query)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"created_after": "-1"}, "created_after"),
        ({"created_after": "253370764801"}, "created_after"),
        ({"created_after": "9" * 400}, "created_after"),
        ({"created_after": "1.5"}, "created_after"),
        ({"created_before": ""}, "created_before"),
        ({"created_before": "2026-11-29"}, "created_before"),
        ({"created_after": "5", "created_before": "5"}, "created_before"),
        ({"created_after": "6", "created_before": "5"}, "created_before"),
        ({"participant": ""}, "participant"),
        ({"participant": " "}, "participant"),
        ({"participant": "x" * 129}, "participant"),
        ({"status": "deleted"}, "status"),
        ({"created": "5"}, "created"),
    ],
    ids=str,
)
def test_an_invalid_field_of_a_list_query_has_an_error_with_its_name(query: dict[str, str], path: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ListSessionsQuery.model_validate(query)

    assert [error["loc"] for error in raised.value.errors()] == [(path,)]


# ---- States of a session --------------------------------------------------------------------------------


def test_a_new_session_is_active_with_the_agent_s_version_and_a_room_named_by_its_id() -> None:
    request = create_session_request(
        ttl_seconds=900,
        participant={"identity": "kim", "name": "Kim"},
        media=["microphone", "camera"],
        metadata={"order": "4711"},
        client_metadata={"page": "checkout"},
    )
    owned = OwnedAgent(WorkspaceId("acme"), agent(version=7, behaviors={"max_duration_seconds": 300}))

    created = request.new_session(SESSION_ID, owned, NOW, grace_seconds=3_600)

    assert created.status == "active"
    assert created.workspace == "acme"
    assert (created.agent_id, created.agent_version) == (AGENT_ID, 7)
    assert (created.ttl_seconds, created.max_duration_seconds) == (900, 300)
    assert (created.created_at, created.expires_at) == (1_800_000_000, 1_800_000_900)
    assert (created.abandoned_at, created.duties.due_at) == (1_800_004_500, 1_800_004_500)
    assert created.livekit.room_name == SESSION_ID
    assert created.livekit.room_sid is None
    assert created.media == ("microphone", "camera")
    assert (created.metadata, created.client_metadata) == ({"order": "4711"}, {"page": "checkout"})


def test_what_a_session_is_created_with_takes_at_most_80_000_bytes() -> None:
    owned = OwnedAgent(WorkspaceId("acme"), agent())
    pairs: JsonValue = {f"{number:02}" + "\U0001f642" * 38: "\U0001f642" * 500 for number in range(16)}
    largest: dict[str, JsonValue] = {"metadata": pairs, "client_metadata": pairs}
    questions: JsonValue = ["q" * 500] * 50

    for fields in (
        largest,
        {"overrides": {"questions": questions, "greeting": "g" * 1000, "closing_message": "c" * 1000}},
        {"overrides": {"questions": ["東" * 500] * 50}},
    ):
        created = create_session_request(**fields).new_session(SESSION_ID, owned, NOW, grace_seconds=3_600)
        assert created.status == "active"
    for fields in (
        {**largest, "overrides": {"questions": questions}},
        {"overrides": {"questions": ["\U0001f642" * 500] * 50}},
    ):
        with pytest.raises(InvalidRequest) as raised:
            create_session_request(**fields).new_session(SESSION_ID, owned, NOW, grace_seconds=3_600)
        assert "80,000" in raised.value.details[0].message


def test_a_session_shows_its_overrides_whatever_its_version_knew() -> None:
    stored = replace(session(), overrides={"voice": {"name": "Tomorrow", "pitch": 1}, "greeting": "Hi", "mood": "calm"})

    shown = json.loads(Session.of_stored(stored, None, []).model_dump_json())["overrides"]

    assert shown == {
        "language": None,
        "voice": {"name": "Tomorrow", "language_code": None},
        "greeting": "Hi",
        "closing_message": None,
        "questions": None,
    }


def test_a_new_session_without_a_time_limit_is_hung_up_an_hour_and_15_seconds_after_its_creation() -> None:
    owned = OwnedAgent(WorkspaceId("acme"), agent(behaviors={"max_duration_seconds": 300}))

    limited, unlimited = (
        create_session_request(**limit).new_session(SESSION_ID, owned, NOW, grace_seconds=86_400)
        for limit in ({}, {"max_duration_seconds": None})
    )

    assert limited.duties.get("hang_up") is None  # the first join sets it
    assert unlimited.duties.get("hang_up") == Duty(1_800_003_615)


def test_an_opened_session_has_the_room_that_livekit_created() -> None:
    opened = session().opened("RM_xyz", started_at=NOW + 1)

    assert opened.livekit.room_sid == "RM_xyz"
    assert opened.livekit.started_at == 1_800_000_001
    assert opened.livekit.room_name == SESSION_ID


def test_a_failed_session_has_the_reason_of_the_failure() -> None:
    failure = ErrorInfo(code="livekit_unavailable", message="...")

    failed = session().failed(failure, "failed", now=NOW + 5)

    assert failed.status == "failed"
    assert failed.failed_at == 1_800_000_005
    assert failed.end_reason == "failed"
    assert failed.duties == Duties().plus(send_events=NOW + 15)
    assert [(event.type, event.at) for event in failed.owed_events] == [("session.failed", NOW + 5)]
    assert failed.failure == failure


@pytest.mark.parametrize(
    ("changes", "is_ongoing"),
    [
        ({}, True),
        ({"hung_up_at": NOW}, False),
        ({"status": "completed"}, False),
        ({"status": "failed"}, False),
        ({"expires_at": NOW - 1}, True),
    ],
    ids=str,
)
def test_a_call_is_ongoing_until_it_ends_or_is_hung_up(changes: dict[str, Any], *, is_ongoing: bool) -> None:
    assert replace(session(), **changes).is_ongoing == is_ongoing


@pytest.mark.parametrize(
    ("cap", "joined", "other_joins", "ends_at"),
    [
        (None, None, [], NOW + 3_615),
        (None, NOW + 9, [], NOW + 3_615),
        (60, None, [], None),
        (60, NOW, [], NOW + 75),
        (60, NOW + 9, [NOW + 3, None], NOW + 78),
        (60, None, [None, NOW + 3], NOW + 78),  # the first room closed before anyone joined
    ],
)
def test_a_call_ends_15_seconds_after_its_limit_from_the_first_join_or_after_an_hour_from_its_creation(
    cap: int | None, joined: int | None, other_joins: list[int | None], ends_at: int | None
) -> None:
    rooms = [ReopenedRoom(room_sid=f"RM_{number}", first_joined_at=at) for number, at in enumerate(other_joins)]
    room = session().livekit.model_copy(update={"first_joined_at": joined, "other_rooms": rooms})
    call = replace(session(), max_duration_seconds=cap, livekit=room)

    assert call.call_ends_at == ends_at


SUMMARY_FIELDS = {
    "session_id", "agent_id", "agent_version", "status", "participant", "max_duration_seconds", "ttl_seconds",
    "created_at", "expires_at", "completed_at", "failed_at", "failure", "duration_seconds", "end_reason",
    "completed_by", "hung_up_at", "checkpoint_turns", "livekit", "metadata", "client_metadata",
}  # fmt: skip
FIELDS_OF_ONE = {
    *("transcript", "tool_calls", "results", "extraction", "recordings"),
    *("variables", "time_zone", "overrides", "usage"),
}
ROOM_FIELDS = {"room_name", "room_sid", "started_at", "first_joined_at", "finished_at", "metadata", "other_rooms"}


def test_a_session_response_has_exactly_the_fields_of_the_contract() -> None:
    document = json.loads(Session.of_stored(session(), None, []).model_dump_json())

    assert document.keys() == SUMMARY_FIELDS | FIELDS_OF_ONE
    assert document["livekit"].keys() == ROOM_FIELDS
    assert document["participant"] == {"identity": "caller-1", "name": "Kim"}


def test_a_summary_has_no_transcript_results_or_extraction() -> None:
    assert json.loads(SessionSummary.of(session()).model_dump_json()).keys() == SUMMARY_FIELDS


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
    "fields": None,
    "transcript": None,
    "runs": [],
}


def test_a_completed_session_is_returned_with_transcript_results_and_extraction() -> None:
    completed = replace(
        session(),
        status="completed",
        completed_at=NOW + 60,
        completed_by="client",
        duration_seconds=55.5,
        end_reason="completed",
        results={"city": "Oslo"},
        extraction=Extraction(status="succeeded", model="m", attempts=1),
    )

    document = json.loads(Session.of_stored(completed, TURNS, []).model_dump_json())

    assert document["transcript"] == [{"role": "agent", "text": "Which city?"}, {"role": "user", "text": "Oslo."}]
    assert document["results"] == {"city": "Oslo"}
    assert document["extraction"] == {**SKIPPED, "status": "succeeded", "model": "m", "attempts": 1}
    assert (document["completed_at"], document["completed_by"]) == (1_800_000_060, "client")
    assert document["duration_seconds"] == 55.5


def test_a_skipped_extraction_has_no_model_and_no_attempts() -> None:
    skipped = replace(session(), status="completed", extraction=Extraction(status="skipped"))

    document = json.loads(Session.of_stored(skipped, [], []).model_dump_json())

    assert document["extraction"] == SKIPPED


def test_workspace_and_transcript_id_are_never_returned() -> None:
    document = Session.of_stored(
        replace(session(workspace="a-secret-name")), complete_session_request().transcript, []
    ).model_dump_json()

    assert "a-secret-name" not in document
    assert "transcript_id" not in document

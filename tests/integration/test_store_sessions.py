"""Sessions in DynamoDB: stored fields, and the conditions of each write."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import ErrorDetail, SessionNotFound
from pi_voice.domain.extractions import ErrorInfo, Evidence, Extraction, ExtractionRun, TranscriptQuality
from pi_voice.domain.ids import SessionId, TranscriptId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Participant, Session, SessionCompletion
from tests.integration.samples import (
    NOW,
    TURNS,
    UNPROVISIONED,
    a_call_end,
    a_session,
    added,
    deleted,
    found,
    without_events,
)
from tests.integration.store import Store, never_sent, sent_twice

run = asyncio.run

SUCCEEDED = Extraction(status="succeeded", model="gemini-3.5-flash-lite", attempts=2)
STILL_PENDING = Extraction(
    status="pending", model="m", attempts=3, error=ErrorInfo(code="gemini_unavailable", message="Away.")
)
FAILED = Extraction(
    status="failed", model="m", attempts=3, error=ErrorInfo(code="gemini_error", message='Say "ä" again.')
)
ROOM_STILL_OPEN = Duties().plus(close_room=NOW + 320)


def done_extracting(duties: Duties) -> Duties:
    return duties.without("extract")


def retried_later(duties: Duties) -> Duties:
    return duties.moved("extract", NOW + 3_800)


def completed(store: Store, end: SessionCompletion | None = None) -> Session:
    session = run(store.sessions.complete(added(store), end or a_call_end()))
    assert session is not None
    return session


# ---- A new session ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_duration_seconds": None, "metadata": {}},
        {"participant": Participant(identity="x", name="")},
        {"participant": Participant(identity="🙂" * 128, name="\t" * 128)},
        {"metadata": {f"{number:040}": "é" * 500 for number in range(16)}},
        {"client_metadata": {f"{number:040}": "é" * 500 for number in range(16)}},
        {"variables": {"guest": 'Ana "\\\n\x00 🙂', "room": 0.1, "floor": -2, "large": 2**53 - 1, "vip": False}},
        {"time_zone": "America/Sao_Paulo"},
        {"overrides": {"greeting": "", "voice": {"name": "Leda"}, "questions": ["Por quê?"]}},
    ],
)
def test_a_session_is_returned_as_it_was_stored(store: Store, changes: dict[str, Any]) -> None:
    session = added(store, **changes)

    assert run(store.sessions.get(session.session_id)) == session


def test_a_session_that_could_not_be_provisioned_is_returned_with_its_failure(store: Store) -> None:
    session = a_session()
    session = a_session(livekit=session.livekit.model_copy(update={"room_sid": None, "started_at": None})).failed(
        UNPROVISIONED, "failed", NOW + 3
    )

    run(store.sessions.add(session))

    assert run(store.sessions.get(session.session_id)) == session


def test_a_new_row_has_exactly_these_attributes(store: Store) -> None:
    row = store.row_of(added(store))

    assert set(row) == {
        "agent_id",
        "agent_version",
        "checkpoint_bytes",
        "checkpoint_turns",
        "client_metadata",
        "created_at",
        "due_at",
        "due_shard",
        "duties",
        "expires_at",
        "grace_seconds",
        "livekit",
        "max_duration_seconds",
        "media",
        "metadata",
        "participant_identity",
        "participant_name",
        "renewals",
        "session_id",
        "status",
        "time_zone",
        "tool_call_bytes",
        "tool_calls",
        "ttl_seconds",
        "workspace",
    }


def test_variables_and_overrides_are_stored_as_json_and_not_in_lists(store: Store) -> None:
    session = added(store, variables={"room": 0.1}, overrides={"greeting": "Olá"})

    row = store.row_of(session)
    [listed] = run(store.sessions.page(session.workspace, ListSessionsQuery())).data

    assert (row["variables"], row["overrides"]) == ({"S": '{"room":0.1}'}, {"S": '{"greeting":"Olá"}'})
    assert (listed.variables, listed.overrides) == ({}, {})


def test_variables_and_overrides_stay_when_the_session_is_completed_and_go_with_it(store: Store) -> None:
    session = added(store, variables={"guest": "Ana"}, overrides={"greeting": "Olá"})

    done = run(store.sessions.complete(session, a_call_end()))
    assert done is not None
    assert (done.variables, done.overrides) == ({"guest": "Ana"}, {"greeting": "Olá"})

    deleted(store, session)

    assert "Ana" not in json.dumps(store.row_of(session))
    assert "Olá" not in json.dumps(store.row_of(session), ensure_ascii=False)


def test_an_unknown_session_is_none(store: Store) -> None:
    added(store)

    assert run(store.sessions.get(SessionId(uuid7()))) is None


@pytest.mark.parametrize("session_id", ["", "session", "{session_id}", "0" * 32, "A" * 2_000])
def test_an_invalid_session_id_sends_no_request(store: Store, session_id: str) -> None:
    assert run(store.through(get_item=never_sent).sessions.get(SessionId(session_id))) is None


def test_a_new_session_whose_first_response_was_lost_is_stored_once(store: Store) -> None:
    session = a_session()

    run(store.through(put_item=sent_twice).sessions.add(session))

    assert run(store.sessions.get(session.session_id)) == session


def test_adding_an_existing_session_does_not_change_it(store: Store) -> None:
    session = a_session()

    assert run(store.sessions.add(session))
    assert not run(store.sessions.add(session.failed(UNPROVISIONED, "failed", NOW)))

    assert run(store.sessions.get(session.session_id)) == session


# ---- Completing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration_seconds", [None, 0, 1, 0.001, 0.1, 123.457, 86_399.999, 86_400])
def test_an_active_session_is_completed_with_all_fields_of_the_completion(
    store: Store, duration_seconds: float | None
) -> None:
    session = added(store)
    end = a_call_end(duration_seconds=duration_seconds)

    done = run(store.sessions.complete(session, end))

    assert done is not None
    assert done == run(store.sessions.get(session.session_id))
    assert done.status == "completed"
    assert done.completed_at == end.completed_at
    assert done.completed_by == end.completed_by
    assert done.end_reason == end.end_reason
    assert done.transcript_id == end.transcript_id
    assert done.turns == end.turns
    assert done.extraction == end.extraction
    assert without_events(done.duties) == Duties().plus(close_room=end.recheck_at, extract=end.recheck_at)
    assert done.duration_seconds == duration_seconds
    assert type(done.duration_seconds) is type(duration_seconds)


def test_a_kept_room_is_to_be_closed_at_its_end_and_not_when_the_extraction_is_rechecked(store: Store) -> None:
    session, end = added(store), a_call_end(room_ends_at=NOW + 3_615)

    assert run(store.sessions.complete(session, end))

    kept = found(store, session)
    assert (kept.room_ends_at, without_events(kept.duties)) == (
        NOW + 3_615,
        Duties().plus(close_room=NOW + 3_615, extract=end.recheck_at),
    )


def test_completing_a_hung_up_call_keeps_the_reason_of_the_hang_up(store: Store) -> None:
    session = added(store)
    run(store.sessions.hang_up(session, "cap", NOW + 75))

    done = run(store.sessions.complete(session, a_call_end(end_reason="client_timer")))

    assert done is not None
    assert (done.end_reason, done.hung_up_at) == ("cap", NOW + 75)


@pytest.mark.parametrize(("known", "wins"), [(None, True), (3, True), (2, False), (0, False), (4, False)])
def test_a_session_is_completed_only_with_all_its_checkpoints_or_with_the_clients_transcript(
    store: Store, known: int | None, *, wins: bool
) -> None:
    session = added(store)
    run(store.checkpoints.append(session, TURNS, 100, NOW))

    done = run(store.sessions.complete(session, a_call_end(checkpoint_turns=known)))

    assert (done is not None) == wins
    found = run(store.sessions.get(session.session_id))
    assert found is not None
    assert found.status == ("completed" if wins else "active")


def test_a_session_without_checkpoints_is_completed_with_none(store: Store) -> None:
    session = added(store)

    assert run(store.sessions.complete(session, a_call_end(checkpoint_turns=0))) is not None


def test_completing_a_session_keeps_its_other_fields(store: Store) -> None:
    session = added(store)

    done = run(store.sessions.complete(session, a_call_end()))

    assert done is not None
    for field in (
        "workspace",
        "agent_id",
        "agent_version",
        "participant",
        "livekit",
        "media",
        "metadata",
        "client_metadata",
        "max_duration_seconds",
    ):
        assert getattr(done, field) == getattr(session, field)


def test_a_completed_session_is_not_completed_again_and_its_transcript_stays(store: Store) -> None:
    first = a_call_end()
    done = completed(store, first)

    assert run(store.sessions.complete(done, a_call_end())) is None
    assert run(store.sessions.get(done.session_id)) == done


def test_a_failed_session_cannot_be_completed(store: Store) -> None:
    failed = a_session().failed(UNPROVISIONED, "failed", NOW)
    run(store.sessions.add(failed))

    assert run(store.sessions.complete(failed, a_call_end())) is None
    assert run(store.sessions.get(failed.session_id)) == failed


def test_completing_an_unknown_session_creates_none(store: Store) -> None:
    assert run(store.sessions.complete(a_session(), a_call_end())) is None
    assert store.rows(store.names.sessions) == []


def test_a_completion_whose_first_response_was_lost_succeeds(store: Store) -> None:
    session = added(store)
    end = a_call_end()

    done = run(store.through(update_item=sent_twice).sessions.complete(session, end))

    assert done is not None
    assert done.transcript_id == end.transcript_id
    assert done == run(store.sessions.get(session.session_id))


def test_repeating_a_completion_returns_the_current_session(store: Store) -> None:
    end = a_call_end()
    done = completed(store, end)
    saved = run(store.sessions.save_extraction(done, {"age": 42}, SUCCEEDED, done_extracting))

    assert run(store.sessions.complete(done, end)) == saved


def test_one_of_50_concurrent_completions_on_a_table_of_1000_wins_with_its_transcript(store: Store) -> None:
    session = added(store)
    row = store.row_of(session)
    store.fill_sessions({**row, "session_id": {"S": uuid7()}} for _ in range(999))
    ends = [a_call_end(end_reason=f"call_{number}") for number in range(50)]

    def complete(end: SessionCompletion) -> Session | None:
        async def attempt() -> Session | None:
            await store.transcripts.put(session.session_id, end.transcript_id, TURNS)
            return await store.sessions.complete(session, end)

        return run(attempt())

    with ThreadPoolExecutor(max_workers=50) as callers:
        outcomes = list(callers.map(complete, ends))

    winners = [(outcome, end) for outcome, end in zip(outcomes, ends, strict=True) if outcome is not None]
    assert len(winners) == 1
    done, end = winners[0]
    assert done == run(store.sessions.get(session.session_id))
    assert (done.transcript_id, done.end_reason) == (end.transcript_id, end.end_reason)
    assert run(store.transcripts.get(session.session_id, end.transcript_id)) == TURNS


def test_a_concurrent_room_event_is_stored_beside_the_completion(store: Store) -> None:
    session = added(store)
    end = a_call_end()

    async def both() -> None:
        await asyncio.gather(
            store.sessions.complete(session, end),
            store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", finished_at=NOW + 99)),
        )

    run(both())

    done = run(store.sessions.get(session.session_id))
    assert done is not None
    assert done.status == "completed"
    assert done.livekit.finished_at == NOW + 99


# ---- Results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "results",
    [
        None,
        {},
        [],
        "",
        "just text",
        0,
        False,
        12345678901234567890123456789012345678901234567890,
        -1.5e-300,
        0.1,
        1e308,
        {"age": None, "names": [], "address": {}, "": "empty key"},
        {"quote": 'She said: "naïve" \\ \n\u2028 \x00 🎂 \U0010ffff'},
        {"$where": {"#": {":v": {"a.b": [1, 2.5, None, True, {"deep": "er"}]}}}},
        json.loads("[" * 60 + "]" * 60),
    ],
)
def test_results_are_returned_exactly_as_they_were_stored(store: Store, results: JsonValue) -> None:
    done = completed(store)

    saved = run(store.sessions.save_extraction(done, results, SUCCEEDED, done_extracting))

    assert saved == run(store.sessions.get(done.session_id))
    assert saved.results == results
    assert json.dumps(saved.results) == json.dumps(results)
    assert saved.extraction == SUCCEEDED
    assert saved.transcript_id == done.transcript_id
    assert without_events(saved.duties) == ROOM_STILL_OPEN


def test_a_failed_extraction_is_stored_with_its_error_and_without_results(store: Store) -> None:
    done = completed(store)

    saved = run(store.sessions.save_extraction(done, None, FAILED, done_extracting))

    assert (saved.extraction, without_events(saved.duties)) == (FAILED, ROOM_STILL_OPEN)
    assert "results" not in store.row_of(done)


def test_a_pending_extraction_stays_due(store: Store) -> None:
    done = completed(store)

    saved = run(store.sessions.save_extraction(done, None, STILL_PENDING, retried_later))

    assert saved.extraction == STILL_PENDING
    assert without_events(saved.duties) == ROOM_STILL_OPEN.plus(extract=NOW + 3_800)


def test_results_whose_first_response_was_lost_are_stored_once(store: Store) -> None:
    done = completed(store)

    saved = run(
        store.through(update_item=sent_twice).sessions.save_extraction(done, {"age": 42}, SUCCEEDED, done_extracting)
    )

    assert saved == run(store.sessions.get(done.session_id))
    assert (saved.results, saved.extraction) == ({"age": 42}, SUCCEEDED)


@pytest.mark.parametrize("first", [SUCCEEDED, FAILED, STILL_PENDING], ids=lambda extraction: extraction.status)
def test_the_first_of_two_concurrent_extractions_wins_and_the_second_gets_its_results(
    store: Store, first: Extraction
) -> None:
    done = completed(store)
    saved = run(store.sessions.save_extraction(done, {"age": 42}, first, retried_later))

    assert run(store.sessions.save_extraction(done, {"age": 7}, SUCCEEDED, done_extracting)) == saved
    assert run(store.sessions.get(done.session_id)) == saved


def test_a_later_attempt_that_read_the_stored_extraction_replaces_it(store: Store) -> None:
    saved = run(store.sessions.save_extraction(completed(store), None, STILL_PENDING, retried_later))

    again = run(store.sessions.save_extraction(saved, {"age": 42}, SUCCEEDED, done_extracting))

    assert (again.results, again.extraction, without_events(again.duties)) == ({"age": 42}, SUCCEEDED, ROOM_STILL_OPEN)


def test_one_of_many_concurrent_extractions_is_stored(store: Store) -> None:
    done = completed(store)

    def save(number: int) -> Session:
        return run(store.sessions.save_extraction(done, {"age": number}, SUCCEEDED, done_extracting))

    with ThreadPoolExecutor(max_workers=8) as workers:
        outcomes = list(workers.map(save, range(16)))

    assert len({json.dumps(outcome.results) for outcome in outcomes}) == 1
    assert run(store.sessions.get(done.session_id)) == outcomes[0]


@pytest.mark.parametrize("transcript_id", [None, TranscriptId("another")])
def test_results_of_another_transcript_are_not_stored(store: Store, transcript_id: TranscriptId | None) -> None:
    done = completed(store)

    assert (
        run(
            store.sessions.save_extraction(
                replace(done, transcript_id=transcript_id), {"age": 42}, SUCCEEDED, done_extracting
            )
        )
        == done
    )
    assert run(store.sessions.get(done.session_id)) == done


def test_results_of_an_active_session_are_not_stored(store: Store) -> None:
    session = added(store)

    assert run(store.sessions.save_extraction(session, {"age": 42}, SUCCEEDED, done_extracting)) == session
    assert run(store.sessions.get(session.session_id)) == session


def test_results_after_the_deletion_do_not_restore_the_session(store: Store) -> None:
    done = completed(store)
    deleted(store, done)
    tombstone = store.row_of(done)

    with pytest.raises(SessionNotFound):
        run(store.sessions.save_extraction(done, {"age": 42}, SUCCEEDED, done_extracting))
    assert store.row_of(done) == tombstone


VIOLATION = ErrorInfo(
    code="schema_violation", message="See details.", details=[ErrorDetail(path="a.0", message='Say "ä".')]
)
IN_FULL = Extraction(
    status="failed",
    model="gemini-3.5-flash-lite",
    attempts=7,
    error=VIOLATION,
    agent_version=3,
    extracted_at=NOW + 300,
    milliseconds=1_234,
    input_tokens=900_000,
    output_tokens=16_384,
    cost_usd=0.311_04,
    fields={
        "name": Evidence(status="found", turn=0, quote="Ich heiße «Zoë» 🙂"),
        "items.0.n": Evidence(status="conflicting", turn=4_999, quote="x"),
        "none": Evidence(status="not_mentioned"),
        "made.up": Evidence(status="unverified"),
    },
    transcript=TranscriptQuality(
        agent_turns=2,
        user_turns=1,
        user_is_silent=False,
        repeated_turns=1,
        gaps=2,
        longest_gap_seconds=12.5,
        coverage=0.98,
    ),
    runs=[
        ExtractionRun(at=NOW + 300, status="failed", agent_version=None, model=None, results=None, error=VIOLATION),
        ExtractionRun(
            at=NOW + 200,
            status="succeeded",
            agent_version=3,
            model="m",
            results={"pain": 1e21, "deep": [[[{"x": [1.0, None]}]]], "text": "\x00 é"},
            error=None,
        ),
    ],
)


def test_an_extraction_with_all_fields_is_returned_as_it_was_stored(store: Store) -> None:
    done = completed(store)

    saved = run(store.sessions.save_extraction(done, {"age": 42}, IN_FULL, done_extracting))

    assert saved == run(store.sessions.get(done.session_id))
    assert saved.extraction == IN_FULL


def test_an_extraction_with_all_fields_can_be_replaced(store: Store) -> None:
    saved = run(store.sessions.save_extraction(completed(store), None, IN_FULL, done_extracting))

    again = run(store.sessions.save_extraction(saved, {"age": 42}, SUCCEEDED, done_extracting))

    assert (again.results, again.extraction) == ({"age": 42}, SUCCEEDED)


def test_default_values_are_not_stored(store: Store) -> None:
    done = completed(store)

    assert store.row_of(done)["extraction"] == {"S": '{"status":"pending"}'}


# ---- Retention --------------------------------------------------------------------------------------


def test_without_a_retention_a_session_never_expires(store: Store) -> None:
    assert "ttl" not in store.row_of(added(store))


def test_with_a_retention_a_session_expires_that_many_days_after_its_creation_whatever_changes(
    store: Store,
) -> None:
    session = a_session()
    sessions = store.sessions_kept(days=30)
    expiry = {"N": str(NOW + 30 * 86_400)}

    run(sessions.add(session))
    assert store.row_of(session)["ttl"] == expiry

    done = run(sessions.complete(session, a_call_end()))
    assert done is not None
    run(sessions.merge_room_event(RoomEvent(session.session_id, "RM_ours", finished_at=NOW)))
    run(sessions.save_extraction(done, {}, SUCCEEDED, done_extracting))
    assert store.row_of(session)["ttl"] == expiry

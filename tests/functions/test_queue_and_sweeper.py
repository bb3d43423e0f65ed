"""The queue worker, and the sweeper that runs every minute."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from local import template
from pi_voice.domain.sweeps import SweepSessionsResult
from tests.functions.api import GRACE_SECONDS, Api
from tests.functions.front import Front, without_gemini
from tests.functions.work import Work, message
from tests.support.moto_server import MotoServer
from tests.support.template import ROOT

TURNS = [{"role": "agent", "text": "For how many?"}, {"role": "user", "text": "For 4, please."}]


def a_call(api: Api) -> dict[str, Any]:
    return api.session(api.agent(output_schema={"guests": "integer"}), max_duration_seconds=600)


def state_of(api: Api, session: dict[str, Any]) -> Any:
    return api.get(f"/sessions/{session['session_id']}").data


@pytest.fixture
def pending(api: Api, front: Front, work: Work) -> dict[str, Any]:
    """A completed session whose extraction is pending, because Gemini was unavailable."""
    session = a_call(api)
    with without_gemini(api, front) as broken:
        answer = broken.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)
    assert (answer.status, answer.json["extraction"]["status"]) == (200, "pending")
    assert work.waiting() == [session["session_id"]]
    return session


# ---- The worker -------------------------------------------------------------------------------------


def test_results_that_gemini_did_not_return_at_once_come_from_the_queue(
    api: Api, work: Work, pending: dict[str, Any]
) -> None:
    assert work.deliver() == []

    state = state_of(api, pending)
    assert state["results"]["guests"] == 4
    extraction = state["extraction"]
    assert (extraction["status"], extraction["model"]) == ("succeeded", "stand-in")
    assert (extraction["attempts"], extraction["error"]) == (2, None)
    assert work.waiting() == []


def test_a_pending_extraction_has_its_attempts_and_the_error(
    api: Api, front: Front, work: Work, pending: dict[str, Any]
) -> None:
    with without_gemini(api, front):
        assert work.deliver(5) == [pending["session_id"]]

    extraction = state_of(api, pending)["extraction"]
    assert (extraction["status"], extraction["attempts"]) == ("pending", 2)
    assert (extraction["error"]["code"], extraction["error"]["details"]) == ("gemini_unavailable", [])
    assert work.waiting() == []  # hidden during a pause of minutes


def test_the_last_delivery_fails_the_extraction_and_a_redrive_still_returns_results(
    api: Api, front: Front, work: Work, pending: dict[str, Any]
) -> None:
    with without_gemini(api, front):
        assert work.deliver(6) == [pending["session_id"]]
    assert state_of(api, pending)["extraction"]["status"] == "failed"

    work.put(pending["session_id"])
    assert work.deliver() == []
    assert state_of(api, pending)["results"]["guests"] == 4


def test_an_extraction_refused_by_gemini_fails_without_a_retry(
    api: Api, front: Front, work: Work, pending: dict[str, Any]
) -> None:
    with without_gemini(api, front, status=400):
        assert work.deliver() == []

    extraction = state_of(api, pending)["extraction"]
    assert (extraction["status"], extraction["error"]["code"]) == ("failed", "gemini_error")


def test_a_duplicate_message_changes_nothing(api: Api, work: Work, pending: dict[str, Any]) -> None:
    body = json.dumps({"session_id": pending["session_id"]})
    work.deliver()
    once = state_of(api, pending)

    assert api.functions.invoke("extract_results", {"Records": [message(body), message(body)]}) == {
        "batchItemFailures": []
    }
    assert state_of(api, pending) == once


def test_a_message_for_a_deleted_session_is_ignored(api: Api, work: Work, pending: dict[str, Any]) -> None:
    assert api.delete(f"/sessions/{pending['session_id']}").status == 204

    assert work.deliver() == []
    assert work.waiting() == []


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"session_id": 7}', "not json", '{"session_id": null}'])
def test_a_malformed_message_fails_and_so_becomes_a_dead_letter(api: Api, work: Work, body: str) -> None:
    records = [message(body, message_id="m-7")]

    assert api.functions.invoke("extract_results", {"Records": records}) == {
        "batchItemFailures": [{"itemIdentifier": "m-7"}]
    }
    assert work.waiting() == []


def test_only_failed_messages_of_a_batch_are_delivered_again(api: Api, work: Work, pending: dict[str, Any]) -> None:
    good = message(json.dumps({"session_id": pending["session_id"]}), message_id="m-1")

    answer = api.functions.invoke("extract_results", {"Records": [message("?", message_id="m-0"), good]})

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-0"}]}
    assert state_of(api, pending)["results"]["guests"] == 4
    assert work.waiting() == [pending["session_id"]]  # the worker does not delete it; Lambda does


def test_the_pause_after_a_failure_doubles_up_to_15_minutes(api: Api, moto: MotoServer) -> None:
    with watching_pauses(moto) as pauses:
        for delivery in range(1, 7):
            api.functions.invoke("extract_results", {"Records": [message("?", delivery)]})

    for pause, longest in zip(pauses, [30, 60, 120, 240, 480, 900], strict=True):
        assert 0.74 * longest <= pause <= longest


@contextmanager
def watching_pauses(moto: MotoServer) -> Iterator[list[int]]:
    """Record the pauses that a worker sets at the queue."""
    pauses: list[int] = []

    def note(operation: str, params: dict[str, Any]) -> None:
        if operation == "ChangeMessageVisibility":
            pauses.append(params["VisibilityTimeout"])

    moto.listeners.append(note)
    yield pauses
    moto.listeners.remove(note)


def test_an_expired_receipt_handle_does_not_hide_the_failure(api: Api, work: Work, logged: io.StringIO) -> None:
    assert work.waiting() == []

    answer = api.functions.invoke("extract_results", {"Records": [message("?", receipt="gone")]})

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-1"}]}
    assert "message_not_delayed" in logged.getvalue()


def test_the_queue_delivers_a_message_six_times() -> None:
    queues = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "ws://127.0.0.1"}).queues

    assert {queue.max_receives for queue in queues if queue.dead_letters} == {6}


# ---- The sweeper ------------------------------------------------------------------------------------

NOTHING = SweepSessionsResult().model_dump()


def swept(work: Work) -> dict[str, int]:
    """Run the schedule, and return what it did, apart from events, which are due after ten seconds."""
    return {**work.sweep(), "events_queued": 0}


def test_an_abandoned_session_is_completed_with_its_checkpoints_and_gets_results(api: Api, work: Work) -> None:
    session = a_call(api)
    assert (
        api.client_of(session).post(f"/sessions/{session['session_id']}/transcript", {"from": 0, "turns": TURNS}).status
        == 200
    )
    work.advance(session["session_id"], 600 + GRACE_SECONDS)

    assert swept(work) == {**NOTHING, "completed": 1}

    state = state_of(api, session)
    assert (state["status"], state["completed_by"], state["end_reason"]) == ("completed", "sweeper", "expired")
    assert (state["transcript"], state["extraction"]["status"]) == (TURNS, "pending")
    assert swept(work) == {**NOTHING, "rooms_closed": 1, "queued": 1}
    assert work.deliver() == []
    state = state_of(api, session)
    assert (state["results"]["guests"], state["extraction"]["attempts"]) == (4, 1)
    assert swept(work) == NOTHING


def test_the_event_of_a_saved_turn_is_queued_by_the_sweeper_and_then_dispatched(
    api: Api, work: Work, dynamodb: DynamoDBClient
) -> None:
    session_id = a_call(api)["session_id"]
    assert api.post(f"/sessions/{session_id}/transcript", {"from": 0, "turns": TURNS}).status == 200
    work.advance(session_id, 11)
    table, key = os.environ["VOICE_SESSIONS_TABLE"], {"session_id": {"S": session_id}}
    owed = dynamodb.get_item(TableName=table, Key=key)["Item"]
    assert [event["M"]["type"]["S"] for event in owed["owed_events"]["L"]] == ["session.started"]

    assert work.sweep()["events_queued"] >= 1
    record = message(json.dumps({"session_id": session_id}))
    assert work.functions.invoke("dispatch_events", {"Records": [record]}) == {"batchItemFailures": []}

    row = dynamodb.get_item(TableName=table, Key=key)["Item"]
    assert "owed_events" not in row
    assert row["duties"]["M"].keys() == owed["duties"]["M"].keys() - {"send_events"}


def test_an_abandoned_session_without_checkpoints_fails_with_the_reason(api: Api, work: Work) -> None:
    session = a_call(api)
    work.advance(session["session_id"], 600 + GRACE_SECONDS)

    assert swept(work) == {**NOTHING, "failed": 1}

    state = state_of(api, session)
    assert (state["status"], state["end_reason"], state["failure"]["code"]) == ("failed", "expired", "expired")
    assert swept(work) == {**NOTHING, "rooms_closed": 1}
    assert swept(work) == NOTHING


def test_a_session_is_not_ended_before_its_grace_time_is_over(api: Api, work: Work) -> None:
    session = a_call(api)
    work.advance(session["session_id"], 600 + GRACE_SECONDS - 300)

    assert swept(work) == NOTHING
    assert api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS).json["results"]["guests"] == 4


def test_an_extraction_lost_in_a_crash_is_queued_again(api: Api, front: Front, work: Work) -> None:
    session = a_call(api)
    with without_gemini(api, front) as broken:
        assert broken.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS).status == 200
    work.delete_all()

    assert swept(work) == NOTHING
    work.advance(session["session_id"], 3_600)
    assert swept(work) == {**NOTHING, "rooms_closed": 1, "queued": 1}
    assert work.deliver() == []
    assert state_of(api, session)["results"]["guests"] == 4


def test_all_of_a_deleted_session_is_gone_once_its_tokens_have_expired(
    api: Api, work: Work, dynamodb: DynamoDBClient
) -> None:
    session = a_call(api)
    assert api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS).status == 200
    assert api.delete(f"/sessions/{session['session_id']}").status == 204
    late = {"session_id": {"S": session["session_id"]}, "piece": {"S": "transcript#late#000"}, "data": {"B": b"said"}}
    dynamodb.put_item(TableName=os.environ["VOICE_TRANSCRIPTS_TABLE"], Item=late)  # by a request that lost a race

    assert swept(work) == {**NOTHING, "rooms_closed": 1}
    work.advance(session["session_id"], 900)
    assert swept(work) == {**NOTHING, "deleted": 1, "rooms_closed": 1}  # once more: no token is good any more
    assert swept(work) == NOTHING

    for table in dynamodb.list_tables()["TableNames"]:
        items = dynamodb.scan(TableName=table)["Items"]
        assert not [item for item in items if {"S": session["session_id"]} in item.values()]


def test_a_sweep_without_due_sessions_does_nothing(work: Work) -> None:
    assert swept(work) == NOTHING

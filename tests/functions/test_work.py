"""What nobody calls: the worker of the queue, and the sweeper that runs every minute."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local import template
from pi_voice.entrypoints.events import MAX_DELIVERIES
from tests.functions.conftest import GRACE_SECONDS, ROOT, Api
from tests.functions.providers import Providers
from tests.functions.test_providers_failing import Front, led_to
from tests.functions.work import Work, message
from tests.moto_server import MotoServer

TURNS = [{"role": "agent", "text": "For how many?"}, {"role": "user", "text": "For 4, please."}]


@pytest.fixture
def front(providers: Providers) -> Front:
    return Front(providers)


AWAY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3600s"}
"""More than any extraction has, so that each asks once."""


@contextmanager
def without_gemini(api: Api, front: Front, status: int = 503) -> Iterator[Api]:
    """Let Gemini be away for a while."""
    with (
        front.answering(status, json.dumps({"error": {"message": "do not tell", "details": [AWAY]}})) as url,
        led_to(api, GOOGLE_GEMINI_BASE_URL=url) as broken,
    ):
        yield broken


def a_call(api: Api) -> dict[str, Any]:
    return api.session(api.agent(output_schema={"guests": "integer"}))


def state_of(api: Api, session: dict[str, Any]) -> Any:
    return api.get(f"/sessions/{session['session_id']}").data


@pytest.fixture
def pending(api: Api, front: Front, work: Work) -> dict[str, Any]:
    """A completed session whose results could not be had while the caller waited."""
    session = a_call(api)
    with without_gemini(api, front) as broken:
        answer = broken.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)
    assert (answer.status, answer.json["extraction"]["status"]) == (200, "pending")
    assert work.waiting() == [session["session_id"]]
    return session


# ---- The worker -------------------------------------------------------------------------------------


def test_results_that_could_not_be_had_at_once_come_from_the_queue(
    api: Api, work: Work, pending: dict[str, Any]
) -> None:
    assert work.deliver() == []

    state = state_of(api, pending)
    assert state["results"]["guests"] == 4
    extraction = state["extraction"]
    assert (extraction["status"], extraction["model"]) == ("succeeded", "stand-in")
    assert (extraction["attempts"], extraction["error"]) == (2, None)
    assert work.waiting() == []


def test_while_gemini_is_away_the_session_tells_how_often_it_was_asked_and_why(
    api: Api, front: Front, work: Work, pending: dict[str, Any]
) -> None:
    with without_gemini(api, front):
        assert work.deliver(MAX_DELIVERIES - 1) == [pending["session_id"]]

    extraction = state_of(api, pending)["extraction"]
    assert (extraction["status"], extraction["attempts"]) == ("pending", 2)
    assert extraction["error"] == {
        "code": "gemini_unavailable",
        "message": "Gemini cannot be reached or is busy. Try again in a moment.",
        "details": [],
    }
    assert work.waiting() == []  # hidden, for a pause, which is one of minutes by now


def test_the_last_delivery_gives_up_and_a_redrive_brings_the_results_all_the_same(
    api: Api, front: Front, work: Work, pending: dict[str, Any]
) -> None:
    with without_gemini(api, front):
        assert work.deliver(MAX_DELIVERIES) == [pending["session_id"]]
    assert state_of(api, pending)["extraction"]["status"] == "failed"

    work.put(pending["session_id"])
    assert work.deliver() == []
    assert state_of(api, pending)["results"]["guests"] == 4


def test_what_gemini_refuses_fails_at_once_with_its_reason_and_is_not_tried_again(
    api: Api, front: Front, work: Work, pending: dict[str, Any]
) -> None:
    with without_gemini(api, front, status=400):
        assert work.deliver() == []

    extraction = state_of(api, pending)["extraction"]
    assert (extraction["status"], extraction["error"]["code"]) == ("failed", "gemini_error")
    assert "output schema" in extraction["error"]["message"]


def test_a_message_that_comes_twice_changes_nothing_twice(api: Api, work: Work, pending: dict[str, Any]) -> None:
    body = json.dumps({"session_id": pending["session_id"]})
    work.deliver()
    once = state_of(api, pending)

    assert api.functions.invoke("extract_results", {"Records": [message(body), message(body)]}) == {
        "batchItemFailures": []
    }
    assert state_of(api, pending) == once


def test_a_message_about_a_session_that_was_deleted_is_dropped(api: Api, work: Work, pending: dict[str, Any]) -> None:
    api.delete(f"/sessions/{pending['session_id']}")

    assert work.deliver() == []
    assert work.waiting() == []


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"session_id": 7}', "not json", '{"session_id": null}'])
def test_a_message_that_is_no_job_is_told_as_failed_and_becomes_a_dead_letter(api: Api, work: Work, body: str) -> None:
    records = [message(body, message_id="m-7")]

    assert api.functions.invoke("extract_results", {"Records": records}) == {
        "batchItemFailures": [{"itemIdentifier": "m-7"}]
    }
    assert work.waiting() == []


def test_of_several_messages_only_those_that_failed_come_again(api: Api, work: Work, pending: dict[str, Any]) -> None:
    good = message(json.dumps({"session_id": pending["session_id"]}), message_id="m-1")

    answer = api.functions.invoke("extract_results", {"Records": [message("?", message_id="m-0"), good]})

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-0"}]}
    assert state_of(api, pending)["results"]["guests"] == 4
    assert work.waiting() == [pending["session_id"]]  # as far as this worker is concerned; Lambda deletes it


def test_a_failure_is_followed_by_a_pause_that_doubles_up_to_a_quarter_of_an_hour(api: Api, moto: MotoServer) -> None:
    with watching_pauses(moto) as pauses:
        for delivery in range(1, MAX_DELIVERIES + 1):
            api.functions.invoke("extract_results", {"Records": [message("?", delivery)]})

    for pause, longest in zip(pauses, [30, 60, 120, 240, 480, 900], strict=True):
        assert 0.74 * longest <= pause <= longest


@contextmanager
def watching_pauses(moto: MotoServer) -> Iterator[list[int]]:
    """Listen to what a worker asks of the queue."""
    pauses: list[int] = []

    def note(operation: str, params: dict[str, Any]) -> None:
        if operation == "ChangeMessageVisibility":
            pauses.append(params["VisibilityTimeout"])

    moto.listeners.append(note)
    yield pauses
    moto.listeners.remove(note)


def test_a_receipt_that_is_none_any_more_does_not_hide_the_failure(api: Api, work: Work, logged: io.StringIO) -> None:
    assert work.waiting() == []

    answer = api.functions.invoke("extract_results", {"Records": [message("?", receipt="gone")]})

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-1"}]}
    assert "message_not_delayed" in logged.getvalue()


def test_the_queue_gives_up_after_the_delivery_that_the_worker_takes_for_the_last() -> None:
    queues = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "ws://127.0.0.1"}).queues

    assert {queue.max_receives for queue in queues if queue.dead_letters} == {MAX_DELIVERIES}


# ---- The sweeper ------------------------------------------------------------------------------------

NOTHING = {"completed": 0, "failed": 0, "hung_up": 0, "queued": 0, "errors": 0}


def test_a_session_that_nobody_completed_ends_with_what_was_kept_and_gets_its_results(api: Api, work: Work) -> None:
    session = a_call(api)
    api.client_of(session).post(f"/sessions/{session['session_id']}/transcript", {"from": 0, "turns": TURNS})
    work.let_pass(session["session_id"], 600 + GRACE_SECONDS)

    assert work.sweep() == {**NOTHING, "completed": 1}

    state = state_of(api, session)
    assert (state["status"], state["completed_by"], state["end_reason"]) == ("completed", "sweeper", "expired")
    assert (state["transcript"], state["extraction"]["status"]) == (TURNS, "pending")
    assert work.deliver() == []
    state = state_of(api, session)
    assert (state["results"]["guests"], state["extraction"]["attempts"]) == (4, 1)
    assert work.sweep() == NOTHING


def test_a_session_of_which_nothing_was_kept_fails_and_says_why(api: Api, work: Work) -> None:
    session = a_call(api)
    work.let_pass(session["session_id"], 600 + GRACE_SECONDS)

    assert work.sweep() == {**NOTHING, "failed": 1}

    state = state_of(api, session)
    assert (state["status"], state["end_reason"], state["failure"]["code"]) == ("failed", "expired", "expired")
    assert work.sweep() == NOTHING


def test_a_session_is_waited_for_until_the_grace_is_over(api: Api, work: Work) -> None:
    session = a_call(api)
    work.let_pass(session["session_id"], 600 + GRACE_SECONDS - 300)

    assert work.sweep() == NOTHING
    assert api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS).json["results"]["guests"] == 4


def test_an_extraction_that_a_crash_left_behind_is_picked_up(api: Api, front: Front, work: Work) -> None:
    session = a_call(api)
    with without_gemini(api, front) as broken:
        broken.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)
    work.lose()

    assert work.sweep() == NOTHING
    work.let_pass(session["session_id"], 3_600)
    assert work.sweep() == {**NOTHING, "queued": 1}
    assert work.deliver() == []
    assert state_of(api, session)["results"]["guests"] == 4


def test_a_sweep_with_nothing_to_do_does_nothing(work: Work) -> None:
    assert work.sweep() == NOTHING

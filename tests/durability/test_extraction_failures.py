"""Failures of extractions: passing ones are retried, an operator's wait for the operator, a request's are final."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from pi_voice.entrypoints.events import MAX_DELIVERIES
from tests.durability.faulty_path import Fault, blocked, busy, delayed, empty_answer, garbage, google_error, hang
from tests.durability.world import Caller, Lane, World

pytestmark = pytest.mark.durability

TURNS: Final = [{"role": "user", "text": "A table for two."}, {"role": "agent", "text": "At seven."}]

PASSING: Final = {
    "empty answer": (empty_answer, "answer_invalid"),
    "broken answer": (garbage, "answer_invalid"),
    "busy": (busy(seconds=0), "gemini_unavailable"),
}
THE_OPERATORS: Final = {
    "key": google_error(400, "INVALID_ARGUMENT", "API_KEY_INVALID"),
    "permission": google_error(403, "PERMISSION_DENIED"),
    "model": google_error(404, "NOT_FOUND"),
}
THE_REQUESTS: Final = {
    "schema refused": (google_error(400, "INVALID_ARGUMENT"), "gemini_error"),
    "transcript blocked": (blocked, "answer_blocked"),
}


@pytest.fixture
def caller(world: World, lane: Lane) -> Iterator[Caller]:
    yield world.caller(lane)
    world.empty_queue()


def session(caller: Caller, **fields: object) -> str:
    """Create a session of an agent with an output schema, and return its path."""
    agent = {"name": "Ana", "instructions": "Take the order.", "output_schema": {"mood": "string"}}
    agent_id = caller.post("/agents", agent).json["data"]["agent_id"]
    request = {"agent_id": agent_id, "participant": {"identity": "caller"}, **fields}
    return f"/sessions/{caller.post('/sessions', request).json['data']['session_id']}"


def complete(caller: Caller, path: str, **fields: object) -> Any:
    answer = caller.post(f"{path}/complete", {"transcript": TURNS, **fields}, Idempotency_Key="the-only")
    assert answer.status == 200, answer.body
    return answer.json


def is_gemini(name: str) -> bool:
    return name == "Gemini generateContent"


def deliver_to_the_end(world: World, lane: Lane) -> None:
    """Deliver the message until it is a dead letter."""
    for _ in range(MAX_DELIVERIES + 1):
        world.work_on_queue(lane)


def results_after_redrive(world: World, lane: Lane, caller: Caller, path: str) -> Any:
    assert world.redrive() == 1
    world.work_on_queue(lane)
    return caller.get(path)


@pytest.mark.parametrize("kind", PASSING)
def test_a_passing_failure_is_retried_until_it_is_final_and_can_be_redriven(
    world: World, lane: Lane, caller: Caller, kind: str
) -> None:
    fault, code = PASSING[kind]
    path = session(caller)
    with lane.paths.faulty(is_gemini, fault):
        assert complete(caller, path)["extraction"]["status"] == "pending"
        deliver_to_the_end(world, lane)
    failed = caller.get(path)
    assert (failed["extraction"]["status"], failed["extraction"]["error"]["code"]) == ("failed", code)

    redriven = results_after_redrive(world, lane, caller, path)

    assert (redriven["extraction"]["status"], redriven["transcript"]) == ("succeeded", TURNS)
    assert redriven["results"]


@pytest.mark.parametrize("kind", THE_OPERATORS)
def test_an_operators_failure_stays_pending_until_it_is_corrected_and_redriven(
    world: World, lane: Lane, caller: Caller, kind: str
) -> None:
    path = session(caller)
    with lane.paths.faulty(is_gemini, THE_OPERATORS[kind]):
        assert complete(caller, path)["extraction"]["status"] == "pending"
        deliver_to_the_end(world, lane)
    waiting = caller.get(path)["extraction"]
    assert (waiting["status"], waiting["error"]["code"]) == ("pending", "gemini_error")

    redriven = results_after_redrive(world, lane, caller, path)

    assert (redriven["extraction"]["status"], redriven["transcript"]) == ("succeeded", TURNS)


def test_an_operators_failure_that_nobody_corrects_is_failed_in_the_end(
    world: World, lane: Lane, caller: Caller
) -> None:
    path = session(caller)
    with lane.paths.faulty(is_gemini, THE_OPERATORS["key"]):
        complete(caller, path)
        for _ in range(12):
            world.empty_queue()
            world.let_pass(path.removeprefix("/sessions/"), 3 * 86_400)
            lane.invoke("SweepSessions", {})

    assert caller.get(path)["extraction"]["status"] == "failed"


@pytest.mark.parametrize("kind", THE_REQUESTS)
def test_a_requests_failure_is_final_at_once(world: World, lane: Lane, caller: Caller, kind: str) -> None:
    fault, code = THE_REQUESTS[kind]
    path = session(caller)
    with lane.paths.faulty(is_gemini, fault) as plan:
        completed = complete(caller, path)
    assert (completed["extraction"]["status"], completed["extraction"]["error"]["code"]) == ("failed", code)
    assert (plan.met, world.work_on_queue(lane)) == (1, 0)


SLOW: Final[dict[str, tuple[float, Fault | None]]] = {
    "1.3 s a request, and the model hangs": (1.3, hang),
    "1.3 s a request": (1.3, None),
}


@pytest.mark.parametrize("case", SLOW)
def test_complete_is_answered_in_time_if_dynamodb_is_slow(world: World, lane: Lane, caller: Caller, case: str) -> None:
    """The worker is killed at its time limit, and its caller then gets no answer of ours."""
    seconds, model = SLOW[case]
    path = session(caller)

    def completed() -> Any:
        with (
            lane.paths.faulty(lambda name: name.startswith("DynamoDB"), delayed(seconds)),
            lane.paths.faulty(lambda name: model is not None and is_gemini(name), model or hang),
        ):
            return complete(caller, path)

    extraction = completed()["extraction"]

    assert extraction["status"] == ("pending" if model else "succeeded"), extraction
    world.work_on_queue(lane)
    kept = caller.get(path)
    assert (kept["extraction"]["status"], kept["transcript"]) == ("succeeded", TURNS)

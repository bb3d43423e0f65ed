"""The crash matrix of a server tool: the worker is killed at each of its requests, and the page asks again.

The server books once, every request for a call has the same id, and the page gets the answer that is on record. Each
cell has a session of its own.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import pytest

from tests.durability.faulty_path import hang, killing
from tests.durability.world import Caller, Lane, World
from tests.local.conftest import Answer
from tests.support.tool_server import ToolServer

pytestmark = pytest.mark.durability

KEY: Final = "DynamoDB GetItem api_keys"
SESSION: Final = "DynamoDB GetItem sessions"
AGENT: Final = "DynamoDB GetItem agents"
ENDPOINT: Final = "DynamoDB GetItem webhook_endpoints"
WRITTEN: Final = "DynamoDB TransactWriteItems sessions+transcripts"
LOGGED: Final = "DynamoDB PutItem webhook_deliveries"

STEPS: Final = ((SESSION, 1), (AGENT, 1), (ENDPOINT, 1), (WRITTEN, 1), (WRITTEN, 2), (LOGGED, 1))
"""Requests of the worker: read the session, its agent and the endpoint, begin the run, record and log the answer."""

When = Literal["before", "after"]


@dataclass
class Table:
    """A call of a tool that books a table."""

    world: World
    lane: Lane
    caller: Caller
    server: ToolServer
    endpoint_id: str
    session_id: str

    @property
    def path(self) -> str:
        return f"/sessions/{self.session_id}"

    def book(self, call_id: str = "one") -> Answer:
        body = {"call_id": call_id, "name": "book", "arguments": {"guests": 4}}
        return self.caller.post(f"{self.path}/tool-calls", body)

    def let_run_end(self, call_id: str = "one") -> None:
        """Let the time limit of a run that was not finished pass."""
        key = {"session_id": {"S": self.session_id}, "piece": {"S": f"tool_call#0#{call_id}"}}
        table = self.world.tables.transcripts
        row: Any = self.world.dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item", {})
        if "run_ends_at" in row:
            self.world.dynamodb.put_item(TableName=table, Item={**row, "run_ends_at": {"N": "1"}})

    def booked(self) -> Answer:
        """Ask again as a page does, after the time limit of a run; return the answer."""
        answer = self.book()
        if answer.status == 409:
            assert answer.json["error"]["code"] == "tool_call_in_progress"
            self.let_run_end()
            answer = self.book()
        return answer

    @property
    def recorded(self) -> Any:
        return self.caller.get(self.path)["tool_calls"]

    @property
    def logged(self) -> Any:
        deliveries = self.caller.get(f"/webhook-endpoints/{self.endpoint_id}/deliveries")
        return [each for each in deliveries if each["type"] == "tool.call"]


@pytest.fixture
def table(world: World, lane: Lane) -> Iterator[Table]:
    with ToolServer.running() as server:
        yield world.unhurried(lambda: a_table(world, lane, server))


def a_table(world: World, lane: Lane, server: ToolServer) -> Table:
    caller = world.caller(lane)
    endpoint = caller.post("/webhook-endpoints", {"url": server.url, "events": []}).json["data"]
    server.secret = endpoint["secret"]
    tool = {
        "name": "book",
        "description": "Book a table.",
        "parameters": {"type": "object", "properties": {"guests": {"type": "integer"}}},
        "run": {"where": "server", "endpoint_id": endpoint["endpoint_id"]},
    }
    agent = {"name": "Ana", "instructions": "Take the call.", "tools": [tool]}
    agent_id = caller.post("/agents", agent).json["data"]["agent_id"]
    request = {"agent_id": agent_id, "participant": {"identity": "caller-1"}}
    session_id = caller.post("/sessions", request).json["data"]["session_id"]
    return Table(world, lane, caller, server, endpoint["endpoint_id"], session_id)


@contextmanager
def dying(table: Table, step: tuple[str, int], when: When) -> Iterator[None]:
    """Kill the worker at one of its requests."""
    died = []

    def kill() -> None:
        table.lane.kill("CallTool")
        died.append(step)

    name, number = step
    with table.lane.paths.faulty(lambda each: each == name, killing(kill, afterwards=when == "after"), only=number):
        yield
    assert died == [step]


@contextmanager
def dying_while_asking(table: Table, when: When) -> Iterator[None]:
    """Kill the worker while the server works: before or after it books."""
    died: list[When] = []

    def kill() -> None:
        if not died:
            table.lane.kill("CallTool")
            died.append(when)

    setattr(table.server, when, kill)
    yield
    assert died == [when]


def is_settled(table: Table, answer: Answer) -> str:
    """Assert that a call was booked and recorded once, and return how often the server was asked."""
    assert answer.status == 200, answer.body
    call = answer.json["data"]
    [(event_id, booking)] = table.server.bookings.items()
    assert (call["status"], call["response"]) == ("succeeded", booking)
    assert set(table.server.asked) == {event_id}
    assert table.recorded == [call]
    assert table.book().json["data"] == call
    return f"asked {len(table.server.asked)} times"


def test_a_call_sends_the_listed_requests(table: Table) -> None:
    table.lane.paths.log.clear()

    answer = table.book()

    assert sorted(table.lane.paths.log) == sorted([KEY, *(name for name, _ in STEPS)])
    assert is_settled(table, answer) == "asked 1 times"
    [logged] = table.logged
    assert (logged["status"], logged["tries"], logged["session_id"]) == ("succeeded", 1, table.session_id)
    assert logged["event_id"] == table.server.asked[0]


BOOKING: Final = ("the booking", 1)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [*STEPS, BOOKING], ids=lambda step: f"{step[0]} ({step[1]})")
def test_a_table_is_booked_once_when_the_worker_is_killed(
    table: Table, step: tuple[str, int], when: When, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash", ["call a tool on a server", f"{step[0]} ({step[1]})", when])

    with dying_while_asking(table, when) if step == BOOKING else dying(table, step, when):
        died = table.book()
    assert died.status == 500

    record_property("outcome", is_settled(table, table.booked()))


def test_a_call_that_nobody_repeats_stays_on_record(table: Table) -> None:
    with dying_while_asking(table, "after"):
        table.book()

    [call] = table.recorded
    assert (call["status"], call["response"]) == ("running", {})
    table.let_run_end()
    assert table.caller.post(f"{table.path}/complete", {"transcript": []}).status == 200
    refused = table.book()
    assert (refused.status, refused.json["error"]["code"]) == (409, "voice_session_not_active")
    assert len(table.server.asked) == 1


def test_many_requests_for_one_call_ask_the_server_once(table: Table) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: table.book(), range(8)))

    statuses = [answer.status for answer in answers]
    assert 200 in statuses
    assert set(statuses) <= {200, 409}
    assert len(table.server.asked) == 1
    is_settled(table, table.book())


def test_different_calls_of_one_session_are_all_recorded(table: Table) -> None:
    ids = [str(number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(table.book, ids))

    assert [answer.status for answer in answers] == [200] * 6
    assert sorted(each["call_id"] for each in table.recorded) == ids
    assert len(set(table.server.asked)) == 6


def test_after_a_crash_of_many_requests_one_runs_the_call_again(table: Table) -> None:
    with dying_while_asking(table, "after"):
        table.book()
    table.let_run_end()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: table.book(), range(6)))

    assert {answer.status for answer in answers} <= {200, 409}
    assert len(table.server.asked) == 2
    is_settled(table, table.book())


def test_a_session_that_is_deleted_while_its_tool_runs_stays_deleted(table: Table) -> None:
    def delete() -> None:
        assert table.caller.post(f"{table.path}/complete", {"transcript": []}).status == 200
        assert table.caller.call("DELETE", table.path).status == 204

    table.server.after = delete

    answer = table.book()

    assert (answer.status, answer.json["error"]["code"]) == (404, "voice_session_not_found")
    [tombstone] = table.world.rows_of(table.session_id)
    assert tombstone["status"] == {"S": "deleted"}


def test_an_answer_that_comes_after_the_end_of_the_call_is_recorded(table: Table) -> None:
    def complete() -> None:
        assert table.caller.post(f"{table.path}/complete", {"transcript": []}).status == 200

    table.server.after = complete

    answer = table.book()

    assert answer.status == 200
    assert table.recorded == [answer.json["data"]]


@pytest.mark.parametrize("step", [ENDPOINT, LOGGED], ids=["the endpoint is not read", "the log is not written"])
def test_a_table_that_hangs_does_not_lose_the_call(table: Table, step: str) -> None:
    with table.lane.paths.faulty(lambda each: each == step, hang):
        answer = table.book()

    assert answer.status == 200
    assert answer.json["data"]["status"] == ("failed" if step == ENDPOINT else "succeeded")
    assert table.recorded == [answer.json["data"]]

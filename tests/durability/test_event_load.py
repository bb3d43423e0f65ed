"""Events of two hundred sessions reach their receivers, while 2 % of all requests fail and workers are killed.

Sessions complete through the API, some after they saved a turn. Four endpoints are sent to at the same time, and their
receivers fail now and then. The faults go on until each delivery has ended; pauses between its tries are cut short. The
receivers verify each request by the library of Standard Webhooks and count events by `webhook-id`.
"""

import faulthandler
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pytest

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.sessions import DynamoSessions
from pi_voice.domain.ids import AgentId, SessionId, WorkspaceId, uuid7
from pi_voice.domain.sessions import LiveKitRoom
from tests.durability.harm import Harm
from tests.durability.world import Caller, Lane, World
from tests.integration.samples import a_session
from tests.support.patience import DEADLINE
from tests.support.webhook_receiver import Receiver

pytestmark = pytest.mark.durability

SESSIONS: Final = 200
ENDPOINTS: Final = 4
"""Endpoints, each in a workspace of its own: FIFO groups that are worked off at the same time."""

SAVES_EVERY: Final = 5
AT_ONCE: Final = 4
FAILING_RECEIVER: Final = 0.02
KILL_EVERY_REQUESTS: Final = 120
"""Requests to services between kills of a worker."""

CLIENT_TRIES: Final = 60
VISIBLE_AGAIN_SECONDS: Final = 3
"""Seconds until the message of a killed worker is visible again; minutes in the template."""

JOB_SECONDS: Final = 10.0
"""Seconds between runs of the jobs; a minute in the template."""

OVER_SECONDS: Final = 10
"""Time after which a try is over for certain, so that its pause may be cut short."""

SETTLING_SECONDS: Final = 600
QUEUES: Final = ("DispatchEvents", "DeliverEvent")
JOBS: Final = ("SweepSessions", "SweepDeliveries")
TURN: Final = {"role": "user", "text": "A table for two, please."}


@dataclass
class Customer:
    """A workspace with an endpoint, its receiver and its sessions."""

    caller: Caller
    endpoint_id: str
    receiver: Receiver
    sessions: list[str]

    @property
    def saving(self) -> list[str]:
        """The sessions with a turn that is saved during the call, which is their first sign of life."""
        return self.sessions[::SAVES_EVERY]

    @property
    def owed(self) -> list[tuple[str, str]]:
        """The session and the type of each event."""
        completed = [(session_id, "session.completed") for session_id in self.sessions]
        return sorted([*completed, *((session_id, "session.started") for session_id in self.saving)])


@dataclass
class Killer:
    """Kills a busy worker after a number of requests, at any point of its work."""

    lane: Lane
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    due: float = 0.0

    def perhaps(self) -> None:
        """Kill one if it is time."""
        if len(self.lane.paths.log) >= self.due:
            self.due = len(self.lane.paths.log) + self.chance.uniform(0.5, 1.5) * KILL_EVERY_REQUESTS
            if function := self.lane.kill_one(self.chance, (*QUEUES, *JOBS, "CompleteSession", "SaveTranscript")):
                self.killed[function] += 1


@pytest.fixture
def chance() -> random.Random:
    return random.Random(4711)  # noqa: S311 (the same faults as last time, as far as timing allows)


@pytest.fixture
def customers(world: World, lane: Lane, chance: random.Random) -> Iterator[list[Customer]]:
    with ExitStack() as receivers:
        running = [receivers.enter_context(Receiver.running()) for _ in range(ENDPOINTS)]
        yield [world.unhurried(partial(a_customer, world, lane, receiver, chance)) for receiver in running]


def a_customer(world: World, lane: Lane, receiver: Receiver, chance: random.Random) -> Customer:
    caller = world.caller(lane)
    assert caller.call("DELETE", f"/webhook-endpoints/{caller.endpoint_id}").status == 204
    request = {"url": receiver.url, "events": ["session.started", "session.completed"]}
    endpoint = caller.post("/webhook-endpoints", request).json["data"]
    receiver.secret = endpoint["secret"]
    receiver.statuses = [503 if chance.random() < FAILING_RECEIVER else 204 for _ in range(1_000)]
    agent_id = caller.post("/agents", {"name": "Ana", "instructions": "Take the call."}).json["data"]["agent_id"]
    sessions = DynamoSessions(AwsClient(world.dynamodb, DEADLINE), world.tables.sessions, 0)
    session_ids = [SessionId(uuid7()) for _ in range(SESSIONS // ENDPOINTS)]
    now = int(time.time())
    for session_id in session_ids:
        session = a_session(
            session_id=session_id,
            workspace=WorkspaceId(caller.workspace),
            agent_id=AgentId(agent_id),
            agent_version=1,
            livekit=LiveKitRoom(room_name=session_id, room_sid="RM_1", started_at=now),
            created_at=now,
            expires_at=now + 3_600,
        )
        assert world.background.run(sessions.add(session.with_first_duties()))
    return Customer(caller, endpoint["endpoint_id"], receiver, [str(each) for each in session_ids])


def until_done(caller: Caller, path: str, body: object) -> int:
    """Send a request until it has a final response, and return its status."""
    for _ in range(CLIENT_TRIES):
        with suppress(ConnectionError):
            answer = caller.post(path, body)
            if answer.status < 500:
                return answer.status
    pytest.fail(f"POST {path} was in vain.")


def hold_call(caller: Caller, session_id: str, *, saves: bool) -> None:
    """Complete a session as a client does, some after a turn was saved."""
    if saves:
        assert until_done(caller, f"/sessions/{session_id}/transcript", {"from": 0, "turns": [TURN]}) == 200
    status = until_done(caller, f"/sessions/{session_id}/complete", {})
    assert status in (200, 409)  # 409: it is completed, and the response was lost


def rows(world: World, table: str, **selection: Any) -> list[dict[str, Any]]:
    pages = world.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True, **selection)
    return [row for page in pages for row in page["Items"]]


def owing(world: World) -> list[str]:
    """Return the sessions that owe events. Only these are read, because moto spends much time on each row."""
    selection = {
        "FilterExpression": "attribute_exists(owed_events)",
        "ProjectionExpression": "session_id, owed_events",
    }
    found = rows(world, world.tables.sessions, **selection)
    return [row["session_id"]["S"] for row in found if row["owed_events"]["L"]]


def pending(world: World) -> list[dict[str, Any]]:
    """Return the deliveries that have not ended."""
    return rows(
        world,
        world.tables.webhook_deliveries,
        FilterExpression="#status = :pending",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":pending": {"S": "pending"}},
    )


def cut_pause_short(world: World, row: dict[str, Any]) -> None:
    """Make the next try of a delivery due if its last one is over."""
    if int(row["tries"]["N"]) == 0 or int(row["tried_at"]["N"]) > time.time() - OVER_SECONDS:
        return
    with suppress(world.dynamodb.exceptions.ConditionalCheckFailedException):  # it is tried right now
        world.dynamodb.update_item(
            TableName=world.tables.webhook_deliveries,
            Key={name: row[name] for name in ("endpoint_id", "delivery_id")},
            UpdateExpression="SET due_at = :past",
            ConditionExpression="due_at = :read AND tries = :tries",
            ExpressionAttributeValues={":past": {"N": "1"}, ":read": row["due_at"], ":tries": row["tries"]},
        )


def settle(world: World, killer: Killer) -> float:
    """Wait until no session owes an event and each delivery has ended, and return the seconds."""
    started = time.monotonic()
    while (owed := owing(world)) or (waiting := pending(world)):
        assert time.monotonic() < started + SETTLING_SECONDS, (len(owed), waiting[:3])
        for row in [] if owed else waiting:
            cut_pause_short(world, row)
        killer.perhaps()
        time.sleep(2)
    return time.monotonic() - started


def test_each_event_of_two_hundred_sessions_arrives(
    world: World,
    lane: Lane,
    customers: list[Customer],
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    faulthandler.cancel_dump_traceback_later()  # this has limits of its own
    for name, url in world.queue_urls.items():
        if name.endswith(("-events", "-deliveries.fifo")):
            attributes: Any = {"VisibilityTimeout": str(VISIBLE_AGAIN_SECONDS)}
            world.sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    harm, killer = Harm(lane.paths, chance), Killer(lane, chance)
    started = time.monotonic()
    with harm.done_to(), lane.by_itself([lane.poller(world, each) for each in QUEUES], JOBS, JOB_SECONDS):
        with ThreadPoolExecutor(AT_ONCE) as clients:
            calls = [
                clients.submit(hold_call, customer.caller, session_id, saves=session_id in customer.saving)
                for customer in customers
                for session_id in customer.sessions
            ]
            for call in calls:
                call.result()
                killer.perhaps()
        held = time.monotonic() - started
        settled = settle(world, killer)

    log = rows(world, world.tables.webhook_deliveries)
    arrived = Counter(event_id for customer in customers for event_id in customer.receiver.ids)
    record_property("counted", "load of events")
    record_property(
        "figures",
        {
            "sessions": SESSIONS,
            "seconds of calls, and until all events had arrived": f"{held:.0f}, {settled:.0f}",
            "requests to services, and made to fail": f"{sum(harm.seen.values())}, {sum(harm.done.values())}",
            "workers killed": ", ".join(f"{name} {number}" for name, number in sorted(killer.killed.items())),
            "events owed, arrived": f"{len(log)}, {len(arrived)}",
            "of these, more than once": sum(number > 1 for number in arrived.values()),
            "most tries of one delivery": max(int(row["tries"]["N"]) for row in log),
        },
    )
    for customer in customers:
        bodies = zip(customer.receiver.ids, customer.receiver.bodies, strict=True)
        types = {event_id: (body["data"]["session_id"], body["type"]) for event_id, body in bodies}
        assert sorted(types.values()) == customer.owed
    assert {row["event_id"]["S"] for row in log} == arrived.keys()
    assert Counter(row["status"]["S"] for row in log) == {
        "succeeded": sum(len(customer.owed) for customer in customers)
    }
    assert max(int(row["tries"]["N"]) for row in log) <= 8
    assert harm.done.keys() >= {"DynamoDB", "SQS"}
    assert killer.killed.total() >= SESSIONS / 20
    assert json.dumps(log).count(TURN["text"]) == 0

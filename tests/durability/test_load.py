"""Two hundred concurrent calls through the local stack, while 2 % of all requests fail and workers are killed.

Each client follows docs/client.md: it sends its turns during the call, retries requests without a response, and
completes with an Idempotency-Key. Some tabs are closed for good. In the end all faults are removed, enough time passes
to abandon every client, the scheduled job ends the sessions, and the test counts the results.
"""

import asyncio
import faulthandler
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import boto3
import pytest

from local.aws import aws_stand_in
from local.real.parts import free_port
from local.running import LocalApi, running_api
from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.livekit import livekit_stand_in
from pi_voice.domain.transcripts import TranscriptTurn
from tests.durability import faulty_path
from tests.durability.faulty_path import FaultyPaths
from tests.durability.harm import Harm
from tests.durability.world import numbering
from tests.local.conftest import Background
from tests.local.processes import children

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

pytestmark = pytest.mark.durability

SESSIONS: Final = 200
CALL_SECONDS: Final = 60
"""Seconds of the calls from the first create; the number of turns depends on the machine."""

AT_ONCE: Final = 8
"""The largest number of concurrent requests, which two cores serve together with all their consequences."""

KILL_EVERY_REQUESTS: Final = 15
"""Client requests between kills of a worker; not seconds, which would mean more kills on a slow machine."""

TTL_SECONDS: Final = 150
RENEWED_BEFORE_SECONDS: Final = 60
"""Seconds before the end of its connections at which a longer call is renewed."""

GRACE_SECONDS: Final = 3_600
"""Long enough that no present client is abandoned on a slow machine; `let_time_pass` abandons sessions."""

CLIENT_TRIES: Final = 60
"""Tries of one request before a client fails; more than any request here may need."""

SETTLING_SECONDS: Final = 1_200
VISIBLE_AGAIN_SECONDS: Final = 20
"""Seconds until the message of a killed worker is visible again; nine minutes in the template."""

V: Final = "/api/v1/voice"
TABLE: Final = "pi-voice-local-voice_sessions"
SCHEMA: Final = {"city": "string"}


# ---- Faults ----


@dataclass
class Killer:
    """Kills a worker now and then, at any point of its work."""

    stack_pid: int
    harm: Harm
    chance: random.Random
    killed: int = 0

    async def run(self) -> None:
        while True:
            due = self.harm.seen["API"] + self.chance.uniform(0.5, 1.5) * KILL_EVERY_REQUESTS
            while self.harm.seen["API"] < due:  # noqa: ASYNC110 (another thread counts them)
                await asyncio.sleep(0.1)
            if workers := await asyncio.to_thread(children, self.stack_pid):
                with suppress(ProcessLookupError):
                    os.kill(self.chance.choice(sorted(workers)), signal.SIGKILL)
                    self.killed += 1


# ---- The clients ----


@dataclass
class Answered:
    status: int
    document: Any

    @property
    def code(self) -> str:
        return str(self.document["error"]["code"]) if "error" in self.document else ""


@dataclass
class Line:
    """The API for clients, with a limit of concurrent requests."""

    url: str
    api_key: str
    client: aiohttp.ClientSession
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    requests: int = 0
    repeats: int = 0
    renewals: int = 0

    async def once(self, method: str, path: str, body: object, key: str, idempotency_key: str) -> Answered | None:
        """Send a request once; return None if there is no readable response."""
        headers = {"Authorization": f"Bearer {key}"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        self.requests += 1
        async with self.turns:
            try:
                async with self.client.request(method, self.url + V + path, json=body, headers=headers) as answer:
                    document = await answer.json(content_type=None)
                    return Answered(answer.status, document if isinstance(document, dict) else {})
            except (aiohttp.ClientError, TimeoutError, ValueError):
                return None

    async def call(
        self, method: str, path: str, body: object = None, key: str = "", idempotency_key: str = ""
    ) -> Answered:
        """Send a request until it has a final response, with pauses."""
        pause = 0.3
        for _ in range(CLIENT_TRIES):
            answered = await self.once(method, path, body, key or self.api_key, idempotency_key)
            if answered and answered.status < 500 and answered.code != "idempotency_in_progress":
                return answered
            self.repeats += 1
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 (no secret)
            pause = min(pause * 2, 5)
        pytest.fail(f"{method} {path} was in vain: {answered}")


@dataclass
class Call:
    """One client and its call."""

    number: int
    line: Line
    session_id: str = ""
    token: str = ""
    acknowledged: int = 0
    """The number of acknowledged turns."""
    said: int = 0
    expires_at: int = 0
    is_told_late: bool = False
    """Whether it never got the response of complete and had to read the session."""

    @property
    def vanishes(self) -> bool:
        return self.number % 4 == 3

    @property
    def says_nothing(self) -> bool:
        return self.number % 20 == 3

    @property
    def has_own_transcript(self) -> bool:
        return self.number % 4 == 1

    def turns(self, start: int, end: int) -> list[TranscriptTurn]:
        return [
            {"role": "agent" if k % 2 else "user", "text": f"Call {self.number}, turn {k}."} for k in range(start, end)
        ]

    async def begin(self, agent_id: str) -> None:
        order = {
            "agent_id": agent_id,
            "participant": {"identity": f"caller-{self.number}"},
            "ttl_seconds": TTL_SECONDS,
        }
        answered = await self.line.call("POST", "/sessions", order, idempotency_key=f"create-{self.number}")
        assert answered.status == 201, answered
        self.session_id = answered.document["data"]["session_id"]
        self._is_good_until(answered)

    def _is_good_until(self, answered: Answered) -> None:
        self.token, self.expires_at = (answered.document["data"][name] for name in ("client_token", "expires_at"))

    async def renew(self) -> None:
        """Renew the session if its connections are about to end, unless the tab is about to be closed."""
        if not self.vanishes and time.time() >= self.expires_at - RENEWED_BEFORE_SECONDS:
            answered = await self.line.call("POST", f"/sessions/{self.session_id}/renew", {}, self.token)
            assert answered.status == 200, answered
            self._is_good_until(answered)
            self.line.renewals += 1

    async def go_on(self, until: float, chance: random.Random) -> None:
        """Send turns now and then, and end the call when its time is over."""
        leaves_at = chance.uniform(0.2, 1.0) if self.vanishes else 1.0
        leaves_at = time.monotonic() + (until - time.monotonic()) * leaves_at
        while True:
            await asyncio.sleep(chance.uniform(10, 30))
            if time.monotonic() >= leaves_at and self.said:
                return await self.end()
            await self.renew()
            self.said += chance.randint(1, 3)
            await self.send()

    async def send(self) -> None:
        while self.acknowledged < self.said:
            sent = {"from": self.acknowledged, "turns": self.turns(self.acknowledged, self.said)}
            answered = await self.line.call("POST", f"/sessions/{self.session_id}/transcript", sent, self.token)
            assert answered.status == 200, answered
            self.acknowledged = answered.document["data"]["next"]

    async def end(self) -> None:
        """Complete the session, or close the tab while the last turns are being sent."""
        if self.vanishes:
            self.said += 2
            body = {"from": self.acknowledged, "turns": self.turns(self.acknowledged, self.said)}
            await self.line.once("POST", f"/sessions/{self.session_id}/transcript", body, self.token, "")
            return
        await self.renew()
        ending: dict[str, Any] = {"end_reason": "said_goodbye"}
        if self.has_own_transcript:
            self.said += 1
            ending["transcript"] = self.turns(0, self.said)
        path = f"/sessions/{self.session_id}/complete"
        answered = await self.line.call("POST", path, ending, self.token, f"complete-{self.number}")
        if answered.code == "voice_session_not_active":  # the response was lost because the function was killed
            seen = await self.line.call("GET", f"/sessions/{self.session_id}", key=self.token)
            assert seen.document["data"]["status"] == "completed", seen
            self.is_told_late = True
        else:
            assert answered.status == 200, answered
        if self.has_own_transcript:
            self.acknowledged = self.said

    def check(self, state: dict[str, Any]) -> int:
        """Check a session against its client's acknowledgments, and return the number of lost acknowledged turns."""
        if self.says_nothing and state["status"] == "failed":
            assert (state["failure"]["code"], state["end_reason"]) == ("expired", "expired")
            return 0
        assert state["status"] == "completed", state
        by, reason = ("sweeper", "expired") if self.vanishes else ("client", "said_goodbye")
        assert (state["completed_by"], state["end_reason"]) == (by, reason), state
        if (
            state["extraction"]["status"] == "failed"
        ):  # an extraction with a truncated answer fails for good, with its reason
            assert state["results"] is None, state
            assert state["extraction"]["error"]["message"], state
        else:
            assert state["extraction"]["status"] == "succeeded", state
            assert state["results"].keys() == SCHEMA.keys(), state
        turns = [{"role": turn["role"], "text": turn["text"]} for turn in state["transcript"]]
        assert turns == self.turns(0, len(turns)), "there are turns that no client sent"
        return max(0, self.acknowledged - len(turns))


# ---- The stack ----


@dataclass
class Site:
    """The running stack and its faults."""

    api: LocalApi
    url: str
    harm: Harm
    dynamodb: "DynamoDBClient"


@pytest.fixture
def chance() -> random.Random:
    return random.Random(4711)  # noqa: S311 (the same faults as last time, as far as timing allows)


@pytest.fixture
def site(chance: random.Random) -> Iterator[Site]:
    """The local stack with faulty paths to all services and to itself."""
    background, port, paths = Background(), free_port(2), FaultyPaths()
    to = background.enter
    try:
        aws_url = to(aws_stand_in())
        rows_url = os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") or aws_url
        livekit = to(livekit_stand_in(f"http://127.0.0.1:{port + 1}", None))
        gemini = to(gemini_stand_in())
        livekit_url = to(paths.to(livekit.url, faulty_path.livekit_name))
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL_DYNAMODB": to(paths.to(rows_url, faulty_path.aws_name)),
            "AWS_ENDPOINT_URL_SQS": to(paths.to(aws_url, faulty_path.aws_name)),
            "LIVEKIT_URL": livekit_url.replace("http", "ws", 1),
            "LIVEKIT_API_KEY": livekit.api_key,
            "LIVEKIT_API_SECRET": livekit.api_secret,
            "GEMINI_API_KEY": gemini.api_key,
            "GOOGLE_GEMINI_BASE_URL": to(paths.to(str(gemini.base_url), faulty_path.gemini_name, numbering())),
            "GRACE_SECONDS": str(GRACE_SECONDS),
            "POWERTOOLS_LOG_LEVEL": "ERROR",
            "SCHEDULE_SECONDS": "2",
        }
        with running_api(environment, port) as api:
            keys: dict[str, Any] = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
            sqs: Any = boto3.client("sqs", "us-east-1", endpoint_url=aws_url, **keys)
            [queue] = [url for url in sqs.list_queues()["QueueUrls"] if url.endswith("-extractions")]
            sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": str(VISIBLE_AGAIN_SECONDS)})
            yield Site(
                api=api,
                url=to(paths.to(api.base_url, lambda request, _: f"API {request.method}")),
                harm=Harm(paths, chance),
                dynamodb=boto3.client("dynamodb", "us-east-1", endpoint_url=rows_url, **keys),
            )
    finally:
        background.stop()


@asynccontextmanager
async def killing(killer: Killer) -> AsyncIterator[None]:
    task = asyncio.create_task(killer.run())
    try:
        yield
    finally:
        task.cancel()


async def hold_calls(site: Site, killer: Killer, chance: random.Random) -> list[Call]:
    """Begin all calls, run them concurrently, and end them, with faults all the time."""
    patience = aiohttp.ClientTimeout(total=35)
    async with aiohttp.ClientSession(timeout=patience, connector=aiohttp.TCPConnector(force_close=True)) as client:
        line = Line(site.url, site.api.api_key, client)
        spec = {"name": "Ana", "instructions": "Ask for the city.", "output_schema": SCHEMA}
        made = await line.call("POST", "/agents", spec)
        calls = sorted((Call(number, line) for number in range(SESSIONS)), key=lambda call: call.vanishes)
        until = time.monotonic() + CALL_SECONDS
        with site.harm.done_to():
            async with killing(killer):
                await asyncio.gather(*(call.begin(made.document["data"]["agent_id"]) for call in calls))
                assert len({call.session_id for call in calls}) == SESSIONS
                assert Counter(statuses(site).values())["active"] >= SESSIONS
                speaking = [call for call in calls if not call.says_nothing]
                await asyncio.gather(*(call.go_on(until, chance) for call in speaking))
    return calls


def statuses(site: Site) -> dict[str, str]:
    """Return each session's stored status, or "pending" for one whose results are still missing."""
    pages = site.dynamodb.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True)
    return {
        row["session_id"]["S"]: (
            "pending" if '"pending"' in row.get("extraction", {"S": ""})["S"] else row["status"]["S"]
        )
        for page in pages
        for row in page["Items"]
    }


def let_time_pass(site: Site, session_id: str) -> None:
    """Move the times of an active session into the past, so that its client counts as gone."""
    with suppress(site.dynamodb.exceptions.ConditionalCheckFailedException):  # it has ended meanwhile, or is ending
        site.dynamodb.update_item(
            TableName=TABLE,
            Key={"session_id": {"S": session_id}},
            UpdateExpression="SET created_at = created_at - :passed, expires_at = expires_at - :passed,"
            " due_at = due_at - :passed, duties.end_call.due_at = duties.end_call.due_at - :passed",
            ConditionExpression="#status = :active AND duties.end_call.due_at > :now",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={
                ":passed": {"N": str(TTL_SECONDS + GRACE_SECONDS)},
                ":active": {"S": "active"},
                ":now": {"N": str(int(time.time()))},
            },
        )


def settle(site: Site) -> float:
    """Wait until the scheduled job has ended everything, and return the seconds."""
    started = time.monotonic()
    while unsettled := {each: status for each, status in statuses(site).items() if status in ("active", "pending")}:
        assert time.monotonic() < started + SETTLING_SECONDS, Counter(unsettled.values())
        for session_id, status in unsettled.items():
            if status == "active":
                let_time_pass(site, session_id)
        time.sleep(2)
    return time.monotonic() - started


async def read_all(site: Site, session_ids: list[str]) -> dict[str, dict[str, Any]]:
    async with aiohttp.ClientSession() as client:
        line = Line(site.url, site.api.api_key, client)
        answers = await asyncio.gather(*(line.call("GET", f"/sessions/{session_id}") for session_id in session_ids))
    return {answer.document["data"]["session_id"]: answer.document["data"] for answer in answers}


def test_two_hundred_concurrent_calls_lose_no_acknowledged_turn(
    site: Site, chance: random.Random, record_property: Callable[[str, object], None]
) -> None:
    faulthandler.cancel_dump_traceback_later()  # this takes minutes and has its own limits
    killer = Killer(site.api.process.pid, site.harm, chance)
    started = time.monotonic()
    calls = asyncio.run(hold_calls(site, killer, chance))
    held = time.monotonic() - started
    settled = settle(site)
    stored = statuses(site)
    states = asyncio.run(read_all(site, sorted(stored)))

    own = {call.session_id for call in calls}
    lost = sum(call.check(states[call.session_id]) for call in calls)
    strays = [state for session_id, state in states.items() if session_id not in own]
    twice = [session_id for session_id, times in site.harm.results_kept.items() if times > 1]
    without_results = [state["extraction"]["error"]["code"] for state in states.values() if is_failed(state)]
    line = calls[0].line
    record_property("counted", "load")
    record_property(
        "figures",
        {
            "sessions at once": SESSIONS,
            "seconds of harm": round(held),
            "seconds until everything had ended": round(settled),
            "requests of clients": line.requests,
            "of these, repeats": line.repeats,
            "requests on the way to services and API": sum(site.harm.seen.values()),
            "of these, made to fail": f"{sum(site.harm.done.values())} ({listed(site.harm.done)})",
            "workers killed": killer.killed,
            "renewals": line.renewals,
            "completions of which the client heard later": sum(call.is_told_late for call in calls),
            "sessions, as they ended": listed(Counter(ends(states[call.session_id]) for call in calls)),
            "sessions of creates that died half-way": len(strays),
            "extractions that failed for good": listed(Counter(without_results)) or 0,
            "turns acknowledged": sum(call.acknowledged for call in calls),
            "turns lost": lost,
            "sessions with two sets of results": len(twice),
        },
    )
    assert lost == 0
    assert not twice
    assert len(without_results) <= site.harm.done["Gemini"]
    assert {(stray["status"], stray["end_reason"]) for stray in strays} <= {("failed", "expired"), ("failed", "failed")}
    assert killer.killed >= SESSIONS / KILL_EVERY_REQUESTS
    assert site.harm.done.keys() >= {"API", "DynamoDB", "LiveKit", "Gemini"}


def ends(state: dict[str, Any]) -> str:
    return f"{state['status']} by {state['completed_by'] or state['end_reason']}"


def is_failed(state: dict[str, Any]) -> bool:
    return state["extraction"] is not None and state["extraction"]["status"] == "failed"


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))

"""The setup of all measurements: stand-ins behind recorders, and the recording of one call of every function."""

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import boto3
from aiohttp import web

from bench import tools, webhooks
from bench.builds import Builds
from bench.capacity import CapacityMeter
from bench.subjects import Json, Subject, container
from bench.wire import DYNAMODB, GEMINI, LIVEKIT, RECEIVER, SERVICES, SQS, Exchange, Tape, taped
from local import dynamodb
from local.http_server import serving
from local.sample_call import SampleCall, webhook
from local.services import Gemini, LiveKit, Services, function_variables
from local.stack import Surroundings, running_services
from local.template import Function, Table, load

NOWHERE: Final = "http://127.0.0.1:9"
"""A closed port of this machine, where the stand-in's own webhooks fail."""

BASELINE_CREATE: Final = "baseline: create"
BASELINE_GET: Final = "baseline: get"

SCHEDULES: Final = ("SweepSessions", "SweepDeliveries")
ROOM_FINISHED: Final = "ReceiveLivekitWebhook, room finished"

_PREPARATION: Final = "preparation"
_INHERITED: Final = ("HOME", "PATH", "TMPDIR")

Result = TypeVar("Result")


@dataclass
class Recorded:
    """The requests, log bytes and response of one function for its sample event, in a new container."""

    event: Json
    exchanges: list[Exchange]
    logged: int
    answer: Json


@dataclass
class World:
    """The running services and the recordings."""

    builds: Builds
    tape: Tape
    around: Surroundings
    livekit: LiveKit
    gemini: Gemini
    dynamodb_url: str
    gemini_url: str
    receiver_url: str
    """The URL of a webhook endpoint that responds 200."""
    tool_url: str
    """The URL of one that answers the calls of a tool."""
    functions: dict[str, Function]
    tables: dict[str, Table]
    loop: asyncio.AbstractEventLoop
    recorded: dict[str, Recorded] = field(default_factory=dict)
    session_id: str = ""
    """The session of the recorded webhook, complete and get requests."""

    room_sid: str = ""
    """LiveKit's id of its room."""

    api_key: str = ""
    """The key of the recorded call."""

    def subject(self, logical_id: str) -> Subject:
        """Return a function of the product's build."""
        function = self.functions[logical_id]
        path = (*(layer / "python" for layer in function.layers), self.builds.runtime)
        return Subject(logical_id, function.code, path, {**self.around.machine, **function.environment})

    def baseline(self, *, compiled: bool) -> Subject:
        """Return the baseline, as built by `sam build` or with bytecode."""
        name, code = ("baseline, bytecode", self.builds.compiled) if compiled else ("baseline", self.builds.stock)
        environment = self.subject("CreateSession").environment
        return Subject(name, code, (self.builds.runtime,), environment)

    def floor(self) -> Subject:
        """Return the handler that does nothing."""
        return Subject("floor", self.builds.floor, (self.builds.runtime,), self.around.machine)

    def trip(self) -> Subject:
        """Return the handler that only sends one request."""
        return Subject("trip", self.builds.trip, (self.builds.runtime,), self.around.machine)

    def event(self, chapter: str) -> Json:
        """Return the sample event of a chapter; a webhook gets a new signature, because one expires after minutes."""
        return self.first_join() if chapter == "ReceiveLivekitWebhook" else self.recorded[chapter].event

    def first_join(self) -> Json:
        """Return LiveKit's webhook about the first person who joins the recorded call."""
        return webhook(self.session_id, "participant_joined", self.room_sid)

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the event loop of the recorders."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=60)

    def record(self, chapter: str, subject: Subject, event: Json) -> Json:
        """Invoke a function once in a new container, and record its response and those of its services."""
        self.tape.recording = SERVICES
        self.tape.begin(chapter)
        for old in [place for place in self.tape.responses if place[0] == chapter]:
            del self.tape.responses[old]
        with container(self.builds, subject) as running:
            calls = running.call(event)
        self.recorded[chapter] = Recorded(event, list(self.tape.exchanges), calls.logged, calls.answer)
        return calls.answer

    def invoke(self, logical_id: str, event: Json) -> Json:
        """Invoke a function once in a new container, without keeping a record of it."""
        self.tape.recording = SERVICES
        self.tape.begin(_PREPARATION)
        with container(self.builds, self.subject(logical_id)) as running:
            return running.call(event).answer

    def replay(
        self,
        chapter: str,
        dynamodb_ms: float = 0,
        livekit_ms: float = 0,
        gemini_ms: float = 0,
        receiver_ms: float = 0,
    ) -> None:
        """Replay a chapter from now on, with fixed delays."""
        self.tape.recording = frozenset()
        self.tape.begin(chapter)
        self.tape.delays = {
            DYNAMODB: dynamodb_ms / 1000,
            LIVEKIT: livekit_ms / 1000,
            GEMINI: gemini_ms / 1000,
            SQS: dynamodb_ms / 1000,  # a message takes as long as a write
            RECEIVER: receiver_ms / 1000,
        }


@contextmanager
def running_world(builds: Builds, dynamodb_url: str | None = None) -> Iterator[World]:
    """Start the stand-ins and recorders in their own thread; use a DynamoDB that already runs if given."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        if dynamodb_url:
            environment["AWS_ENDPOINT_URL_DYNAMODB"] = dynamodb_url
        starting = _started(builds, stack, loop, environment)
        yield asyncio.run_coroutine_threadsafe(starting, loop).result(timeout=60)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(timeout=60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _started(
    builds: Builds, stack: AsyncExitStack, loop: asyncio.AbstractEventLoop, environment: Mapping[str, str]
) -> World:
    enter = stack.enter_async_context
    around = await enter(running_services(NOWHERE, environment))
    tape = Tape()
    meter = CapacityMeter(dynamodb.client(around.dynamodb_url), around.template.tables)
    dynamodb_url = await enter(taped(tape, DYNAMODB, around.dynamodb_url, meter))
    livekit_url = await enter(taped(tape, LIVEKIT, around.livekit.url))
    assert around.gemini.base_url  # noqa: S101 (the stand-in has one)
    gemini_url = await enter(taped(tape, GEMINI, around.gemini.base_url))
    livekit = LiveKit(livekit_url.replace("http:", "ws:"), around.livekit.api_key, around.livekit.api_secret)
    gemini = Gemini(around.gemini.api_key, gemini_url)
    sqs_url = await enter(taped(tape, SQS, around.sqs_url))
    receiver = web.Application()
    receiver.router.add_post("/webhook", _received)
    receiver.router.add_post("/tool", _answered)
    receiver_url = await enter(taped(tape, RECEIVER, await enter(serving(receiver))))
    variables = function_variables(Services.chosen_by({}), livekit, gemini, dynamodb_url, sqs_url)
    template = load(builds.product / "template.yaml", variables, queue_urls=around.queue_urls)
    return World(
        builds=builds,
        tape=tape,
        around=around,
        livekit=livekit,
        gemini=gemini,
        dynamodb_url=dynamodb_url,
        gemini_url=gemini_url,
        receiver_url=f"{receiver_url}/webhook",
        tool_url=f"{receiver_url}/tool",
        functions={function.logical_id: function for function in template.functions},
        tables={table.name: table for table in template.tables},
        loop=loop,
    )


async def _received(_: web.Request) -> web.Response:
    return web.Response()


async def _answered(_: web.Request) -> web.Response:
    return web.json_response({"item": "brass hinge, 60 mm", "in_stock": 212, "price": "1.20"})


def record_all(world: World) -> None:
    """Record a call of every function, then a plainer one, whose create, complete and get are measured.

    The schedules are recorded once more, with nothing due.
    """

    def invoke(logical_id: str, event: Json) -> Json:
        return world.record(logical_id, world.subject(logical_id), event)

    SampleCall(invoke).hold()
    for schedule in SCHEDULES:
        invoke(schedule, world.recorded[schedule].event)
    webhooks.record(world)
    tools.record(world)
    call = SampleCall(invoke)
    world.api_key = call.operate("CreateApiKey")["data"]["api_key"]
    call.request("CreateAgent", without=("tools", "variables"))
    session = call.request("CreateSession", without=("overrides", "time_zone", "variables"))
    world.session_id = session["data"]["session_id"]
    world.room_sid = call.request("GetSession")["data"]["livekit"]["room_sid"]
    invoke("ReceiveLivekitWebhook", world.first_join())
    webhooks.dispatch(world, world.session_id)
    for function in ("CompleteSession", "GetSession"):
        call.request(function)
    last = webhook(world.session_id, "room_finished", world.room_sid)
    world.record(ROOM_FINISHED, world.subject("ReceiveLivekitWebhook"), last)
    _record_baseline(world, call)


def _record_baseline(world: World, call: SampleCall) -> None:
    """Record the baseline: create a session, put the same turns into its row, and get it."""
    baseline = world.baseline(compiled=True)
    event = world.event("CreateSession")
    known = {name: value for name, value in json.loads(event["body"]).items() if name != "client_metadata"}
    answer = world.record(BASELINE_CREATE, baseline, {**event, "body": json.dumps(known)})
    session_id = json.loads(answer["body"])["data"]["session_id"]
    turns = call.documents["GetSession"]["data"]["transcript"]
    boto3.resource("dynamodb", endpoint_url=world.around.dynamodb_url).Table(
        world.functions["GetSession"].environment["VOICE_SESSIONS_TABLE"]
    ).update_item(
        Key={"session_id": session_id},
        UpdateExpression="SET #transcript = :turns, #results = :results",
        ExpressionAttributeNames={"#transcript": "transcript", "#results": "results"},
        ExpressionAttributeValues={":turns": turns, ":results": call.documents["GetSession"]["data"]["results"]},
    )
    text = json.dumps(world.event("GetSession")).replace(world.session_id, session_id)
    world.record(BASELINE_GET, baseline, json.loads(text))

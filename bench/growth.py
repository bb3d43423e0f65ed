"""Growth: the cost of a request as the tables, or the request itself, become larger."""

import json
import uuid
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from bench.builds import Builds, CannotMeasure
from bench.report import p50, table
from bench.subjects import Container, container
from bench.wire import DYNAMODB, GEMINI, SERVICES
from bench.world import World, running_world
from local import dynamodb
from local.real import parts
from local.real.dynamodb_local.server import dynamodb_local
from local.sample_call import SampleCall

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

SESSIONS: Final = (10, 1_000, 100_000)
TURNS: Final = (10, 100, 1_000, 5_000)
CALLS: Final = 10
PER_BATCH: Final = 25
CHAPTER: Final = "growth"

Json = Any


def measure(builds: Builds) -> Json:
    """Fill the tables step by step and send the same requests after each step.

    Uses DynamoDB Local, because moto scans all rows for each query: with 10^5 rows it is too slow.
    """
    try:
        with dynamodb_local() as url, running_world(builds, url) as world:
            return _measured(world)
    except parts.Missing as missing:
        raise CannotMeasure(f"Growth: {missing}") from None


def _measured(world: World) -> Json:
    found: Json = {"lists": [], "filters": [], "gets": [], "sweeps": [], "completes": []}
    database = dynamodb.client(world.around.dynamodb_url)
    with ExitStack() as running:
        started = {
            name: running.enter_context(container(world.builds, world.subject(name)))
            for name in ("ListSessions", "GetSession", "SweepSessions", "CompleteSession")
        }
        found["sweeps"].append([0, _invoke(world, started["SweepSessions"], {})])
        found["completes"] = _measure_complete(world, database, started["CompleteSession"])
        total = 1  # the row that was copied; the copies were completed and are no longer due
        for sessions in SESSIONS:
            call, row = _workspace(world, f"with-{sessions}", database)
            _copy(database, world, row, (str(uuid.uuid4()) for _ in range(sessions - 1)))
            total += sessions
            events = _events(call)
            listing = {**events["ListSessions"], "queryStringParameters": {}}
            nothing = {**listing, "queryStringParameters": {"status": "failed"}}
            found["lists"].append([sessions, _invoke(world, started["ListSessions"], listing)])
            found["filters"].append([sessions, _invoke(world, started["ListSessions"], nothing)])
            found["gets"].append([sessions, _invoke(world, started["GetSession"], events["GetSession"])])
            found["sweeps"].append([total, _invoke(world, started["SweepSessions"], {})])
    return found


def _workspace(world: World, name: str, database: "DynamoDBClient") -> tuple[SampleCall, Mapping[str, Any]]:
    """Create a workspace with an agent and one session; return the call and the session's row."""

    def invoke(logical_id: str, event: Json) -> Json:
        return world.record(logical_id, world.subject(logical_id), event)

    call = SampleCall(invoke)
    call.operate("CreateApiKey", workspace=name)
    call.request("CreateAgent")
    session_id = call.request("CreateSession")["data"]["session_id"]
    key = {"session_id": {"S": session_id}}
    return call, database.get_item(TableName=_table(world), Key=key)["Item"]


def _table(world: World) -> str:
    return world.functions["GetSession"].environment["VOICE_SESSIONS_TABLE"]


def _copy(database: "DynamoDBClient", world: World, row: Mapping[str, Any], ids: Iterable[str]) -> None:
    """Write the same row under other ids, distributed over the shards as in the product."""
    requests: list[Any] = []
    for session_id in ids:
        shard = {"due_shard": {"N": str(int(session_id[-2:], 16) % 16)}}
        requests.append({"PutRequest": {"Item": {**row, "session_id": {"S": session_id}, **shard}}})
        if len(requests) == PER_BATCH:
            database.batch_write_item(RequestItems={_table(world): requests})
            requests = []
    if requests:
        database.batch_write_item(RequestItems={_table(world): requests})


def _events(call: SampleCall) -> dict[str, Json]:
    """Return the events that list the workspace's sessions, and get and complete its session."""
    events: dict[str, Json] = {}

    def invoke(logical_id: str, event: Json) -> Json:
        events[logical_id] = event
        return {"statusCode": 200, "body": "{}"}

    collecting = SampleCall(invoke, texts=call.texts)
    for name in ("ListSessions", "GetSession", "CompleteSession"):
        collecting.request(name)
    return events


def _measure_complete(world: World, database: "DynamoDBClient", running: Container) -> list[Json]:
    """Complete sessions with longer and longer transcripts, each length on new sessions."""
    call, row = _workspace(world, "completing", database)
    text = json.dumps(_events(call)["CompleteSession"])
    session_id, found = row["session_id"]["S"], []
    for turns in TURNS:
        ids = [str(uuid.uuid4()) for _ in range(4)]
        _copy(database, world, row, ids)
        figures = []
        for each in ids:
            event = json.loads(text.replace(session_id, each))
            transcript = [{"role": "user", "text": f"This is what I say in turn {number}."} for number in range(turns)]
            event["body"] = json.dumps({"transcript": transcript})
            figures.append(_invoke(world, running, event, times=1))
        best = figures[1:]  # the first call includes imports at first use
        found.append([turns, {**best[-1], "processor": p50([each["processor"] for each in best])}])
    return found


def _invoke(world: World, running: Container, event: Json, times: int = CALLS) -> Json:
    """Call a function; return the DynamoDB requests of the last call, and the median CPU milliseconds."""
    asked_before = any(
        chapter == CHAPTER and "generateContent" in signature for chapter, signature in world.tape.responses
    )
    # Replay the first extraction: the stand-in's results would grow with the transcript.
    world.tape.recording = SERVICES - {GEMINI} if asked_before else SERVICES
    calls = None
    if times > 1:
        running.call(event)
        calls = running.call(event, times - 1)
    world.tape.begin(CHAPTER)
    last = running.call(event)
    exchanges = [each for each in world.tape.exchanges if each.service == DYNAMODB]
    return {
        "requests": len(exchanges),
        "rows": sum(each.rows for each in exchanges),
        "reads": sum(each.units.reads for each in exchanges),
        "writes": sum(each.units.writes for each in exchanges),
        "bytes_in": sum(each.bytes_in for each in exchanges),
        "bytes_out": sum(each.bytes_out for each in exchanges),
        "processor": p50([*(calls.processor if calls else []), *last.processor]),
    }


def tables(found: Json) -> dict[str, str]:
    """Return one table per kind of request."""
    head = ["requests", "rows read", "read units", "write units", "bytes sent", "bytes read", "ms of the processor"]

    def rows(kind: str) -> list[list[str]]:
        return [
            [
                f"{size:,}",
                *(f"{figures[name]:,g}" for name in ("requests", "rows", "reads", "writes")),
                *(f"{figures[name]:,}" for name in ("bytes_out", "bytes_in")),
                f"{figures['processor']:.1f}",
            ]
            for size, figures in found[kind]
        ]

    return {
        "growth_lists": table(["list: sessions in the workspace", *head], rows("lists")),
        "growth_filters": table(["list, filter that fits none: sessions in the workspace", *head], rows("filters")),
        "growth_gets": table(["get: sessions in the workspace", *head], rows("gets")),
        "growth_completes": table(["complete: turns", *head], rows("completes")),
        "growth_sweeps": table(["sweep: sessions that are not due", *head], rows("sweeps")),
    }

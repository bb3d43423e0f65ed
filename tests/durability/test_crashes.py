"""The crash matrix: the worker is killed before and after each of its external requests, and no call is lost.

Each operation first runs without a fault, and its requests are compared with the list here, so that a new step is
noticed. Then, for each step, a new session: kill -9 at that point, time passes, the scheduled job runs. The expected
end state is the same every time (`settled`). In the end each session is deleted, and nothing that was said is stored.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import uuid4

import pytest
from livekit.protocol.models import Room

from local.workers import FunctionError
from tests.durability.faulty_path import Exchange, Fault, Reply, busy, changes_something, failing, killing
from tests.durability.world import Caller, Lane, World
from tests.support.stored_words import stored_words

pytestmark = pytest.mark.durability

Turns = list[dict[str, str]]

FIRST: Final[Turns] = [{"role": "agent", "text": "Hello."}, {"role": "user", "text": "A table for two, please."}]
REST: Final[Turns] = [{"role": "agent", "text": "For when?"}, {"role": "user", "text": "Tonight at seven."}]
ALL: Final[Turns] = FIRST + REST
CAP_SECONDS: Final = 60

# Numbers of the contract, so that a changed constant of the product is noticed.
CAP_LEEWAY_SECONDS: Final = 15

NEVER_BACK: Final = 2 * 86_400
"""Seconds after which the session is abandoned: the client does not return."""

TOKENS_ENDED: Final = 600 + 60 + 1
"""Seconds after which no token can open the room any more."""

RECHECK_SECONDS: Final = 120
SWEEP_SECONDS: Final = 11
"""Seconds after which the sweeper queues the events of a session."""

LATER: Final = 3_600 + RECHECK_SECONDS
"""Seconds after which the sweeper handles unfinished work, and before which a client may return."""


@dataclass
class Call:
    """A call under test, and its expected end state."""

    world: World
    lane: Lane
    caller: Caller
    agent_id: str
    session_id: str = ""
    acknowledged: Turns = field(default_factory=list)
    """The acknowledged turns."""
    sent: Turns = field(default_factory=list)
    """The sent turns, if more than the acknowledged ones."""
    tools_called: list[str] = field(default_factory=list)
    """The ids of the tool calls whose record was acknowledged."""
    tokens_reported: int = 0
    """The largest number of tokens whose report was acknowledged."""
    key: str = field(default_factory=lambda: uuid4().hex)
    word: str = field(default_factory=lambda: uuid4().hex)
    """A word of each turn that no other call has."""

    @property
    def path(self) -> str:
        return f"/sessions/{self.session_id}"

    @property
    def agent_path(self) -> str:
        return f"/agents/{self.agent_id}"

    @property
    def state(self) -> Any:
        return self.caller.get(self.path)

    def said(self, turns: Turns) -> Turns:
        """Return the turns as they are said in this call."""
        return [{**turn, "text": f"{turn['text']} {self.word}"} for turn in turns]

    def create(self, **order: object) -> int:
        wanted = {"agent_id": self.agent_id, "participant": {"identity": "caller"}, **order}
        answer = self.caller.post("/sessions", wanted, idempotency_key=self.key)
        if answer.status == 201:
            self.session_id = answer.json["data"]["session_id"]
        return answer.status

    def keep(self, turns: Turns) -> int:
        turns = self.said(turns)
        answer = self.caller.post(f"{self.path}/transcript", {"from": len(self.acknowledged), "turns": turns})
        if answer.status == 200:
            self.acknowledged += turns
        return answer.status

    def call_tool(self, call_id: str) -> int:
        """Record a call of the built-in tool, whose arguments and response have the word of this call."""
        body = {
            "call_id": call_id,
            "name": "hang_up",
            "arguments": {"reason": self.word},
            "response": {"on": self.word},
        }
        answer = self.caller.post(f"{self.path}/tool-calls", body)
        if answer.status == 200:
            self.tools_called.append(call_id)
        return answer.status

    def report_usage(self, tokens: int) -> int:
        answer = self.caller.post(f"{self.path}/usage", {"input_tokens": {"audio": tokens}})
        if answer.status == 200:
            self.tokens_reported = max(self.tokens_reported, tokens)
        return answer.status

    def complete(self, transcript: Turns | None = None, **headers: str) -> int:
        body = {} if transcript is None else {"transcript": self.said(transcript)}
        return self.caller.post(f"{self.path}/complete", body, **headers).status


# ---- Operations ----


@dataclass(frozen=True)
class Operation:
    """An operation of one function on a call, and how the call continues after a crash of the function."""

    name: str
    function: str
    steps: tuple[str, ...]
    prepare: Callable[[Call], None]
    act: Callable[[Call], int]
    """Executes it and returns the caller's status; 500 is the gateway's, for a function that died."""
    afterwards: tuple[int, ...] = (LATER,)
    """The seconds that pass afterwards, each followed by a run of the scheduled job."""
    troubles: Callable[[Lane], AbstractContextManager[object]] = nullcontext
    """Additional faults during the operation."""
    is_repeated: bool = False
    """Whether the client retries with its Idempotency-Key, and must get a success."""
    is_creation: bool = False
    """Whether it creates the session."""
    is_refused: bool = False
    """Whether the operation fails because of the faults and is rolled back."""
    is_deletion: bool = False
    """Whether nothing of the session is left in the end."""


def gemini_is_busy(lane: Lane) -> AbstractContextManager[object]:
    """Let Gemini request a retry delay longer than any time limit."""
    return lane.paths.faulty(lambda name: name == "Gemini generateContent", busy(seconds=600))


def gemini_is_away_and_late(lane: Lane) -> AbstractContextManager[object]:
    """Let Gemini refuse a token, but only after the write of the session has begun."""
    before = lane.paths.log.count(KEPT)

    async def refuse_late(exchange: Exchange) -> Reply | None:
        while lane.paths.log.count(KEPT) == before and not exchange.is_given_up():  # noqa: ASYNC110 (as in `hang`)
            await asyncio.sleep(0.01)
        return await failing(503)(exchange)

    return lane.paths.faulty(lambda name: name == TOKEN, refuse_late)


def started(call: Call) -> None:
    assert call.create() == 201


def started_with(turns: Turns) -> Callable[[Call], None]:
    def prepare(call: Call) -> None:
        started(call)
        assert call.keep(turns) == 200

    return prepare


def started_with_a_tool_call(call: Call) -> None:
    started_with(FIRST)(call)
    assert call.call_tool("first") == 200


def started_with_usage(call: Call) -> None:
    started_with(FIRST)(call)
    assert call.report_usage(100) == 200


def changed(call: Call) -> None:
    """Give the agent a second version, whose results have another field."""
    patch = {"name": "Bea", "output_schema": {"mood": None, "tone": "string"}}
    assert call.caller.call("PATCH", call.agent_path, patch).status == 200


def started_and_changed(call: Call) -> None:
    started(call)
    changed(call)


def given_up_with(turns: Turns) -> Callable[[Call], None]:
    def prepare(call: Call) -> None:
        assert call.create(max_duration_seconds=600) == 201  # without a limit it would be hung up first
        assert not turns or call.keep(turns) == 200
        call.world.let_pass(call.session_id, SWEEP_SECONDS)
        call.world.let_schedule_run(call.lane)  # dispatches the start of the call
        call.world.let_pass(call.session_id, NEVER_BACK)

    return prepare


def over_its_cap(call: Call) -> None:
    assert call.create(max_duration_seconds=CAP_SECONDS) == 201
    now = call.state["created_at"]
    joined, over = {"N": str(now)}, {"N": str(now + CAP_SECONDS + CAP_LEEWAY_SECONDS)}  # as the webhook writes them
    duties = {"M": {"hang_up": {"M": {"due_at": over, "tries": {"N": "0"}}}}}
    call.world.put_into_row(call.session_id, livekit={"first_joined_at": joined}, due_at=over, duties=duties)
    call.world.let_pass(call.session_id, CAP_SECONDS + CAP_LEEWAY_SECONDS + 1)


def an_hour_old_without_a_cap(call: Call) -> None:
    started(call)
    call.world.let_pass(call.session_id, 3_600 + CAP_LEEWAY_SECONDS + 1)


def waiting_for_results(call: Call) -> None:
    started(call)
    with gemini_is_busy(call.lane):
        assert call.complete(ALL) == 200
    call.acknowledged = call.said(ALL)
    call.world.work_on_events(call.lane)
    assert call.state["extraction"]["status"] == "pending"


def completed(call: Call) -> None:
    """Complete a session, and dispatch its events."""
    started(call)
    assert call.complete(ALL) == 200
    call.acknowledged = call.said(ALL)
    call.world.work_on_events(call.lane)


def left_behind(call: Call) -> None:
    waiting_for_results(call)
    call.world.empty_queue()
    after_its_tokens(call)
    call.world.let_pass(call.session_id, LATER)


def after_its_tokens(call: Call) -> None:
    """Let the sweeper close the room once more, after the tokens have expired."""
    call.world.let_pass(call.session_id, TOKENS_ENDED)
    call.world.let_schedule_run(call.lane)


def completed_and_expired(call: Call) -> None:
    completed(call)
    call.world.let_pass(call.session_id, TOKENS_ENDED)


def deleted_in_a_race(call: Call) -> None:
    """Delete a session; a racing request writes a piece afterwards."""
    completed(call)
    assert delete(call) == 204
    after_its_tokens(call)
    key = {"session_id": {"S": call.session_id}, "piece": {"S": f"transcript#{uuid4()}#000"}}
    piece: Any = {**key, "data": {"B": call.word.encode()}}
    call.world.dynamodb.put_item(TableName=call.world.tables.transcripts, Item=piece)
    call.world.let_pass(call.session_id, 900)


def owing_events(call: Call) -> None:
    """Complete a session that owes three events: its start, its end and its results."""
    started_with(ALL)(call)
    assert call.complete() == 200


def with_lost_events(call: Call) -> None:
    """Let a session owe events whose messages were lost."""
    owing_events(call)
    call.world.empty_queue()
    call.world.let_pass(call.session_id, SWEEP_SECONDS)


def create(call: Call) -> int:
    return call.create()


def create_of_the_first_version(call: Call) -> int:
    return call.create(agent_version=1, variables={"guest": call.word}, overrides={"greeting": call.word})


def restore(call: Call) -> int:
    path = f"{call.agent_path}/versions/1/restore"
    return call.caller.post(path, {}, idempotency_key=call.key, if_match='"2"').status


def append(call: Call) -> int:
    call.sent = call.said(ALL)
    return call.keep(REST)


def call_tool(call: Call) -> int:
    return call.call_tool("second")


def report_usage(call: Call) -> int:
    return call.report_usage(200)


def complete_with_transcript(call: Call) -> int:
    call.sent = call.said(ALL)
    return call.complete(ALL, idempotency_key=call.key)


def complete_without_a_word(call: Call) -> int:
    return call.complete([])


def complete_from_kept(call: Call) -> int:
    return call.complete()


def stop(call: Call) -> int:
    return call.caller.post(f"{call.path}/stop", {}).status


def delete(call: Call) -> int:
    return call.caller.call("DELETE", call.path).status


def add_participant(call: Call) -> int:
    return call.caller.post(f"{call.path}/participants", {"identity": "listener"}, idempotency_key=call.key).status


def renew(call: Call) -> int:
    return call.caller.post(f"{call.path}/renew", {}).status


def sweep(call: Call) -> int:
    return _status_of(lambda: call.lane.invoke("SweepSessions", {}))


def extract(call: Call) -> int:
    return _status_of(lambda: call.world.work_on_queue(call.lane))


def dispatch(call: Call) -> int:
    return _status_of(lambda: call.world.work_on_events(call.lane))


def _status_of(run: Callable[[], object]) -> int:
    try:
        run()
    except FunctionError as error:
        return 500 if error.details["errorType"] == "Runtime.ExitError" else 502
    return 200


KEY_TAKEN: Final = "DynamoDB PutItem idempotency"
COUNTED: Final = "DynamoDB UpdateItem idempotency"
KEY_DONE: Final = COUNTED  # the same table
KEY_FORGOTTEN: Final = "DynamoDB DeleteItem idempotency"
KEPT: Final = "DynamoDB PutItem sessions"
ROOM_OPENED: Final = "LiveKit CreateRoom"
ROOM_CLOSED: Final = "LiveKit DeleteRoom"
TOKEN: Final = "Gemini auth_tokens"
MODEL: Final = "Gemini generateContent"
SESSION: Final = "DynamoDB UpdateItem sessions"
TRANSCRIPT: Final = "DynamoDB PutItem transcripts"
DELETED: Final = "DynamoDB BatchWriteItem transcripts"
FORGOTTEN: Final = "DynamoDB DeleteItem sessions"
QUEUED: Final = "SQS SendMessage"
DELIVERY: Final = "DynamoDB PutItem webhook_deliveries"

OPERATIONS: Final = (
    Operation(
        "create",
        "CreateSession",
        (KEY_TAKEN, COUNTED, ROOM_OPENED, TOKEN, KEPT, KEY_DONE),
        lambda _: None,
        create,
        (LATER,),
        is_creation=True,
    ),
    Operation(
        "create of an earlier version with variables",
        "CreateSession",
        (KEY_TAKEN, COUNTED, ROOM_OPENED, TOKEN, KEPT, KEY_DONE),
        changed,
        create_of_the_first_version,
        (LATER,),
        is_creation=True,
    ),
    Operation(
        "create while Gemini is away",
        "CreateSession",
        (KEY_TAKEN, COUNTED, ROOM_OPENED, TOKEN, KEPT, KEPT, SESSION, ROOM_CLOSED, KEY_FORGOTTEN),
        lambda _: None,
        create,
        (LATER,),
        troubles=gemini_is_away_and_late,
        is_creation=True,
        is_refused=True,
    ),
    Operation(
        "restore a version of the agent",
        "RestoreAgentVersion",
        (KEY_TAKEN, "DynamoDB TransactWriteItems agents", KEY_DONE),
        started_and_changed,
        restore,
    ),
    Operation(
        "append",
        "SaveTranscript",
        ("DynamoDB TransactWriteItems sessions+transcripts",),
        started_with(FIRST),
        append,
        (NEVER_BACK,),
    ),
    Operation(
        "call a tool",
        "CallTool",
        ("DynamoDB TransactWriteItems sessions+transcripts",),
        started_with_a_tool_call,
        call_tool,
        (NEVER_BACK,),
    ),
    Operation("report usage", "ReportUsage", (SESSION,), started_with_usage, report_usage, (NEVER_BACK,)),
    Operation(
        "complete with a transcript",
        "CompleteSession",
        (KEY_TAKEN, COUNTED, TRANSCRIPT, SESSION, QUEUED, MODEL, ROOM_CLOSED, SESSION, QUEUED, KEY_DONE),
        started,
        complete_with_transcript,
    ),
    Operation(
        "complete, and ask again",
        "CompleteSession",
        (KEY_TAKEN, COUNTED, TRANSCRIPT, SESSION, QUEUED, MODEL, ROOM_CLOSED, SESSION, QUEUED, KEY_DONE),
        started,
        complete_with_transcript,
        is_repeated=True,
    ),
    Operation(
        "complete from kept turns",
        "CompleteSession",
        (COUNTED, TRANSCRIPT, SESSION, QUEUED, MODEL, ROOM_CLOSED, SESSION, QUEUED),
        started_with(ALL),
        complete_from_kept,
        (NEVER_BACK,),
    ),
    Operation(
        "complete without a word",
        "CompleteSession",
        (COUNTED, SESSION, QUEUED, ROOM_CLOSED, SESSION),
        started,
        complete_without_a_word,
    ),
    Operation(
        "complete while Gemini is busy",
        "CompleteSession",
        (COUNTED, TRANSCRIPT, SESSION, QUEUED, MODEL, ROOM_CLOSED, QUEUED, SESSION),
        started_with(ALL),
        complete_from_kept,
        (NEVER_BACK,),
        troubles=gemini_is_busy,
    ),
    Operation(
        "stop",
        "StopSession",
        (SESSION, ROOM_CLOSED, SESSION),
        started_with(FIRST),
        stop,
        (RECHECK_SECONDS, NEVER_BACK),
    ),
    Operation("add a participant", "AddParticipant", (KEY_TAKEN, KEY_DONE), started, add_participant),
    Operation("renew", "RenewSession", (SESSION, ROOM_OPENED, TOKEN, SESSION), started_with(FIRST), renew),
    Operation(
        "sweep with kept turns",
        "SweepSessions",
        (SESSION, TRANSCRIPT, SESSION),
        given_up_with(ALL),
        sweep,
    ),
    Operation("sweep without any", "SweepSessions", (SESSION, SESSION), given_up_with([]), sweep),
    Operation("sweep over the cap", "SweepSessions", (SESSION, SESSION, ROOM_CLOSED, SESSION), over_its_cap, sweep),
    Operation(
        "sweep without a cap",
        "SweepSessions",
        (SESSION, SESSION, ROOM_CLOSED, SESSION),
        an_hour_old_without_a_cap,
        sweep,
    ),
    Operation("sweep of an extraction left behind", "SweepSessions", (SESSION, QUEUED, SESSION), left_behind, sweep),
    Operation("sweep after the tokens", "SweepSessions", (SESSION, ROOM_CLOSED, SESSION), completed_and_expired, sweep),
    Operation("delete", "DeleteSession", (KEPT, DELETED), completed, delete, (TOKENS_ENDED, LATER), is_deletion=True),
    Operation(
        "sweep of a deleted session",
        "SweepSessions",
        (SESSION, DELETED, FORGOTTEN),
        deleted_in_a_race,
        sweep,
        (LATER,),
        is_deletion=True,
    ),
    Operation("extract", "ExtractResults", (MODEL, SESSION, QUEUED), waiting_for_results, extract),
    Operation(
        "dispatch",
        "DispatchEvents",
        (DELIVERY, QUEUED, DELIVERY, QUEUED, DELIVERY, QUEUED, SESSION),
        owing_events,
        dispatch,
    ),
    Operation("sweep of events", "SweepSessions", (SESSION, QUEUED), with_lost_events, sweep),
    Operation(
        "extract while Gemini is busy",
        "ExtractResults",
        (MODEL, SESSION, "SQS ChangeMessageVisibility"),
        waiting_for_results,
        extract,
        troubles=gemini_is_busy,
    ),
)


@dataclass(frozen=True)
class Crash:
    """The point at which a worker is killed."""

    operation: Operation
    step: str
    number: int
    """The position among the steps of this name."""
    when: Literal["before", "after"]

    @property
    def at(self) -> str:
        again = f" ({self.number})" if self.operation.steps.count(self.step) > 1 else ""
        return f"{self.step}{again}"

    def __str__(self) -> str:
        return f"{self.operation.name}: {self.when} {self.at}"


def crashes() -> Iterator[Crash]:
    for operation in OPERATIONS:
        for place, step in enumerate(operation.steps):
            number = operation.steps[: place + 1].count(step)
            yield Crash(operation, step, number, "before")
            yield Crash(operation, step, number, "after")


# ---- Expected end states ----


def settled(call: Call) -> str:
    """Assert the end state of a call, and return a short description of it."""
    state = call.state
    if state["status"] == "active":
        complete(call)
        return f"still active, then completed by its client{_how(call.state)}"
    if state["status"] == "failed":
        assert not call.acknowledged, "acknowledged turns are lost"
        assert state["failure"]["code"], state
        return f"failed: {state['failure']['code']}"
    _completed(call, state)
    return f"completed by {'its client' if state['completed_by'] == 'client' else 'the sweeper'}{_how(state)}"


def complete(call: Call) -> None:
    """Complete a call that is still active with all its turns, and assert the result."""
    assert call.complete(ALL) == 200
    call.acknowledged = call.said(ALL)
    _completed(call, call.state)


def _completed(call: Call, state: Any) -> None:
    assert state["status"] == "completed", state
    assert state["transcript"] in (call.acknowledged, call.sent or call.acknowledged)
    recorded = [each["call_id"] for each in state["tool_calls"]]
    assert recorded in (call.tools_called, [*call.tools_called, "second"])
    if call.tokens_reported:
        assert state["usage"]["input_tokens"]["audio"] in (call.tokens_reported, 200)
    else:
        assert state["usage"] is None
    if state["transcript"]:
        assert state["extraction"]["status"] == "succeeded", state["extraction"]
        assert list(state["results"]) == ["mood"]
    assert call.session_id not in call.world.rooms(), "the room of a completed call is open"
    call.world.put_into_queue(call.session_id)  # SQS may deliver twice, and the sweeper may run again
    call.world.let_pass(call.session_id, LATER)
    call.world.let_schedule_run(call.lane)
    assert call.state["results"] == state["results"], "there is a second set of results"
    assert call.state["transcript"] == state["transcript"]


def events_were_dispatched(call: Call) -> None:
    """Assert that each event of the session has one delivery, and that none is owed any more."""
    call.world.let_pass(call.session_id, LATER)
    call.world.let_schedule_run(call.lane)
    state, [row, *_] = call.state, call.world.rows_of(call.session_id)
    assert "owed_events" not in row
    assert "send_events" not in row["duties"]["M"]
    expected = [f"session.{state['status']}"]
    if "started_at" in row:
        expected.append("session.started")
    if (state["extraction"] or {}).get("status") in ("succeeded", "failed"):
        expected.append(f"extraction.{state['extraction']['status']}")
    assert sorted(call.world.dispatched(call.caller, call.session_id)) == sorted(expected)
    if call.acknowledged and state["completed_by"] == "sweeper":
        assert "started_at" in row  # turns were saved


def closes_by_itself(room: Room) -> bool:
    """Return whether a room closes by itself."""
    return room.empty_timeout > 0 and room.departure_timeout > 0


def _how(state: Any) -> str:
    return f", hung up ({state['end_reason']})" if state["hung_up_at"] else ""


def let_time_pass(call: Call, operation: Operation) -> None:
    results = call.state["results"]
    for seconds in operation.afterwards:
        call.world.let_pass(call.session_id, seconds)
        call.world.let_schedule_run(call.lane)
        if call.state["hung_up_at"]:
            assert call.session_id not in call.world.rooms(), "a call that was hung up goes on"
        if call.state["status"] != "active":
            assert call.session_id not in call.world.rooms(), "a session has ended, and its call goes on"
    if results is not None:
        assert call.state["results"] == results, "there is a second set of results"


def nothing_is_left(call: Call, operation: Operation) -> str:
    """Assert that nothing of a deleted session is left, after the client repeated a delete that took no effect."""
    again = call.caller.call("GET", call.path).status == 200
    if again:
        assert delete(call) == 204
    assert call.caller.call("GET", call.path).status == 404
    for seconds in (*operation.afterwards, LATER):
        if call.world.rows_of(call.session_id):
            call.world.let_pass(call.session_id, seconds)
        call.world.let_schedule_run(call.lane)
    assert call.world.rows_of(call.session_id) == []
    assert call.session_id not in call.world.rooms(), "the room of a deleted session is open"
    return "deleted when asked again" if again else "deleted"


def dispatch_all(call: Call) -> None:
    """Dispatch the events of the caller's sessions, which the sweeper would find during a later operation."""
    for session in call.caller.get("/sessions"):
        call.world.put_into_event_queue(session["session_id"])
    call.world.work_on_events(call.lane)


def delete_all(call: Call) -> None:
    """Delete the caller's sessions, and assert that a tombstone is all that is left of each at once."""
    for session in call.caller.get("/sessions"):
        session_id = session["session_id"]
        assert call.caller.call("DELETE", f"/sessions/{session_id}").status == 204
        [tombstone] = call.world.rows_of(session_id)
        assert tombstone["status"] == {"S": "deleted"}


def asked_again(call: Call) -> str:
    """Assert the end state after a crash in complete: a retry with the same key returns the session."""
    was_completed = call.state["status"] == "completed"
    call.world.forget_keys_in_progress()
    answer = call.caller.post(f"{call.path}/complete", {"transcript": call.said(ALL)}, idempotency_key=call.key)
    assert answer.status == 200, answer.body
    assert answer.all("idempotent-replayed") == (["true"] if was_completed else [])
    assert (answer.json["status"], answer.json["transcript"]) == ("completed", call.said(ALL))
    call.acknowledged = call.said(ALL)
    return "answered again" if was_completed else "done when asked again"


def restored_or_not(call: Call) -> str:
    """Assert the end state after a crash in restore: a retry with the same key succeeds, with one new version."""
    was_made = call.caller.get(call.agent_path)["version"] == 3
    assert restore(call) in (200, 409)
    call.world.forget_keys_in_progress()
    assert restore(call) == 200
    versions = call.caller.call("GET", f"{call.agent_path}/versions").json["data"]
    assert [(version["version"], version["name"]) for version in versions] == [(3, "Ana"), (2, "Bea"), (1, "Ana")]
    return f"{'restored' if was_made else 'not restored'}; asked again: restored once"


def created_or_not(call: Call, operation: Operation) -> str:
    """Assert the end state after a crash in create: a retry with the same key succeeds."""
    left = call.caller.get("/sessions")
    assert len(left) <= 1
    assert all(map(closes_by_itself, call.world.rooms().values()))
    assert operation.act(call) in (201, 409)
    call.world.forget_keys_in_progress()
    assert operation.act(call) == 201
    if operation.act is create_of_the_first_version:
        state = call.state
        assert (state["agent_version"], state["variables"]) == (1, {"guest": call.word})
        assert state["overrides"]["greeting"] == call.word
    answered = settled(call)
    for session in left:
        if session["session_id"] != call.session_id:
            call.world.let_pass(session["session_id"], NEVER_BACK)
            call.world.let_schedule_run(call.lane)
            orphan = call.caller.get(f"/sessions/{session['session_id']}")
            assert orphan["status"] == "failed"
            assert orphan["failure"]["code"] in ("expired", "gemini_unavailable")
            return f"a first session is left and fails: {orphan['failure']['code']}; asked again: {answered}"
    return f"{'the session is there' if left else 'no session'}; asked again: {answered}"


# ---- The matrix ----


@pytest.fixture(scope="module")
def deleted() -> list[tuple[Crash, Call]]:
    """The calls of the matrix whose sessions were deleted."""
    return []


def a_call(world: World, lane: Lane) -> Call:
    """Return a caller with an agent, after all that is due of other calls was done."""
    world.let_schedule_run(lane)
    world.empty_queue()
    caller = world.caller(lane)
    agent = {
        "name": "Ana",
        "instructions": "Take the order of {{guest}}.",
        "output_schema": {"mood": "string"},
        "variables": {"guest": {"type": "string", "default": "the caller"}},
        "behaviors": {"may_hang_up": True},
    }
    return Call(world, lane, caller, caller.post("/agents", agent).json["data"]["agent_id"])


@contextmanager
def crashing(lane: Lane, crash: Crash) -> Iterator[list[str]]:
    """Kill the operation's worker at one point; the yielded list records it."""
    died: list[str] = []

    def kill() -> None:
        lane.kill(crash.operation.function)
        died.append(str(crash))

    fault: Fault = killing(kill, afterwards=crash.when == "after")
    with lane.paths.faulty(lambda name: name == crash.step, fault, only=crash.number):
        yield died


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_operation_sends_the_listed_requests(world: World, lane: Lane, operation: Operation) -> None:
    def operate() -> None:
        call = a_call(world, lane)
        operation.prepare(call)
        lane.paths.log.clear()

        with operation.troubles(lane):
            status = operation.act(call)
            steps = [name for name in lane.paths.log if changes_something(name)]

        assert status == 503 if operation.is_refused else status < 300
        assert sorted(steps) == sorted(operation.steps)  # some requests are concurrent
        dispatch_all(call)

    world.unhurried(operate)


@pytest.mark.parametrize("crash", list(crashes()), ids=str)
def test_no_call_is_lost_when_a_worker_is_killed(
    world: World,
    lane: Lane,
    crash: Crash,
    deleted: list[tuple[Crash, Call]],
    record_property: Callable[[str, object], None],
) -> None:
    operation = crash.operation
    record_property("crash", [operation.name, crash.at, crash.when])

    def operate() -> Call:
        call = a_call(world, lane)
        operation.prepare(call)
        with operation.troubles(lane), crashing(lane, crash) as died:
            status = operation.act(call)
        assert (status, died) == (500, [str(crash)])
        return call

    call = world.unhurried(operate)
    if operation.is_creation:
        outcome = created_or_not(call, operation)
    elif operation.is_deletion:
        outcome = nothing_is_left(call, operation)
    else:
        retried = f"{asked_again(call)}; " if operation.is_repeated else ""
        retried = f"{restored_or_not(call)}; " if operation.act is restore else retried
        let_time_pass(call, operation)
        outcome = retried + settled(call)
    if not operation.is_deletion:
        events_were_dispatched(call)

    record_property("outcome", outcome)
    delete_all(call)
    deleted.append((crash, call))


def test_nothing_that_was_said_is_stored_after_the_sessions_were_deleted(
    world: World, lane: Lane, deleted: list[tuple[Crash, Call]]
) -> None:
    if not deleted:
        pytest.skip("no session of the matrix was deleted in this process")
    for _, call in deleted:
        if world.rows_of(call.session_id):
            world.let_pass(call.session_id, TOKENS_ENDED + LATER)
    world.let_schedule_run(lane)

    stored = stored_words(world.dynamodb, world.all_tables)
    rows = stored[world.tables.sessions] + stored[world.tables.transcripts]
    assert [str(crash) for crash, call in deleted if any(call.word in text for text in stored.values())] == []
    assert [str(crash) for crash, call in deleted if call.session_id in rows] == []

"""Random interleavings of everything that happens to a session, held to a simple reference.

Hypothesis draws what is done, up to three operations at once, in which order their single requests reach the store,
LiveKit, Gemini and the queue, which of these get lost, and who dies on the way. What fails is shrunk to a short story.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from pydantic import JsonValue

from pi_voice import transcript
from pi_voice.checkpoints import CheckpointKeeping
from pi_voice.client_tokens import ClientTokens
from pi_voice.completion import Closing, Completion
from pi_voice.connecting import Connecting
from pi_voice.errors import GeminiError, GeminiUnavailable, LiveKitUnavailable, StorageError, VoiceError
from pi_voice.extraction import Extractor
from pi_voice.hanging_up import HangingUp
from pi_voice.history import History
from pi_voice.ids import SessionId
from pi_voice.ports import LiveOrder, ModelAnswer, OpenedRoom
from pi_voice.renewing import Renewing
from pi_voice.results import Budget, Results, Unfinished
from pi_voice.room_events import RoomEvents
from pi_voice.sessions import (
    Checkpoint,
    Ending,
    GeminiLiveConnection,
    LiveKitConnection,
    Medium,
    Participant,
    Renewal,
    RoomFacts,
    Session,
)
from pi_voice.sweeping import Sweeping
from pi_voice.transcript import Turn
from pi_voice.work import MAX_DELIVERIES
from tests.durability.interleaving import Fate, Gate, Outcome
from tests.durability.reference import (
    Append,
    Complete,
    Delete,
    Done,
    Get,
    Join,
    Operation,
    Reference,
    Renew,
    Sight,
    Stop,
    Sweep,
    TellAgain,
    Work,
)
from tests.fakes import FakeClient, FakeClock
from tests.integration.conftest import dynamodb, environment  # noqa: F401 (fixtures)
from tests.integration.samples import NOW, a_session, an_agent
from tests.integration.store import Store, Tables

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

Answer = TypeVar("Answer")

# ---- What is not ours: LiveKit, Gemini and the queue, each behind the gate ----


async def asked(error: type[VoiceError], do: Callable[[], Answer]) -> Answer:
    try:
        return await asyncio.to_thread(do)
    except EndpointConnectionError:
        raise error from None


@dataclass
class Room:
    """The session's room at LiveKit, which a join opens as well, and joins that we were not told of yet."""

    inside: set[int] = field(default_factory=set)
    untold: dict[int, bytes] = field(default_factory=dict)

    async def open(self, session: Session) -> OpenedRoom:
        return await asked(LiveKitUnavailable, lambda: OpenedRoom("RM_ours", session.created_at))

    async def close(self, session_id: SessionId) -> None:  # noqa: ARG002 (there is one)
        await asked(LiveKitUnavailable, self.inside.clear)

    def admit(self, session: Session, participant: Participant, media: Sequence[Medium]) -> LiveKitConnection:  # noqa: ARG002
        return LiveKitConnection(url="wss://livekit.test", token="", room=session.session_id)


class Tokens:
    """Gemini Live's tokens."""

    async def mint(self, order: LiveOrder) -> GeminiLiveConnection:  # noqa: ARG002 (any will do)
        made = GeminiLiveConnection(url="wss://gemini.test", token="", model="gemini-live", setup={})
        return await asked(GeminiUnavailable, lambda: made)


class Model:
    """The extraction model: it answers, is busy, refuses, or talks nonsense. No two of its answers are the same."""

    name = "fake-model"

    def __init__(self) -> None:
        self.mood = "answers"
        self._asked = 0

    async def answer(self, instruction: str, text: str, schema: dict[str, JsonValue], seconds: float) -> ModelAnswer:  # noqa: ARG002
        return await asked(GeminiUnavailable, self._answer)

    def _answer(self) -> ModelAnswer:
        self._asked += 1
        match self.mood:
            case "is busy":
                raise GeminiUnavailable
            case "refuses":
                raise GeminiError
            case "talks nonsense":
                return ModelAnswer("Well, I would say", self.name)
            case _:
                return ModelAnswer(json.dumps({"age": self._asked}), self.name)


@dataclass
class Queue:
    """Messages that are waiting, each with how often it was delivered, and those that were given up."""

    waiting: list[list[int]] = field(default_factory=list)

    async def put(self, session_id: SessionId) -> None:  # noqa: ARG002 (there is one)
        await asked(StorageError, lambda: self.waiting.append([0]))


# ---- The world ----


class World:
    """The use cases over the real adapters, for one session."""

    def __init__(self, store: Store, session: Session) -> None:
        self.gate, self.clock = Gate(), FakeClock(NOW)
        self.room, self.model, self.queue = Room(), Model(), Queue()
        self.store, self.session_id = store, session.session_id
        self.participants = 0
        self._runner = asyncio.Runner()
        self._runner.get_loop().set_default_executor(self.gate)
        agent = an_agent(output_schema={"age": "integer"}, output_schema_strict=None)
        session_as_kept = Session(**{**vars_of(session), "agent_id": agent.agent_id, "agent_version": 1})
        self._run(store.agents.save(session.workspace, agent))
        self._run(store.sessions.add(session_as_kept))
        clock, sessions, checkpoints = self.clock, store.sessions, store.checkpoints
        transcripts = store.transcripts_kept(0, clock)
        connecting = Connecting(self.room, Tokens(), ClientTokens("a secret of no less than 32 letters", clock))
        self.hanging_up = HangingUp(sessions, self.room, clock)
        closing = Closing(sessions, transcripts, checkpoints, clock)
        extractor = Extractor(self.model, clock, sleep=lambda _: asyncio.sleep(0))
        self.results = Results(store.agents, sessions, transcripts, extractor, self.queue, clock)
        self.completion = Completion(sessions, closing, self.results, lambda: self.room)
        self.keeping = CheckpointKeeping(sessions, checkpoints)
        self.renewing = Renewing(store.agents, sessions, checkpoints, connecting, clock)
        self.sweeping = Sweeping(sessions, closing, self.hanging_up, self.queue, clock)
        self.room_events = RoomEvents(sessions, sessions, lambda: self.room, clock)
        self.history = History(sessions, transcripts, checkpoints)

    def close(self) -> None:
        self._runner.close()

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self._runner.run(work)

    def race(self, work: Sequence[Coroutine[Any, Any, Any]], turns: Sequence[tuple[int, Fate]]) -> list[Outcome]:
        return self._run(self.gate.race(work, turns))

    def look(self, transcript_id: str | None = None) -> Sight:
        """Look at the rows, whatever the product would say about them; at a transcript even if its session is gone."""
        session = self._run(self.store.sessions.get(self.session_id))
        rows = self._rows(self.session_id)
        pieces = [transcript.unpack([bytes(row["data"]["B"])]) for row in rows]
        transcript_id = session.transcript_id if session else transcript_id
        packed = [bytes(row["data"]["B"]) for row in self._rows(transcript_id)] if transcript_id else []
        return Sight(
            now=int(self.clock()),
            session=session,
            kept=[turn for piece in pieces for turn in piece],
            starts=[int(row["piece"]["N"]) for row in rows],
            lengths=[len(piece) for piece in pieces],
            transcript=transcript.unpack(packed) if packed else None,
            inside=frozenset(self.room.inside),
        )

    def _rows(self, transcript_id: str) -> list[dict[str, Any]]:
        return list(
            self.store.dynamodb.query(
                TableName=self.store.names.transcripts,
                KeyConditionExpression="transcript_id = :id",
                ExpressionAttributeValues={":id": {"S": transcript_id}},
                ConsistentRead=True,
            )["Items"]
        )

    # ---- One coroutine for each operation, and what it sends ----

    def prepare(self, operation: Operation, reference: Reference) -> tuple[Coroutine[Any, Any, Any], Any]:
        client = FakeClient(self.session_id)
        match operation:
            case Append(writer, back, count):
                first = max(0, len(reference.acknowledged) - back)
                turns = [says(writer, number) for number in range(first, first + count)]
                sent = Checkpoint.model_validate({"from": first, "turns": turns})
                return self.keeping.keep(self.session_id, sent, client), (first, turns)
            case Complete(own):
                said = None if own is None else [says(7, number) for number in range(own)]
                return self.completion.complete(self.session_id, Ending(transcript=said), client), said
            case Stop():
                return self.hanging_up.stop(self.session_id, client), None
            case Renew(has_handle):
                order = Renewal(has_resumption_handle=has_handle)
                return self.renewing.renew(self.session_id, order, client), None
            case Sweep():
                return self.sweeping.sweep(), None
            case Work(place):
                return self._work(place), None
            case Join(seconds_ago, is_own_room):
                return self._join(seconds_ago, is_own_room=is_own_room), self.participants
            case TellAgain():
                participant = next(iter(self.room.untold), None)
                return self._tell(participant), participant
            case Get():
                return self.history.get(self.session_id, client), None
            case Delete():
                return self.history.delete(self.session_id, client), None

    async def _work(self, place: int) -> None:
        """Deliver a message as SQS does: it is gone once the worker says so, or was delivered too often."""
        if not self.queue.waiting:
            return
        message = self.queue.waiting[place % len(self.queue.waiting)]
        message[0] += 1
        if message[0] > MAX_DELIVERIES:
            self.queue.waiting.remove(message)
            return
        await self.results.retry(self.session_id, Budget(60.0, is_last=message[0] == MAX_DELIVERIES))
        await asked(StorageError, partial(self._done_with, message))

    def _done_with(self, message: list[int]) -> None:
        self.queue.waiting = [each for each in self.queue.waiting if each is not message]

    def _join(self, seconds_ago: int, *, is_own_room: bool) -> Coroutine[Any, Any, None]:
        event = {
            "event": "participant_joined",
            "room": {"sid": "RM_ours" if is_own_room else "RM_later", "name": self.session_id},
            "createdAt": str(int(self.clock()) - seconds_ago),
        }
        self.participants += 1
        return self._enter(self.participants, json.dumps(event).encode())

    async def _enter(self, participant: int, event: bytes) -> None:
        def enter() -> None:
            if participant not in self.room.untold:  # nobody enters twice
                self.room.inside.add(participant)
                self.room.untold[participant] = event

        await asked(LiveKitUnavailable, enter)
        await self._tell(participant)

    async def _tell(self, participant: int | None) -> None:
        if participant is not None:
            await self.room_events.apply(self.room.untold[participant])
            self.room.untold.pop(participant, None)


def vars_of(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in Session.__dataclass_fields__}


def says(writer: int, number: int) -> Turn:
    return {"role": "agent" if number % 2 else "user", "text": f"{writer} says {number}"}


# ---- The machine ----

FATES = [
    *[Fate.DONE] * 14,
    Fate.REPEATED,
    Fate.REPEATED,
    Fate.REPEATED,
    Fate.REFUSED,
    Fate.UNHEARD,
    Fate.CRASH_BEFORE,
    Fate.CRASH_AFTER,
    Fate.CRASH_AFTER,
]
APPEND = st.builds(
    Append, st.sampled_from([0, 0, 0, 1]), st.sampled_from([0, 0, 0, 1, 2, -1]), st.integers(1, 3)
)
OPERATIONS = st.one_of(
    APPEND,
    APPEND,
    st.builds(Complete, st.sampled_from([None, None, 0, 2])),
    st.just(Stop()),
    st.builds(Renew, st.booleans()),
    st.just(Sweep()),
    st.builds(Work, st.integers(0, 2)),
    st.builds(Join, st.sampled_from([0, 0, 5, 90]), st.sampled_from([True, True, False])),
    st.just(TellAgain()),
    st.just(Get()),
    st.just(Delete()),
)
ROUNDS = 40


class Machine(RuleBasedStateMachine):
    """One session, and everybody who has to do with it."""

    def __init__(self, dynamodb: "DynamoDBClient") -> None:  # noqa: F811 (the fixture's value)
        super().__init__()
        self.tables = Tables(dynamodb)
        self.store = Store(dynamodb, self.tables)
        self.reference = Reference()
        self.world: World | None = None
        self.transcript_id: str | None = None

    @initialize(
        cap=st.sampled_from([None, 60, 600]), ttl=st.sampled_from([60, 600]), grace=st.sampled_from([86_400, 60, 0])
    )
    def start(self, cap: int | None, ttl: int, grace: int) -> None:
        session_id = SessionId("019a0000-0000-7000-8000-0000000000ab")
        session = a_session(
            session_id=session_id,
            livekit=RoomFacts(room_name=session_id, room_sid="RM_ours", started_at=NOW),
            max_duration_seconds=min(cap, ttl) if cap else None,
            ttl_seconds=ttl,
            expires_at=NOW + ttl,
            grace_seconds=grace,
            due_at=NOW + ttl + grace,
        )
        self.world = World(self.store, session)

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=3), turns=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(FATES)), max_size=24))
    def together(self, operations: list[Operation], turns: list[tuple[int, Fate]]) -> None:
        self.step(operations, turns)

    @rule(seconds=st.sampled_from([1, 15, 30, 75, 120, 600, 3_600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        assert self.world
        self.world.clock.now += seconds

    @rule(mood=st.sampled_from(["answers", "is busy", "refuses", "talks nonsense"]))
    def the_model(self, mood: str) -> None:
        assert self.world
        self.world.model.mood = mood

    def step(self, operations: Sequence[Operation], turns: Sequence[tuple[int, Fate]] = ()) -> list[Outcome]:
        world, reference = self.world, self.reference
        assert world
        before = self.look()
        prepared = [world.prepare(operation, reference) for operation in operations]
        outcomes = world.race([work for work, _ in prepared], turns)
        done = [
            Done(operation, outcome, sent if not isinstance(operation, Join) else sent + 1)
            for operation, outcome, (_, sent) in zip(operations, outcomes, prepared, strict=True)
        ]
        for each in done:
            note(f"{each.operation}: {each.outcome}")
        after = self.look()
        reference.learn(before, done, after)
        return outcomes

    def look(self) -> Sight:
        assert self.world
        sight = self.world.look(self.transcript_id)
        if sight.session is not None:
            self.transcript_id = sight.session.transcript_id
        return sight

    def teardown(self) -> None:
        try:
            if self.world is not None:
                self.all_is_well_in_the_end(self.world)
        finally:
            if self.world is not None:
                self.world.close()
            self.tables.drop()

    def all_is_well_in_the_end(self, world: World) -> None:
        """Let every provider be well again, and time pass: the session ends by itself, with its results."""
        world.model.mood = "answers"
        while world.room.untold:
            [told] = self.step([TellAgain()])
            assert told.is_told
        self.step([Sweep()])
        self.over_calls_are_over()
        for _ in range(ROUNDS):
            session = self.look().session
            if session is None or (session.status != "active" and not is_pending(session)):
                break
            for _ in range(len(world.queue.waiting)):
                self.step([Work()])
            if session.is_on and session.cap_ends_at is not None:
                world.clock.now = max(world.clock.now, session.cap_ends_at)
            elif session.due_at is not None:
                world.clock.now = max(world.clock.now, session.due_at)
            self.step([Sweep()])
            self.over_calls_are_over()
        else:
            pytest.fail(f"It never ends: {self.look()}")
        sight = self.look()
        if sight.session is not None and sight.session.status == "completed" and sight.session.turns:
            assert sight.session.extraction is not None
            assert sight.session.extraction.status != "skipped"

    def over_calls_are_over(self) -> None:
        sight = self.look()
        if sight.session is None or sight.session.status != "active":
            return
        cap_ends_at = sight.session.cap_ends_at
        if cap_ends_at is not None and cap_ends_at <= sight.now:
            assert sight.session.hung_up_at is not None, "a call over its cap goes on"
        if sight.session.hung_up_at is not None:
            assert not self.reference.told & sight.inside, "a call that was hung up goes on"


def is_pending(session: Session) -> bool:
    return session.extraction is not None and session.extraction.status == "pending"


def search(dynamodb: "DynamoDBClient", examples: int, steps: int) -> None:  # noqa: F811
    run_state_machine_as_test(
        partial(Machine, dynamodb),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_a_few_interleavings_keep_what_was_promised(dynamodb: "DynamoDBClient") -> None:  # noqa: F811
    search(dynamodb, examples=15, steps=10)


@pytest.mark.fuzz
def test_many_interleavings_keep_what_was_promised(dynamodb: "DynamoDBClient") -> None:  # noqa: F811
    search(dynamodb, examples=200, steps=16)

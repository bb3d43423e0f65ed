"""Random interleavings of all operations on a session, compared with a simple reference model.

Hypothesis draws up to three concurrent operations, the order in which their requests reach the store, LiveKit, Gemini
and the queue, the lost requests, and the crashes. A failure is shrunk to a short sequence.
"""

import asyncio
import faulthandler
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.transcripts import unpack
from pi_voice.domain.connection_api import RenewSessionRequest
from pi_voice.domain.ids import SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.transcript_api import CompleteSessionRequest, SaveTranscriptRequest
from tests.durability.interleaving import Fate, Gate, Outcome
from tests.durability.one_session import OneSession, a_call, says
from tests.durability.reference import (
    Append,
    Complete,
    Delete,
    Dispatch,
    Done,
    Get,
    Join,
    Operation,
    Reference,
    Renew,
    RepeatJoin,
    Sight,
    Stop,
    Sweep,
    Work,
)
from tests.integration.conftest import aws, dynamodb, environment, moto  # noqa: F401 (fixtures)
from tests.integration.samples import NOW
from tests.integration.store import Store, Tables
from tests.support.fakes import FakeClient, FakeClock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


class World(OneSession):
    """One session whose requests run one at a time."""

    def __init__(self, store: Store, session: Session) -> None:
        super().__init__(store, FakeClock(NOW))
        self.gate, self.session_id = Gate(), session.session_id
        self._runner = asyncio.Runner()
        self._runner.get_loop().set_default_executor(self.gate)
        self._runner.run(self.begin(session))

    def close(self) -> None:
        self._runner.close()

    def race(self, work: Sequence[Coroutine[Any, Any, Any]], turns: Sequence[tuple[int, Fate]]) -> list[Outcome]:
        return self._runner.run(self.gate.race(work, turns))

    def look(self) -> Sight:
        """Read the rows directly."""
        session = self._runner.run(self.store.sessions.get(self.session_id))
        rows = self._rows("checkpoint#")
        pieces = [unpack([bytes(row["data"]["B"])]) for row in rows]
        packed = [bytes(row["data"]["B"]) for row in self._rows(f"transcript#{session and session.transcript_id}#")]
        return Sight(
            now=int(self.clock()),
            session=session,
            tombstone=None if session else self._runner.run(self.store.sessions.duties(self.session_id)),
            pieces=len(self._rows("")),
            kept=[turn for piece in pieces for turn in piece],
            starts=[int(row["piece"]["S"].rpartition("#")[2]) for row in rows],
            lengths=[len(piece) for piece in pieces],
            transcript=unpack(packed) if packed else None,
            inside=frozenset(self.room.inside),
        )

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        answer = self.store.dynamodb.query(
            TableName=self.store.names.transcripts,
            KeyConditionExpression="session_id = :id",
            ExpressionAttributeValues={":id": {"S": self.session_id}},
            ConsistentRead=True,
        )
        return [row for row in answer["Items"] if row["piece"]["S"].startswith(kind)]

    def prepare(  # noqa: C901, PLR0911 (one case for each)
        self, operation: Operation, reference: Reference
    ) -> tuple[Coroutine[Any, Any, Any], Any]:
        """Return an operation's coroutine and the input of its caller."""
        client = FakeClient(self.session_id)
        match operation:
            case Append(writer, back, count):
                first = max(0, len(reference.acknowledged) - back)
                turns = [says(writer, number) for number in range(first, first + count)]
                sent = SaveTranscriptRequest.model_validate({"from": first, "turns": turns})
                return self.save_transcript(self.session_id, sent, client), (first, turns)
            case Complete(own):
                said = None if own is None else [says(7, number) for number in range(own)]
                return self.complete_session(self.session_id, CompleteSessionRequest(transcript=said), client), said
            case Stop():
                return self.stop_session(self.session_id, client), None
            case Renew(has_handle):
                request = RenewSessionRequest(has_resumption_handle=has_handle)
                return self.renew_session(self.session_id, request, client), None
            case Sweep():
                return self.sweep_sessions(), None
            case Work(place):
                return self.work(place), None
            case Dispatch(place):
                return self.dispatch(place), None
            case Join(seconds_ago, is_own_room):
                participant = self.new_participant(self.session_id, seconds_ago, is_own_room=is_own_room)
                return self.join(participant), participant
            case RepeatJoin():
                participant = min(self.room.untold, default=0)
                return (self.tell(participant) if participant else asyncio.sleep(0)), participant
            case Get():
                return self.read_sessions.get_session(self.session_id, client), None
            case Delete():
                return self.delete_session(self.session_id, client), None


# ---- The state machine ----

FATES = [
    *[Fate.DONE] * 36,
    *[Fate.REPEATED] * 3,
    Fate.REFUSED,
    Fate.UNHEARD,
    Fate.CRASH_BEFORE,
    Fate.CRASH_AFTER,
]
TURNS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(FATES)), min_size=8, max_size=24)
RIVALS: list[tuple[Operation, Operation]] = [
    (Append(0, count=2), Append(1)),
    (Complete(), Append()),
    (Complete(), Complete(2)),
    (Sweep(), Append()),
    (Sweep(), Complete()),
    (Sweep(), Renew()),
    (Sweep(), Join()),
    (Renew(), Stop()),
    (Complete(2), Delete()),
    (Sweep(), Delete()),
    (Work(), Work(1)),
    (Dispatch(), Dispatch(1)),
    (Dispatch(), Complete()),
    (Dispatch(), Sweep()),
    (Dispatch(), Delete()),
    (Join(), Stop()),
    (Join(), Join(90)),
]
APPEND = st.builds(Append, st.sampled_from([0, 0, 1]), st.sampled_from([0, 0, 0, 1, 2, -1]), st.integers(1, 3))
COMPLETE = st.builds(Complete, st.sampled_from([None, None, 0, 2]))
WORK = st.builds(Work, st.integers(0, 2))
JOIN = st.builds(Join, st.sampled_from([0, 0, 5, 90]), st.sampled_from([True, True, False]))
RENEW = st.builds(Renew, st.booleans())
OPERATIONS = st.one_of(
    *[APPEND] * 5,
    *[COMPLETE] * 2,
    *[st.just(Sweep())] * 2,
    *[WORK] * 2,
    st.just(Dispatch()),
    *[JOIN] * 2,
    st.just(Stop()),
    RENEW,
    st.just(RepeatJoin()),
    st.just(Get()),
    st.just(Delete()),
)
ROUNDS = 40
OF_THE_CALL = ("hang_up", "close_room")
"""Duties that end a call."""


class Machine(RuleBasedStateMachine):
    """One session with its clients, LiveKit, the scheduled job and the workers."""

    def __init__(self, dynamodb: "DynamoDBClient", aws: AwsClient) -> None:  # noqa: F811 (fixtures' values)
        super().__init__()
        self.tables = Tables(dynamodb)
        self.store = Store(dynamodb, aws, self.tables)
        self.reference = Reference()
        self.world: World | None = None

    @initialize(
        cap=st.sampled_from([None, 60, 600]), ttl=st.sampled_from([60, 600]), grace=st.sampled_from([86_400, 60, 0])
    )
    def start(self, cap: int | None, ttl: int, grace: int) -> None:
        session = a_call(SessionId("019a0000-0000-7000-8000-0000000000ab"), ttl, grace, cap)
        self.world = World(self.store, session)

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=3), turns=TURNS)
    def together(self, operations: list[Operation], turns: list[tuple[int, Fate]]) -> None:
        self.step(operations, turns)

    @rule(rivals=st.sampled_from(RIVALS), few=st.integers(0, 5))
    def overtaking(self, rivals: tuple[Operation, Operation], few: int) -> None:
        """Let the first operation send a few requests and then overtake it: enough for most races."""
        self.step(rivals, [(0, Fate.DONE)] * few + [(1, Fate.DONE)] * 24)

    @rule(seconds=st.sampled_from([1, 15, 30, 75, 120, 600, 3_600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        assert self.world
        self.world.clock.now += seconds

    @rule(seconds=st.sampled_from([0, 1]))
    def it_is_due(self, seconds: int) -> None:
        """Advance the time until the sweeper has work."""
        sight = self.look()
        duties = sight.session.duties if sight.session else sight.tombstone
        if self.world and duties and duties.due_at is not None:
            self.world.clock.now = max(self.world.clock.now, duties.due_at + seconds)

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
            Done(operation, outcome, sent)
            for operation, outcome, (_, sent) in zip(operations, outcomes, prepared, strict=True)
        ]
        for each in done:
            note(f"{each.operation}: {each.outcome}")
        after = self.look()
        reference.learn(before, done, after)
        return outcomes

    def look(self) -> Sight:
        assert self.world
        return self.world.look()

    def teardown(self) -> None:
        try:
            if self.world is not None:
                self.all_is_well_in_the_end(self.world)
        finally:
            if self.world is not None:
                self.world.close()
            self.tables.drop()

    def all_is_well_in_the_end(self, world: World) -> None:
        """Remove all faults and let time pass: the session ends by itself, with its results."""
        world.model.mood = "answers"
        while world.room.untold:
            [repeated] = self.step([RepeatJoin()])
            assert repeated.is_acknowledged
        self.try_again(world)
        self.over_calls_are_over()
        for _ in range(ROUNDS):
            session = self.look().session
            if session is None or (session.status != "active" and session.duties.due_at is None):
                break
            self.queues_are_empty(world)
            if session.is_ongoing and session.call_ends_at is not None:
                world.clock.now = max(world.clock.now, session.call_ends_at)
            elif session.duties.due_at is not None:
                world.clock.now = max(world.clock.now, session.duties.due_at)
            self.try_again(world)
            self.over_calls_are_over()
        else:
            pytest.fail(f"It never ends: {self.look()}")
        while (duties := self.look().tombstone) is not None:
            assert duties.due_at is not None, "a tombstone without duties stays"
            world.clock.now = max(world.clock.now, duties.due_at)
            self.step([Sweep()])
        sight = self.look()
        if sight.session is None:
            assert not sight.pieces, "something of a deleted session is left"
            assert not self.reference.had_token & sight.inside, "a session was deleted, and its call goes on"
        else:
            assert not self.reference.reported & sight.inside, "a session has ended, and its call goes on"
        self.events_were_dispatched(world, sight)
        if sight.session is not None and sight.session.status == "completed" and sight.session.turns:
            assert sight.session.extraction is not None
            assert sight.session.extraction.status != "skipped"

    def queues_are_empty(self, world: World) -> None:
        """Let the workers receive each message once."""
        for _ in range(len(world.queue.waiting)):
            self.step([Work()])
        for _ in range(len(world.event_queue.waiting)):
            self.step([Dispatch()])

    def events_were_dispatched(self, world: World, sight: Sight) -> None:
        """Assert that each event has its delivery, unless the session was deleted, and that a call started once."""
        dispatched = {each.event_id: each.type for each in world.deliveries.stored.values()}
        types = [*{**self.reference.owed, **dispatched}.values()]
        assert types.count("session.started") <= 1
        assert types.count("session.completed") + types.count("session.failed") <= 1
        if sight.session is not None:
            assert sight.session.owed_events == ()
            assert self.reference.owed.keys() <= dispatched.keys()
            assert f"session.{sight.session.status}" in types

    def try_again(self, world: World) -> None:
        """Let the sweeper run, also after the pauses of tries that failed."""
        for _ in range(ROUNDS):
            self.step([Sweep()])
            session = self.look().session
            tried = [each for name in OF_THE_CALL if session and (each := session.duties.get(name)) and each.tries]
            if not tried:
                return
            world.clock.now = max(world.clock.now, *(each.due_at for each in tried))

    def over_calls_are_over(self) -> None:
        sight = self.look()
        if sight.session is None or sight.session.status != "active":
            return
        cap_ends_at = sight.session.call_ends_at
        if cap_ends_at is not None and cap_ends_at <= sight.now:
            assert sight.session.hung_up_at is not None, "a call over its cap goes on"
        if sight.session.hung_up_at is not None:
            assert not self.reference.reported & sight.inside, "a call that was hung up goes on"


def search(dynamodb: "DynamoDBClient", aws: AwsClient, examples: int, steps: int) -> None:  # noqa: F811
    faulthandler.cancel_dump_traceback_later()  # hypothesis has its own limits

    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(dynamodb, aws)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_a_few_interleavings_match_the_reference(dynamodb: "DynamoDBClient", aws: AwsClient) -> None:  # noqa: F811
    search(dynamodb, aws, examples=15, steps=6)


@pytest.mark.durability
def test_many_interleavings_match_the_reference(dynamodb: "DynamoDBClient", aws: AwsClient) -> None:  # noqa: F811
    search(dynamodb, aws, examples=150, steps=8)

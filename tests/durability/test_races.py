"""Races between named operations, with real threads over the store: many rounds, and one winner each.

Fifty concurrent completions through the whole stack are in tests/local/test_race.py.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from pi_voice.domain import session_api
from pi_voice.domain.agents import Agent, CreateAgentRequest, ListAgentVersionsQuery, SavedAgent, VersionNumber
from pi_voice.domain.connection_api import CreatedSession, CreateSessionRequest, RenewedSession, RenewSessionRequest
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import AgentNotFound, SessionNotActive, SessionNotFound, TranscriptConflict, VoiceError
from pi_voice.domain.ids import AgentId, SessionId, uuid7
from pi_voice.domain.sessions import Participant, Session
from pi_voice.domain.sweeps import SweepSessionsResult
from pi_voice.domain.tool_calls import CallToolRequest, ToolCall
from pi_voice.domain.transcript_api import CompleteSessionRequest, SavedTranscript, SaveTranscriptRequest
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.usage_api import ReportUsageRequest
from pi_voice.use_cases.delete_session import DELETE_AGAIN_SECONDS
from pi_voice.use_cases.extract_results import ExtractionUnfinished
from pi_voice.use_cases.manage_agents import ManageAgents
from tests.durability.one_session import OneSession, a_call, says
from tests.integration.conftest import aws, dynamodb, environment, moto, runner, store  # noqa: F401 (fixtures)
from tests.integration.samples import NOW
from tests.integration.store import Request, Store
from tests.support.fakes import FakeCaller, FakeClient, FakeClock, FakeWebhookEndpoints
from tests.support.stored_words import stored_words

pytestmark = pytest.mark.durability

ROUNDS = 40
TTL, GRACE = 600, 60
MOST_SECONDS_APART = 0.02


@dataclass
class Track:
    """The environment of the races."""

    store: Store
    runner: asyncio.Runner
    chance: random.Random

    def session(self, kept: int = 0) -> "Racing":
        """Create a session with this many saved turns."""
        racing = Racing(self, SessionId(uuid7()))
        self.runner.run(racing.all.begin(a_call(racing.session_id, TTL, GRACE)))
        if kept:
            self.runner.run(racing.append(0, 0, kept))
        return racing

    def race(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run all nearly at once, and return the outcome of each."""

        async def start(each: Coroutine[Any, Any, Any]) -> Any:
            await asyncio.sleep(self.chance.choice([0, self.chance.uniform(0, MOST_SECONDS_APART)]))
            try:
                return await each
            except (VoiceError, ExtractionUnfinished) as error:
                return error

        async def run() -> list[Any]:
            return await asyncio.gather(*map(start, work))

        return self.runner.run(run())


class Racing:
    """A session, and short names for the concurrent operations."""

    def __init__(self, track: Track, session_id: SessionId) -> None:
        self._track = track
        self.session_id = session_id
        self.all = OneSession(track.store, FakeClock(NOW))
        self._client = FakeClient(session_id)

    def race(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run all nearly at once, and return the outcome of each."""
        return self._track.race(*work)

    def append(self, writer: int, start: int, count: int) -> Coroutine[Any, Any, SavedTranscript]:
        turns = [says(writer, number) for number in range(start, start + count)]
        return self.all.save_transcript(
            self.session_id, SaveTranscriptRequest.model_validate({"from": start, "turns": turns}), self._client
        )

    def complete(self, own: list[TranscriptTurn] | None = None) -> Coroutine[Any, Any, session_api.Session]:
        return self.all.complete_session(self.session_id, CompleteSessionRequest(transcript=own), self._client)

    def call_tool(self, call_id: str) -> Coroutine[Any, Any, ToolCall]:
        request = CallToolRequest(call_id=call_id, name="hang_up", response={"by": call_id})
        return self.all.call_tool(self.session_id, request, self._client)

    def report(self, **tokens: dict[str, int]) -> Coroutine[Any, Any, session_api.Usage]:
        return self.all.report_usage(self.session_id, ReportUsageRequest.model_validate(tokens), self._client)

    def stop(self) -> Coroutine[Any, Any, session_api.Session]:
        return self.all.stop_session(self.session_id, self._client)

    def delete(self) -> Coroutine[Any, Any, None]:
        return self.all.delete_session(self.session_id, self._client)

    def renew(self) -> Coroutine[Any, Any, RenewedSession]:
        return self.all.renew_session(self.session_id, RenewSessionRequest(), self._client)

    def sweep(self) -> Coroutine[Any, Any, SweepSessionsResult]:
        return self.all.sweep_sessions()

    @property
    def state(self) -> session_api.Session:
        return self._track.runner.run(self.all.read_sessions.get_session(self.session_id, self._client))

    @property
    def row(self) -> Session:
        session = self._track.runner.run(self._track.store.sessions.get(self.session_id))
        assert session is not None
        return session

    @property
    def turns_kept(self) -> list[TranscriptTurn]:
        return self._track.runner.run(self._track.store.checkpoints.read(self.row))


@pytest.fixture
def track(store: Store, runner: asyncio.Runner) -> Track:  # noqa: F811 (fixtures)
    return Track(store, runner, random.Random(4711))  # noqa: S311 (nothing to guess)


def kinds(answers: list[Any]) -> Counter[str]:
    return Counter(type(answer).__name__ for answer in answers)


def test_of_concurrent_completions_one_wins_and_the_others_write_nothing(track: Track) -> None:
    for _ in range(ROUNDS):
        racing = track.session(kept=2)
        answers = racing.race(racing.complete([says(1, 0)]), racing.complete(), racing.complete([says(2, 0)]))

        assert kinds(answers) == {"Session": 1, "SessionNotActive": 2}
        [won] = [answer for answer in answers if isinstance(answer, session_api.Session)]
        assert (racing.state.transcript, racing.state.results) == (won.transcript, won.results)
        [turns] = {len(turns) for turns in [won.transcript or []]}
        assert racing.row.turns == turns
    rows = track.store.rows(track.store.names.transcripts)
    sessions = track.store.rows(track.store.names.sessions)
    pointed_to = {row["transcript_id"]["S"] for row in sessions}
    transcripts = [row for row in rows if row["piece"]["S"].startswith("transcript#")]
    orphaned = [row for row in transcripts if not pointed_to.intersection(row["piece"]["S"].split("#"))]
    assert orphaned
    assert [row["piece"] for row in orphaned if "ttl" not in row] == []


def test_of_complete_and_the_sweeper_one_ends_the_session(track: Track) -> None:
    winners = Counter[str]()
    for _ in range(ROUNDS):
        racing = track.session(kept=3)
        racing.all.clock.now = NOW + TTL + GRACE
        answer, _, _ = racing.race(racing.complete(), racing.sweep(), racing.sweep())

        state = racing.state
        assert state.transcript == [says(0, number) for number in range(3)]
        assert state.completed_by == ("client" if isinstance(answer, session_api.Session) else "sweeper")
        assert isinstance(answer, session_api.Session | SessionNotActive)
        winners[str(state.completed_by)] += 1
    assert winners.keys() <= {"client", "sweeper"}  # either or both may succeed, depending on timing


@pytest.mark.parametrize("own", [None, [says(9, 0)]], ids=["what-was-kept", "its-own-transcript"])
def test_of_turns_and_complete_acknowledged_turns_are_saved_and_others_refused(
    track: Track, own: list[TranscriptTurn] | None
) -> None:
    outcomes = Counter[str]()
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        kept, completed = racing.race(racing.append(0, 1, 2), racing.complete(own))

        assert isinstance(completed, session_api.Session)
        assert isinstance(kept, SavedTranscript | SessionNotActive)
        there = [says(0, number) for number in range(3 if isinstance(kept, SavedTranscript) else 1)]
        assert racing.turns_kept == there
        assert racing.state.transcript == (there if own is None else own)
        outcomes[type(kept).__name__] += 1
    assert outcomes.keys() <= {"SavedTranscript", "SessionNotActive"}


def test_of_tool_calls_and_complete_acknowledged_calls_are_recorded_once_and_others_refused(track: Track) -> None:
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        *answers, completed = racing.race(*map(racing.call_tool, ("one", "one", "two")), racing.complete())

        assert isinstance(completed, session_api.Session)
        assert all(isinstance(answer, ToolCall | SessionNotActive) for answer in answers)
        acknowledged = {answer.call_id for answer in answers if isinstance(answer, ToolCall)}
        recorded = [call.call_id for call in racing.state.tool_calls]
        assert sorted(recorded) == sorted(acknowledged)
        assert completed.tool_calls == racing.state.tool_calls
        assert racing.row.tool_calls == len(recorded)


def test_of_reports_of_usage_and_complete_the_larger_of_each_number_is_kept(track: Track) -> None:
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        *answers, completed = racing.race(
            racing.report(input_tokens={"text": 3, "audio": 1}),
            racing.report(input_tokens={"text": 1, "audio": 3}, output_tokens={"audio": 2}),
            racing.report(output_tokens={"text": 1, "audio": 1}),
            racing.report(input_tokens={"text": 2}),
            racing.complete(),
        )

        assert kinds(answers) == {"Usage": 4}
        assert isinstance(completed, session_api.Session)
        state = racing.state
        assert (state.status, state.transcript) == ("completed", [says(0, 0)])
        assert state.usage is not None
        assert state.usage.input_tokens == {"text": 3, "audio": 3}
        assert state.usage.output_tokens == {"text": 1, "audio": 2}


def test_of_a_report_of_usage_and_delete_the_session_is_gone(track: Track) -> None:
    outcomes = Counter[str]()
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        racing.race(racing.complete())
        reported, deleted = racing.race(racing.report(input_tokens={"text": 3}), racing.delete())

        assert deleted is None
        assert isinstance(reported, session_api.Usage | SessionNotFound)
        with pytest.raises(SessionNotFound):
            _ = racing.state
        racing.all.clock.now += 2 * (TTL + GRACE + DELETE_AGAIN_SECONDS)
        racing.race(racing.sweep())
        outcomes[type(reported).__name__] += 1
    assert outcomes.keys() <= {"Usage", "SessionNotFound"}
    assert track.store.rows(track.store.names.sessions) == []


def test_of_two_workers_on_one_message_one_writes_the_results(track: Track) -> None:
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        racing.all.model.mood = "is busy"
        racing.race(racing.complete())
        assert racing.state.extraction is not None
        assert racing.state.extraction.status == "pending"
        racing.all.model.mood = "answers"

        extract = partial(racing.all.extract_results, racing.session_id, 60.0, is_last=False)
        answers = racing.race(*(extract() for _ in range(3)))
        first = racing.state
        assert answers == [None, None, None]
        assert first.extraction is not None
        assert (first.extraction.status, first.extraction.attempts) == ("succeeded", 4)
        racing.race(extract())
        assert racing.state == first
        racing.all.clock.now += 3_600
        racing.race(racing.sweep())
        assert racing.row.duties.without("send_events").due_at is None


def test_of_stop_and_renew_the_call_is_over_and_the_room_is_empty(track: Track) -> None:
    outcomes = Counter[str]()
    for _ in range(ROUNDS):
        racing = track.session()
        racing.race(racing.all.join(racing.all.new_participant(racing.session_id)))
        racing.all.clock.now += 60
        stopped, renewed = racing.race(racing.stop(), racing.renew())

        assert isinstance(stopped, session_api.Session)
        assert isinstance(renewed, RenewedSession | SessionNotActive)
        assert not racing.all.room.inside
        row = racing.row
        assert (row.hung_up_at, row.end_reason) == (NOW + 60, "stopped")
        duties = row.duties.without("send_events")
        assert duties == Duties().plus(end_call=NOW + TTL + GRACE, close_room=row.tokens_end_at)
        assert row.expires_at == (renewed.expires_at if isinstance(renewed, RenewedSession) else NOW + TTL)
        outcomes[type(renewed).__name__] += 1
    assert outcomes.keys() <= {"RenewedSession", "SessionNotActive"}


def test_of_stop_and_complete_the_call_ends_once_with_the_reason_of_the_first(track: Track) -> None:
    outcomes = Counter[str]()
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        stopped, completed = racing.race(racing.stop(), racing.complete())

        assert isinstance(completed, session_api.Session)
        assert isinstance(stopped, session_api.Session | SessionNotActive)
        state = racing.state
        assert state.status == "completed"
        assert state.end_reason == ("stopped" if isinstance(stopped, session_api.Session) else "completed")
        assert (state.hung_up_at is None) == isinstance(stopped, SessionNotActive)
        outcomes[type(stopped).__name__] += 1
    assert outcomes.keys() <= {"Session", "SessionNotActive"}


def test_of_two_writers_with_different_turns_one_is_refused(track: Track) -> None:
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        answers = racing.race(racing.append(1, 1, 2), racing.append(2, 1, 3))

        assert kinds(answers) == {"SavedTranscript": 1, "TranscriptConflict": 1}
        [writer] = [number for number, answer in enumerate(answers, start=1) if isinstance(answer, SavedTranscript)]
        [refusal] = [answer for answer in answers if isinstance(answer, TranscriptConflict)]
        kept = racing.turns_kept
        assert kept == [says(0, 0), *(says(writer, number) for number in range(1, len(kept)))]
        assert refusal.next == len(kept)


def test_of_two_writers_with_the_same_turns_both_succeed(track: Track) -> None:
    for _ in range(ROUNDS):
        racing = track.session(kept=1)
        answers = racing.race(racing.append(0, 1, 2), racing.append(0, 0, 5), racing.append(0, 1, 1))

        assert kinds(answers) == {"SavedTranscript": 3}
        assert racing.turns_kept == [says(0, number) for number in range(5)]
        assert max(answer.next for answer in answers) == 5


def test_of_a_join_and_stop_the_room_is_empty(track: Track) -> None:
    for _ in range(ROUNDS):
        racing = track.session()
        join = racing.all.join(racing.all.new_participant(racing.session_id))
        joined, stopped = racing.race(join, racing.stop())

        assert joined is None
        assert isinstance(stopped, session_api.Session)
        assert not racing.all.room.inside
        assert racing.row.livekit.first_joined_at == NOW


def test_a_transcript_that_is_written_after_the_delete_is_deleted_when_its_time_comes(track: Track) -> None:
    racing, names = track.session(kept=1), track.store.names
    others: list[Any] = []

    def overtaken(put: Request) -> Request:
        def late(**arguments: Any) -> Any:
            """Put the piece after another request has completed the session, and a third has deleted it."""
            others.append(asyncio.run(racing.complete([says(1, 0)])))
            others.append(asyncio.run(racing.delete()))
            return put(**arguments)

        return late

    slow = OneSession(track.store.through(put_item=overtaken), racing.all.clock)
    request = CompleteSessionRequest(transcript=[says(2, 0)])
    with pytest.raises(SessionNotActive):
        asyncio.run(slow.complete_session(racing.session_id, request, FakeClient(racing.session_id)))

    assert [getattr(other, "status", None) for other in others] == ["completed", None]
    assert "2 says 0" in stored_words(track.store.dynamodb, [names.transcripts])[names.transcripts]

    racing.all.clock.now += DELETE_AGAIN_SECONDS
    asyncio.run(racing.sweep())

    tables = (names.agents, names.sessions, names.transcripts, names.api_keys, names.idempotency)
    assert "says 0" not in "".join(stored_words(track.store.dynamodb, tables).values())


# ---- Agents -----------------------------------------------------------------------------------------

ACME = FakeCaller("acme")


class RacingAgent:
    """An agent with versions 1 and 2, named Ana and Bea, and short names for the concurrent operations."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._all = OneSession(track.store, FakeClock(NOW))
        self._manage = ManageAgents(track.store.agents, FakeWebhookEndpoints())
        request = CreateAgentRequest(name="Ana", instructions="Take the call.")
        self.agent_id: AgentId = track.runner.run(self._manage.create_agent(request, ACME)).agent_id
        track.runner.run(self.rename("Bea"))

    def rename(self, name: str, if_match: str | None = None) -> Coroutine[Any, Any, SavedAgent]:
        return self._manage.update_agent(self.agent_id, {"name": name}, ACME, if_match)

    def restore(
        self, version: int, if_match: str | None = None, request_hash: str | None = None
    ) -> Coroutine[Any, Any, SavedAgent]:
        number = VersionNumber(str(version))
        return self._manage.restore_agent_version(self.agent_id, number, ACME, if_match, request_hash)

    def delete(self) -> Coroutine[Any, Any, None]:
        return self._manage.delete_agent(self.agent_id, ACME)

    def start_call(self, version: int | None) -> Coroutine[Any, Any, CreatedSession]:
        participant = Participant(identity="caller")
        request = CreateSessionRequest(agent_id=self.agent_id, agent_version=version, participant=participant)
        return self._all.create_session(request, ACME)

    @property
    def versions(self) -> list[Agent]:
        """All versions, oldest first."""
        query = ListAgentVersionsQuery(limit=100)
        return self._track.runner.run(self._manage.list_agent_versions(self.agent_id, query, ACME)).data[::-1]

    @property
    def current(self) -> Agent:
        return self._track.runner.run(self._manage.get_agent(self.agent_id, ACME))

    def version(self, number: int) -> Agent:
        return self._track.runner.run(self._track.store.agents.version(self.agent_id, number))


def test_of_restores_and_updates_each_change_is_a_version_of_its_own(track: Track) -> None:
    for _ in range(ROUNDS):
        agent = RacingAgent(track)
        answers = track.race(agent.restore(1), agent.rename("Cleo"), agent.restore(1), agent.rename("Dora"))

        assert kinds(answers) == {"SavedAgent": 4}
        versions = agent.versions
        assert [version.version for version in versions] == list(range(1, len(versions) + 1))
        assert versions[-1] == agent.current
        for answer in answers:
            assert answer.name == agent.version(answer.version).name
        assert {answer.name for answer in answers} == {"Ana", "Cleo", "Dora"}


def test_of_changes_with_one_precondition_one_is_made(track: Track) -> None:
    winners = Counter[str]()
    for _ in range(ROUNDS):
        agent = RacingAgent(track)
        answers = track.race(agent.restore(1, '"2"'), agent.rename("Cleo", '"2"'), agent.rename("Dora", '"2"'))

        assert kinds(answers) == {"SavedAgent": 1, "AgentVersionConflict": 2}
        [won] = [answer for answer in answers if isinstance(answer, SavedAgent)]
        assert (agent.current.version, agent.current.name) == (3, won.name)
        winners[won.name] += 1
    assert winners.keys() <= {"Ana", "Cleo", "Dora"}


def test_of_the_same_restore_twice_one_is_made(track: Track) -> None:
    for _ in range(ROUNDS):
        agent = RacingAgent(track)
        answers = track.race(*(agent.restore(1) for _ in range(3)))

        assert [(answer.version, answer.name) for answer in answers] == [(3, "Ana")] * 3
        assert len(agent.versions) == 3


def test_of_a_restore_and_a_delete_the_agent_is_gone(track: Track) -> None:
    outcomes = Counter[str]()
    for _ in range(ROUNDS):
        agent = RacingAgent(track)
        restored, deleted = track.race(agent.restore(1), agent.delete())

        assert deleted is None
        assert isinstance(restored, SavedAgent | AgentNotFound)
        with pytest.raises(AgentNotFound):
            _ = agent.current
        outcomes[type(restored).__name__] += 1
    assert outcomes.keys() <= {"SavedAgent", "AgentNotFound"}


def test_a_session_of_a_version_has_that_version_while_the_agent_changes(track: Track) -> None:
    outcomes = Counter[str]()
    for _ in range(ROUNDS):
        agent = RacingAgent(track)
        pinned, current, _, deleted = track.race(
            agent.start_call(1), agent.start_call(None), agent.rename("Cleo"), agent.delete()
        )

        assert deleted is None
        for answer, versions in ((pinned, {1}), (current, {2, 3})):
            assert isinstance(answer, CreatedSession | AgentNotFound)
            if isinstance(answer, CreatedSession):
                assert answer.agent_version in versions
                assert agent.version(answer.agent_version).name in ("Ana", "Bea", "Cleo")
            outcomes[type(answer).__name__] += 1
    assert outcomes.keys() <= {"CreatedSession", "AgentNotFound"}

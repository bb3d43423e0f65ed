"""The use cases over the real store, for one session at a time; LiveKit, Gemini and the queue are in memory.

Their calls go through `asyncio.to_thread`, as the store's requests do, so a test can control the order of all of them.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar, get_args

from pi_voice.domain.agents import Agent, Behaviors
from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.connection_api import GeminiLiveConnection, LiveKitConnection
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, LiveKitUnavailable, StorageError, VoiceError
from pi_voice.domain.ids import EndpointId, SessionId
from pi_voice.domain.sessions import LiveKitRoom, Medium, Participant, Session
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_events import SessionEventType
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets
from pi_voice.entrypoints.events import MAX_DELIVERIES
from pi_voice.ports import CreatedRoom, LiveTokenRequest, ModelRequest, ModelResponse, SessionQueues, SignedWebhook
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.call_tool import CallTool
from pi_voice.use_cases.complete_session import CompleteSession
from pi_voice.use_cases.create_session import CreateSession
from pi_voice.use_cases.delete_session import DeleteSession
from pi_voice.use_cases.dispatch_events import DispatchEvents
from pi_voice.use_cases.end_session import EndSession
from pi_voice.use_cases.extract_results import ExtractResults
from pi_voice.use_cases.extractor import Extractor
from pi_voice.use_cases.issue_connections import IssueConnections
from pi_voice.use_cases.read_sessions import ReadSessions
from pi_voice.use_cases.receive_livekit_webhook import ReceiveLivekitWebhook
from pi_voice.use_cases.renew_session import RenewSession
from pi_voice.use_cases.report_usage import ReportUsage
from pi_voice.use_cases.run_server_tool import RunServerTool
from pi_voice.use_cases.save_transcript import SaveTranscript
from pi_voice.use_cases.stop_session import StopSession
from pi_voice.use_cases.sweep_sessions import SweepSessions
from tests.integration.samples import ACME, NOW, a_session, an_agent
from tests.integration.store import Store
from tests.support.fakes import (
    FakeClock,
    FakeDeliveryQueue,
    FakeToolSender,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
)

Answer = TypeVar("Answer")

MASTERS: Final = WebhookSecrets(lambda: Masters("a1", {"a1": "m" * 32}))
ENDPOINT: Final = WebhookEndpoint(
    endpoint_id=EndpointId("019a0000-0000-7000-8000-0000000000e1"),
    workspace=ACME,
    url="https://receiver.example.com",
    secret=SecretVersion("a1", 1),
    created_at=NOW,
    updated_at=NOW,
    events=get_args(SessionEventType.__value__),
)
"""An endpoint that is subscribed to all events."""

# ---- Services ----


async def asked(error: type[VoiceError], do: Callable[[], Answer]) -> Answer:
    try:
        return await asyncio.to_thread(do)
    except TimeoutError:
        raise error from None


class Unlimited:
    """A rate limiter without a limit."""

    async def acquire(self, owner: str) -> None: ...


@dataclass
class Room:
    """The session's room at LiveKit, which a join opens too, and the joins without a delivered webhook."""

    inside: set[int] = field(default_factory=set)
    untold: set[int] = field(default_factory=set)
    events: dict[int, bytes] = field(default_factory=dict)

    async def open(self, session: Session) -> CreatedRoom:
        return await asked(LiveKitUnavailable, lambda: CreatedRoom("RM_ours", session.created_at))

    async def close(self, session_id: SessionId) -> None:  # noqa: ARG002 (there is one)
        await asked(LiveKitUnavailable, self.inside.clear)

    def issue_token(self, session: Session, participant: Participant, media: Sequence[Medium]) -> LiveKitConnection:
        return LiveKitConnection(url="wss://livekit.test", token=f"{participant} {media}", room=session.session_id)

    def enter(self, participant: int) -> None:
        self.inside.add(participant)
        self.untold.add(participant)


class TrustingVerifier:
    """Accepts every signature."""

    def verify(self, webhook: SignedWebhook) -> None: ...


class Tokens:
    """Tokens of Gemini Live."""

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        made = GeminiLiveConnection(
            url="wss://gemini.test",
            token=request.voice,
            model="gemini-live",
            setup={},
            turn_ends_at="turnComplete",
            tools=[],
        )
        return await asked(GeminiUnavailable, lambda: made)


class Model:
    """The extraction model: it answers, is busy, refuses, or returns invalid text. Every answer is different."""

    name = "fake-model"

    def __init__(self) -> None:
        self.mood = "answers"
        self._asked = 0

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:  # noqa: ARG002
        return await asked(GeminiUnavailable, self._answer)

    def _answer(self) -> ModelResponse:
        self._asked += 1
        match self.mood:
            case "is busy":
                raise GeminiUnavailable
            case "refuses":
                raise GeminiError
            case "talks nonsense":
                return ModelResponse("Well, I would say", self.name)
            case _:
                return ModelResponse(json.dumps({"age": self._asked}), self.name)


@dataclass(eq=False)
class Message:
    """A message and the number of its deliveries."""

    session_id: SessionId
    deliveries: int = 0


@dataclass
class Queue:
    """Waiting messages."""

    waiting: list[Message] = field(default_factory=list)

    async def put(self, session_id: SessionId, delay_seconds: int = 0) -> None:  # noqa: ARG002 (time is the test's)
        await asked(StorageError, lambda: self.waiting.append(Message(session_id)))

    async def delay(self, receipt_handle: str, seconds: int) -> None: ...


# ---- The session ----


class OneSession:
    """A session and the operations on it."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.clock, self.store = clock, store
        self.room, self.model, self.queue, self.event_queue = Room(), Model(), Queue(), Queue()
        queues = SessionQueues(self.queue, self.event_queue)
        self._participants = 0
        sessions, checkpoints, transcripts = store.sessions, store.checkpoints, store.transcripts_kept(0, clock)
        tool_calls = store.tool_calls
        content = CallContent(transcripts, tool_calls)
        issue_connections = IssueConnections(
            self.room, Tokens(), ClientTokens(lambda: ["a secret of no less than 32 letters"], clock)
        )
        self.create_session = CreateSession(store.agents, sessions, issue_connections, Unlimited(), clock=clock)
        self.stop_session = StopSession(sessions, tool_calls, self.room, clock)
        end_session = EndSession(sessions, transcripts, checkpoints, clock)
        extractor = Extractor(self.model, clock=clock, sleep=lambda _: asyncio.sleep(0))
        self.extract_results = ExtractResults(store.agents, sessions, content, extractor, queues, clock)
        self.complete_session = CompleteSession(
            sessions, end_session, self.extract_results, lambda: self.room, Unlimited(), self.event_queue
        )
        self.save_transcript = SaveTranscript(sessions, checkpoints, clock)
        self.deliveries, self.tool_sender = FakeWebhookDeliveries(), FakeToolSender()
        run_server_tool = RunServerTool(
            tool_calls, FakeWebhookEndpoints(ENDPOINT), self.deliveries, MASTERS, self.tool_sender, clock
        )
        self.call_tool = CallTool(store.agents, sessions, tool_calls, run_server_tool, clock)
        self.report_usage = ReportUsage(sessions, clock)
        self.renew_session = RenewSession(store.agents, sessions, checkpoints, tool_calls, issue_connections, clock)
        self.sweep_sessions = SweepSessions(
            sessions, transcripts, end_session, self.stop_session, self.room, queues, clock=clock
        )
        self.receive_livekit_webhook = ReceiveLivekitWebhook(
            TrustingVerifier(), sessions, lambda: self.room, lambda: self.event_queue, clock
        )
        self.dispatch_events = DispatchEvents(
            sessions, FakeWebhookEndpoints(ENDPOINT), self.deliveries, FakeDeliveryQueue(), clock
        )
        self.read_sessions = ReadSessions(sessions, content)
        self.delete_session = DeleteSession(sessions, transcripts, clock)

    async def begin(self, session: Session) -> None:
        """Save the session, and an agent with an output schema for it."""
        hanging_up = Behaviors(may_hang_up=True)
        agent = an_agent(output_schema={"age": "integer"}, output_schema_strict=None, behaviors=hanging_up)
        await self.store.agents.save(session.workspace, agent)
        await self.store.sessions.add(_of(session, agent))

    async def work(self, place: int = 0) -> None:
        """Deliver a message as SQS does: it is removed on success or after too many deliveries."""
        if not self.queue.waiting:
            return
        message = self.queue.waiting[place % len(self.queue.waiting)]
        message.deliveries += 1
        if message.deliveries > MAX_DELIVERIES:
            self._done_with(message)
            return
        await self.extract_results(message.session_id, 60.0, is_last=message.deliveries == MAX_DELIVERIES)
        await asked(StorageError, partial(self._done_with, message))

    def _done_with(self, message: Message) -> None:
        self.queue.waiting = [each for each in self.queue.waiting if each is not message]

    async def dispatch(self, place: int = 0) -> None:
        """Deliver a message of the other queue; it is removed on success."""
        waiting = self.event_queue.waiting
        if not waiting:
            return
        message = waiting[place % len(waiting)]
        await self.dispatch_events(message.session_id, 60.0)
        await asked(StorageError, lambda: waiting.remove(message) if message in waiting else None)

    def new_participant(self, session_id: SessionId, seconds_ago: int = 0, *, is_own_room: bool = True) -> int:
        """Return a new participant and the webhook of their join."""
        event = {
            "event": "participant_joined",
            "room": {"sid": "RM_ours" if is_own_room else "RM_later", "name": session_id},
            "createdAt": str(int(self.clock()) - seconds_ago),
        }
        self._participants += 1
        self.room.events[self._participants] = json.dumps(event).encode()
        return self._participants

    async def join(self, participant: int) -> None:
        """Let a participant join the room, and deliver the webhook."""
        await asked(LiveKitUnavailable, partial(self.room.enter, participant))
        await self.tell(participant)

    async def tell(self, participant: int) -> None:
        """Deliver the webhook of a join until it is answered."""
        await self.receive_livekit_webhook(SignedWebhook("", self.room.events[participant]))
        self.room.untold.discard(participant)


def _of(session: Session, agent: Agent) -> Session:
    return replace(session, agent_id=agent.agent_id, agent_version=agent.version)


def a_call(session_id: SessionId, ttl: int = 600, grace: int = 86_400, cap: int | None = None) -> Session:
    """Return a session that has just been created."""
    return a_session(
        session_id=session_id,
        livekit=LiveKitRoom(room_name=session_id, room_sid="RM_ours", started_at=NOW),
        max_duration_seconds=min(cap, ttl) if cap else None,
        ttl_seconds=ttl,
        expires_at=NOW + ttl,
        grace_seconds=grace,
    ).with_first_duties()


def says(writer: int, number: int) -> TranscriptTurn:
    """Return the text that only this writer sends at this position."""
    return {"role": "agent" if number % 2 else "user", "text": f"{writer} says {number}"}

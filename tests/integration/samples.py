"""Sample agents, sessions and turns, with ids of their own."""

import asyncio
from dataclasses import replace
from typing import Any

from pi_voice.domain.agents import Agent, Behaviors, VoiceChoice
from pi_voice.domain.duties import Duties
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import AgentId, EndpointId, EventId, SessionId, TranscriptId, WorkspaceId, uuid7
from pi_voice.domain.sessions import LiveKitRoom, Participant, Session, SessionCompletion, Tombstone
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.variables import Variable
from pi_voice.domain.webhook_deliveries import Delivery, delivery_id
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from tests.integration.store import Store

ACME = WorkspaceId("acme")
GLOBEX = WorkspaceId("globex")
NOW = 1_800_000_000
UNPROVISIONED = ErrorInfo(code="livekit_unavailable", message="Try again in a moment.")


def id_made_at(second: int) -> str:
    """Make an id that sorts by this second."""
    return uuid7(lambda: second)


def an_agent(**changes: Any) -> Agent:
    """Make an agent with all fields set."""
    agent = Agent(
        agent_id=AgentId(uuid7()),
        version=1,
        created_at=NOW,
        updated_at=NOW,
        name="Réception 東京 🏥",
        instructions='Greet.\n\tAsk "why" & <when>.',
        language="pt-BR",
        purpose="Intake",
        questions=("How old are you?", "Since when? 😷"),
        behaviors=Behaviors(
            max_duration_seconds=900,
            speaking_pace="slow",
            response_length="brief",
            greeting="Olá!",
            closing_message="Tchau.",
        ),
        output_schema={"age": "integer", "when": {"year": "number"}, "names": ["string"]},
        output_schema_strict={
            "type": "object",
            "properties": {"pain": {"type": ["number", "null"], "minimum": 0.1, "maximum": 1e21}},
            "required": ["pain"],
        },
        voice=VoiceChoice(name="Kore", language_code="pt-PT"),
        variables={
            "guest": Variable(type="string", description="Nome", max_length=40, default="Ana 🙂"),
            "room": Variable(type="number", default=0.1),
            "vip": Variable(type="boolean"),
        },
        metadata={"team": "früh", "empty": ""},
    )
    return agent.model_copy(update=changes)


def a_webhook_endpoint(**changes: Any) -> WebhookEndpoint:
    """Make an endpoint with all fields set."""
    endpoint = WebhookEndpoint(
        endpoint_id=EndpointId(uuid7()),
        workspace=ACME,
        url="https://hooks.example.com/é?a=b",
        secret=SecretVersion("b2", 7),
        created_at=NOW,
        updated_at=NOW + 1,
        events=("session.started", "session.completed"),
        include=("transcript", "results"),
        agent_id=AgentId(uuid7()),
        description="Réception 🏥",
        active=False,
        previous_secret=SecretVersion("a1", 6),
        previous_secret_ends_at=NOW + 86_400,
        failing_since=NOW + 2,
        timeouts=3,
        resting_until=NOW + 300,
        disabled_at=NOW + 3,
        disabled_reason="failing",
        revision=4,
        secret_made_by="hash",
    )
    return replace(endpoint, **changes)


def a_new_endpoint(**changes: Any) -> WebhookEndpoint:
    """Make an endpoint with defaults."""
    return WebhookEndpoint(
        **{
            "endpoint_id": EndpointId(uuid7()),
            "workspace": ACME,
            "url": "https://hooks.example.com/",
            "secret": SecretVersion("a1", 1),
            "created_at": NOW,
            "updated_at": NOW,
            **changes,
        }
    )


def a_session(**changes: Any) -> Session:
    """Make a new session with all its fields set."""
    session_id = SessionId(uuid7())
    session = Session(
        session_id=session_id,
        workspace=ACME,
        agent_id=AgentId(uuid7()),
        agent_version=3,
        status="active",
        participant=Participant(identity="user-1 é", name="Ana 🙂"),
        max_duration_seconds=300,
        ttl_seconds=600,
        created_at=NOW,
        expires_at=NOW + 600,
        livekit=LiveKitRoom(room_name=session_id, room_sid="RM_ours", started_at=NOW + 1),
        media=("microphone", "camera"),
        metadata={"case": "42 ✓", "empty": ""},
        client_metadata={"page": "é"},
        grace_seconds=3_600,
        duties=Duties().plus(end_call=NOW + 4_200),
    )
    return replace(session, **changes)


def a_call_end(**changes: Any) -> SessionCompletion:
    """Make the completion of a session, with a transcript id of its own."""
    end = SessionCompletion(
        completed_at=NOW + 200,
        completed_by="client",
        duration_seconds=123.457,
        end_reason="completed",
        transcript_id=TranscriptId(uuid7()),
        turns=2,
        extraction=Extraction(status="pending"),
        recheck_at=NOW + 320,
    )
    return end._replace(**changes)


def added(store: Store, **changes: Any) -> Session:
    """Store a new session."""
    session = a_session(**changes)
    asyncio.run(store.sessions.add(session))
    return session


def found(store: Store, session: Session) -> Session:
    """Read a session that has to exist."""
    there = asyncio.run(store.sessions.get(session.session_id))
    assert there is not None
    return there


def deleted(store: Store, session: Session) -> Tombstone:
    """Replace an ended session by a tombstone."""
    tombstone = Tombstone(session.session_id, Duties().plus(delete_again=NOW + 900, close_room=NOW), NOW + 660)
    asyncio.run(store.sessions.delete(tombstone, NOW))
    return tombstone


TURNS: list[TranscriptTurn] = [
    {"role": "agent", "text": "How old are you?", "start_ms": 0, "end_ms": 900},
    {"role": "user", "text": 'Quarante-deux — 四十二 🎂 "\\\n\x00', "start_ms": 1_000, "end_ms": None},
    {"role": "user", "text": ""},
]


def a_delivery(**changes: Any) -> Delivery:
    """Make a pending delivery of a session's event that is due."""
    event_id = EventId(changes.pop("event_id", uuid7()))
    endpoint_id = changes.pop("endpoint_id", EndpointId("019a0000-0000-7000-8000-0000000000e1"))
    return Delivery(
        **{
            "endpoint_id": endpoint_id,
            "delivery_id": delivery_id(event_id, endpoint_id),
            "workspace": ACME,
            "event_id": event_id,
            "type": "session.completed",
            "event_at": NOW - 5,
            "created_at": NOW - 3,
            "session_id": SessionId("019a0000-0000-7000-8000-000000000002"),
            "due_at": NOW,
            **changes,
        }
    )


def without_events(duties: Duties) -> Duties:
    """Return duties besides that of sending events, which has tests of its own."""
    return duties.without("send_events")

"""Example agent, session and transcript for the unit tests."""

import json
from typing import Any

from pydantic import JsonValue

from pi_voice.domain.agents import Agent, CreateAgentRequest
from pi_voice.domain.connection_api import CreateSessionRequest
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import GeminiUnavailable, InternalError
from pi_voice.domain.extractions import ErrorInfo, Extraction, TranscriptQuality
from pi_voice.domain.ids import AgentId, EndpointId, EventId, SessionId, WorkspaceId
from pi_voice.domain.sessions import LiveKitRoom, Participant, Session
from pi_voice.domain.transcript_api import CompleteSessionRequest
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.webhook_deliveries import Delivery, delivery_id
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets

AGENT_ID = AgentId("019a0000-0000-7000-8000-000000000001")
SESSION_ID = SessionId("019a0000-0000-7000-8000-000000000002")
ENDPOINT_ID = EndpointId("019a0000-0000-7000-8000-0000000000e1")
WEBHOOK_SECRETS = WebhookSecrets(lambda: Masters("a1", {"a1": "m" * 32}))
NOW = 1_800_000_000
"""Friday, 2027-01-15 08:00 UTC."""

ABANDONED_AT = NOW + 600 + 86_400
"""`abandoned_at` of `session()`: 600 s lifetime and one day of grace."""

TURNS: list[TranscriptTurn] = [
    {"role": "agent", "text": "Which city?"},
    {"role": "user", "text": "Oslo."},
]

GEMINI_UNAVAILABLE = ErrorInfo(code="gemini_unavailable", message=GeminiUnavailable.default_message)
INTERNAL_ERROR = ErrorInfo(code="internal_error", message=InternalError.default_message)

QUALITY = TranscriptQuality(
    agent_turns=1,
    user_turns=1,
    user_is_silent=False,
    repeated_turns=0,
    gaps=0,
    longest_gap_seconds=None,
    coverage=None,
)
"""Quality of TURNS."""

SUCCEEDED: dict[str, Any] = {"status": "succeeded", "model": "fake-model-001", "attempts": 1}
"""Fields of an extraction that succeeded at the first attempt."""


def without_events(duties: Duties) -> Duties:
    """Return duties besides that of sending events, which has tests of its own."""
    return duties.without("send_events")


def create_agent_request(**fields: JsonValue) -> CreateAgentRequest:
    """Parse a request to create an agent."""
    return CreateAgentRequest.model_validate_json(
        json.dumps({"name": "Ana", "instructions": "Take the call.", **fields})
    )


def webhook_endpoint(**fields: Any) -> WebhookEndpoint:
    """Return an endpoint of the workspace `acme`."""
    required: dict[str, Any] = {
        "endpoint_id": ENDPOINT_ID,
        "workspace": WorkspaceId("acme"),
        "url": "https://hooks.example.com/old",
        "secret": SecretVersion("a1", 1),
        "created_at": NOW,
        "updated_at": NOW,
    }
    return WebhookEndpoint(**{**required, **fields})


def agent(*, version: JsonValue = 1, **fields: JsonValue) -> Agent:
    """Return one version of an agent."""
    version_fields: dict[str, JsonValue] = {
        "agent_id": AGENT_ID,
        "version": version,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Agent.model_validate_json(
        json.dumps({"name": "Ana", "instructions": "Take the call.", **version_fields, **fields}),
    )


CLOSED = Duties().plus(close_room=NOW + 660)
"""Duties after the room was closed: close it once more, a minute after the tokens have expired."""


def new_extraction(**fields: Any) -> Extraction:
    """Return an extraction from TURNS with version 1 of the agent."""
    return Extraction(**{"agent_version": 1, "transcript": QUALITY, **fields})


def create_session_request(**fields: JsonValue) -> CreateSessionRequest:
    """Parse a request to create a session."""
    required: dict[str, JsonValue] = {"agent_id": AGENT_ID, "participant": {"identity": "caller-1"}}
    return CreateSessionRequest.model_validate_json(json.dumps({**required, **fields}))


def complete_session_request(**fields: JsonValue) -> CompleteSessionRequest:
    """Parse a request to complete a session with TURNS."""
    transcript: list[JsonValue] = [{**turn} for turn in TURNS]  # type: ignore[dict-item]
    return CompleteSessionRequest.model_validate_json(json.dumps({"transcript": transcript, **fields}))


def session(workspace: str = "acme", agent_version: int = 1) -> Session:
    """Return an active session with a room."""
    return Session(
        session_id=SESSION_ID,
        workspace=WorkspaceId(workspace),
        agent_id=AGENT_ID,
        agent_version=agent_version,
        status="active",
        participant=Participant(identity="caller-1", name="Kim"),
        max_duration_seconds=None,
        ttl_seconds=600,
        created_at=NOW,
        expires_at=NOW + 600,
        livekit=LiveKitRoom(room_name=SESSION_ID, room_sid="RM_first", started_at=NOW),
        duties=Duties().plus(end_call=ABANDONED_AT),
    )


EVENT_ID = EventId("019a0000-0000-7000-8000-0000000000f1")
DELIVERY_ID = delivery_id(EVENT_ID, ENDPOINT_ID)


def delivery(**fields: Any) -> Delivery:
    """Return a pending delivery of an event of `session()` to `webhook_endpoint()`, due now."""
    values: dict[str, Any] = {
        "endpoint_id": ENDPOINT_ID,
        "delivery_id": DELIVERY_ID,
        "workspace": WorkspaceId("acme"),
        "event_id": EVENT_ID,
        "type": "session.completed",
        "event_at": NOW - 5,
        "created_at": NOW - 3,
        "session_id": SESSION_ID,
        "due_at": NOW,
    }
    return Delivery(**{**values, **fields})

"""An agent, a session and what is said in it, for the tests to start from."""

import json
from typing import Any

from pydantic import JsonValue

from pi_voice.domain.agents import Agent, CreateAgentRequest
from pi_voice.domain.extractions import Extraction, TranscriptQuality
from pi_voice.domain.ids import AgentId, SessionId, WorkspaceId
from pi_voice.domain.session_api import CompleteSessionRequest, CreateSessionRequest
from pi_voice.domain.sessions import LiveKitRoom, Participant, Session
from pi_voice.domain.transcripts import TranscriptTurn

AGENT_ID = AgentId("019a0000-0000-7000-8000-000000000001")
SESSION_ID = SessionId("019a0000-0000-7000-8000-000000000002")
NOW = 1_800_000_000
"""Friday, 2027-01-15 08:00 UTC."""

GIVEN_UP = NOW + 600 + 86_400
"""When the session of `session()` is not waited for any more: its ttl and a day's grace are over."""

TURNS: list[TranscriptTurn] = [
    {"role": "agent", "text": "Which city?"},
    {"role": "user", "text": "Oslo."},
]

QUALITY = TranscriptQuality(
    agent_turns=1,
    user_turns=1,
    user_is_silent=False,
    repeated_turns=0,
    gaps=0,
    longest_gap_seconds=None,
    coverage=None,
)
"""What TURNS are like."""

ANSWERED: dict[str, Any] = {"status": "succeeded", "model": "fake-model-001", "attempts": 1}
"""What is told of an extraction whose first answer was good."""


def spec(**fields: JsonValue) -> CreateAgentRequest:
    """Read an agent as a caller sends it."""
    return CreateAgentRequest.model_validate_json(
        json.dumps({"name": "Ana", "instructions": "Take the call.", **fields})
    )


def agent(*, version: JsonValue = 1, **fields: JsonValue) -> Agent:
    """Make a version of an agent."""
    stamp: dict[str, JsonValue] = {"agent_id": AGENT_ID, "version": version, "created_at": NOW, "updated_at": NOW}
    return Agent.model_validate_json(
        json.dumps({"name": "Ana", "instructions": "Take the call.", **stamp, **fields}),
    )


def an_extraction(**fields: Any) -> Extraction:
    """Describe an extraction from TURNS by version 1 of an agent."""
    return Extraction(**{"agent_version": 1, "transcript": QUALITY, **fields})


def new_session(**fields: JsonValue) -> CreateSessionRequest:
    """Read an order for a session as a caller sends it."""
    order: dict[str, JsonValue] = {"agent_id": AGENT_ID, "participant": {"identity": "caller-1"}}
    return CreateSessionRequest.model_validate_json(json.dumps({**order, **fields}))


def ending(**fields: JsonValue) -> CompleteSessionRequest:
    """Read the end of a call as a caller sends it."""
    transcript: list[JsonValue] = [{**turn} for turn in TURNS]  # type: ignore[dict-item]
    return CompleteSessionRequest.model_validate_json(json.dumps({"transcript": transcript, **fields}))


def session(workspace: str = "acme", agent_version: int = 1) -> Session:
    """Make an active session with a room."""
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
        due_at=GIVEN_UP,
    )

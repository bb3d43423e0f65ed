"""The baseline of the benchmarks: a handler written as the getting-started pages of its libraries suggest.

FastAPI behind Mangum, boto3's resource, both providers' SDKs, one function for all routes. It does the product's work
for create and get: look up the key and the agent, create the room and a locked token, store and read a row.
"""

import hashlib
import json
import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import boto3
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.concurrency import run_in_threadpool
from google import genai
from google.genai import types
from livekit import api
from mangum import Mangum
from pydantic import BaseModel, ConfigDict, Field

dynamodb = boto3.resource("dynamodb")
agents = dynamodb.Table(os.environ["VOICE_AGENTS_TABLE"])
sessions = dynamodb.Table(os.environ["VOICE_SESSIONS_TABLE"])
api_keys = dynamodb.Table(os.environ["VOICE_API_KEYS_TABLE"])
gemini = genai.Client(
    api_key=os.environ["GEMINI_API_KEY"],
    http_options=types.HttpOptions(api_version="v1alpha", base_url=os.environ["GOOGLE_GEMINI_BASE_URL"]),
)
model = os.environ["GEMINI_LIVE_MODEL"]

app = FastAPI()


class Participant(BaseModel):
    """The caller."""

    model_config = ConfigDict(extra="forbid")

    identity: str = Field(min_length=1, max_length=128)
    name: str = ""


class CreateSessionRequest(BaseModel):
    """Request body of create."""

    model_config = ConfigDict(extra="forbid")

    agent_id: str
    participant: Participant
    ttl_seconds: int = Field(900, ge=60, le=3600)
    max_duration_seconds: int | None = None
    metadata: dict[str, Any] = {}


class TranscriptTurn(BaseModel):
    """A turn of the transcript."""

    role: str
    text: str
    start_ms: int | None = None
    end_ms: int | None = None


class Session(BaseModel):
    """A session in a response."""

    session_id: str
    agent_id: str
    status: str
    participant: Participant
    created_at: int
    expires_at: int
    transcript: list[TranscriptTurn] | None = None
    results: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}


class CreatedSession(Session):
    """A session with its connections."""

    connection: dict[str, Any]


class Created(BaseModel):
    """Response of create."""

    data: CreatedSession


class Found(BaseModel):
    """Response of get."""

    data: Session


def workspace_of(authorization: Annotated[str, Header()]) -> str:
    """Return the workspace of the API key."""
    key_hash = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
    row = api_keys.get_item(Key={"key_hash": key_hash}).get("Item")
    if row is None or "revoked_at" in row:
        raise HTTPException(401)
    return str(row["workspace"])


@app.post("/api/v1/voice/sessions", status_code=201)
async def create_session(request: CreateSessionRequest, workspace: Annotated[str, Depends(workspace_of)]) -> Created:
    """Create a session."""
    found = await run_in_threadpool(agents.get_item, Key={"agent_id": request.agent_id, "version": 0})
    row = found.get("Item")
    if row is None or row["workspace"] != workspace:
        raise HTTPException(404)
    agent = json.loads(str(row["document"]))
    session_id, now = str(uuid.uuid4()), int(time.time())
    expires_at = now + request.ttl_seconds

    async with api.LiveKitAPI() as livekit:
        await livekit.room.create_room(api.CreateRoomRequest(name=session_id, empty_timeout=request.ttl_seconds))
    token = (
        api.AccessToken()
        .with_identity(request.participant.identity)
        .with_name(request.participant.name)
        .with_ttl(timedelta(seconds=request.ttl_seconds))
        .with_grants(api.VideoGrants(room_join=True, room=session_id))
        .to_jwt()
    )
    expiry = datetime.fromtimestamp(expires_at, UTC)
    live = await gemini.aio.auth_tokens.create(
        config=types.CreateAuthTokenConfig(
            uses=1,
            expire_time=expiry,
            new_session_expire_time=expiry,
            live_connect_constraints=types.LiveConnectConstraints(
                model=model,
                config=types.LiveConnectConfig(
                    response_modalities=[types.Modality.AUDIO],
                    system_instruction=agent["instructions"],
                    input_audio_transcription=types.AudioTranscriptionConfig(),
                    output_audio_transcription=types.AudioTranscriptionConfig(),
                    speech_config=types.SpeechConfig(
                        voice_config=types.VoiceConfig(
                            prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name=agent["voice"]["name"])
                        )
                    ),
                ),
            ),
        )
    )
    session = CreatedSession(
        session_id=session_id,
        agent_id=request.agent_id,
        status="active",
        participant=request.participant,
        created_at=now,
        expires_at=expires_at,
        metadata=request.metadata,
        connection={
            "livekit": {"url": os.environ["LIVEKIT_URL"], "token": token, "room": session_id},
            "gemini_live": {"token": live.name, "model": model},
        },
    )
    item = {"workspace": workspace, **session.model_dump(exclude={"connection"}, exclude_none=True)}
    await run_in_threadpool(sessions.put_item, Item=item)
    return Created(data=session)


@app.get("/api/v1/voice/sessions/{session_id}")
def get_session(session_id: str, workspace: Annotated[str, Depends(workspace_of)]) -> Found:
    """Get a session with its transcript and results."""
    row = sessions.get_item(Key={"session_id": session_id}).get("Item")
    if row is None or row["workspace"] != workspace:
        raise HTTPException(404)
    return Found(data=Session.model_validate(row))


handler = Mangum(app, lifespan="off")

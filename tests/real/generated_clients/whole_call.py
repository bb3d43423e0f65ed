# mypy: disable-error-code="import-not-found"
"""A whole call with the client of openapi-python-client: whole_call.py BASE_URL API_KEY prints its responses."""

import json
import sys
from typing import TypeVar

from pi_voice_client import AuthenticatedClient
from pi_voice_client.api.agents import create_agent, delete_agent, get_agent, list_agents, update_agent
from pi_voice_client.api.extractions import preview_extraction
from pi_voice_client.api.sessions import (
    add_participant,
    complete_session,
    create_session,
    delete_session,
    get_session,
    list_sessions,
    renew_session,
    rerun_extraction,
    save_transcript,
    stop_session,
)
from pi_voice_client.api.voices import list_voices
from pi_voice_client.models import (
    AddParticipantRequest,
    Behaviors,
    BehaviorsPatch,
    CompleteSessionRequest,
    CreateAgentRequest,
    CreateSessionRequest,
    ErrorResponse,
    JsonObject,
    Medium,
    Metadata,
    Participant,
    PreviewExtractionRequest,
    RenewSessionRequest,
    RerunExtractionRequest,
    SaveTranscriptRequest,
    SessionStatus,
    SpeakingPace,
    TranscriptTurn,
    TranscriptTurnRole,
    UpdateAgentRequest,
    VoiceChoice,
    VoiceName,
)

Answer = TypeVar("Answer")

TURNS = [
    TranscriptTurn(role=TranscriptTurnRole.AGENT, text="What is your name?"),
    TranscriptTurn(role=TranscriptTurnRole.USER, text="My name is Ana Torres.", start_ms=1200, end_ms=2400),
]
HINTS = JsonObject.from_dict({"guest_name": "Full name of the guest"})


def done(answer: Answer | ErrorResponse | None) -> Answer:
    """Return the answer of a request that has to succeed."""
    assert answer is not None
    assert not isinstance(answer, ErrorResponse), answer
    return answer


def code(answer: object) -> str:
    """Return the code of a request that has to fail."""
    assert isinstance(answer, ErrorResponse), answer
    return str(answer.error.code)


def whole_call(base: str, api_key: str) -> dict[str, object]:
    client = AuthenticatedClient(base_url=base, token=api_key)

    voice = done(list_voices.sync(client=client)).data[0].name
    agent = done(
        create_agent.sync(
            client=client,
            body=CreateAgentRequest(
                name="Mia",
                instructions="You take reservations.",
                behaviors=Behaviors(speaking_pace=SpeakingPace.FAST, closing_message="Bye!"),
                output_schema=HINTS,
                voice=VoiceChoice(name=VoiceName.AOEDE),
                metadata=Metadata.from_dict({"restaurant": "Linden"}),
            ),
        )
    ).data
    patch = UpdateAgentRequest(purpose="Take a reservation", behaviors=BehaviorsPatch(closing_message=None))
    updated = done(update_agent.sync(agent.agent_id, client=client, body=patch)).data
    got = done(get_agent.sync(agent.agent_id, client=client)).data
    listed = done(list_agents.sync(client=client, limit=1)).data

    order = CreateSessionRequest(
        agent_id=agent.agent_id,
        participant=Participant(identity="guest"),
        ttl_seconds=900,
        media=[Medium.MICROPHONE, Medium.CAMERA],
    )
    session = done(create_session.sync(client=client, body=order, idempotency_key=agent.agent_id)).data
    repeated = done(create_session.sync(client=client, body=order, idempotency_key=agent.agent_id)).data
    session_id = session.session_id
    guest = AddParticipantRequest(identity="friend", name="Bo")
    added = done(add_participant.sync(session_id, client=client, body=guest)).data

    caller = AuthenticatedClient(base_url=base, token=session.client_token)
    saved = done(save_transcript.sync(session_id, client=caller, body=SaveTranscriptRequest(from_=0, turns=TURNS))).data
    renewal = RenewSessionRequest(has_resumption_handle=True)
    renewed = done(renew_session.sync(session_id, client=caller, body=renewal)).data
    stopped = done(stop_session.sync(session_id, client=caller)).data
    ending = CompleteSessionRequest(duration_seconds=3)
    completed = done(complete_session.sync(session_id, client=caller, body=ending))
    completed_again = complete_session.sync(session_id, client=caller)

    state = done(get_session.sync(session_id, client=client)).data
    sessions = done(list_sessions.sync(client=client, status=SessionStatus.COMPLETED, agent_id=agent.agent_id))
    preview = RerunExtractionRequest(evidence=True, preview=True)
    rerun = done(rerun_extraction.sync(session_id, client=client, body=preview)).data
    pasted = PreviewExtractionRequest(transcript=TURNS, output_schema=HINTS)
    tried = done(preview_extraction.sync(client=client, body=pasted)).data

    deleted = delete_session.sync_detailed(session_id, client=client).status_code
    agent_deleted = delete_agent.sync_detailed(agent.agent_id, client=client).status_code
    return {
        "voice": voice.value,
        "versions": [agent.version, updated.version],
        "warnings": [warning.path for warning in updated.warnings],
        "agent": [got.language, got.purpose, got.behaviors.speaking_pace, got.behaviors.closing_message],
        "metadata": got.metadata.to_dict(),
        "agents": [each.agent_id == agent.agent_id for each in listed],
        "session": [session.status, session.max_duration_seconds, session.participant.name],
        "repeated": repeated.session_id == session_id,
        "connections": [
            session.connection.livekit.url.split(":")[0],
            session.connection.gemini_live.url.split(":")[0],
            added.connection.livekit.room == session_id,
            renewed.connection.livekit.room == session_id,
        ],
        "setup": list(session.connection.gemini_live.setup.to_dict()),
        "saved": saved.next_,
        "stopped": [stopped.status, stopped.hung_up_at is not None],
        "completed": [completed.status, completed.completed_by, completed.end_reason, completed.duration_seconds],
        "completed_again": code(completed_again),
        "transcript": [turn.to_dict() for turn in state.transcript or []],
        "results": [list(completed.results), list(rerun.results), list(tried.results)],
        "extraction": state.extraction.status if state.extraction else None,
        "evidence": list(rerun.extraction.fields.to_dict()) if rerun.extraction.fields else None,
        "sessions": [each.session_id == session_id for each in sessions.data],
        "next_cursor": sessions.next_cursor,
        "deleted": [deleted, agent_deleted, code(get_session.sync(session_id, client=client))],
    }


if __name__ == "__main__":
    json.dump(whole_call(*sys.argv[1:]), sys.stdout)

"""The routes of the contract, and how a function's names follow from one another."""

import re

BASE = "/api/v1/voice"

ROUTES = {
    "CreateAgent": f"POST {BASE}/agents",
    "ListAgents": f"GET {BASE}/agents",
    "GetAgent": f"GET {BASE}/agents/{{agent_id}}",
    "UpdateAgent": f"PATCH {BASE}/agents/{{agent_id}}",
    "DeleteAgent": f"DELETE {BASE}/agents/{{agent_id}}",
    "ListVoices": f"GET {BASE}/voices",
    "CreateSession": f"POST {BASE}/sessions",
    "ListSessions": f"GET {BASE}/sessions",
    "GetSession": f"GET {BASE}/sessions/{{session_id}}",
    "DeleteSession": f"DELETE {BASE}/sessions/{{session_id}}",
    "CompleteSession": f"POST {BASE}/sessions/{{session_id}}/complete",
    "RerunExtraction": f"POST {BASE}/sessions/{{session_id}}/extract",
    "PreviewExtraction": f"POST {BASE}/extractions/preview",
    "SaveTranscript": f"POST {BASE}/sessions/{{session_id}}/transcript",
    "RenewSession": f"POST {BASE}/sessions/{{session_id}}/renew",
    "StopSession": f"POST {BASE}/sessions/{{session_id}}/stop",
    "AddParticipant": f"POST {BASE}/sessions/{{session_id}}/participants",
    "ReceiveLivekitWebhook": f"POST {BASE}/webhooks/livekit",
}


def snake_case(logical_id: str) -> str:
    """Return the folder of a function."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", logical_id).lower()

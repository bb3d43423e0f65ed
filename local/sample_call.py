"""Invoke every function once with its sample event, in the order of a whole call."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from events.sign_webhook import signed
from local.stand_ins import livekit

Json = Any

_EVENTS: Final = Path(__file__).parent.parent / "events"

Invoke = Callable[[str, Json], Json]
"""Invokes a function by its logical id with an event and returns its response."""

STATUSES: Final = {
    "CreateAgent": 201,
    "GetAgent": 200,
    "UpdateAgent": 200,
    "ListAgents": 200,
    "ListVoices": 200,
    "CreateSession": 201,
    "GetSession": 200,
    "AddParticipant": 201,
    "SaveTranscript": 200,
    "RenewSession": 200,
    "ReceiveLivekitWebhook": 200,
    "StopSession": 200,
    "CompleteSession": 200,
    "RerunExtraction": 200,
    "PreviewExtraction": 200,
    "ListSessions": 200,
    "DeleteSession": 204,
    "DeleteAgent": 204,
}
"""The statuses of the functions with a route when all goes well, in the order of a call."""


def event(function: str) -> Json:
    """Return the sample event of a function."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", function).lower()
    return json.loads((_EVENTS / f"{name}.json").read_text(encoding="utf-8"))


def webhook(session_id: str) -> Json:
    """Return the sample webhook for the room of a session, signed with the key of LiveKit's stand-in."""
    sample = event("ReceiveLivekitWebhook")
    body = json.loads(base64.b64decode(sample["body"]))
    body["room"]["name"] = session_id
    sample["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    return signed(sample, livekit.API_KEY, livekit.API_SECRET)


@dataclass
class SampleCall:
    """A call in progress: `documents` are the responses by function, `statuses` the HTTP statuses of routes."""

    invoke: Invoke
    documents: dict[str, Json] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    api_key: str = ""

    def hold(self) -> None:
        """Make the whole call, as an operator and as a caller, from creating a key to revoking it."""
        key = self.operate("CreateApiKey")["data"]
        self.api_key = key["api_key"]
        self.operate("ListApiKeys")
        agent_id = self.request("CreateAgent")["data"]["agent_id"]
        for function in ("GetAgent", "UpdateAgent", "ListAgents", "ListVoices"):
            self.request(function, agent_id=agent_id)
        session = self.request("CreateSession", body={"agent_id": agent_id})["data"]
        session_id = session["session_id"]
        for function in ("AddParticipant", "SaveTranscript", "RenewSession"):
            self.request(function, session_id=session_id)
        self.answer("ReceiveLivekitWebhook", webhook(session_id))
        for function in ("GetSession", "StopSession", "CompleteSession", "RerunExtraction"):
            self.request(function, session_id=session_id)
        self.request("PreviewExtraction")
        for function in ("ExtractResults", "SweepSessions"):
            self.operate(function)
        for function in ("ListSessions", "DeleteSession"):
            self.request(function, session_id=session_id)
        self.request("DeleteAgent", agent_id=agent_id)
        self.operate("RevokeApiKey", key_id=key["key_id"])

    def operate(self, function: str, **changes: str) -> Json:
        """Invoke a function that has no route and return its response."""
        self.documents[function] = self.invoke(function, event(function) | changes)
        return self.documents[function]

    def request(self, function: str, *, body: Json = None, **ids: str) -> Json:
        """Send the sample request of a function with the key of this call and these ids; return the body."""
        sample = event(function)
        sample["headers"]["authorization"] = f"Bearer {self.api_key}"
        for name in sample.get("pathParameters", {}):
            old, sample["pathParameters"][name] = sample["pathParameters"][name], ids[name]
            for place, key in ((sample, "rawPath"), (sample["requestContext"]["http"], "path")):
                place[key] = place[key].replace(old, ids[name])
        if body:
            sample["body"] = json.dumps(json.loads(sample["body"]) | body)
        return self.answer(function, sample)

    def answer(self, function: str, sample: Json) -> Json:
        """Invoke a function with an HTTP event, record the status and return the body."""
        answer = self.invoke(function, sample)
        self.statuses[function] = answer["statusCode"]
        self.documents[function] = json.loads(answer.get("body") or "null")
        return self.documents[function]

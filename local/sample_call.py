"""Invoke every function once with its sample event, in the order of a whole call."""

import base64
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from events.samples import AGENT_ID, API_KEY, ENDPOINT_ID, EVENT_ID, SAMPLES, SESSION_ID, WEBHOOK_HOST, event
from events.sign_webhook import signed
from local.stand_ins import livekit

Json = Any

Invoke = Callable[[str, Json], Json]
"""Invokes a function by its logical id with an event and returns its response."""

STATUSES: Final = {function: sample.status for function, sample in SAMPLES.items()}
"""The statuses of the functions with a route when all goes well."""


def webhook(session_id: str, kind: str = "room_finished", room_sid: str | None = None) -> Json:
    """Return the sample webhook for the room of a session, signed with the key of LiveKit's stand-in.

    Without a `room_sid` it is about a later room of the same name.
    """
    sample = event("ReceiveLivekitWebhook")
    body = json.loads(base64.b64decode(sample["body"]))
    body["event"] = kind
    body["room"] |= {"name": session_id, **({"sid": room_sid} if room_sid else {})}
    sample["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    return signed(sample, livekit.API_KEY, livekit.API_SECRET)


@dataclass
class SampleCall:
    """A call in progress: `documents` are the responses by function, `statuses` the HTTP statuses of routes."""

    invoke: Invoke
    documents: dict[str, Json] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """What replaces the API key and the ids of the samples."""
    receiver: str = "http://127.0.0.1:9"
    """What replaces the host of the samples' webhook endpoint, which is not looked up; nothing listens there."""

    def hold(self) -> None:
        """Make the whole call, as an operator and as a caller, from creating a key to revoking it."""
        key = self.operate("CreateApiKey")["data"]
        self.operate("ListApiKeys")
        for function in SAMPLES:
            self.request(function)
        for function in ("ExtractResults", "SweepSessions", "DispatchEvents", "DeliverEvent", "SweepDeliveries"):
            self.operate(function)
        self.operate("RevokeApiKey", key_id=key["key_id"])

    def operate(self, function: str, **changes: str) -> Json:
        """Invoke a function that has no route and return its response."""
        self.documents[function] = self.invoke(function, event(function) | changes)
        if function == "CreateApiKey":
            self.texts[API_KEY] = self.documents[function]["data"]["api_key"]
        return self.documents[function]

    def request(
        self, function: str, without: Collection[str] = (), changes: Mapping[str, Json] = MappingProxyType({})
    ) -> Json:
        """Send the sample request of a function with the key and the ids of this call; return the body.

        `without` names fields of the request's body that are left out, and `changes` replace fields.
        """
        if function == "ReceiveLivekitWebhook":
            return self._answer(function, webhook(self.texts[SESSION_ID]))
        sample = event(function)
        if without or changes:
            body = {name: value for name, value in json.loads(sample["body"]).items() if name not in without}
            sample = {**sample, "body": json.dumps({**body, **changes})}
        text = json.dumps(sample)
        for given, real in {WEBHOOK_HOST: self.receiver, **self.texts}.items():
            text = text.replace(given, real)
        document = self._answer(function, json.loads(text))
        if function == "CreateAgent":
            self.texts[AGENT_ID] = document["data"]["agent_id"]
        if function == "CreateWebhookEndpoint":
            self.texts[ENDPOINT_ID] = document["data"]["endpoint_id"]
        if function == "TestWebhookEndpoint":
            self.texts[EVENT_ID] = document["data"]["event_id"]
        if function == "CreateSession":
            self.texts[SESSION_ID] = document["data"]["session_id"]
        return document

    def _answer(self, function: str, sample: Json) -> Json:
        """Invoke a function with an HTTP event, record the status and return the body."""
        answer = self.invoke(function, sample)
        self.statuses[function] = answer["statusCode"]
        self.documents[function] = json.loads(answer.get("body") or "null")
        return self.documents[function]

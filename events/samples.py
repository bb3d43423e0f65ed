"""One good request for each route, and the sample events made of them: `make events`.

The order is that of a whole call: `local/sample_call.py` sends them one after the other. A new route needs an entry.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from local.template import load

AGENT_ID: Final = "01a1f316-2ba9-7d44-9b1a-3f6e8c0d2a71"
SESSION_ID: Final = "01a20285-7376-7c68-a5d2-71e4f09b8c36"
ENDPOINT_ID: Final = "01a1f31c-9e40-7b16-8c53-d0a47e62f9b8"
EVENT_ID: Final = "01a1f31d-0c58-7d29-a4e7-58b3c60f7e12"
WEBHOOK_HOST: Final = "https://example.com"
"""Origin of the samples' webhook endpoint; a name that is found, because the function looks it up."""
IDS: Final[Mapping[str, str]] = {
    "agent_id": AGENT_ID,
    "session_id": SESSION_ID,
    "version": "1",
    "endpoint_id": ENDPOINT_ID,
    "delivery_id": f"{EVENT_ID}.{ENDPOINT_ID}",
}
"""Value of each path parameter."""

API_KEY: Final = "pi_live_sample0key0of0the0events0folder0opens0nothi0Leyuo"
"""Well-formed, and not valid anywhere."""

_FOLDER: Final = Path(__file__).parent
_HOST: Final = "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"
_USER_AGENT: Final = "curl/8.14.1"
_GREETING: Final = "Hello, this is the order desk."
_INSTRUCTIONS: Final = (
    "You answer for a hardware shop. Take the order of {{customer}} and read it back before you hang up."
)
_TURNS: Final = [
    {"role": "agent", "text": f"{_GREETING} What would you like to order?", "start_ms": 400, "end_ms": 3900},
    {"role": "user", "text": "Forty brass hinges, please.", "start_ms": 4600, "end_ms": 6800},
    {"role": "agent", "text": "Forty brass hinges. When do you need them?", "start_ms": 7300, "end_ms": 10100},
    {"role": "user", "text": "By the fourth of December.", "start_ms": 10900, "end_ms": 12700},
    {"role": "agent", "text": "Thank you, goodbye.", "start_ms": 13200, "end_ms": 14600},
]
_TOOL: Final = {
    "name": "show_product",
    "description": "Show a product on the caller's page. Call it when the caller names what to order.",
    "parameters": {
        "type": "object",
        "properties": {"item": {"type": "string", "description": "What the caller names"}},
        "required": ["item"],
    },
    "run": {"where": "client"},
}
_WORDS: Final = [{"role": turn["role"], "text": turn["text"]} for turn in _TURNS]

Json = Any


@dataclass(frozen=True, slots=True)
class Sample:
    """A good request: its body and its query, and the status of its response."""

    status: int
    body: Json = None
    query: Mapping[str, str] = field(default_factory=dict)


SAMPLES: Final[Mapping[str, Sample]] = {
    "CreateAgent": Sample(
        201,
        {
            "name": "Order desk",
            "instructions": _INSTRUCTIONS,
            "language": "en-US",
            "purpose": "Take orders by telephone",
            "questions": ["What would you like to order?", "How many?", "When do you need it?"],
            "behaviors": {
                "max_duration_seconds": 480,
                "speaking_pace": "normal",
                "response_length": "brief",
                "greeting": _GREETING,
                "closing_message": "Thank you, goodbye.",
            },
            "output_schema": {
                "item": "string",
                "quantity": "integer",
                "needed_by": "The date the caller names, as YYYY-MM-DD",
            },
            "voice": {"name": "Kore"},
            "variables": {"customer": {"type": "string", "description": "The caller's company", "max_length": 80}},
            "tools": [_TOOL],
            "metadata": {"team": "sales"},
        },
    ),
    "GetAgent": Sample(200),
    "UpdateAgent": Sample(
        200,
        {
            "questions": ["What would you like to order?", "How many?"],
            "behaviors": {"speaking_pace": "slow", "closing_message": None, "may_hang_up": True},
        },
    ),
    "ListAgentVersions": Sample(200, query={"limit": "20"}),
    "GetAgentVersion": Sample(200),
    "RestoreAgentVersion": Sample(200),
    "ListAgents": Sample(200, query={"limit": "20"}),
    "CreateWebhookEndpoint": Sample(
        201,
        {
            "url": f"{WEBHOOK_HOST}/pi-voice",
            "events": ["session.completed", "session.failed"],
            "include": ["results"],
            "description": "Orders for the warehouse",
        },
    ),
    "GetWebhookEndpoint": Sample(200),
    "UpdateWebhookEndpoint": Sample(
        200,
        {
            "events": ["session.completed", "session.failed", "extraction.succeeded"],
            "agent_id": AGENT_ID,
            "active": True,
        },
    ),
    "RotateWebhookSecret": Sample(200),
    "ListWebhookEndpoints": Sample(200, query={"limit": "20"}),
    "TestWebhookEndpoint": Sample(202),
    "ListWebhookDeliveries": Sample(200, query={"limit": "20"}),
    "RedeliverWebhook": Sample(202),
    "ListVoices": Sample(200),
    "CreateSession": Sample(
        201,
        {
            "agent_id": AGENT_ID,
            "participant": {"identity": "caller-42", "name": "Ada"},
            "ttl_seconds": 900,
            "max_duration_seconds": 600,
            "variables": {"customer": "Finch & Sons"},
            "time_zone": "Europe/London",
            "overrides": {"language": "en-GB"},
            "metadata": {"ticket": "4711"},
            "client_metadata": {"page": "checkout"},
        },
    ),
    "AddParticipant": Sample(201, {"identity": "supervisor-7", "name": "Grace", "media": ["microphone"]}),
    "SaveTranscript": Sample(200, {"from": 0, "turns": _TURNS[2:4]}),
    "CallTool": Sample(
        200,
        {
            "call_id": "function-call-1284",
            "name": "show_product",
            "arguments": {"item": "brass hinges"},
            "response": {"shown": True, "in_stock": 212},
            "milliseconds": 84,
        },
    ),
    "ReportUsage": Sample(
        200,
        {
            "input_tokens": {"text": 1840, "audio": 512},
            "output_tokens": {"audio": 298},
            "tool_use_tokens": {"text": 36},
            "thinking_tokens": 0,
        },
    ),
    "RenewSession": Sample(200, {"has_resumption_handle": True}),
    "ReceiveLivekitWebhook": Sample(200),  # LiveKit's own request, in receive_livekit_webhook.json
    "StopSession": Sample(200),
    "CompleteSession": Sample(200, {"transcript": _TURNS, "duration_seconds": 15.2, "end_reason": "completed"}),
    "GetSession": Sample(200),
    "RerunExtraction": Sample(
        200, {"output_schema": {"item": "what was ordered", "quantity": "integer"}, "preview": True}
    ),
    "PreviewExtraction": Sample(
        200,
        {
            "transcript": _WORDS,
            "output_schema": {
                "item": "what was ordered",
                "quantity": "integer",
                "needed_by": "the day by which it is needed, as YYYY-MM-DD",
            },
            "evidence": True,
            "called_at": 1795255200,
        },
    ),
    "ListSessions": Sample(200, query={"status": "completed", "limit": "50"}),
    "DeleteSession": Sample(204),
    "DeleteWebhookEndpoint": Sample(204),
    "DeleteAgent": Sample(204),
}


def event(function: str) -> Json:
    """Return the sample event of a function, read from its file."""
    return json.loads(event_file(function).read_text(encoding="utf-8"))


def generated() -> Mapping[str, Json]:
    """Return API Gateway's event for each route, except the webhook, which LiveKit sends."""
    functions = load(_FOLDER.parent / "template.yaml", {"LIVEKIT_URL": "wss://livekit.example"}).functions
    routes = {function.logical_id: route for function in functions for route in function.routes}
    samples = {name: sample for name, sample in SAMPLES.items() if name != "ReceiveLivekitWebhook"}
    return {name: _http_event(routes[name].method, routes[name].path, sample) for name, sample in samples.items()}


def _http_event(method: str, route: str, sample: Sample) -> Json:
    parameters = {name: IDS[name] for name in re.findall(r"{(\w+)}", route)}
    path = route.format(**parameters)
    body = None if sample.body is None else json.dumps(sample.body)
    headers = {
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "authorization": f"Bearer {API_KEY}",
        **({"content-length": str(len(body or ""))} if body or method == "POST" else {}),
        **({"content-type": "application/json"} if body else {}),
        "host": _HOST,
        "user-agent": _USER_AGENT,
        "x-amzn-trace-id": "Root=1-6922e472-3c1f0a5d7b9e4c2a68d0f135",
        "x-forwarded-for": "198.51.100.24",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }
    http = {
        "method": method,
        "path": path,
        "protocol": "HTTP/1.1",
        "sourceIp": "198.51.100.24",
        "userAgent": _USER_AGENT,
    }
    context = {
        "accountId": "123456789012",
        "apiId": "a1b2c3d4e5",
        "domainName": _HOST,
        "domainPrefix": "a1b2c3d4e5",
        "http": http,
        "requestId": "UQ1xjhDyDoEEJZg=",
        "routeKey": f"{method} {route}",
        "stage": "$default",
        "time": "22/Nov/2026:09:15:30 +0000",
        "timeEpoch": 1795338930123,
    }
    return {
        "version": "2.0",
        "routeKey": f"{method} {route}",
        "rawPath": path,
        "rawQueryString": urlencode(sample.query),
        "headers": headers,
        **({"queryStringParameters": dict(sample.query)} if sample.query else {}),
        "requestContext": context,
        **({"pathParameters": parameters} if parameters else {}),
        **({"body": body} if body else {}),
        "isBase64Encoded": False,
    }


def event_file(function: str) -> Path:
    """Return the file of a function's sample event."""
    return _FOLDER / (re.sub(r"(?<!^)(?=[A-Z])", "_", function).lower() + ".json")


def main() -> None:
    """Write the events; with --check, exit with 1 and the names of those that differ."""
    texts = {event_file(name): json.dumps(document, indent=2) + "\n" for name, document in generated().items()}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv and stale:
        sys.exit(f"Run make events: {', '.join(path.name for path in stale)} would change.")
    for path in stale:
        path.write_text(texts[path], encoding="utf-8")


if __name__ == "__main__":
    main()

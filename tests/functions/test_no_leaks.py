"""No secret in a log line, in an error or in a stored item."""

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from deploy import write_secrets
from pi_voice.logs import logger
from tests.functions.api import WEBHOOK_MASTERS, Api, Functions, caller
from tests.functions.livekit_webhooks import Webhook, event, signed
from tests.functions.providers import Providers

STORED_NAMES: Final = {
    *write_secrets.KEYS,
    *write_secrets.PREVIOUS_WEBHOOK,
    write_secrets.PREVIOUS,
    write_secrets.NEXT,
}
MASTERS: Final = {name for name in WEBHOOK_MASTERS if name != write_secrets.MASTER_ID}
CONFIGURED: Final = sorted(
    {name for name in STORED_NAMES if name.removesuffix("_API_KEY") + "_API_SECRET" not in STORED_NAMES - {name}}
    | MASTERS
)
"""Variables that `make secrets` stores, without LiveKit's API keys, which only name their secrets."""

CREDENTIAL: Final = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]+|pi_live_\w+|pi_sess_[\w-]+|auth_tokens/[\w-]+|whsec_[\w+/=]+"
)
NAME_OF_A_CREDENTIAL: Final = re.compile(r"(.*_)?(token|secret|password|api_key)")
ISSUING: Final = (
    *("create_api_key", "create_session", "renew_session", "add_participant"),
    *("create_webhook_endpoint", "rotate_webhook_secret"),
)
"""Functions whose responses contain credentials."""

SAID: Final = "A word said in confidence."


@dataclass
class Recorded(Functions):
    """The functions, with a record of their events and responses."""

    events: list[str] = field(default_factory=list)
    responses: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def invoke(self, name: str, event: object) -> Any:
        response = super().invoke(name, event)
        self.events.append(json.dumps(event))
        self.responses.append((name, response.get("body") or json.dumps(response)))
        return response


@pytest.fixture
def recorded(functions: Functions, monkeypatch: pytest.MonkeyPatch, providers: Providers) -> Iterator[Recorded]:
    """The functions with a value for each variable that `make secrets` stores."""
    for name in STORED_NAMES:
        if name not in providers.variables:
            monkeypatch.setenv(name, f"{name.lower().replace('_', '-')}-of-more-than-32-bytes")
    functions.start_over()
    yield Recorded()
    functions.start_over()


@dataclass(frozen=True)
class Seen:
    """All secrets of some calls by what they are, and all texts in which they must not be."""

    secrets: Mapping[str, str]
    places: Mapping[str, str]

    def leaks(self) -> list[str]:
        return [
            f"{name} is in {place}"
            for name, secret in self.secrets.items()
            for place, text in self.places.items()
            if secret in text
        ]


def fields_of(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield all fields of a JSON document, at any depth."""
    inner = document.items() if isinstance(document, dict) else [("", each) for each in document]
    for name, value in inner:
        yield name, value
        if isinstance(value, dict | list):
            yield from fields_of(value)


def calls(
    functions: Recorded,
    providers: Providers,
    dynamodb: DynamoDBClient,
    environment: Mapping[str, str],
    logged: io.StringIO,
    caplog: pytest.LogCaptureFixture,
) -> Seen:
    """Make requests of all kinds, accepted and refused ones, and return what was seen."""
    api = caller(functions)
    agent = api.agent(output_schema={"word": "string"})
    session = api.session(agent)
    path = f"/sessions/{session['session_id']}"
    assert api.post(f"{path}/participants", identity="colleague").status == 201
    room_password = providers.room(session["session_id"]).turn_password
    client = api.client_of(api.post(f"{path}/renew").data)
    webhook = event(
        "room_finished", {**session, "sid": api.get(path).data["livekit"]["room_sid"]}, metadata='{"rating": 5}'
    )
    token = signed(
        webhook, key=environment["LIVEKIT_WEBHOOK_API_KEY"], secret=environment["LIVEKIT_WEBHOOK_API_SECRET"]
    )
    assert Webhook(functions).send(webhook, token).status == 200
    assert Webhook(functions).send(webhook + " ", token).status == 401
    endpoint = api.post("/webhook-endpoints", url="https://9.9.9.9/").data
    endpoint_path = f"/webhook-endpoints/{endpoint['endpoint_id']}"
    assert api.post(f"{endpoint_path}/rotate-secret").data["secret"] != endpoint["secret"]
    assert api.get(endpoint_path).data.keys() == endpoint.keys() - {"secret"}
    api.patch(endpoint_path, {"secret": endpoint["secret"]}).error("invalid_request", 400)
    statuses = [
        api.patch(endpoint_path, {"url": "https://9.9.9.9/new"}).status,
        api.get("/webhook-endpoints").status,
        api.get("/sessions").status,
        client.get(path).status,
        client.post(f"{path}/transcript", {"from": 0, "turns": [{"role": "user", "text": SAID}]}).status,
        client.post(f"{path}/transcript", {"from": 0, "turns": [{"role": "user", "text": "Other words."}]}).status,
        client.get("/sessions").status,
        client.post(f"{path}/stop").status,
        api.post(f"{path}/complete", transcript=[{"role": "user", "text": SAID}]).status,
        api.post(f"{path}/complete", transcript=[]).status,
        api.post("/sessions", agent_id=agent, participant={"identity": ""}).status,
        Api(functions, api.workspace, f"{api.key}x").get(path).status,
    ]
    assert statuses == [200, 200, 200, 200, 200, 409, 401, 200, 200, 409, 400, 401]
    exchanged = [*functions.events, *(text for _, text in functions.responses)]
    credentials = {credential for text in exchanged for credential in CREDENTIAL.findall(text)}
    issued = {
        value
        for _, text in functions.responses
        for name, value in fields_of(json.loads(text))
        if NAME_OF_A_CREDENTIAL.fullmatch(name)
    }
    assert issued
    assert issued - credentials == set(), "a credential has a new format"
    tables = [dynamodb.scan(TableName=table)["Items"] for table in dynamodb.list_tables()["TableNames"]]
    return Seen(
        {
            **{f"credential {number}": credential for number, credential in enumerate(sorted(credentials))},
            **{name: environment[name] for name in CONFIGURED},
            "the webhook's turnPassword": json.loads(webhook)["room"]["turnPassword"],
            "the room's own turnPassword": room_password,
        },
        {
            "the logs": logged.getvalue() + caplog.text,
            "the tables": json.dumps(tables, default=repr),
            "the answers": "".join(text for name, text in functions.responses if name not in ISSUING),
        },
    )


@pytest.fixture
def seen(
    recorded: Recorded,
    providers: Providers,
    dynamodb: DynamoDBClient,
    logged: io.StringIO,
    caplog: pytest.LogCaptureFixture,
) -> Seen:
    return calls(recorded, providers, dynamodb, os.environ, logged, caplog)


def test_no_log_line_answer_or_stored_item_contains_a_secret(seen: Seen) -> None:
    assert '"message":"request"' in seen.places["the logs"]
    assert '"voice_session_not_active"' in seen.places["the answers"]
    assert '"session_id"' in seen.places["the tables"]
    assert seen.leaks() == []
    assert "in confidence" not in seen.places["the logs"]


def test_all_kinds_of_secrets_are_looked_for(seen: Seen) -> None:
    fewest = {
        "eyJ": 3,
        "pi_live_": 2,
        "pi_sess_": 1,
        "auth_tokens/": 2,
        "whsec_": 2,
    }  # a renewal in the same second signs the same
    found = Counter(prefix for secret in seen.secrets.values() for prefix in fewest if secret.startswith(prefix))

    assert [prefix for prefix, number in fewest.items() if found[prefix] < number] == []
    assert seen.secrets.keys() >= {
        "CLIENT_TOKEN_NEXT_SECRET",
        "CLIENT_TOKEN_PREVIOUS_SECRET",
        "CLIENT_TOKEN_SECRET",
        "GEMINI_API_KEY",
        "LIVEKIT_API_SECRET",
        "LIVEKIT_WEBHOOK_API_SECRET",
        "LIVEKIT_WEBHOOK_PREVIOUS_API_SECRET",
        "WEBHOOK_MASTER_A1",
    }
    assert [name for name, secret in seen.secrets.items() if len(secret) <= 8] == []


def test_a_secret_in_a_log_line_is_noticed(seen: Seen, logged: io.StringIO) -> None:
    for secret in seen.secrets.values():
        logger.info("leak", value=f"sent {secret}")

    leaking = Seen(seen.secrets, {**seen.places, "the logs": logged.getvalue()})

    assert leaking.leaks() == [f"{name} is in the logs" for name in seen.secrets]

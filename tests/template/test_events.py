"""The sample events: one per function, and valid for it."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from events.sign_webhook import SAMPLE, signed
from pi_voice.adapters.livekit_webhook import LiveKitWebhookVerifier
from pi_voice.domain import api_keys
from pi_voice.domain.agents import CreateAgentRequest, ListAgentsQuery, MergePatch
from pi_voice.domain.api_keys import CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest
from pi_voice.domain.ids import is_uuid
from pi_voice.domain.livekit_webhooks import SignedWebhook, WebhookEvent
from pi_voice.domain.session_api import (
    AddParticipantRequest,
    CompleteSessionRequest,
    CreateSessionRequest,
    ListSessionsQuery,
    PreviewExtractionRequest,
    RenewSessionRequest,
    RerunExtractionRequest,
    SaveTranscriptRequest,
)
from pi_voice.entrypoints.events import ExtractionMessage
from pi_voice.settings import KeyPair, WebhookSettings
from tests.support.template import ROOT, ROUTES, Node, snake_case

Event = dict[str, Any]

FOLDERS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
ROUTES_BY_FOLDER = {snake_case(name): route for name, route in ROUTES.items()}

BODIES: dict[str, TypeAdapter[Any]] = {
    "create_agent": TypeAdapter(CreateAgentRequest),
    "update_agent": TypeAdapter(MergePatch),
    "create_session": TypeAdapter(CreateSessionRequest),
    "complete_session": TypeAdapter(CompleteSessionRequest),
    "save_transcript": TypeAdapter(SaveTranscriptRequest),
    "rerun_extraction": TypeAdapter(RerunExtractionRequest),
    "preview_extraction": TypeAdapter(PreviewExtractionRequest),
    "renew_session": TypeAdapter(RenewSessionRequest),
    "add_participant": TypeAdapter(AddParticipantRequest),
    "receive_livekit_webhook": TypeAdapter(WebhookEvent),
}
QUERIES: dict[str, TypeAdapter[Any]] = {
    "list_agents": TypeAdapter(ListAgentsQuery),
    "list_sessions": TypeAdapter(ListSessionsQuery),
}
ORDERS: dict[str, TypeAdapter[Any]] = {
    "create_api_key": TypeAdapter(CreateApiKeyRequest),
    "list_api_keys": TypeAdapter(ListApiKeysRequest),
    "revoke_api_key": TypeAdapter(RevokeApiKeyRequest),
}


def sample(folder: str) -> Event:
    return cast("Event", json.loads((ROOT / f"events/{folder}.json").read_text(encoding="utf-8")))


def body(event: Event) -> bytes:
    raw: bytes = event["body"].encode()
    return base64.b64decode(raw) if event["isBase64Encoded"] else raw


def test_every_function_has_a_sample_event_and_every_sample_a_function() -> None:
    assert sorted(path.stem for path in (ROOT / "events").glob("*.json")) == FOLDERS


@pytest.mark.parametrize("folder", sorted(ROUTES_BY_FOLDER))
def test_a_sample_is_api_gateway_s_event_for_the_route(folder: str) -> None:
    event, route = sample(folder), ROUTES_BY_FOLDER[folder]
    method, path = route.split(" ")
    names = re.findall(r"{(\w+)}", path)

    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["routeKey"] == route
    assert event["requestContext"]["http"]["method"] == method
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == path.format(**event.get("pathParameters", {}))
    assert all(is_uuid(event["pathParameters"][name]) for name in names)
    assert all(name == name.lower() for name in event["headers"])


@pytest.mark.parametrize("folder", sorted(BODIES))
def test_the_body_of_a_sample_is_valid_for_its_function(folder: str) -> None:
    event = sample(folder)

    BODIES[folder].validate_json(body(event))

    assert int(event["headers"]["content-length"]) == len(body(event))


@pytest.mark.parametrize("folder", sorted(set(ROUTES_BY_FOLDER) - set(BODIES)))
def test_a_sample_has_no_body_if_the_route_has_none(folder: str) -> None:
    event = sample(folder)

    assert "body" not in event
    assert folder in QUERIES or "queryStringParameters" not in event


@pytest.mark.parametrize("folder", sorted(QUERIES))
def test_the_query_of_a_sample_is_valid_for_its_function(folder: str) -> None:
    QUERIES[folder].validate_python(sample(folder)["queryStringParameters"])


@pytest.mark.parametrize("folder", sorted(ORDERS))
def test_an_operator_s_sample_is_valid_for_its_function(folder: str) -> None:
    ORDERS[folder].validate_python(sample(folder))


def test_the_sample_of_the_queue_is_one_valid_message() -> None:
    [record] = sample("extract_results")["Records"]
    text = record["body"].encode()

    job = TypeAdapter(ExtractionMessage).validate_json(text)

    assert is_uuid(job.session_id)
    assert record["md5OfBody"] == hashlib.md5(text, usedforsecurity=False).hexdigest()
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["eventSource"] == "aws:sqs"


def test_the_sample_of_the_schedule_is_eventbridge_s_event_for_the_template_s_rule(
    functions: Mapping[str, Node],
) -> None:
    event = sample("sweep_sessions")
    [name] = functions["SweepSessions"]["Events"]
    [rule] = event["resources"]

    assert (event["source"], event["detail-type"], event["detail"]) == ("aws.events", "Scheduled Event", {})
    assert rule.startswith(f"arn:aws:events:{event['region']}:{event['account']}:rule/pi-voice-SweepSessions{name}-")


@pytest.mark.parametrize("folder", sorted(set(ROUTES_BY_FOLDER) - {"receive_livekit_webhook"}))
def test_the_api_key_of_a_sample_is_well_formed(folder: str) -> None:
    scheme, _, key = sample(folder)["headers"]["authorization"].partition(" ")

    assert scheme == "Bearer"
    assert api_keys.parse(key).reveal() == key


def test_the_sample_webhook_is_api_gateway_s_event_and_can_be_signed_again() -> None:
    secret = "a secret of thirty-two letters, or more"
    event = signed(json.loads(SAMPLE.read_text(encoding="utf-8")), "devkey", secret)

    assert event["isBase64Encoded"]
    assert event["headers"]["content-type"] == "application/webhook+json"
    LiveKitWebhookVerifier(lambda: WebhookSettings((KeyPair("devkey", secret),))).verify(
        SignedWebhook(event["headers"]["authorization"], body(event))
    )

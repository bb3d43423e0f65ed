"""The sample events: one per function, as AWS sends it. tests/functions/test_samples.py invokes the functions."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from events import samples
from events.sign_webhook import SAMPLE, signed
from pi_voice.adapters.livekit_webhook import LiveKitWebhookVerifier
from pi_voice.domain import api_keys
from pi_voice.domain.ids import is_uuid
from pi_voice.entrypoints.events import SessionMessage
from pi_voice.ports import SignedWebhook
from pi_voice.settings import KeyPair, WebhookSettings
from tests.support.template import ROOT, ROUTES, Node, snake_case

Event = dict[str, Any]

FOLDERS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
ROUTES_BY_FOLDER = {snake_case(name): route for name, route in ROUTES.items()}
REFERENCE = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))["paths"]


def sample(folder: str) -> Event:
    return cast("Event", json.loads((ROOT / f"events/{folder}.json").read_text(encoding="utf-8")))


def body(event: Event) -> bytes:
    raw: bytes = event["body"].encode()
    return base64.b64decode(raw) if event["isBase64Encoded"] else raw


def test_every_function_has_a_sample_event_and_every_sample_a_function() -> None:
    assert sorted(path.stem for path in (ROOT / "events").glob("*.json")) == FOLDERS


def test_every_route_has_a_good_request_of_which_its_sample_is_made() -> None:
    assert samples.SAMPLES.keys() == ROUTES.keys()
    assert samples.generated() == {
        name: sample(snake_case(name)) for name in ROUTES if name != "ReceiveLivekitWebhook"
    }, "run `make events`"


@pytest.mark.parametrize("folder", sorted(ROUTES_BY_FOLDER))
def test_a_sample_is_api_gateway_s_event_for_the_route(folder: str) -> None:
    event, route = sample(folder), ROUTES_BY_FOLDER[folder]
    method, path = route.split(" ")
    names = re.findall(r"{(\w+)}", path)

    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["routeKey"] == route
    assert event["requestContext"]["http"]["method"] == method
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == path.format(**event.get("pathParameters", {}))
    assert event.get("pathParameters", {}).keys() == set(names)
    ids = [part for name in names if name != "version" for part in event["pathParameters"][name].split(".")]
    assert all(map(is_uuid, ids))
    assert event.get("pathParameters", {}).get("version", "1") == "1"
    assert event["headers"]
    assert [name for name in event["headers"] if name != name.lower()] == []


@pytest.mark.parametrize("folder", sorted(ROUTES_BY_FOLDER))
def test_a_sample_has_a_body_if_its_route_has_one(folder: str) -> None:
    method, path = ROUTES_BY_FOLDER[folder].split(" ")
    event = sample(folder)

    assert ("body" in event) is ("requestBody" in REFERENCE[path][method.lower()])
    if "body" in event:
        assert int(event["headers"]["content-length"]) == len(body(event))


def test_the_sample_of_the_queue_is_one_valid_message() -> None:
    [record] = sample("extract_results")["Records"]
    text = record["body"].encode()

    job = TypeAdapter(SessionMessage).validate_json(text)

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

"""Random webhooks, signed or not, get a documented response."""

import base64
import hashlib
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.functions.api import WEBHOOK_KEY, WEBHOOK_SECRET, Functions, http_event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ROOM_EVENTS = st.fixed_dictionaries(
    {"event": st.sampled_from(["room_started", "participant_joined", "room_finished"]) | JSON},
    optional={
        "id": JSON,
        "createdAt": st.integers().map(str) | JSON,
        "room": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "sid": st.text() | JSON,
                "name": st.uuids().map(str) | JSON,
                "metadata": JSON.map(json.dumps) | st.text() | JSON,
            },
        ),
        "participant": JSON,
    },
)
BODIES = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()) | ROOM_EVENTS.map(
    lambda event: json.dumps(event).encode()
)  # fmt: skip
HEADERS = st.text(max_size=200) | st.sampled_from(["Bearer x", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."])
CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "exp", "nbf", "iat", "sub", "aud", "sha256", "video"]) | st.text(), JSON
)

fuzzed = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def functions_quietly(functions: Functions, logged: object) -> Functions:  # noqa: ARG001 (captures the many log lines)
    return functions


def post(functions: Functions, body: bytes, authorization: str) -> dict[str, Any]:
    headers = {"content-type": "application/webhook+json", "authorization": authorization}
    event = http_event("POST", "/", headers, "", binary=True)
    event["body"] = base64.b64encode(body).decode()
    answer: dict[str, Any] = functions.invoke("receive_livekit_webhook", event)
    return answer


def signed(body: bytes, **claims: Any) -> str:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    good = {"iss": WEBHOOK_KEY, "exp": int(time.time()) + 300, "sha256": digest}
    return jwt.encode({**good, **claims}, WEBHOOK_SECRET, "HS256")


@fuzzed
@given(body=BODIES, authorization=HEADERS)
def test_every_request_without_a_signature_gets_401(
    functions_quietly: Functions, body: bytes, authorization: str
) -> None:
    answer = post(functions_quietly, body, authorization)

    assert (answer["statusCode"], json.loads(answer["body"])["error"]["code"]) == (401, "invalid_webhook_signature")


@fuzzed
@given(body=BODIES)
def test_a_signed_body_is_an_event_or_invalid(functions_quietly: Functions, body: bytes) -> None:
    answer = post(functions_quietly, body, signed(body))

    assert answer["statusCode"] in (200, 400), answer
    if answer["statusCode"] == 200:
        assert json.loads(body)["event"]


@fuzzed
@given(claims=CLAIMS)
def test_odd_claims_signed_with_the_right_secret_get_200_or_401(
    functions_quietly: Functions, claims: dict[str, Any]
) -> None:
    body = b'{"event": "room_finished"}'
    try:
        token = signed(body, **claims)
    except (TypeError, ValueError):
        return  # PyJWT itself does not sign this

    answer = post(functions_quietly, body, token)

    assert answer["statusCode"] in (200, 401), answer

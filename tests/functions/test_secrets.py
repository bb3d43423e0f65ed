"""The deployed path of the secrets: functions read them from SSM, and not from their environment."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functions.api import SECRETS_PREFIX, WEBHOOK_KEY, WEBHOOK_SECRET, Api, Functions, caller, http_event
from tests.functions.livekit_webhooks import event, signed
from tests.support.moto_server import MotoServer


@pytest.fixture
def operations(moto: MotoServer) -> Iterator[list[str]]:
    """The requests to SSM, by the names of their parameters."""
    seen: list[str] = []

    def listen(operation: str, arguments: dict[str, Any]) -> None:
        if operation == "GetParameters":
            seen.append(" ".join(sorted(arguments["Names"])))

    moto.listeners.append(listen)
    yield seen
    moto.listeners.remove(listen)


@pytest.mark.usefixtures("secrets")
def test_a_session_is_created_with_the_stored_secrets_read_in_one_request(
    functions: Functions, operations: list[str]
) -> None:
    api: Api = caller(functions)

    session = api.session()

    assert operations == [f"{SECRETS_PREFIX}/client-token {SECRETS_PREFIX}/gemini {SECRETS_PREFIX}/livekit"]
    assert session["connection"]["gemini_live"]["token"]
    assert "wrong" not in json.dumps(session)
    assert os.environ["GEMINI_API_KEY"].startswith("wrong")


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    ("key", "secret", "status"),
    [
        ("APInew", "another-secret-of-more-than-thirty-two-bytes", 200),
        (WEBHOOK_KEY, WEBHOOK_SECRET, 200),
        ("wrong-" * 8, "wrong-" * 8, 401),
    ],
    ids=["current", "previous", "of the environment"],
)
def test_a_webhook_is_verified_with_the_stored_key_pairs(
    functions: Functions, key: str, secret: str, status: int
) -> None:
    body = event("room_finished", {"sid": "RM_other", "session_id": "another application's"}, at=int(time.time()))
    headers = {"content-type": "application/webhook+json", "authorization": signed(body, key=key, secret=secret)}

    answer = functions.invoke("receive_livekit_webhook", http_event("POST", "/", headers, body))

    assert answer["statusCode"] == status

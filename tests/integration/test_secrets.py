"""Secrets from SSM and from Secrets Manager, by moto."""

import io
import json
from collections.abc import Iterator
from typing import Literal

import boto3
import pytest
from botocore.awsrequest import AWSResponse, HTTPHeaders

from pi_voice.adapters.secrets import Secrets
from pi_voice.domain.errors import SettingsError
from tests.support.fakes import FakeClock
from tests.support.moto_server import MotoServer

PREFIX = "/pi-voice"
LIVEKIT = {"LIVEKIT_API_KEY": "APIkey", "LIVEKIT_API_SECRET": "ge-heim ✓"}
GEMINI = {"GEMINI_API_KEY": "ge-heim"}
BOTH = pytest.mark.parametrize("store", ["ssm", "secretsmanager"])


class Requests(list[str]):
    """The operations that reached SSM or Secrets Manager."""


@pytest.fixture
def requests(environment: pytest.MonkeyPatch) -> Iterator[Requests]:
    requests = Requests()
    with MotoServer.running() as moto, environment.context() as patched:
        for name, url in moto.variables.items():
            patched.setenv(name, url)
        moto.listeners.append(lambda operation, _: requests.append(operation))
        yield requests


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def put(store: str, group: str, text: str) -> None:
    name = f"{PREFIX}/{group}"
    if store == "ssm":
        boto3.client("ssm").put_parameter(Name=name, Value=text, Type="SecureString", Overwrite=True)
        return
    manager = boto3.client("secretsmanager")
    try:
        manager.put_secret_value(SecretId=name, SecretString=text)
    except manager.exceptions.ResourceNotFoundException:
        manager.create_secret(Name=name, SecretString=text)


def remove(store: str, group: str) -> None:
    """Delete a group, so that a refresh fails."""
    name = f"{PREFIX}/{group}"
    if store == "ssm":
        boto3.client("ssm").delete_parameter(Name=name)
    else:
        boto3.client("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def reader(store: str, clock: FakeClock, *groups: str) -> Secrets:
    secrets = Secrets(f"{store}:{PREFIX}", clock)
    secrets.add(*groups)
    return secrets


@pytest.mark.parametrize(
    ("store", "reads"), [("ssm", ["GetParameters"]), ("secretsmanager", ["GetSecretValue", "GetSecretValue"])]
)
def test_all_groups_are_read_at_once(store: str, reads: list[str], requests: Requests, clock: FakeClock) -> None:
    put(store, "livekit", json.dumps(LIVEKIT))
    put(store, "gemini", json.dumps(GEMINI))
    secrets = reader(store, clock, "livekit", "gemini")
    requests.clear()

    assert secrets.read() == LIVEKIT | GEMINI
    assert requests == reads


@BOTH
def test_a_secret_is_used_until_its_maximum_age(store: str, requests: Requests, clock: FakeClock) -> None:
    put(store, "gemini", json.dumps(GEMINI))
    secrets = reader(store, clock, "gemini")
    first = secrets.read()
    put(store, "gemini", '{"GEMINI_API_KEY": "rotated"}')
    requests.clear()

    clock.now += 299
    assert secrets.read() is first
    assert requests == []

    clock.now += 1
    assert secrets.read() == {"GEMINI_API_KEY": "rotated"}


@BOTH
@pytest.mark.usefixtures("requests")
def test_a_refresh_without_a_change_returns_the_same_object(store: str, clock: FakeClock) -> None:
    put(store, "gemini", json.dumps(GEMINI))
    secrets = reader(store, clock, "gemini")
    first = secrets.read()
    clock.now += 300

    assert secrets.read() is first


@BOTH
def test_after_a_failed_refresh_the_stale_value_is_used_and_logged(
    store: str, requests: Requests, clock: FakeClock, logged: io.StringIO
) -> None:
    put(store, "gemini", json.dumps(GEMINI))
    secrets = reader(store, clock, "gemini")
    secrets.read()
    remove(store, "gemini")
    clock.now += 300

    assert secrets.read() == GEMINI
    assert "secrets_not_refreshed" in logged.getvalue()
    assert "ge-heim" not in logged.getvalue()

    requests.clear()
    clock.now += 29
    assert secrets.read() == GEMINI
    assert requests == []

    put(store, "gemini", '{"GEMINI_API_KEY": "rotated"}')
    clock.now += 1
    assert secrets.read() == {"GEMINI_API_KEY": "rotated"}


class Refusal:
    """The body of an error response."""

    def __init__(self, code: str) -> None:
        self._body = json.dumps({"__type": code, "message": "ge-heim"}).encode()

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self._body


@pytest.mark.parametrize(
    ("store", "code", "status", "logged_as"),
    [
        ("ssm", "AccessDeniedException", 400, "AccessDeniedException"),
        # Powertools returns no parameters after these two, and raises nothing.
        ("ssm", "InternalServerError", 500, "GetParameterError"),
        ("ssm", "InvalidKeyId", 400, "GetParameterError"),
        ("secretsmanager", "AccessDeniedException", 400, "AccessDeniedException"),
        ("secretsmanager", "DecryptionFailure", 400, "DecryptionFailure"),
    ],
)
@pytest.mark.usefixtures("requests")
def test_after_an_error_of_aws_the_stale_value_is_used_and_the_code_is_logged(
    store: Literal["ssm", "secretsmanager"],
    code: str,
    status: int,
    logged_as: str,
    clock: FakeClock,
    logged: io.StringIO,
) -> None:
    put(store, "gemini", json.dumps(GEMINI))
    secrets = reader(store, clock, "gemini")
    first = secrets.read()
    refusal = AWSResponse("", status, HTTPHeaders(), Refusal(code))
    secrets.boto3_client.meta.events.register("before-send", lambda **_: refusal)  # type: ignore[arg-type]
    clock.now += 300

    assert secrets.read() is first
    [line] = map(json.loads, logged.getvalue().splitlines())
    assert (line["message"], line["error"]) == ("secrets_not_refreshed", logged_as)
    assert "ge-heim" not in logged.getvalue()


@pytest.mark.usefixtures("requests")
def test_a_secret_that_was_broken_by_a_rotation_is_not_used(clock: FakeClock, logged: io.StringIO) -> None:
    put("ssm", "gemini", json.dumps(GEMINI))
    secrets = reader("ssm", clock, "gemini")
    secrets.read()
    put("ssm", "gemini", "ge-heim")
    clock.now += 300

    assert secrets.read() == GEMINI
    assert "secrets_not_refreshed" in logged.getvalue()


@pytest.mark.usefixtures("requests")
def test_a_group_that_is_added_later_is_read_too(clock: FakeClock) -> None:
    put("ssm", "livekit", json.dumps(LIVEKIT))
    put("ssm", "gemini", json.dumps(GEMINI))
    secrets = reader("ssm", clock, "gemini")
    secrets.read()

    secrets.add("livekit")

    assert secrets.read() == LIVEKIT | GEMINI


@BOTH
@pytest.mark.usefixtures("requests")
def test_a_missing_secret_is_named(store: str, clock: FakeClock) -> None:
    with pytest.raises(SettingsError, match=r"/pi-voice/gemini\. Run make secrets"):
        reader(store, clock, "gemini").read()


@pytest.mark.parametrize(
    "text", ["ge-heim", '{"A": "ge-heim"', '["ge-heim"]', '{"A": ["ge-heim"]}', '{"A": "ge-heim", "B": 7}']
)
@pytest.mark.usefixtures("requests")
def test_a_secret_that_is_not_an_object_of_strings_is_refused_without_quoting_it(text: str, clock: FakeClock) -> None:
    put("ssm", "gemini", text)

    with pytest.raises(SettingsError, match="/pi-voice/gemini should be a JSON object") as raised:
        reader("ssm", clock, "gemini").read()

    assert "ge-heim" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("location", ["", "/pi-voice", "vault:/pi-voice", "SSM:/pi-voice"])
@pytest.mark.usefixtures("requests")
def test_an_invalid_location_error_shows_the_format(location: str) -> None:
    with pytest.raises(SettingsError, match="PI_VOICE_SECRETS should be"):
        Secrets(location)

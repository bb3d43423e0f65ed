"""Secrets from SSM and from Secrets Manager, by moto."""

import json
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError
from pydantic import ValidationError

from pi_voice.adapters import secrets
from tests.moto_server import MotoServer

SECRETS = {"LIVEKIT_API_KEY": "APIkey", "LIVEKIT_API_SECRET": "ge-heim ✓", "GEMINI_API_KEY": ""}
NAME = "/pi-voice/secrets"


@pytest.fixture(autouse=True)
def aws(environment: pytest.MonkeyPatch) -> Iterator[None]:
    with MotoServer.running() as moto, environment.context() as patched:
        for name, url in moto.variables.items():
            patched.setenv(name, url)
        yield


def read(location: str) -> dict[str, str]:
    return secrets.read(location)


def put(store: str, text: str) -> str:
    """Store a text and return its location."""
    if store == "ssm":
        boto3.client("ssm").put_parameter(Name=NAME, Value=text, Type="SecureString")
    else:
        boto3.client("secretsmanager").create_secret(Name=NAME, SecretString=text)
    return f"{store}:{NAME}"


BOTH = pytest.mark.parametrize("store", ["ssm", "secretsmanager"])


@BOTH
def test_secrets_are_returned_as_they_were_stored(store: str) -> None:
    location = put(store, json.dumps(SECRETS))

    assert read(location) == SECRETS


@pytest.mark.parametrize("name", [NAME, "arn:aws:secretsmanager:us-east-1:123456789012:secret:pi-voice"])
def test_a_name_may_contain_colons(name: str) -> None:
    with pytest.raises(ClientError) as raised:
        read(f"secretsmanager:{name}")

    assert "GetSecretValue" in str(raised.value)


@pytest.mark.parametrize(
    ("store", "code"), [("ssm", "ParameterNotFound"), ("secretsmanager", "ResourceNotFoundException")]
)
def test_missing_secrets_raise_awss_error(store: str, code: str) -> None:
    with pytest.raises(ClientError) as raised:
        read(f"{store}:{NAME}")

    assert raised.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("store", "text"),
    [
        ("ssm", "ge-heim"),
        ("ssm", '{"LIVEKIT_API_SECRET": "ge-heim"'),
        ("ssm", '["ge-heim"]'),
        ("ssm", '{"LIVEKIT_API_SECRET": ["ge-heim"]}'),
        ("ssm", '{"LIVEKIT_API_KEY": "ge-heim", "GEMINI_API_KEY": 7}'),
        ("secretsmanager", '{"LIVEKIT_API_KEY": "ge-heim", "GEMINI_API_KEY": null}'),
    ],
)
def test_secrets_that_are_not_an_object_of_strings_are_refused_without_quoting_them(store: str, text: str) -> None:
    location = put(store, text)

    with pytest.raises(ValidationError) as raised:
        read(location)

    assert "ge-heim" not in str(raised.value)


@pytest.mark.parametrize("location", ["", "/pi-voice/secrets", "vault:/pi-voice/secrets", "SSM:/pi-voice/secrets"])
def test_an_invalid_location_error_shows_the_format(location: str) -> None:
    with pytest.raises(ValueError, match="PI_VOICE_SECRETS should be"):
        read(location)

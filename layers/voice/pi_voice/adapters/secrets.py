"""Secrets: one JSON object in SSM Parameter Store or in Secrets Manager, read once per container."""

from typing import Final

import boto3
from botocore.config import Config
from pydantic import ConfigDict, TypeAdapter

_CONFIG: Final = Config(
    connect_timeout=1,
    read_timeout=2,
    # Jittered, because SSM serves 40 reads a second by default and a burst of cold starts asks for more.
    retries={"mode": "standard", "total_max_attempts": 5},
)
_SECRETS: Final = TypeAdapter(dict[str, str], config=ConfigDict(hide_input_in_errors=True))


def read(location: str) -> dict[str, str]:
    """Read the secrets at `ssm:<name>` or `secretsmanager:<name>`; raises what boto3 and pydantic raise."""
    store, _, name = location.partition(":")
    match store:
        case "ssm":
            answer = boto3.client("ssm", config=_CONFIG).get_parameter(Name=name, WithDecryption=True)
            text = answer["Parameter"]["Value"]
        case "secretsmanager":
            text = boto3.client("secretsmanager", config=_CONFIG).get_secret_value(SecretId=name)["SecretString"]
        case _:
            message = 'PI_VOICE_SECRETS should be "ssm:<name>" or "secretsmanager:<name>".'
            raise ValueError(message)
    return _SECRETS.validate_json(text)

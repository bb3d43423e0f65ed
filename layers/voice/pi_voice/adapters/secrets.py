"""Secrets: one JSON object in SSM Parameter Store or Secrets Manager, read once per container."""

import asyncio
from typing import Any, Final, Literal

from pydantic import ConfigDict, TypeAdapter

from pi_voice.adapters.aws import AwsClient, client

_TRIES: Final = 5
_SECRETS: Final = TypeAdapter(dict[str, str], config=ConfigDict(hide_input_in_errors=True))


def read(location: str) -> dict[str, str]:
    """Read the secrets at `ssm:<name>` or `secretsmanager:<name>`.

    Raises ClientError, BotoCoreError, pydantic's ValidationError, and ValueError for another location.
    """
    store, _, name = location.partition(":")
    match store:
        case "ssm":
            text = _ask("ssm", "get_parameter", Name=name, WithDecryption=True)["Parameter"]["Value"]
        case "secretsmanager":
            text = _ask("secretsmanager", "get_secret_value", SecretId=name)["SecretString"]
        case _:
            message = 'PI_VOICE_SECRETS should be "ssm:<name>" or "secretsmanager:<name>".'
            raise ValueError(message)
    return _SECRETS.validate_json(text)


def _ask(service: Literal["ssm", "secretsmanager"], operation: str, **arguments: Any) -> dict[str, Any]:
    return asyncio.run(AwsClient(client(service, _TRIES), 30).request(operation, **arguments))

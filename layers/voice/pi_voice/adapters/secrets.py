"""Secrets: one JSON object in SSM Parameter Store or Secrets Manager, read once per container."""

from contextlib import closing
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter

from pi_voice.adapters.aws import SECRETS_MANAGER, SSM, AwsService, Protocol
from pi_voice.settings import AwsSettings

_TRIES: Final = 5
"""Number of attempts; SSM allows 40 reads per second by default, and a burst of cold starts exceeds that."""

_PATIENCE_SECONDS: Final = 30.0
"""Time limit that allows all attempts, as a container cannot work without secrets; their pauses total 15 s at most."""

_SECRETS: Final = TypeAdapter(dict[str, str], config=ConfigDict(hide_input_in_errors=True))


def read(location: str, aws: AwsSettings) -> dict[str, str]:
    """Read the secrets at `ssm:<name>` or `secretsmanager:<name>`.

    Raises Refused, Unanswered, pydantic's ValidationError, and ValueError for another location.
    """
    store, _, name = location.partition(":")
    match store:
        case "ssm":
            text = _ask(aws, SSM, "GetParameter", Name=name, WithDecryption=True)["Parameter"]["Value"]
        case "secretsmanager":
            text = _ask(aws, SECRETS_MANAGER, "GetSecretValue", SecretId=name)["SecretString"]
        case _:
            message = 'PI_VOICE_SECRETS should be "ssm:<name>" or "secretsmanager:<name>".'
            raise ValueError(message)
    return _SECRETS.validate_json(text)


def _ask(aws: AwsSettings, protocol: Protocol, operation: str, **arguments: Any) -> dict[str, Any]:
    with closing(AwsService(aws, protocol, _TRIES, patience_seconds=_PATIENCE_SECONDS)) as service:
        return service.ask(operation, arguments)

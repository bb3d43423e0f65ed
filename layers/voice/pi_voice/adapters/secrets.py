"""Secrets in SSM Parameter Store or Secrets Manager: one JSON object per group of readers, with a maximum age."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aws_lambda_powertools.utilities.parameters import GetParameterError, SecretsProvider, SSMProvider
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ConfigDict, TypeAdapter, ValidationError

from pi_voice.adapters import aws
from pi_voice.domain.errors import SettingsError
from pi_voice.domain.ids import Clock
from pi_voice.logs import logger

MAX_AGE_SECONDS: Final = 300
"""How long a container uses a secret before it reads it again. A rotation takes as long to reach all containers.

It is measured by the wall clock, because a monotonic one may stand still while Lambda freezes the container.
"""

RETRY_SECONDS: Final = 30
"""Pause after a failed refresh."""

FIRST_READ_SECONDS: Final = 30.0
"""Time limit of the first read; a container cannot work without secrets, and SSM throttles a burst of cold starts."""

REFRESH_SECONDS: Final = 3.0
"""Time limit of a refresh, after which the stale values are used."""

_PROVIDERS: Final = {"ssm": SSMProvider, "secretsmanager": SecretsProvider}
_ATTEMPTS: Final = 5
_THREADS: Final = 4
_GROUP: Final = TypeAdapter(dict[str, str], config=ConfigDict(hide_input_in_errors=True))


class Secrets:
    """The groups of secrets that one function reads. Safe for threads."""

    def __init__(self, location: str, clock: Clock = time.time) -> None:
        """Take a location, `ssm:<prefix>` or `secretsmanager:<prefix>`; raises SettingsError."""
        store, _, self._prefix = location.partition(":")
        if store not in _PROVIDERS:
            raise SettingsError('PI_VOICE_SECRETS should be "ssm:<prefix>" or "secretsmanager:<prefix>".')
        self.boto3_client = aws.client(store, _ATTEMPTS)  # type: ignore[arg-type]
        self._provider = _PROVIDERS[store](boto3_client=self.boto3_client)
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS)
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._stored: dict[str, str] = {}
        self._values: Mapping[str, str] = {}
        self._refresh_at = 0.0

    def add(self, *groups: str) -> None:
        """Read these groups too, all in one request to SSM, from the next read on."""
        with self._lock:
            new = [name for group in groups if (name := f"{self._prefix}/{group}") not in self._names]
            self._names += new
            if new:
                self._refresh_at = 0.0

    def read(self) -> Mapping[str, str]:
        """Return the secrets of all groups, at most MAX_AGE_SECONDS old unless a refresh fails; blocks.

        The object is the same until a secret changes. Raises SettingsError if a group was never read.
        """
        with self._lock:
            if self._clock() >= self._refresh_at:
                self._refresh()
            return self._values

    def _refresh(self) -> None:
        has_all = all(name in self._stored for name in self._names)
        client = aws.AwsClient(self.boto3_client, REFRESH_SECONDS if has_all else FIRST_READ_SECONDS)
        try:
            stored = client.call(self._threads, self._fetch)
            if stored != self._stored:
                self._values = _merged(stored)
                self._stored = stored
        except (BotoCoreError, ClientError, GetParameterError, TimeoutError, SettingsError) as error:
            cause = _cause(error)
            if not has_all:
                if isinstance(error, SettingsError):
                    raise
                names = ", ".join(self._names)
                raise SettingsError(f"Secrets cannot be read ({cause}): {names}. Run make secrets.") from None
            logger.error("secrets_not_refreshed", error=cause)
            self._refresh_at = self._clock() + RETRY_SECONDS
        else:
            self._refresh_at = self._clock() + MAX_AGE_SECONDS

    def _fetch(self) -> dict[str, str]:
        """Read all groups, from SSM in one request.

        Powertools does not cache them, because its cache drops a value before there is a new one. After some errors of
        SSM, such as InternalServerError, it returns fewer parameters and raises nothing.
        """
        if isinstance(self._provider, SecretsProvider):
            return {name: str(self._provider.get(name, max_age=0)) for name in self._names}
        names: dict[str, dict[str, object]] = {name: {} for name in self._names}
        parameters = self._provider.get_parameters_by_name(names, decrypt=True, max_age=0)
        if parameters.keys() != names.keys():
            raise GetParameterError
        return {name: str(value) for name, value in parameters.items()}


def _cause(error: BaseException) -> str:
    """Return AWS's error code, or the type of another error; never a message, which may quote a value."""
    if isinstance(error, GetParameterError) and error.__context__:  # Powertools wraps the errors of Secrets Manager
        return _cause(error.__context__)
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__


def _merged(stored: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, text in stored.items():
        try:
            values |= _GROUP.validate_json(text)
        except ValidationError:
            raise SettingsError(f"The secret {name} should be a JSON object of strings. Run make secrets.") from None
    return values

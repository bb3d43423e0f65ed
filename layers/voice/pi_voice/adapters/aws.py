"""AWS's services that speak JSON: signed POSTs over kept connections.

boto3 sends the same request, to the byte of its signature (a test holds that), but takes 190 ms more of every cold
start and four times the time of every request: docs/adr/0021 has the figures, and says where boto3 stays.
"""

import hashlib
import hmac
import json
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic_core import to_json

from pi_voice.settings import AwsSettings

TIME_LIMIT_SECONDS: Final = 2.0
"""How long the other side may be silent: while it connects, and between any two pieces of its answer."""

PATIENCE_SECONDS: Final = 8.0
"""What a request may take, repeats included: the limit above starts anew with every byte that trickles in."""

TRIES: Final = 3

_OK: Final = 200
_TIMED_OUT: Final = 408
_TOO_MANY: Final = 429
_BROKEN: Final = 500
_BUSY: Final = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeout",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
}
_DEAD_CONNECTION: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""How a kept connection turns out to be dead when it is used again."""


class Refused(Exception):
    """AWS did nothing of what it was asked for: its code says why, and its answer may hold more."""

    def __init__(self, operation: str, code: str, answer: Mapping[str, Any], status: int = 400) -> None:
        super().__init__(f"{operation}: {code}")  # and not the message, which may repeat what was sent
        self.code = code
        self.answer = answer
        self.is_passing = status >= _BROKEN or status in (_TIMED_OUT, _TOO_MANY) or code in _BUSY


class Unanswered(Exception):
    """AWS did not answer, or not in JSON. Perhaps it did what it was asked for."""

    is_passing = True


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a service wants to be spoken to."""

    service: str
    target: str
    version: str
    says_nothing: bool = False
    """Whether its answer is empty where there is nothing to say."""


DYNAMODB: Final = Protocol("dynamodb", "DynamoDB_20120810", "1.0")
SQS: Final = Protocol("sqs", "AmazonSQS", "1.0", says_nothing=True)
SSM: Final = Protocol("ssm", "AmazonSSM", "1.1")
SECRETS_MANAGER: Final = Protocol("secretsmanager", "secretsmanager", "1.1")


class AwsService:
    """One service, which threads may ask side by side.

    What fails on its way is asked again, so a request has to be one that may be carried out twice.
    """

    def __init__(
        self,
        settings: AwsSettings,
        protocol: Protocol,
        tries: int = TRIES,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        endpoint = urlsplit(settings.endpoint(protocol.service))
        self._settings = settings
        self._protocol = protocol
        self._tries = tries
        self._time_limit_seconds = time_limit_seconds
        self.patience_seconds = patience_seconds
        self._host = endpoint.netloc
        self._tls = trust() if endpoint.scheme == "https" else None
        self._idle: list[HTTPConnection] = []

    def ask(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one request; blocks. Raises Refused, Unanswered.

        It is not sent again when that could not be answered within the patience: whoever asked has gone by then, and a
        write would be done behind their back.
        """
        body = to_json(arguments)
        last_start = time.monotonic() + self.patience_seconds - self._time_limit_seconds
        for attempt in count(1):
            try:
                return self._ask_once(operation, body)
            except (Refused, Unanswered) as failure:
                pause = random.random() * 2 ** (attempt - 1)  # noqa: S311 (no secret)
                if not failure.is_passing or attempt == self._tries or time.monotonic() + pause > last_start:
                    raise
            time.sleep(pause)
        raise AssertionError  # counting does not end

    def close(self) -> None:
        """Close the connections that are kept; the next request opens one again."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask_once(self, operation: str, body: bytes) -> dict[str, Any]:
        try:
            status, content = self._exchange(operation, body)
        except (OSError, HTTPException, ValueError) as error:  # ValueError repeats a header that cannot be sent
            raise Unanswered(f"{operation}: {type(error).__name__}") from None
        answer = self._read(content)
        if status != _OK:
            told = answer or {}
            raise Refused(operation, str(told.get("__type", status)).rpartition("#")[2], told, status)
        if answer is None:
            raise Unanswered(f"{operation}: not JSON")
        return answer

    def _exchange(self, operation: str, body: bytes) -> tuple[int, bytes]:
        headers = signed_headers(self._settings, self._protocol, self._host, operation, body, time.gmtime())
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._over(self._connection(), body, headers)
        try:
            return self._over(connection, body, headers)
        except (OSError, HTTPException) as error:
            self.close()  # the others have been silent for as long
            if not isinstance(error, _DEAD_CONNECTION):
                raise
        return self._over(self._connection(), body, headers)

    def _connection(self) -> HTTPConnection:
        if self._tls:
            return HTTPSConnection(self._host, timeout=self._time_limit_seconds, context=self._tls)
        return HTTPConnection(self._host, timeout=self._time_limit_seconds)

    def _over(self, connection: HTTPConnection, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        try:
            connection.request("POST", "/", body, headers)
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)  # http.client opens it again where the answer said that it closes
        return response.status, content

    def _read(self, content: bytes) -> dict[str, Any] | None:
        if not content and self._protocol.says_nothing:
            return {}
        try:
            answer = json.loads(content)
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None


@cache
def trust() -> ssl.SSLContext:
    """Read all the world's certificates, once in a process."""
    return ssl.create_default_context()


def signed_headers(
    settings: AwsSettings, protocol: Protocol, host: str, operation: str, body: bytes, now: time.struct_time
) -> dict[str, str]:
    """Write the headers of a request with its signature (AWS IAM User Guide, "Signature Version 4")."""
    moment, day = time.strftime("%Y%m%dT%H%M%SZ", now), time.strftime("%Y%m%d", now)
    token = {"x-amz-security-token": settings.session_token} if settings.session_token else {}
    headers = {  # in the order of their names, as they are signed
        "content-type": f"application/x-amz-json-{protocol.version}",
        "host": host,
        "x-amz-date": moment,
        **token,
        "x-amz-target": f"{protocol.target}.{operation}",
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = (day, settings.region, protocol.service, "aws4_request")
    place = "/".join(scope)
    told = f"AWS4-HMAC-SHA256\n{moment}\n{place}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(settings.secret_access_key, scope), told.encode(), "sha256").hex()
    return {
        **headers,
        "authorization": f"AWS4-HMAC-SHA256 Credential={settings.access_key_id}/{place}, "
        f"SignedHeaders={names}, Signature={signature}",
        "user-agent": "pi-voice",
    }


@lru_cache(maxsize=8)
def _signing_key(secret_access_key: str, scope: tuple[str, ...]) -> bytes:
    """Derive a day's key, the same for all requests to one service."""
    key = b"AWS4" + secret_access_key.encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return key

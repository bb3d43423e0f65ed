"""Client for AWS services with a JSON protocol: signed POSTs over persistent connections.

boto3 sends the same requests, byte for byte (verified by a test), but adds 190 ms to every cold start and takes four
times as long per request: docs/adr/0021 has the figures, and names the places that use boto3.
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
"""Time limit for connecting, and for each read from the socket."""

PATIENCE_SECONDS: Final = 8.0
"""Time limit of a request with its retries; the limit above restarts with every byte that arrives."""

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
"""Errors of a reused connection that the server has closed."""


class Refused(Exception):
    """AWS returned an error: the request had no effect. `code` is AWS's error code, `answer` the response."""

    def __init__(self, operation: str, code: str, answer: Mapping[str, Any], status: int = 400) -> None:
        super().__init__(f"{operation}: {code}")  # without the message, which may quote the request
        self.code = code
        self.answer = answer
        self.is_passing = status >= _BROKEN or status in (_TIMED_OUT, _TOO_MANY) or code in _BUSY


class Unanswered(Exception):
    """AWS did not respond, or not in JSON. The request may or may not have taken effect."""

    is_passing = True


@dataclass(frozen=True, slots=True)
class Protocol:
    """Protocol of a service: its signing name, target prefix and JSON version."""

    service: str
    target: str
    version: str
    says_nothing: bool = False
    """Whether the service may return an empty body."""


DYNAMODB: Final = Protocol("dynamodb", "DynamoDB_20120810", "1.0")
SQS: Final = Protocol("sqs", "AmazonSQS", "1.0", says_nothing=True)
SSM: Final = Protocol("ssm", "AmazonSSM", "1.1")
SECRETS_MANAGER: Final = Protocol("secretsmanager", "secretsmanager", "1.1")


class AwsService:
    """Client for one service, safe for concurrent threads.

    Failed requests are retried, so every request must be idempotent.
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
        """Send one request and return its response; blocks. Raises Refused, Unanswered.

        No attempt starts if it could not finish within `patience_seconds`: the caller has given up by then, and a write
        would go unnoticed.
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
        raise AssertionError  # count() is infinite

    def close(self) -> None:
        """Close all idle connections; the next request opens a new one."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask_once(self, operation: str, body: bytes) -> dict[str, Any]:
        try:
            status, content = self._exchange(operation, body)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a header with invalid characters
            raise Unanswered(f"{operation}: {type(error).__name__}") from None
        answer = self._read(content)
        if status != _OK:
            body_fields = answer or {}
            raise Refused(operation, str(body_fields.get("__type", status)).rpartition("#")[2], body_fields, status)
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
            self.close()  # the other idle connections are as old
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
        self._idle.append(connection)  # http.client reconnects if the server closed it
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
    """Load the root certificates, once per process."""
    return ssl.create_default_context()


def signed_headers(
    settings: AwsSettings, protocol: Protocol, host: str, operation: str, body: bytes, now: time.struct_time
) -> dict[str, str]:
    """Return the headers of a request, signed with Signature Version 4 (AWS IAM User Guide)."""
    moment, day = time.strftime("%Y%m%dT%H%M%SZ", now), time.strftime("%Y%m%d", now)
    token = {"x-amz-security-token": settings.session_token} if settings.session_token else {}
    headers = {  # sorted by name, as the signature requires
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
    string_to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{place}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(settings.secret_access_key, scope), string_to_sign.encode(), "sha256").hex()
    return {
        **headers,
        "authorization": f"AWS4-HMAC-SHA256 Credential={settings.access_key_id}/{place}, "
        f"SignedHeaders={names}, Signature={signature}",
        "user-agent": "pi-voice",
    }


@lru_cache(maxsize=8)
def _signing_key(secret_access_key: str, scope: tuple[str, ...]) -> bytes:
    """Derive the signing key of a day, region and service."""
    key = b"AWS4" + secret_access_key.encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return key

"""boto3 clients with short time limits, and without attempts after the caller's deadline.

A request runs in a thread, because boto3 blocks. A thread cannot be cancelled: without the deadline it would go on
retrying a write after the caller was told that it failed (docs/adr/0025).
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, Final, Literal, TypeVar
from zlib import crc32

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError
from botocore.model import OperationModel, Shape
from botocore.parsers import JSONParser, ResponseParserFactory
from urllib3.exceptions import HTTPError
from urllib3.exceptions import ReadTimeoutError as URLLib3ReadTimeoutError

from pi_voice.deadline import seconds_left

TIME_LIMIT_SECONDS: Final = 2.0
"""Time limit for connecting, and for each read from the socket."""

DEADLINE_SECONDS: Final = 8.0
"""Time limit of a request with its retries; the limit above restarts with every byte that arrives."""

ATTEMPTS: Final = 3

CONNECTIONS: Final = 32
"""Number of idle connections that a client keeps; the sweeper sends the most requests at once."""

_USER_AGENT: Final = f"Boto3/{boto3.__version__} app/pi-voice"
"""Sent with every request. boto3 would build a longer one twice for each request, a seventh of the request's work."""

MAX_RESPONSE_BYTES: Final = 16_777_216
"""Maximum size of a response; DynamoDB sends up to 16 MB of items."""

_OK: Final = 200

Result = TypeVar("Result")


class DeadlinePassed(TimeoutError):
    """The caller has given up, or an attempt could not finish before it does."""


class UnreadableResponse(BotoCoreError):
    """A response without a JSON object, which boto3 would return as an empty one: as if an item did not exist."""

    fmt = "The response is not a JSON object."


class ResponseTooLarge(UnreadableResponse):
    """A response of more than MAX_RESPONSE_BYTES."""

    fmt = "The response is too large."


class _BoundedBody:
    """The body of a response, which is read up to MAX_RESPONSE_BYTES."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def stream(self) -> Iterator[bytes]:
        """Yield the parts of the body; raises ResponseTooLarge."""
        size = 0
        for part in self._raw.stream():
            size += len(part)
            if size > MAX_RESPONSE_BYTES:
                self._raw.close()
                raise ResponseTooLarge
            yield part


class _BoundedSession:
    """Sends requests by botocore's session, which would read a response of any size."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """Send a request and read its response; raises ResponseTooLarge, and what botocore's session raises."""
        request.stream_output = True  # botocore does not read the body
        response = self._session.send(request)
        length = response.raw.length_remaining
        if length is None or length > MAX_RESPONSE_BYTES:  # otherwise no more than its Content-Length is read
            response.raw = _BoundedBody(response.raw)
        try:
            response.content  # noqa: B018 (reads the body, and keeps it)
        except URLLib3ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except HTTPError as error:
            raise ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from error
        return response

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


class _AttributeValueParser(JSONParser):
    """Parses responses of DynamoDB. An attribute value has one type, but botocore looks up all ten of them."""

    def _handle_structure(self, shape: Any, value: Any) -> Any:
        if shape.name != "AttributeValue" or value is None:
            return super()._handle_structure(shape, value)  # type: ignore[misc]  # missing in its stubs
        types: Mapping[str, Shape] = shape.members
        parse: Callable[[Shape, Any], Any] = self._parse_shape  # type: ignore[attr-defined]
        return {
            name: parse(types[name], content)
            for name, content in value.items()
            if name in types and content is not None
        }


class _AttributeValueParsers(ResponseParserFactory):
    def create_parser(self, _: str) -> _AttributeValueParser:
        return _AttributeValueParser()


class _Deadline:
    """When the caller of a request gives up: after its time limit, or when its task is cancelled."""

    def __init__(self, seconds: float, connecting_seconds: float) -> None:
        self._last_attempt_at = time.monotonic() + seconds - connecting_seconds
        self.has_passed = False

    @property
    def forbids_attempt(self) -> bool:
        """Whether the request of an attempt could be written after the caller gave up."""
        return self.has_passed or time.monotonic() > self._last_attempt_at


_deadline: Final[ContextVar[_Deadline | None]] = ContextVar("deadline", default=None)


def client(
    service: Literal["dynamodb", "sqs", "ssm", "secretsmanager"],
    attempts: int = ATTEMPTS,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> BaseClient:
    """Create a boto3 client with short time limits, for `AwsClient`."""
    config = Config(
        connect_timeout=time_limit_seconds,
        read_timeout=time_limit_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        user_agent=_USER_AGENT,
        parameter_validation=False,  # AWS validates too; boto3's takes an eighth of the work of a PutItem
    )
    made: BaseClient = boto3.client(service, config=config)
    endpoint: Any = made._endpoint  # type: ignore[attr-defined]  # noqa: SLF001 (there is no setting for these)
    endpoint.http_session = _BoundedSession(endpoint.http_session)
    if service == "dynamodb":
        endpoint._response_parser_factory = _AttributeValueParsers()  # noqa: SLF001
    made.meta.events.register("before-send", _check_deadline)
    made.meta.events.register("before-parse", _check_response)
    return made


class AwsClient:
    """A boto3 client whose requests run in threads and respect a deadline: its own, or the caller's if that is earlier.

    Failed requests are retried, so every request must be idempotent.
    """

    def __init__(self, boto3_client: BaseClient, seconds: float = DEADLINE_SECONDS) -> None:
        self.boto3_client = boto3_client
        self.seconds = seconds

    async def request(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Send a request, such as `get_item`, and return its response.

        Raises botocore's ClientError and BotoCoreError, and TimeoutError.
        """
        send: Callable[..., dict[str, Any]] = getattr(self.boto3_client, operation)
        with self._deadline() as seconds:
            async with asyncio.timeout(seconds):
                return await asyncio.to_thread(send, **arguments)

    def call(self, threads: ThreadPoolExecutor, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function that sends requests through this client; blocks. Raises what it raises, and TimeoutError."""
        with self._deadline() as seconds:
            return threads.submit(copy_context().run, function, *arguments).result(seconds)

    @contextmanager
    def _deadline(self) -> Iterator[float]:
        """Yield the time limit, and refuse attempts of the requests of this block as soon as the block is left."""
        seconds = max(0.0, min(self.seconds, seconds_left()))
        connecting_seconds = self.boto3_client.meta.config.connect_timeout  # type: ignore[attr-defined]
        deadline = _Deadline(seconds, connecting_seconds)
        token = _deadline.set(deadline)
        try:
            yield seconds
        finally:
            deadline.has_passed = True
            _deadline.reset(token)


def _check_deadline(**_: object) -> None:
    """Refuse an attempt after the deadline; runs in the thread of the request, before each attempt."""
    deadline = _deadline.get()
    if deadline is not None and deadline.forbids_attempt:
        raise DeadlinePassed


def _check_response(response_dict: dict[str, Any], operation_model: OperationModel, **_: object) -> None:
    """Refuse a page of a proxy, or half a response: boto3 checks neither the length nor the checksum of a response."""
    if response_dict["status_code"] != _OK or operation_model.output_shape is None:
        return
    body = response_dict["body"]
    checksum = response_dict["headers"].get("x-amz-crc32")  # DynamoDB sends it, SSM and SQS do not
    if checksum != str(crc32(body)) if checksum else not _is_json_object(body):
        raise UnreadableResponse


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False

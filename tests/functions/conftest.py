"""Fixtures that invoke the functions as Lambda does, with events of an HTTP API.

DynamoDB and SQS are moto behind HTTP, with the template's tables and queues; LiveKit and Gemini are the local
stand-ins, to which the genuine SDKs talk.
"""

import base64
import importlib.util
import io
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlencode

import boto3
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from local import template
from local.sqs import make_queues
from pi_voice import container
from pi_voice.entrypoints.runner import run
from pi_voice.logs import logger
from tests.functions.providers import Providers
from tests.functions.work import Work
from tests.moto_server import MotoServer

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "/api/v1/voice"
WEBHOOK_KEY: Final = "APIwebhookkey"
WEBHOOK_SECRET: Final = "a-webhook-secret-of-more-than-32-bytes"
CLIENT_TOKEN_SECRET: Final = "a-client-token-secret-of-more-than-32-bytes"
WRONG: Final = (
    "LIVEKIT_API_KEY",
    "LIVEKIT_API_SECRET",
    "LIVEKIT_WEBHOOK_API_KEY",
    "LIVEKIT_WEBHOOK_API_SECRET",
    "GEMINI_API_KEY",
    "CLIENT_TOKEN_SECRET",
)
SECRETS_PREFIX: Final = "/deployed"
GRACE_SECONDS: Final = 3_600

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """A response as a caller gets it."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def data(self) -> Any:
        assert self.status in (200, 201), self.text
        return self.json["data"]

    def error(self, code: str, status: int) -> SimpleNamespace:
        """Assert the error code, the status and the format of the contract; return the error."""
        assert (self.status, self.json["error"]["code"]) == (status, code), self.text
        error = SimpleNamespace(details=[], **{k: v for k, v in self.json["error"].items() if k != "details"})
        error.details = self.json["error"].get("details", [])
        error.paths = [detail["path"] for detail in error.details]
        assert error.message
        assert isinstance(error.retryable, bool)
        return error


@dataclass
class Api:
    """A caller with a credential, routed to the functions by the template's routes."""

    functions: "Functions"
    workspace: str
    key: str | None
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **query: str) -> Answer:
        return self.call("GET", path, query=query)

    def post(self, path: str, body: object = None, **fields: object) -> Answer:
        return self.call("POST", path, body=fields if body is None else body)

    def patch(self, path: str, body: object) -> Answer:
        return self.call("PATCH", path, body=body)

    def delete(self, path: str) -> Answer:
        return self.call("DELETE", path)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
        binary: bool = False,
    ) -> Answer:
        headers = dict(self.headers)
        if self.key is not None:
            headers.setdefault("authorization", f"Bearer {self.key}")
        text = body if isinstance(body, str) else json.dumps(body)
        if body is not None:
            headers.setdefault("content-type", content_type)
        return self.functions.call(method, BASE + path, headers, text if body is not None else None, query, binary)

    def client_of(self, session: dict[str, Any]) -> "Api":
        """Return a caller with the session's client token instead of an API key."""
        return Api(self.functions, self.workspace, session["client_token"])

    def agent(self, **fields: object) -> str:
        """Create an agent and return its id."""
        spec = {"name": "Ana", "instructions": "Take the call.", **fields}
        return str(self.post("/agents", spec).data["agent_id"])

    def session(self, agent_id: str | None = None, **fields: object) -> dict[str, Any]:
        """Create a session and return it."""
        request = {"agent_id": agent_id or self.agent(), "participant": {"identity": "caller-1"}, **fields}
        return dict(self.post("/sessions", request).data)


class Functions:
    """All functions of the template, each loaded once."""

    def __init__(self) -> None:
        self._functions = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "ws://127.0.0.1"}).functions
        self._handlers: dict[str, Handler] = {}

    def handler(self, name: str) -> Handler:
        """Return the handler of a function by its folder."""
        if name not in self._handlers:
            module_name = f"functions_{name}"
            spec = importlib.util.spec_from_file_location(module_name, ROOT / "functions" / name / "app.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            spec.loader.exec_module(module)
            self._handlers[name] = module.handler
        return self._handlers[name]

    def start_over(self) -> None:
        """Discard all containers, so that the next requests start new ones."""
        run(container.http_client().close())
        container.dynamodb().boto3_client.close()
        self._handlers.clear()
        for factory in vars(container).values():
            if hasattr(factory, "cache_clear"):
                factory.cache_clear()

    def invoke(self, name: str, event: object) -> Any:
        """Invoke a function that has no route, as `aws lambda invoke` does."""
        context = SimpleNamespace(
            aws_request_id="lambda-request", function_name=name, get_remaining_time_in_millis=lambda: 30_000
        )
        return self.handler(name)(event, context)  # type: ignore[arg-type]

    def call(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: str | None,
        query: dict[str, str] | None,
        binary: bool,  # noqa: FBT001
    ) -> Answer:
        for function in self._functions:
            for route in function.routes:
                pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path)
                match = re.fullmatch(pattern, path)
                if route.method == method and match:
                    event = http_event(method, path, headers, body, query, binary=binary)
                    event["routeKey"] = route.key
                    event["pathParameters"] = match.groupdict()
                    answer = self.invoke(function.code.name, event)
                    return Answer(answer["statusCode"], answer["headers"], answer["body"] or "")
        message = f"the template has no route for {method} {path}"
        raise AssertionError(message)


def http_event(
    method: str,
    path: str,
    headers: dict[str, str],
    body: str | None,
    query: dict[str, str] | None = None,
    *,
    binary: bool = False,
) -> dict[str, Any]:
    """Build an event of an HTTP API, payload 2.0."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": urlencode(query or {}),
        "headers": headers,
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "stage": "$default",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
        },
        "isBase64Encoded": binary,
    }
    if query:
        event["queryStringParameters"] = query
    if body is not None:
        event["body"] = base64.b64encode(body.encode()).decode() if binary else body
    return event


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with Providers.running() as providers:
        yield providers


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    """DynamoDB and SQS."""
    with MotoServer.running() as moto:
        yield moto


@pytest.fixture(scope="module")
def dynamodb(providers: Providers, moto: MotoServer) -> Iterator[DynamoDBClient]:
    """The tables of the template, with the environment pointing to them and to the providers."""
    with pytest.MonkeyPatch.context() as environment:
        variables = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            **moto.variables,
            "POWERTOOLS_SERVICE_NAME": "pi-voice",
            "POWERTOOLS_LOG_LEVEL": "INFO",
            "GEMINI_LIVE_MODEL": "gemini-live-test",
            "GEMINI_EXTRACTION_MODEL": "gemini-extraction-test",
            "LIVEKIT_WEBHOOK_API_KEY": WEBHOOK_KEY,
            "LIVEKIT_WEBHOOK_API_SECRET": WEBHOOK_SECRET,
            "CLIENT_TOKEN_SECRET": CLIENT_TOKEN_SECRET,
            "GRACE_SECONDS": str(GRACE_SECONDS),
            **providers.variables,
        }
        for name, value in variables.items():
            environment.setenv(name, value)
        client = boto3.client("dynamodb")
        read = template.load(ROOT / "template.yaml", variables)
        for table in read.tables:
            client.create_table(**table.definition)  # type: ignore[arg-type]
        queue_urls = make_queues(boto3.client("sqs"), read.queues)
        names = template.load(ROOT / "template.yaml", variables, queue_urls=queue_urls).functions[0].environment
        for name in names:
            if name.endswith(("_TABLE", "_QUEUE_URL")):
                environment.setenv(name, names[name])
        yield client


@pytest.fixture(scope="module")
def functions(dynamodb: DynamoDBClient) -> Iterator[Functions]:  # noqa: ARG001 (sets the environment of the functions)
    functions = Functions()
    yield functions
    functions.start_over()


def caller(functions: Functions) -> Api:
    """Create a workspace with an API key, and return a caller in it."""
    workspace = f"w-{uuid.uuid4().hex[:12]}"
    issued = functions.invoke("create_api_key", {"workspace": workspace, "name": "tests"})
    return Api(functions, workspace, issued["data"]["api_key"])


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """The log lines of the functions during a test, as CloudWatch gets them."""
    handler, lines = logger.registered_handler, io.StringIO()
    stream = handler.setStream(lines)  # type: ignore[attr-defined]
    yield lines
    handler.setStream(stream)  # type: ignore[attr-defined]


@pytest.fixture
def api(functions: Functions) -> Api:
    """A caller in a workspace of its own."""
    return caller(functions)


@pytest.fixture
def stranger(functions: Functions) -> Api:
    """A caller of another workspace."""
    return caller(functions)


@pytest.fixture
def work(functions: Functions, dynamodb: DynamoDBClient) -> Iterator[Work]:
    """Queue worker and sweeper, with a queue of their own."""
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex}", Attributes={"VisibilityTimeout": "540"})["QueueUrl"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EXTRACTION_QUEUE_URL", url)
        functions.start_over()
        yield Work(functions, dynamodb, sqs, url)
    functions.start_over()


@pytest.fixture
def secrets(providers: Providers, functions: Functions) -> Iterator[None]:
    """Secrets in SSM, and others in the environment, which are wrong."""
    groups = {
        "livekit": {name: providers.variables[name] for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")},
        "livekit-webhook": {
            "LIVEKIT_WEBHOOK_API_KEY": "APInew",
            "LIVEKIT_WEBHOOK_API_SECRET": "another-secret-of-more-than-thirty-two-bytes",
            "LIVEKIT_WEBHOOK_PREVIOUS_API_KEY": WEBHOOK_KEY,
            "LIVEKIT_WEBHOOK_PREVIOUS_API_SECRET": WEBHOOK_SECRET,
        },
        "gemini": {"GEMINI_API_KEY": providers.variables["GEMINI_API_KEY"]},
        "client-token": {"CLIENT_TOKEN_SECRET": CLIENT_TOKEN_SECRET},
    }
    ssm = boto3.client("ssm")
    for group, values in groups.items():
        ssm.put_parameter(
            Name=f"{SECRETS_PREFIX}/{group}", Value=json.dumps(values), Type="SecureString", Overwrite=True
        )
    with pytest.MonkeyPatch.context() as environment:
        for name in WRONG:
            environment.setenv(name, "wrong-" * 8)
        environment.setenv("PI_VOICE_SECRETS", f"ssm:{SECRETS_PREFIX}")
        functions.start_over()
        yield
    functions.start_over()

"""A caller of the functions: events of an HTTP API go in, responses come out."""

import base64
import importlib.util
import json
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlencode

from local import template
from pi_voice import container
from pi_voice.entrypoints.runner import run
from tests.support.template import ROOT

BASE: Final = "/api/v1/voice"


WEBHOOK_KEY: Final = "APIwebhookkey"


WEBHOOK_SECRET: Final = "a-webhook-secret-of-more-than-32-bytes"


CLIENT_TOKEN_SECRET: Final = "a-client-token-secret-of-more-than-32-bytes"


WEBHOOK_MASTERS: Final = {
    "WEBHOOK_MASTER_ID": "a1",
    "WEBHOOK_MASTER_A1": "a-master-of-webhook-secrets-of-more-than-32-bytes",
}


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
        run(container.tool_sender().close())
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


def caller(functions: Functions) -> Api:
    """Create a workspace with an API key, and return a caller in it."""
    workspace = f"w-{uuid.uuid4().hex[:12]}"
    issued = functions.invoke("create_api_key", {"workspace": workspace, "name": "tests"})
    return Api(functions, workspace, issued["data"]["api_key"])

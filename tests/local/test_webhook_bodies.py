"""The functions send the bodies that docs/webhooks.md, docs/tools.md and the reference show."""

import json
import os
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from local.running import LocalApi, running_api
from tests.support.command_blocks import BLOCKS
from tests.support.template import ROOT
from tests.support.webhooks import EVENTS_OF_A_CALL, SECONDS, ask, small_call

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
DOCUMENT: Final = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
SHOWN: Final = {
    block.kind: json.loads(block.text)
    for block in BLOCKS
    if block.document in {ROOT / "docs/webhooks.md", ROOT / "docs/tools.md"}
    and block.language == "json"
    and block.kind not in {"", "output"}
}

Json = Any


class Receiver(HTTPServer):
    """Acknowledges all webhooks, and keeps their bodies by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.arriving: queue.SimpleQueue[tuple[str, Json]] = queue.SimpleQueue()
        self.bodies: dict[str, list[Json]] = {}

    def bodies_at(self, path: str, types: set[str]) -> dict[str, Json]:
        """Wait for one body of each type at a path."""
        while not types <= {body["type"] for body in self.bodies.get(path, ())}:
            at, body = self.arriving.get(timeout=SECONDS)
            self.bodies.setdefault(at, []).append(body)
        return {body["type"]: body for body in self.bodies[path]}


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.arriving.put((self.path, body))
        self.send_response(204)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    with running_api(CLEAN) as running:
        yield running


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def session_id(stack: LocalApi, receiver: Receiver) -> str:
    """The session of a call, whose events an endpoint receives without parts, and another one with all parts."""
    for path, include in (("/none", []), ("/all", ["transcript", "results"])):
        request = {"url": receiver.url + path, "events": sorted(EVENTS_OF_A_CALL), "include": include}
        ask(stack, "POST", "/webhook-endpoints", request)
    return small_call(stack)


def schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


@pytest.mark.parametrize("path", ["/none", "/all"])
def test_each_event_of_a_call_has_the_schema_of_the_reference(receiver: Receiver, session_id: str, path: str) -> None:
    bodies = receiver.bodies_at(path, EVENTS_OF_A_CALL)

    assert {body["data"]["session_id"] for body in bodies.values()} == {session_id}
    for body in bodies.values():
        Draft202012Validator(schema("SessionEvent")).validate(body)


def test_an_event_has_the_fields_that_the_page_shows(receiver: Receiver, session_id: str) -> None:
    body = receiver.bodies_at("/none", EVENTS_OF_A_CALL)["session.completed"]
    shown = SHOWN["session.completed"]

    assert session_id
    assert list(body) == list(shown)
    assert list(body["data"]) == list(shown["data"])


def test_an_event_has_the_parts_that_its_endpoint_includes(
    stack: LocalApi, receiver: Receiver, session_id: str
) -> None:
    body = receiver.bodies_at("/all", EVENTS_OF_A_CALL)["extraction.succeeded"]
    session = ask(stack, "GET", f"/sessions/{session_id}")["data"]

    assert body["data"] == session
    assert session.keys() - SHOWN["session.completed"]["data"].keys() == {"transcript", "tool_calls", "results"}


def test_a_test_has_the_body_that_the_page_shows(stack: LocalApi, receiver: Receiver) -> None:
    endpoint = ask(stack, "POST", "/webhook-endpoints", {"url": f"{receiver.url}/test"})["data"]
    ask(stack, "POST", f"/webhook-endpoints/{endpoint['endpoint_id']}/test")
    body = receiver.bodies_at("/test", {"endpoint.test"})["endpoint.test"]

    Draft202012Validator(schema("EndpointTestEvent")).validate(body)
    assert body == {
        **SHOWN["endpoint.test"],
        "timestamp": body["timestamp"],
        "data": {"endpoint_id": endpoint["endpoint_id"]},
    }
    assert SHOWN["endpoint.test"]["data"].keys() == {"endpoint_id"}


def test_a_tool_call_has_the_body_that_the_page_shows(stack: LocalApi, receiver: Receiver) -> None:
    shown = SHOWN["tool.call"]
    asked = shown["data"]
    endpoint = ask(stack, "POST", "/webhook-endpoints", {"url": f"{receiver.url}/tools"})["data"]
    tool = {
        "name": asked["name"],
        "description": "Book a table.",
        "parameters": {"type": "object", "properties": {"day": {"format": "date"}, "guests": {"type": "integer"}}},
        "run": {"where": "server", "endpoint_id": endpoint["endpoint_id"]},
    }
    agent = {
        "name": "Mia",
        "instructions": "Be kind to the guests of {{restaurant}}.",
        "variables": {"restaurant": {"type": "string"}},
        "tools": [tool],
    }
    request = {
        "agent_id": ask(stack, "POST", "/agents", agent)["data"]["agent_id"],
        **{name: asked[name] for name in ("participant", "metadata", "variables")},
    }
    session = ask(stack, "POST", "/sessions", request)["data"]
    call = {name: asked[name] for name in ("call_id", "name", "arguments")}

    record = ask(stack, "POST", f"/sessions/{session['session_id']}/tool-calls", call)["data"]
    body = receiver.bodies_at("/tools", {"tool.call"})["tool.call"]

    Draft202012Validator(schema("ToolCallEvent")).validate(body)
    ids = {name: session[name] for name in ("session_id", "agent_id", "agent_version")}
    assert body == {**shown, "timestamp": record["called_at"], "data": {**asked, **ids}}
    assert list(body["data"]) == list(asked)
    assert (record["status"], record["response"]) == ("succeeded", {})

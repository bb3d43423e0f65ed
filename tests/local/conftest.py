"""Helpers for the tests of the local stack: a background event loop, and templates with tiny functions."""

import asyncio
import http.client
import json
import textwrap
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from local import template
from local.template import Template
from tests.support.moving_clock import MovableLoop

Result = TypeVar("Result")


class Background:
    """An event loop in its own thread, and the contexts that stay open in it until the tests end."""

    def __init__(self) -> None:
        self._loop = MovableLoop()
        self._running = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=300)

    def enter(self, context: AbstractAsyncContextManager[Result]) -> Result:
        return self.run(self._running.enter_async_context(context))

    @contextmanager
    def during(self, context: AbstractAsyncContextManager[Result]) -> Iterator[Result]:
        """Enter a context in the loop, and exit it at the end of the with statement."""
        result = self.run(context.__aenter__())
        try:
            yield result
        finally:
            self.run(context.__aexit__(None, None, None))

    def let_pass(self, seconds: float) -> None:
        """Move the loop's clock forward."""
        self._loop.call_soon_threadsafe(self._loop.let_pass, seconds)

    def stop(self) -> None:
        self.run(self._running.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    loop = Background()
    yield loop
    loop.stop()


@dataclass
class Project:
    """A folder with a template and small functions."""

    folder: Path
    _resources: dict[str, Any] = field(default_factory=dict)

    def function(self, name: str, code: str, *routes: str, **properties: Any) -> None:
        """Add a function with the code of its module, and routes such as "GET /things".

        Its timeout is long enough for any machine, unless the test sets another.
        """
        folder = self.folder / name
        folder.mkdir(parents=True)
        (folder / "app.py").write_text(textwrap.dedent(code))
        events = {
            f"Route{number}": {
                "Type": "HttpApi",
                "Properties": dict(zip(("Method", "Path"), route.split(), strict=True)),
            }
            for number, route in enumerate(routes)
        }
        self._resources[name] = {
            "Type": "AWS::Serverless::Function",
            "Properties": {"CodeUri": name, "Handler": "app.handler", "Timeout": 120, "Events": events, **properties},
        }

    def layer(self, name: str, folder: str) -> None:
        self._resources[name] = {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": folder}}

    def template(self, **variables: str) -> Template:
        path = self.folder / "template.yaml"
        path.write_text(json.dumps({"Resources": self._resources}))  # JSON is YAML
        return template.load(path, variables)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name]

    def header(self, name: str) -> str:
        [value] = self.all(name)
        return value


@dataclass(frozen=True)
class Site:
    """A server, called by http.client, which sends requests without normalizing them."""

    url: str

    def call(
        self, method: str, target: str, body: bytes | str | None = None, headers: list[tuple[str, str]] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=300)
        try:
            connection.putrequest(method, target, skip_host="Host" in dict(headers or []))
            payload = body.encode() if isinstance(body, str) else body
            for name, value in headers or []:
                connection.putheader(name, value.encode())
            if payload is not None:
                connection.putheader("Content-Length", str(len(payload)))
            connection.endheaders(payload)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def get(self, target: str, *headers: tuple[str, str]) -> Answer:
        return self.call("GET", target, headers=list(headers))

    def post(self, target: str, body: object, *headers: tuple[str, str]) -> Answer:
        kind = ("Content-Type", "application/json")
        return self.call("POST", target, json.dumps(body), [kind, *headers])

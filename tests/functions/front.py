"""Failing providers: a server in place of LiveKit or Gemini."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.functions.api import Api
from tests.functions.providers import Providers
from tests.support.patience import LONG


class Front:
    """A test server that sends one response to every request, after an event, or never."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    @contextmanager
    def answering(self, status: int, body: str = "{}", after: threading.Event | None = None) -> Iterator[str]:
        async def answer(_: web.Request) -> web.Response:
            if after:
                await asyncio.to_thread(after.wait, LONG)
            return web.Response(status=status, text=body, content_type="application/json")

        with self._serving(answer) as url:
            yield url

    @contextmanager
    def minting(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield a server that mints Gemini's tokens, and the requests that it gets."""
        requests: list[Any] = []

        async def mint(request: web.Request) -> web.Response:
            requests.append(await request.json())
            return web.json_response({"name": "auth_tokens/minted"})

        with self._serving(mint) as url:
            yield url, requests

    @contextmanager
    def hanging(self) -> Iterator[str]:
        over = asyncio.Event()

        async def hang(_: web.Request) -> web.Response:
            await over.wait()
            return web.Response()

        with self._serving(hang) as url:
            yield url
            self._providers.do(_set(over))

    @contextmanager
    def _serving(self, handler: Any) -> Iterator[str]:
        server = AsyncExitStack()
        yield self._providers.do(server.enter_async_context(_serve(handler)))
        self._providers.do(server.aclose())


async def _set(event: asyncio.Event) -> None:
    event.set()


@asynccontextmanager
async def _serve(handler: Any) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@contextmanager
def changed_environment(api: Api, **variables: str) -> Iterator[Api]:
    """Change environment variables of the functions during the block, in new containers."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        api.functions.start_over()
        yield api
    api.functions.start_over()


RETRY_LATER = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3600s"}
"""Longer than the time limit of an extraction, so that each sends one request."""


@contextmanager
def without_gemini(api: Api, front: Front, status: int = 503) -> Iterator[Api]:
    """Make Gemini unavailable during the block, or with status 400 let it refuse every request."""
    error = {"status": "INVALID_ARGUMENT" if status == 400 else "UNAVAILABLE", "details": [RETRY_LATER]}
    with (
        front.answering(status, json.dumps({"error": {**error, "message": "do not tell"}})) as url,
        changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as broken,
    ):
        yield broken

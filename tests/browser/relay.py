"""A relay to Gemini that delays the agent's turns until a test's condition holds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiohttp import web

from local.http_server import serving


@asynccontextmanager
async def delayed_turns(session: Any, condition: Callable[[], bool]) -> AsyncIterator[Any]:
    """Yield a session over the relay, which holds the ends of all agent turns but the first until a condition holds."""
    live = session["connection"]["gemini_live"]

    async def relay(request: web.Request) -> web.WebSocketResponse:
        client, turns = web.WebSocketResponse(max_msg_size=0), 0
        await client.prepare(request)
        url = f"{live['url']}?{request.query_string}"
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as gemini:
            there = asyncio.create_task(_pass_on(client, gemini))
            with suppress(ConnectionError):
                async for frame in gemini:
                    turns += b"turnComplete" in frame.data
                    if turns > 1:
                        await _until(condition)
                    await client.send_bytes(frame.data)
            there.cancel()
        return client

    app = web.Application()
    app.router.add_get("/live", relay)
    async with serving(app) as url:
        here = {**live, "url": f"{url.replace('http', 'ws')}/live"}
        yield {**session, "connection": {**session["connection"], "gemini_live": here}}


async def _pass_on(client: web.WebSocketResponse, gemini: aiohttp.ClientWebSocketResponse) -> None:
    async for frame in client:
        await gemini.send_str(frame.data)
    await gemini.close()


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for up to a minute: turns that were not saved by then are sent again with the next turn."""
    for _ in range(600):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(0.1)

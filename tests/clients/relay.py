"""A way to Gemini on which turns of the agent are held back, so that a test says what comes before them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiohttp import web

from local.http_server import serving


@asynccontextmanager
async def held_back(session: Any, is_so: Callable[[], bool]) -> AsyncIterator[Any]:
    """Yield a session whose call goes over a relay: no turn of the agent but the first ends before something is so."""
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
                        await _until(is_so)
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


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait for a minute at most: what was not kept then is sent again with the next turn."""
    for _ in range(600):
        if await asyncio.to_thread(is_so):
            return
        await asyncio.sleep(0.1)

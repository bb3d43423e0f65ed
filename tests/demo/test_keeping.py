"""Turns are sent to the API as a call goes."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from demo.keeping import Keeping
from demo.transcript import Turn
from demo.voice_api import VoiceApi
from local.http_server import serving

pytestmark = pytest.mark.anyio


async def test_what_fails_goes_with_the_next_turn() -> None:
    kept: list[Any] = []
    troubles = iter([503, 503])

    async def keep(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer pi_sess_1"
        if (status := next(troubles, 200)) != 200:
            return web.json_response({"message": "Service Unavailable"}, status=status)
        body = await request.json()
        assert body["from"] == len(kept)
        kept.extend(body["turns"])
        return web.json_response({"data": {"session_id": "s", "next": len(kept)}})

    app = web.Application()
    app.router.add_post("/api/v1/voice/sessions/s/transcript", keep)
    said = 0
    async with serving(app) as url, aiohttp.ClientSession() as http, asyncio.timeout(300):
        keeping = Keeping(VoiceApi(http, url, "pi_live_1"), {"session_id": "s", "client_token": "pi_sess_1"})
        while not keeping.kept:
            keeping.add(Turn("user", f"{said}", said, said + 1))
            said += 1
            await asyncio.sleep(0.01)

    assert [turn["text"] for turn in kept] == [str(number) for number in range(len(kept))]
    assert kept

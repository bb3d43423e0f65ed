"""Turns are sent to the API during the call."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from demo.checkpoint_sender import CheckpointSender
from demo.transcript import Turn
from demo.voice_api import VoiceApi
from local.http_server import serving

pytestmark = pytest.mark.anyio


async def test_turns_that_failed_to_send_are_sent_with_the_next_turn() -> None:
    saved: list[Any] = []
    statuses = iter([503, 503])

    async def save_transcript(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer pi_sess_1"
        if (status := next(statuses, 200)) != 200:
            return web.json_response({"message": "Service Unavailable"}, status=status)
        body = await request.json()
        assert body["from"] == len(saved)
        saved.extend(body["turns"])
        return web.json_response({"data": {"session_id": "s", "next": len(saved)}})

    app = web.Application()
    app.router.add_post("/api/v1/voice/sessions/s/transcript", save_transcript)
    said = 0
    async with serving(app) as url, aiohttp.ClientSession() as http, asyncio.timeout(300):
        session = {"session_id": "s", "client_token": "pi_sess_1"}
        checkpoints = CheckpointSender(VoiceApi(http, url, "pi_live_1"), session)
        while not checkpoints.saved:
            checkpoints.add(Turn("user", f"{said}", said, said + 1))
            said += 1
            await asyncio.sleep(0.01)

    assert [turn["text"] for turn in saved] == [str(number) for number in range(len(saved))]
    assert saved

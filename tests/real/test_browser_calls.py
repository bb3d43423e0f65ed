"""A call in the browser with a real LiveKit server: others hear the caller and the agent, and a stop ends it."""

import asyncio
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import pytest
from livekit import rtc

from local.running import LocalApi
from tests.real.call_page import PATIENCE_SECONDS, built, opened
from tests.real.participants import Person, joined, until

pytestmark = [pytest.mark.real, pytest.mark.anyio]

LOUD: Final = 1_000
AGENT: Final = {"name": "Mia", "instructions": "Take the call.", "questions": ["What is your name?", "For how many?"]}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def _client() -> None:
    built()


async def is_loud(track: rtc.Track) -> None:
    """Wait until a track has sound."""
    stream = rtc.AudioStream(track)
    try:
        async for event in stream:
            if np.abs(np.frombuffer(event.frame.data, np.int16)).max() > LOUD:
                return
    finally:
        await stream.aclose()


def tracks_of(person: Person, identity: str) -> list[rtc.Track]:
    """Return the tracks of another participant that have arrived."""
    other = person.room.remote_participants.get(identity)
    published = other.track_publications.values() if other else ()
    return [publication.track for publication in published if publication.track]


async def test_a_colleague_hears_caller_and_agent_and_stop_ends_the_call_in_the_page(
    livekit_stack: LocalApi, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {livekit_stack.api_key}"}) as backend:

        async def post(path: str, **body: Any) -> Any:
            async with backend.post(f"{livekit_stack.base_url}/api/v1/voice{path}", json=body) as answer:
                document = await answer.json()
                assert answer.status in (200, 201), document
                return document["data"]

        agent = (await post("/agents", **AGENT))["agent_id"]
        session = await post("/sessions", agent_id=agent, participant={"identity": "ana"}, ttl_seconds=900)
        path = f"/sessions/{session['session_id']}"
        bens = (await post(f"{path}/participants", identity="ben"))["connection"]["livekit"]
        options = {"session": session, "apiUrl": livekit_stack.base_url, "livekit": "required"}

        async with joined(bens) as ben:
            with opened(tmp_path, options) as page:
                await asyncio.to_thread(page.until, "speaking")

                async def both_have_come() -> bool:
                    return len(tracks_of(ben, "ana")) == 2

                await until(both_have_come)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await asyncio.gather(*map(is_loud, tracks_of(ben, "ana")))

                await post(f"{path}/stop")
                ended = await asyncio.to_thread(page.until, "ended")

        assert ended["reason"] == "stopped"
        assert await ben.hung_up() == "ROOM_DELETED"

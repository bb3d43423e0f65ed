"""LiveKit's and Gemini's stand-ins in a thread of their own, and what a test may ask about them."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from livekit import api
from livekit.protocol.models import Room
from livekit.protocol.room import CreateRoomRequest, DeleteRoomRequest, ListRoomsRequest

from local.services import Gemini, LiveKit
from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.livekit import livekit_stand_in
from tests.patience import LONG

NOWHERE = "http://127.0.0.1:9"
"""A port of this machine that nobody serves: the stand-in's own webhooks end here."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Providers:
    """Both providers, running."""

    livekit: LiveKit
    gemini: Gemini
    _loop: asyncio.AbstractEventLoop

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Serve both on free ports of loopback until the end of the block."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        stand_ins = AsyncExitStack()

        async def start() -> Self:
            livekit = await stand_ins.enter_async_context(livekit_stand_in(NOWHERE, None))
            return cls(livekit, await stand_ins.enter_async_context(gemini_stand_in()), loop)

        providers: Self = asyncio.run_coroutine_threadsafe(start(), loop).result(LONG)
        try:
            yield providers
        finally:
            providers.do(stand_ins.aclose())
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run something on the providers' own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LONG)

    @property
    def variables(self) -> dict[str, str]:
        """The environment that leads a function here."""
        assert self.gemini.base_url
        return {
            "LIVEKIT_URL": self.livekit.url,
            "LIVEKIT_API_KEY": self.livekit.api_key,
            "LIVEKIT_API_SECRET": self.livekit.api_secret,
            "GEMINI_API_KEY": self.gemini.api_key,
            "GOOGLE_GEMINI_BASE_URL": self.gemini.base_url,
        }

    def rooms(self) -> list[str]:
        """Return the names of all rooms that are open."""
        return [room.name for room in self._open_rooms()]

    def room(self, name: str) -> Room:
        """Return one open room as LiveKit knows it."""
        [room] = [room for room in self._open_rooms() if room.name == name]
        return room

    def open_room(self, name: str) -> None:
        """Open a room, as somebody does who joins one that was closed."""

        async def ask() -> None:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                await livekit.room.create_room(CreateRoomRequest(name=name))

        self.do(ask())

    def close_room(self, name: str) -> None:
        """Close a room, as LiveKit does when everybody has left."""

        async def ask() -> None:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                await livekit.room.delete_room(DeleteRoomRequest(room=name))

        self.do(ask())

    def _open_rooms(self) -> list[Room]:
        async def ask() -> list[Room]:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                return list((await livekit.room.list_rooms(ListRoomsRequest())).rooms)

        return self.do(ask())

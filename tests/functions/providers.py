"""The stand-ins for LiveKit and Gemini in a thread, and requests about their state."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from livekit import api
from livekit.protocol.models import Room
from livekit.protocol.room import CreateRoomRequest, DeleteRoomRequest, ListRoomsRequest

from local.services import Gemini, LiveKit
from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.livekit import livekit_stand_in
from tests.support.patience import LONG

NOWHERE = "http://127.0.0.1:9"
"""A port without a server. The stand-in sends its webhooks there."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Providers:
    """Both running stand-ins."""

    livekit: LiveKit
    gemini: Gemini
    _loop: asyncio.AbstractEventLoop

    @classmethod
    @contextmanager
    def running(cls, gemini: AbstractAsyncContextManager[Gemini] | None = None) -> Iterator[Self]:
        """Run both on free loopback ports during the block; `gemini` serves another Gemini."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        stand_ins = AsyncExitStack()

        async def start() -> Self:
            livekit = await stand_ins.enter_async_context(livekit_stand_in(NOWHERE, None))
            return cls(livekit, await stand_ins.enter_async_context(gemini or gemini_stand_in()), loop)

        providers: Self = asyncio.run_coroutine_threadsafe(start(), loop).result(LONG)
        try:
            yield providers
        finally:
            providers.do(stand_ins.aclose())
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the event loop of the stand-ins."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LONG)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that point a function to the stand-ins."""
        assert self.gemini.base_url
        return {
            "LIVEKIT_URL": self.livekit.url,
            "LIVEKIT_API_KEY": self.livekit.api_key,
            "LIVEKIT_API_SECRET": self.livekit.api_secret,
            "GEMINI_API_KEY": self.gemini.api_key,
            "GOOGLE_GEMINI_BASE_URL": self.gemini.base_url,
        }

    def rooms(self) -> list[str]:
        """Return the names of all open rooms."""
        return [room.name for room in self._open_rooms()]

    def room(self, name: str) -> Room:
        """Return one open room as LiveKit knows it."""
        [room] = [room for room in self._open_rooms() if room.name == name]
        return room

    def open_room(self, name: str) -> None:
        """Open a room, as a join after its close does."""

        async def ask() -> None:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                await livekit.room.create_room(CreateRoomRequest(name=name))

        self.do(ask())

    def close_room(self, name: str) -> None:
        """Close a room, as LiveKit does after the last participant left."""

        async def ask() -> None:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                await livekit.room.delete_room(DeleteRoomRequest(room=name))

        self.do(ask())

    def _open_rooms(self) -> list[Room]:
        async def ask() -> list[Room]:
            async with api.LiveKitAPI(self.livekit.url, self.livekit.api_key, self.livekit.api_secret) as livekit:
                return list((await livekit.room.list_rooms(ListRoomsRequest())).rooms)

        return self.do(ask())

"""One WebSocket of Gemini Live, opened with an ephemeral token."""

import asyncio
import json
from typing import Any, Final

import aiohttp

from pi_voice.domain.connection_api import GeminiLiveConnection

Json = dict[str, Any]

BROKEN: Final = 1006
"""The code of a connection that ended without a close frame."""

_CLOSING: Final = aiohttp.ClientWSTimeout(ws_close=2.0)
_CLOSED: Final = (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR)


class LiveClosed(Exception):
    """Gemini closed the WebSocket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        """Return the code, with Google's reason if there is one."""
        return f"{self.code} ({self.reason.strip().rstrip('.')})" if self.reason.strip() else str(self.code)


class LiveSocket:
    """A connection that is set up."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    @classmethod
    async def open(
        cls, http: aiohttp.ClientSession, connection: GeminiLiveConnection, handle: str | None = None
    ) -> "LiveSocket":
        """Connect and wait for setupComplete; raises LiveClosed and aiohttp's ClientError."""
        url = f"{connection.url}?access_token={connection.token}"
        socket = await http.ws_connect(url, max_msg_size=0, timeout=_CLOSING)
        opened = cls(socket)
        try:
            first: Json = dict(connection.setup)
            resumption = {"handle": handle} if handle else {}
            await opened.send({**first, "setup": {**first["setup"], "sessionResumption": resumption}})
            while "setupComplete" not in await opened.receive():
                pass
        except BaseException:
            await socket.close()
            raise
        return opened

    async def send(self, message: Json) -> None:
        """Send a message; raises LiveClosed."""
        try:
            await self._socket.send_json(message)
        except (aiohttp.ClientError, ConnectionError):
            raise LiveClosed(self._socket.close_code or BROKEN, "") from None

    async def receive(self) -> Json:
        """Return the next message; raises LiveClosed."""
        frame = await self._socket.receive()
        if frame.type == aiohttp.WSMsgType.CLOSE:
            raise LiveClosed(int(frame.data or BROKEN), str(frame.extra or ""))
        if frame.type in _CLOSED:
            raise LiveClosed(self._socket.close_code or BROKEN, "")
        message: Json = json.loads(frame.data)
        return message

    async def receive_within(self, seconds: float) -> Json | None:
        """Return the next message, or None if there is none in time; raises LiveClosed."""
        try:
            return await asyncio.wait_for(self.receive(), seconds)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()

"""The WebSocket to Gemini Live: opened with a session's token, and reopened when a call outlasts its connection."""

import asyncio
import json
from contextlib import suppress
from typing import Any, Final

import aiohttp

from demo.errors import CallFailed

Message = dict[str, Any]

_OPENING_SECONDS: Final = 20.0
_CONTENT: Final = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
_CLOSING_SECONDS: Final = 2.0


class LiveConnection:
    """One call's connection; messages sent during a reconnect wait until the new connection is open."""

    def __init__(self, client: aiohttp.ClientSession, connection: Message) -> None:
        self._client = client
        self._url = f"{connection['url']}?access_token={connection['token']}"
        self._setup: Message = connection["setup"]
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._is_open = asyncio.Event()
        self.hangup = "the connection broke without a close frame"

    async def open(self, handle: str | None = None) -> None:
        """Connect and wait for setupComplete; a handle resumes a call. Raises CallFailed."""
        await self.close()
        timeout = aiohttp.ClientWSTimeout(ws_close=_CLOSING_SECONDS)
        try:
            self._socket = await self._client.ws_connect(self._url, timeout=timeout, max_msg_size=0)
            await self._socket.send_json(self._resuming(handle) if handle else self._setup)
            answer = await self._socket.receive(_OPENING_SECONDS)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CallFailed(f"Gemini Live cannot be reached: {str(error) or type(error).__name__}.") from None
        if answer.type not in _CONTENT or "setupComplete" not in json.loads(answer.data):
            self._store_close_reason(answer)
            raise CallFailed(f"Gemini Live refused the call: {self.hangup}.")
        self._is_open.set()

    async def receive(self) -> Message | None:
        """Wait for the next message; None once Gemini has closed the connection."""
        frame = await self._socket.receive() if self._socket else None
        if frame and frame.type in _CONTENT:
            message: Message = json.loads(frame.data)
            return message
        self._is_open.clear()
        self._store_close_reason(frame)
        return None

    async def send(self, message: Message) -> None:
        """Send one message once the connection is open; a message is lost if the connection breaks while it is sent."""
        await self._is_open.wait()
        if self._socket:
            with suppress(ConnectionError):  # `receive` reports the end of the connection
                await self._socket.send_json(message)

    async def close(self) -> None:
        """Close the connection."""
        self._is_open.clear()
        if self._socket:
            await self._socket.close()

    def _store_close_reason(self, frame: aiohttp.WSMessage | None) -> None:
        """Store the close code and the reason, if Gemini sent them."""
        if frame and frame.type is aiohttp.WSMsgType.CLOSE:
            self.hangup = f"close code {frame.data}, {frame.extra or 'without a reason'}"

    def _resuming(self, handle: str) -> Message:
        setup = {**self._setup["setup"], "sessionResumption": {"handle": handle}}
        return {**self._setup, "setup": setup}

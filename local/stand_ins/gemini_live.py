"""The Live API's WebSocket for ephemeral tokens: admit clients, dispatch messages, close connections as Google does.

opened ──token──► admitted ──setup──► in conversation ──► closed by the client
   └─1007 1008 1011──┴──1007 1008 1011──┴──1007, 1008 after goAway, 1011 when the token expires
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from aiohttp import WSMessage, WSMsgType, web

from local.errors import CannotStart
from local.pacing import Pacer
from local.stand_ins.example_scripts import ExampleScript
from local.stand_ins.gemini_live_access import (
    ABORTED,
    INVALID_ARGUMENT,
    REFUSED,
    Access,
    Hangup,
    LiveSession,
    expired,
)
from local.stand_ins.gemini_live_agent import Interview
from local.stand_ins.gemini_live_conversation import SETUP_FIRST, Conversation
from local.stand_ins.gemini_live_faults import Faults
from local.stand_ins.gemini_messages import InvalidRequest, Message, read
from local.stand_ins.gemini_tokens import EphemeralToken, Tokens

PACE: Final = "GEMINI_STAND_IN_PACE"

_HIGHEST_PACE: Final = 1_000
_SERVICE: Final = r"google.ai.generativelanguage.{version:v1alpha|v1beta}.GenerativeService"
_PATH: Final = f"/{{slash:/?}}ws/{_SERVICE}.BidiGenerateContentConstrained"
"""The SDKs write a second slash if the base URL ends with one."""

_CONTENT: Final = (WSMsgType.TEXT, WSMsgType.BINARY)
_SCHEME: Final = "Token "
_CLOSING_SECONDS: Final = 1.0
_NO_JSON: Final = "Invalid JSON payload received."
_OVERSTAYED: Final = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway signal once the "
    "session duration expired"
)


@dataclass(frozen=True, slots=True)
class LiveTimes:
    """The agent's pace (1 is real time), the lifetime of a connection, and how long before its end goAway is sent."""

    pace: float = 1.0
    connection_seconds: float = 600.0
    warning_seconds: float = 50.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read GEMINI_STAND_IN_PACE; raises CannotStart."""
        pace = environment.get(PACE) or "1"
        try:
            if 0 < float(pace) <= _HIGHEST_PACE:
                return cls(pace=float(pace))
        except ValueError:
            pass
        raise CannotStart(f"{PACE} is {pace!r}: give a number above 0 and up to {_HIGHEST_PACE}.")


AS_GOOGLE: Final = LiveTimes()


def add_live_api(
    app: web.Application, tokens: Tokens, times: LiveTimes, faults: Faults, scripts: Mapping[str, ExampleScript]
) -> None:
    """Serve the Live API for ephemeral tokens only; API keys are not accepted.

    `scripts` has the examples' callers and function calls, by the agent's name.
    """
    access = Access(tokens, faults)

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=_CLOSING_SECONDS)
        await socket.prepare(request)
        try:
            connection = _Connection(socket, access, times, faults, scripts)
            await connection.serve(_tokens_of(request), request.match_info["version"])
        except* Hangup as hangups:
            for hangup in hangups.exceptions:
                if isinstance(hangup, Hangup) and hangup.code == ABORTED and request.transport:
                    request.transport.abort()
                elif isinstance(hangup, Hangup):
                    await socket.close(code=hangup.code, message=hangup.reason)
        except* ConnectionError:
            pass  # the client disconnected while the agent was speaking
        return socket

    app.router.add_get(_PATH, serve)


def _tokens_of(request: web.Request) -> list[str]:
    """Return the tokens of the query, where browsers send them, and of the header, where the Python SDK does."""
    scheme, _, token = request.headers.get("Authorization", "").partition(_SCHEME)
    return [*request.query.getall("access_token", []), *([token] if token and not scheme else [])]


class _Connection:
    """One WebSocket connection."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        access: Access,
        times: LiveTimes,
        faults: Faults,
        scripts: Mapping[str, ExampleScript],
    ) -> None:
        self._socket = socket
        self._access = access
        self._times = times
        self._faults = faults
        self._scripts = scripts
        self._version = ""
        self._limit = asyncio.timeout(None)
        self._is_outlived = False

    async def serve(self, tokens: list[str], version: str) -> None:
        """Serve the connection until the client closes it; raises Hangup, alone or in a group."""
        self._version = version
        token = self._access.token(tokens, version)
        token_seconds = (token.expires_at - datetime.now(UTC)).total_seconds()
        self._is_outlived = token_seconds > self._times.connection_seconds
        self._limit = asyncio.timeout(min(token_seconds, self._times.connection_seconds))
        try:
            async with self._limit:
                await self._converse(token)
        except TimeoutError:
            raise Hangup(REFUSED, _OVERSTAYED) if self._is_outlived else expired() from None

    async def send(self, message: Message) -> None:
        """Send one message, in a binary frame."""
        await self._socket.send_bytes(json.dumps(message).encode())

    async def go_away(self, seconds: float) -> None:
        """Announce the end of the connection, in at most this time."""
        ends = asyncio.get_running_loop().time() + seconds
        if ends < (self._limit.when() or 0):
            self._is_outlived = True
            self._limit.reschedule(ends)
        await self.send({"goAway": {"timeLeft": f"{seconds:g}s"}})

    def new_handle(self, session: LiveSession, interview: Interview) -> str:
        """Return a resumption handle for the current state of a call."""
        return self._access.new_handle(session, interview)

    def pacer(self) -> Pacer:
        """Return a pacer for the audio of one turn."""
        return Pacer(self._times.pace)

    async def sleep(self, seconds: float) -> None:
        """Wait for seconds of speech, which the pace shortens."""
        await asyncio.sleep(seconds / self._times.pace)

    async def _converse(self, token: EphemeralToken) -> None:
        first = await self._socket.receive()
        if first.type not in _CONTENT:
            return
        match self._read(first):
            case {"setup": setup, **others} if not others:
                setup, session, interview = self._access.admit(token, setup)
            case _:
                raise Hangup(INVALID_ARGUMENT, SETUP_FIRST)
        session.is_connected = True
        try:
            await self.send({"setupComplete": {}})
            async with asyncio.TaskGroup() as tasks:
                warning = tasks.create_task(self._warn())
                conversation = Conversation(setup, (session, interview), self, tasks, self._faults, self._scripts)
                await conversation.begin()
                async for message in self._socket:
                    await conversation.receive(self._read(message))
                session.is_connected = False
                warning.cancel()
                await conversation.stop()
        finally:
            session.is_connected = False

    async def _warn(self) -> None:
        left = self._times.warning_seconds
        await asyncio.sleep(self._times.connection_seconds - left)
        await self.go_away(left)

    def _read(self, message: WSMessage) -> Message:
        try:
            body: Any = json.loads(message.data)
        except (ValueError, TypeError, RecursionError):
            raise Hangup(INVALID_ARGUMENT, _NO_JSON) from None
        try:
            return read("BidiGenerateContentClientMessage", self._version, body)
        except InvalidRequest as fault:
            raise Hangup(INVALID_ARGUMENT, str(fault)) from None

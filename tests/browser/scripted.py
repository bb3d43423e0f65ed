"""The API with injected faults beside a Gemini that plays a script over each connection."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.browser.faults import Faults


@dataclass
class Line:
    """Gemini's side of one connection."""

    socket: web.WebSocketResponse
    received: list[Any]

    async def send(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def call(self, call_id: str, name: str = "show_table", **args: Any) -> None:
        """Call a function."""
        await self.send(toolCall={"functionCalls": [{"id": call_id, "name": name, "args": args}]})

    async def say(self, text: str) -> None:
        """Speak a part of a turn."""
        await self.send(serverContent={"modelTurn": {"parts": []}})
        await self.send(serverContent={"outputTranscription": {"text": text}})

    async def end_turn(self) -> None:
        await self.send(serverContent={"turnComplete": True})

    async def issue_handle(self) -> None:
        await self.send(sessionResumptionUpdate={"newHandle": "h", "resumable": True})

    async def until(self, kind: str) -> Any:
        """Receive the client's messages up to the first of a kind, and return its content."""
        while kind not in (message := await self.socket.receive_json()):
            self.received.append(message)
        self.received.append(message)
        return message[kind]

    async def until_closed(self) -> None:
        """Receive the client's messages until it closes the connection."""
        async for frame in self.socket:
            assert frame.type is WSMsgType.TEXT
            self.received.append(frame.json())


Script = Callable[[Line], Awaitable[None]]
"""What Gemini does over one connection after its setup; when it returns, Gemini closes the connection."""


@dataclass
class ScriptedCall(Faults):
    """A call whose connections have a script each."""

    scripts: list[Script] = field(default_factory=list)
    before_setup: Callable[[], Awaitable[object]] | None = None
    """Runs before the second and each further connection is set up."""
    messages: list[list[Any]] = field(default_factory=list)
    """The client's messages over each connection, without its setup."""

    @property
    def answers(self) -> list[list[Any]]:
        """The function responses that arrived over each connection."""
        return [
            [each for message in messages for each in message.get("toolResponse", {}).get("functionResponses", [])]
            for messages in self.messages
        ]

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive_json()
        if self.messages and self.before_setup:
            await self.before_setup()
        script = self.scripts[len(self.messages)]
        self.messages.append([])
        await socket.send_json({"setupComplete": {}})
        await script(Line(socket, self.messages[-1]))
        await asyncio.wait_for(socket.close(), 60)
        return socket

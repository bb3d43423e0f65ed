"""An API and a Gemini with injected faults, to test how a client recovers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local.http_server import serving
from tests.browser.python_client import GOODBYE

CODES = {
    409: ("voice_session_not_active", False),
    413: ("voice_transcript_too_large", False),
    500: ("internal_error", True),
    503: ("gemini_unavailable", True),
}
IN_PROGRESS = "tool_call_in_progress"


@dataclass
class Faults:
    """The faults in order (None drops the answer), and a record of the client's requests."""

    transcript: Sequence[int | None] = ()
    complete: Sequence[int | None] = ()
    tool_calls: Sequence[int | str | None] = ()
    server_tools: Mapping[str, Any] = field(default_factory=dict)
    """The records of the tools that run on a server, by name."""
    run_server_tool: Callable[[], Awaitable[object]] | None = None
    """Runs before a tool on a server is answered."""
    usage: Sequence[int | None] = ()
    loses_turns_after: int | None = None
    """Number of turns after which all but the first are lost, once."""
    token_turns: int | None = None
    """Number of turns for which one token is valid."""
    knows_handles: bool = True
    mute: int = 0
    """Number of connections that are not set up, from the first on."""
    refused: int = 0
    """Number of connections that break before they are set up, from the first on."""
    ends_at_idle: bool = False
    """Whether a turn goes on after turnComplete, and ends with the interaction status IDLE."""
    is_done: Callable[[], bool] = lambda: False
    """Whether the test has seen all its faults, so that the agent says goodbye."""

    asked: list[str] = field(default_factory=list)
    """The routes of the client's requests that were answered without a fault, in order."""
    recorded: list[Any] = field(default_factory=list)
    """The tool calls that were recorded."""
    reported: list[Any] = field(default_factory=list)
    """The reports of usage."""
    saved: list[Any] = field(default_factory=list)
    gaps: int = 0
    keys: list[str] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    renewals: list[bool] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)
    """The caller's input."""
    turns_of: dict[str, int] = field(default_factory=dict)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[tuple[dict[str, Any], str]]:
        """Serve the API and Gemini, and yield a session and the API's base URL."""
        self._transcript, self._complete = iter(self.transcript), iter(self.complete)
        self._tool_calls, self._usage = iter(self.tool_calls), iter(self.usage)
        app = web.Application()
        path = "/api/v1/voice/sessions/s"
        app.router.add_get("/live", self._live)
        app.router.add_post(f"{path}/transcript", self._save)
        app.router.add_post(f"{path}/renew", self._renew)
        app.router.add_post(f"{path}/complete", self._complete_session)
        app.router.add_post(f"{path}/tool-calls", self._record)
        app.router.add_post(f"{path}/usage", self._report)
        app.router.add_get(path, self._get)
        app.router.add_options("/{path:.*}", _preflight)
        app.on_response_prepare.append(_for_every_page)
        async with serving(app) as url:
            self._url = url
            session: dict[str, Any] = {"session_id": "s", "client_token": "pi_sess_0", "max_duration_seconds": 3_600}
            yield {**session, "connection": {"gemini_live": await self.connection()}}, url

    async def connection(self) -> dict[str, Any]:
        """Return a new connection to Gemini."""
        ends: dict[str, str] = {"turn_ends_at": "idle"} if self.ends_at_idle else {}
        setup = {"setup": {"model": "models/m"}}
        tools = {"tools": [{"name": name, "where": "server", "speaks": None} for name in self.server_tools]}
        return {"url": f"{self._url}/live", "token": f"token-{len(self.renewals)}", "setup": setup, **ends, **tools}

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        """Greet a new caller with "Hello.", reply "Yes?" to each answer, and close when the token is used up."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        token = request.query["access_token"]
        handle = (await socket.receive_json())["setup"]["sessionResumption"].get("handle")
        if self.refused:
            self.refused -= 1
            _abort(request)
        elif self.mute:
            self.mute -= 1
            await socket.receive()
        elif self._is_used_up(token):
            await socket.close(code=1011, message=b"auth token has expired")
        elif handle and not self.knows_handles:
            await socket.close(code=1008, message=b"BidiGenerateContent session not found")
        else:
            await self._send(socket, {"setupComplete": {}})
            async for frame in socket:
                if self._is_used_up(token):
                    await socket.close(code=1011, message=b"auth token has expired")
                    break
                said = json.loads(frame.data)["realtimeInput"]
                self.received.append(said)
                if "text" in said:
                    await self._speak(socket, token, "Hello." if "on the line" in said["text"] else self._reply())
        return socket

    async def _speak(self, socket: web.WebSocketResponse, token: str, text: str) -> None:
        self.turns_of[token] = self.turns_of.get(token, 0) + 1
        await asyncio.sleep(0.1)  # limits the turns during one request to the API
        await self._send(socket, {"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}})
        await self._send(socket, {"serverContent": {"modelTurn": {"parts": []}, "turnComplete": self.ends_at_idle}})
        await self._send(socket, {"serverContent": {"outputTranscription": {"text": text}, "turnComplete": True}})
        if self.ends_at_idle:
            await self._send(socket, {"interactionStatus": "IDLE"})

    def _reply(self) -> str:
        return GOODBYE if self.is_done() else "Yes?"

    async def _send(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        await socket.send_bytes(json.dumps(message).encode())

    def _is_used_up(self, token: str) -> bool:
        return self.token_turns is not None and self.turns_of.get(token, 0) >= self.token_turns

    async def _save(self, request: web.Request) -> web.Response:
        body = await request.json()
        if (status := next(self._transcript, 200)) != 200:
            return self._fault(request, status)
        if self.loses_turns_after is not None and len(self.saved) >= self.loses_turns_after:
            self.loses_turns_after = None
            del self.saved[1:]
        if body["from"] > len(self.saved):
            self.gaps += 1
            error = {"code": "voice_transcript_gap", "retryable": False, "next": len(self.saved)}
            return web.json_response({"error": error}, status=409)
        self.saved[body["from"] :] = body["turns"]
        return web.json_response({"data": {"session_id": "s", "next": len(self.saved)}})

    async def _renew(self, request: web.Request) -> web.Response:
        self.asked.append("renew")
        self.renewals.append((await request.json())["has_resumption_handle"])
        token = f"pi_sess_{len(self.renewals)}"
        connection = {"gemini_live": await self.connection()}
        return web.json_response({"data": {"client_token": token, "connection": connection}})

    async def _complete_session(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers["Idempotency-Key"])
        self.completions.append(await request.text())
        if (status := next(self._complete, 200)) != 200:
            return self._fault(request, status)
        self.asked.append("complete")
        return web.json_response({"status": "completed", **await request.json()})

    async def _record(self, request: web.Request) -> web.Response:
        body = await request.json()
        if (status := next(self._tool_calls, 200)) != 200:
            return self._fault(request, status)
        self.asked.append("tool-calls")
        self.recorded.append(body)
        if body["name"] not in self.server_tools:
            return web.json_response({"data": body})
        if self.run_server_tool:
            await self.run_server_tool()
        return web.json_response({"data": {**body, **self.server_tools[body["name"]]}})

    async def _report(self, request: web.Request) -> web.Response:
        body = await request.json()
        if (status := next(self._usage, 200)) != 200:
            return self._fault(request, status)
        self.asked.append("usage")
        self.reported.append(body)
        return web.json_response({"data": body})

    async def _get(self, _: web.Request) -> web.Response:
        return web.json_response({"data": {"status": "completed", "completed_by": "another client"}})

    def _fault(self, request: web.Request, status: int | str | None) -> web.Response:
        if status is None:
            _abort(request)
            return web.Response()
        if isinstance(status, str):
            return web.json_response({"error": {"code": status, "retryable": True}}, status=409)
        code, retryable = CODES[status]
        return web.json_response({"error": {"code": code, "retryable": retryable}}, status=status)


def _abort(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


async def _preflight(_: web.Request) -> web.Response:
    headers = "authorization, content-type, idempotency-key"
    return web.Response(status=204, headers={"Access-Control-Allow-Headers": headers})


async def _for_every_page(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Access-Control-Allow-Origin"] = "*"

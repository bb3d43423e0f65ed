"""The demo holds calls with the Gemini Live stand-in, on the Python reference client."""

import asyncio
import json
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from pydantic import JsonValue

from demo.call import Call
from demo.clock import CallClock
from demo.errors import CallFailed
from demo.example import Line
from docs.clients import client
from docs.clients.tools import Function
from local.http_server import serving
from local.speech import Speech, Voice
from local.stand_ins.gemini_live import LiveTimes
from pi_voice.domain.prompts import instruction_for
from tests.local.live.conftest import SERVICE, SETUP, Gemini, running_gemini
from tests.unit.examples import agent

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

PACE: Final = 20.0
UNHURRIED: Final = 4.0
"""A pace at which the audio of a reconnect can be held back, even on a busy machine."""

PATIENCE_SECONDS: Final = 600
"""Longer than any call here takes, including the time by which a test moves the clock."""

LINES: Final = (Line(text="My name is Erik Dahl."), Line(text="Yes, rather."))
WHOLE_CALL: Final = [
    ("agent", "Fjord Dental, this is Nora. What is your name?"),
    ("user", "My name is Erik Dahl."),
    ("agent", "Thank you. Are you in pain?"),
    ("user", "Yes, rather."),
    ("agent", "Get well soon."),
]


class Client:
    """Holds one call at a fixed pace."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        token: str,
        api_url: str,
        *,
        has_voice: bool = True,
        pace: float = PACE,
        tools: Mapping[str, Function] | None = None,
    ) -> None:
        live = {"url": f"{url}/ws/{SERVICE.format('v1alpha')}", "token": token, "setup": {"setup": SETUP}}
        session = {"session_id": "s", "client_token": "pi_sess_1", "connection": {"gemini_live": live}}
        speech = Speech(16_000, Voice(pitch=260), espeak=None) if has_voice else None
        clock = CallClock(pace)
        self.shown: list[tuple[str, bool]] = []
        self.done: list[tuple[int, str, Any]] = []
        self.call = Call(
            client.Call(http, session, api_url, clock.now, tools),
            clock,
            speech,
            lambda turn, is_cut: self.shown.append((turn["text"], is_cut)),
            lambda call, _: self.done.append((len(self.shown), call["name"], call["response"])),
        )

    async def hold(self, lines: Sequence[Line] = LINES, cap: int | None = None, *, may_hang_up: bool = False) -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.call.hold(lines, cap, turn_timeout_seconds=PATIENCE_SECONDS, may_hang_up=may_hang_up)

    async def agent_speaks(self) -> None:
        """Wait until the agent answers the caller's first line."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any(turn["role"] == "user" for turn in self.turns):  # noqa: ASYNC110 (nothing reports this)
                await asyncio.sleep(0.01)

    @property
    def turns(self) -> list[Any]:
        return self.call.live.transcript.turns

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(turn["role"], turn["text"]) for turn in self.turns]


@asynccontextmanager
async def ended_session() -> AsyncIterator[str]:
    """Serve an API that saves turns and tool calls, but neither renews the session nor completes it."""

    async def save_transcript(request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"data": {"session_id": "s", "next": body["from"] + len(body["turns"])}})

    async def record(request: web.Request) -> web.Response:
        return web.json_response({"data": await request.json()})

    async def refuse(_: web.Request) -> web.Response:
        error = {"code": "voice_session_not_active", "retryable": False}
        return web.json_response({"error": error}, status=409)

    app = web.Application()
    app.router.add_post("/api/v1/voice/sessions/s/transcript", save_transcript)
    app.router.add_post("/api/v1/voice/sessions/s/tool-calls", record)
    app.router.add_post("/api/v1/voice/sessions/s/renew", refuse)
    async with serving(app) as url:
        yield url


@asynccontextmanager
async def client_at(
    url: str, token: str, *, has_voice: bool = True, tools: Mapping[str, Function] | None = None
) -> AsyncIterator[Client]:
    async with ended_session() as api_url, aiohttp.ClientSession() as http:
        yield Client(http, url, token, api_url, has_voice=has_voice, tools=tools)


@asynccontextmanager
async def client_of(
    gemini: Gemini, *, has_voice: bool = True, tools: Mapping[str, Function] | None = None, **token: Any
) -> AsyncIterator[Client]:
    async with client_at(gemini.url, await gemini.token(**token), has_voice=has_voice, tools=tools) as client:
        yield client


@pytest.fixture
async def gemini() -> AsyncIterator[Gemini]:
    async with running_gemini(LiveTimes(pace=PACE)) as gemini:
        yield gemini


async def test_a_whole_call_is_assembled_into_its_transcript(gemini: Gemini) -> None:
    async with client_of(gemini) as client:
        reason = await client.hold()

    assert reason == "completed"
    assert client.said == WHOLE_CALL
    assert client.shown == [(text, False) for _, text in WHOLE_CALL]
    starts = [turn["start_ms"] for turn in client.turns]
    assert starts == sorted(starts)
    assert client.call.live.seconds * 1000 >= client.turns[-1]["start_ms"]


async def test_a_caller_without_a_voice_types(gemini: Gemini) -> None:
    async with client_of(gemini, has_voice=False) as client:
        assert await client.hold() == "completed"

    assert client.said == WHOLE_CALL


async def test_a_caller_can_interrupt(gemini: Gemini) -> None:
    # Long enough that even on a slow machine the caller speaks before the agent has finished it.
    question = f"Are you in pain, {'or perhaps in great pain, ' * 15}now?"
    greeting, closing = "Fjord Dental, this is Nora.", WHOLE_CALL[4][1]
    nora = agent(
        name="Nora",
        questions=["What is your name?", question],
        behaviors={"greeting": greeting, "closing_message": closing},
    )
    async with client_of(gemini, instruction=instruction_for(nora)) as client:
        await client.hold([LINES[0], Line(text="Yes, rather.", interrupts=True)])

    assert [is_cut for _, is_cut in client.shown] == [False, False, True, False, False]
    answer, reply = client.said[3:]
    assert answer == WHOLE_CALL[3]
    # A question of which no word was said is asked again; whether one was said depends on timing.
    assert reply in (WHOLE_CALL[4], ("agent", f"Thank you. {question}"))


TABLE: Final[JsonValue] = {
    "name": "show_table",
    "description": "Show a table.",
    "parameters": {"type": "object", "properties": {"area": {"enum": ["inside", "terrace"]}}},
    "run": {"where": "client"},
}
MIA: Final = agent(
    name="Mia",
    questions=["Where would you like to sit?"],
    behaviors={"greeting": "Hello.", "closing_message": "See you soon!", "may_hang_up": True},
    tools=[TABLE],
)


async def show_table(arguments: Json) -> Json:
    return {"table": f"T12, {arguments['area']}"}


async def test_the_agent_hangs_up_and_its_tool_calls_are_shown_between_the_turns(gemini: Gemini) -> None:
    tools = {"show_table": show_table}
    async with client_of(gemini, tools=tools, instruction=instruction_for(MIA), tools_of=MIA) as client:
        reason = await client.hold([Line(text="On the terrace.")], may_hang_up=True)

    assert reason == "agent_hung_up"
    assert [text for text, _ in client.shown[:2]] == ["Hello. Where would you like to sit?", "On the terrace."]
    assert len(client.shown) == 3
    assert client.done == [
        (2, "show_table", {"table": "T12, terrace"}),
        (3, "hang_up", {"result": "The call ends after your sentence."}),
    ]
    # The caller hears the whole sentence before the agent hangs up.
    assert client.call.live.seconds * 1000 >= client.turns[-1]["end_ms"]


async def test_the_caller_hangs_up_if_the_agent_only_says_goodbye(gemini: Gemini) -> None:
    async with client_of(gemini) as client:
        assert await client.hold(may_hang_up=True) == "completed"

    assert client.said == WHOLE_CALL


async def test_a_call_ends_at_its_cap_and_not_before(gemini: Gemini) -> None:
    async with client_of(gemini) as client:
        reason = await client.hold([Line(text="Well, " * 80)], cap=30)

    assert reason == "client_timer"
    assert client.call.live.seconds >= 30


async def test_the_transcript_of_a_call_that_ends_at_its_cap_has_the_turns_that_had_begun(gemini: Gemini) -> None:
    async with client_of(gemini) as client:
        holding = asyncio.create_task(client.hold([LINES[0], Line(text="Well, " * 80)], cap=5_000))
        await client.agent_speaks()
        gemini.let_pass(5_000 / PACE)
        reason = await holding

    assert reason == "client_timer"
    assert client.said[:2] == WHOLE_CALL[:2]
    assert [text for text, _ in client.shown] == [text for _, text in client.said]


async def test_a_long_call_reconnects_without_losing_words() -> None:
    connections = 0

    async def count(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        nonlocal connections
        connections += "/ws/" in params.url.path

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(count)
    async with (
        running_gemini(LiveTimes(pace=UNHURRIED, connection_seconds=600, warning_seconds=599.95)) as gemini,
        ended_session() as api_url,
        aiohttp.ClientSession(trace_configs=[tracing]) as http,
    ):
        client = Client(http, gemini.url, await gemini.token(), api_url, pace=UNHURRIED)
        assert await client.hold() == "completed"

    assert client.said == WHOLE_CALL
    assert connections > 1


async def test_a_lost_connection_ends_the_call_with_its_transcript(gemini: Gemini) -> None:
    async with client_of(gemini, seconds=300) as client:
        holding = asyncio.create_task(client.hold([LINES[0], Line(text="Well, " * 80)]))
        await client.agent_speaks()
        gemini.let_pass(300)
        reason = await holding

    assert reason == "disconnected"
    assert client.said[:2] == WHOLE_CALL[:2]


async def test_a_refused_call_reports_geminis_close_code(gemini: Gemini) -> None:
    async with client_at(gemini.url, "auth_tokens/none") as client:
        with pytest.raises(CallFailed, match=r"^There is no connection to Gemini \(close code 1007\)\.$"):
            await client.hold()


async def test_an_unreachable_gemini_is_reported() -> None:
    async with client_at("http://127.0.0.1:9", "auth_tokens/none") as client:
        with pytest.raises(CallFailed, match=r"^There is no connection to Gemini \(close code none\)\.$"):
            await client.hold()


async def test_an_error_of_the_callers_voice_ends_the_call(gemini: Gemini) -> None:
    class Mute(Speech):
        def say(self, text: str) -> Any:
            raise ValueError(text)

    async with client_of(gemini) as client:
        client.call._input._speech = Mute(16_000, Voice())  # type: ignore[attr-defined]  # noqa: SLF001

        with pytest.raises(ValueError, match=LINES[0].text):
            await client.hold()


@asynccontextmanager
async def gemini_that(answers: Callable[[web.WebSocketResponse], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve a Live API that completes the setup and then runs `answers`."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        await socket.send_bytes(json.dumps({"setupComplete": {}}).encode())
        await answers(socket)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    async with serving(app) as url:
        yield url


async def test_the_wait_for_a_silent_agent_is_limited() -> None:
    async def keep_silent(socket: web.WebSocketResponse) -> None:
        async for _ in socket:
            pass

    async with gemini_that(keep_silent) as url, client_at(url, "auth_tokens/any") as client:
        assert await client.call.hold(LINES, None, turn_timeout_seconds=0.1) == "agent_silent"
    assert client.said == []


async def test_a_connection_that_breaks_without_a_close_frame_is_lost() -> None:
    async def vanish(socket: web.WebSocketResponse) -> None:
        assert socket._req is not None  # noqa: SLF001 (aiohttp has no public way to abort a connection)
        assert socket._req.transport is not None  # noqa: SLF001
        socket._req.transport.abort()  # noqa: SLF001

    async with gemini_that(vanish) as url, client_at(url, "auth_tokens/any") as client:
        with pytest.raises(CallFailed, match=r"^There is no connection to Gemini "):
            await client.hold()


async def test_a_recording_holds_both_sides_of_a_call(gemini: Gemini, tmp_path: Path) -> None:
    async with client_of(gemini) as client:
        await client.hold()
    client.call.recording.save(tmp_path / "call.wav")

    with wave.open(str(tmp_path / "call.wav"), "rb") as file:
        frames = file.readframes(file.getnframes())
        assert (file.getnchannels(), file.getframerate()) == (2, 24_000)
        # On a busy machine the call takes longer, but its audio does not.
        assert 10 < file.getnframes() / 24_000 < client.call.live.seconds + 2
    assert any(frames[0::4])
    assert any(frames[2::4])

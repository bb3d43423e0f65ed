"""The demo's client holds calls with the Gemini Live stand-in."""

import asyncio
import json
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from demo.call import Call, EndReason
from demo.errors import CallFailed
from demo.example import Line
from local.http_server import serving
from local.speech import Speech, Voice
from local.stand_ins.gemini_live import LiveTimes
from pi_voice.domain.prompts import instruction_for
from tests.local.live.conftest import SERVICE, SETUP, Gemini, running_gemini
from tests.unit.examples import agent

pytestmark = pytest.mark.anyio

PACE: Final = 20.0
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

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str, *, has_voice: bool = True) -> None:
        connection = {"url": f"{url}/ws/{SERVICE.format('v1alpha')}", "token": token, "setup": {"setup": SETUP}}
        speech = Speech(16_000, Voice(pitch=260), espeak=None) if has_voice else None
        self.call = Call(http, connection, speech, PACE, lambda _: None)

    async def hold(self, lines: Sequence[Line] = LINES, cap: int | None = None) -> EndReason:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.call.hold(lines, cap)

    async def caller_speaks(self) -> None:
        """Wait until some of the caller's words are transcribed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            # A transcript reports a turn only once it is complete, so poll the unfinished ones.
            while not any(turn.role == "user" and turn.text for turn in self.call.transcript.unfinished):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(turn.role, turn.text.strip()) for turn in self.call.transcript.turns]


@asynccontextmanager
async def client_of(gemini: Gemini, *, has_voice: bool = True, **token: Any) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(http, gemini.url, await gemini.token(**token), has_voice=has_voice)


@pytest.fixture
async def gemini() -> AsyncIterator[Gemini]:
    async with running_gemini(LiveTimes(pace=PACE)) as gemini:
        yield gemini


async def test_a_whole_call_is_assembled_into_its_transcript(gemini: Gemini) -> None:
    async with client_of(gemini) as client:
        reason = await client.hold()

    assert reason == "completed"
    assert client.said == WHOLE_CALL
    starts = [turn.start for turn in client.call.transcript.turns]
    assert starts == sorted(starts)
    assert client.call.seconds >= client.call.transcript.turns[-1].end


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

    assert [turn.is_cut for turn in client.call.transcript.turns] == [False, False, True, False, False]
    answer, reply = client.said[3:]
    assert answer == WHOLE_CALL[3]
    # A question of which no word was said is asked again; whether one was said depends on timing.
    assert reply in (WHOLE_CALL[4], ("agent", f"Thank you. {question}"))


async def test_a_call_ends_at_its_cap_and_not_before(gemini: Gemini) -> None:
    async with client_of(gemini) as client:
        reason = await client.hold([Line(text="Well, " * 80)], cap=30)

    assert reason == "max_duration"
    assert client.call.seconds >= 30


async def test_the_transcript_of_a_call_that_ends_at_its_cap_is_complete(gemini: Gemini) -> None:
    async with client_of(gemini) as client:
        holding = asyncio.create_task(client.hold([Line(text="Well, " * 80)], cap=5_000))
        await client.caller_speaks()
        gemini.let_pass(5_000 / PACE)
        reason = await holding

    assert reason == "max_duration"
    assert client.said[0] == WHOLE_CALL[0]
    assert client.said[1][1].startswith("Well,")


async def test_a_long_call_reconnects_without_losing_words() -> None:
    connections = 0

    async def count(*_: object) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await asyncio.sleep(0.1)  # the caller continues to speak

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(count)
    async with (
        running_gemini(LiveTimes(pace=PACE, connection_seconds=600, warning_seconds=599.95)) as gemini,
        aiohttp.ClientSession(trace_configs=[tracing]) as http,
    ):
        client = Client(http, gemini.url, await gemini.token())
        assert await client.hold() == "completed"

    assert client.said == WHOLE_CALL
    assert connections > 1


async def test_a_lost_connection_ends_the_call_with_its_transcript(gemini: Gemini) -> None:
    async with client_of(gemini, seconds=300) as client:
        holding = asyncio.create_task(client.hold([Line(text="Well, " * 80)]))
        await client.caller_speaks()
        gemini.let_pass(300)
        reason = await holding

    assert reason == "connection_lost"
    assert client.said[0] == WHOLE_CALL[0]
    assert client.call.hangup == "close code 1011, auth token has expired"


async def test_a_refused_call_reports_geminis_reason(gemini: Gemini) -> None:
    async with aiohttp.ClientSession() as http:
        client = Client(http, gemini.url, "auth_tokens/none")

        with pytest.raises(CallFailed, match=r"refused the call: close code 1007, API key not valid\."):
            await client.hold()


async def test_an_unreachable_gemini_is_reported() -> None:
    async with aiohttp.ClientSession() as http:
        client = Client(http, "http://127.0.0.1:9", "auth_tokens/none")

        with pytest.raises(CallFailed, match=r"^Gemini Live cannot be reached: "):
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

    async with gemini_that(keep_silent) as url, aiohttp.ClientSession() as http:
        client = Client(http, url, "auth_tokens/any")

        assert await client.call.hold(LINES, None, turn_timeout_seconds=0.1) == "agent_silent"
    assert client.said == []


async def test_a_connection_that_breaks_without_a_close_frame_is_lost() -> None:
    async def vanish(socket: web.WebSocketResponse) -> None:
        assert socket._req is not None  # noqa: SLF001 (aiohttp has no public way to abort a connection)
        assert socket._req.transport is not None  # noqa: SLF001
        socket._req.transport.abort()  # noqa: SLF001

    async with gemini_that(vanish) as url, aiohttp.ClientSession() as http:
        client = Client(http, url, "auth_tokens/any")

        assert await client.hold() == "connection_lost"
    assert client.call.hangup == "the connection broke without a close frame"


async def test_a_recording_holds_both_sides_of_a_call(gemini: Gemini, tmp_path: Path) -> None:
    async with client_of(gemini) as client:
        await client.hold()
    client.call.recording.save(tmp_path / "call.wav")

    with wave.open(str(tmp_path / "call.wav"), "rb") as file:
        frames = file.readframes(file.getnframes())
        assert (file.getnchannels(), file.getframerate()) == (2, 24_000)
        # On a busy machine the call takes longer, but its audio does not.
        assert 10 < file.getnframes() / 24_000 < client.call.seconds + 2
    assert any(frames[0::4])
    assert any(frames[2::4])

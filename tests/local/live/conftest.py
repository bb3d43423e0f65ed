"""Fixtures: the Gemini Live stand-in and its callers."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from local.http_server import serving
from local.stand_ins.example_scripts import EXAMPLES
from local.stand_ins.gemini import gemini_app
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_faults import NO_FAULTS, Faults
from local.stand_ins.gemini_tokens import EphemeralToken, Tokens
from pi_voice.adapters.gemini_live import token_request
from pi_voice.domain.agents import Agent
from pi_voice.domain.prompts import instruction_for
from pi_voice.ports import LiveTokenRequest
from pi_voice.settings import GeminiSettings
from tests.local.live.callers import BareCaller, Message, SdkCaller
from tests.support.moving_clock import MovableLoop
from tests.support.tls import LoopbackTls, loopback_tls
from tests.unit.examples import agent

MODEL: Final = "models/gemini-3.1-flash-live-preview"
KEY: Final = "the-key-of-these-tests"
SERVICE: Final = "google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContentConstrained"
SETUP: Final[Message] = {"model": MODEL, "sessionResumption": {}}
FAST: Final = LiveTimes(pace=50)

SETTINGS: Final = GeminiSettings.of(
    {"GEMINI_API_KEY": KEY, "GEMINI_LIVE_MODEL": MODEL, "GEMINI_EXTRACTION_MODEL": "gemini-3.5-flash-lite"}
)

NORAS_AGENT: Final = agent(
    name="Nora",
    questions=["What is your name?", "Are you in pain?"],
    behaviors={"greeting": "Fjord Dental, this is Nora.", "closing_message": "Get well soon."},
)
NORA: Final = instruction_for(NORAS_AGENT)


def soon(seconds: float = 60) -> datetime:
    """Return a time far enough ahead for a busy machine."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": MovableLoop}


@pytest.fixture(autouse=True)
def no_logged_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail on errors in the log, where the stand-in's own exceptions appear."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


class AgingTokens(Tokens):
    """Tokens whose age can be advanced."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = timedelta()
        self._minted: dict[str, timedelta] = {}

    def mint(self, request: Message, version: str, now: datetime) -> EphemeralToken:
        token = super().mint(request, version, now)
        self._minted[token.name] = self.passed
        return token

    def find(self, name: str) -> EphemeralToken | None:
        if (token := super().find(name)) is None:
            return None
        age = self.passed - self._minted[name]
        return replace(token, expires_at=token.expires_at - age, start_before=token.start_before - age)


class Gemini:
    """A client of the stand-in."""

    def __init__(self, url: str, tokens: AgingTokens, client: aiohttp.ClientSession, tls: LoopbackTls | None) -> None:
        self.url = url
        self._tokens = tokens
        self._client = client
        self._tls = tls
        self._calls = AsyncExitStack()

    async def token(
        self, instruction: str = NORA, seconds: float = 600, model: str = MODEL, unlocked: str = "", **changes: Any
    ) -> str:
        """Mint a token as Pi Voice does, without a lock of one field.

        `changes` replaces fields of the request, and None removes one; `tools_of` is an agent whose tools it has.
        """
        expires_at = int(datetime.now(UTC).timestamp() + seconds)
        wanted = LiveTokenRequest(instruction, "Leda", expires_at)
        if tools_of := changes.pop("tools_of", None):
            wanted = wanted._replace(tools=tools_of.tools, may_hang_up=tools_of.behaviors.may_hang_up)
        body = token_request(wanted, replace(SETTINGS, live_model=model))
        body["fieldMask"] = ",".join(field for field in body["fieldMask"].split(",") if field != unlocked)
        body |= changes
        given = {name: value for name, value in body.items() if value is not None}
        url, headers = f"{self.url}/v1alpha/auth_tokens", {"x-goog-api-key": KEY}
        async with self._client.post(url, json=given, headers=headers) as response:
            assert response.status == 200, await response.text()
            return str((await response.json())["name"])

    async def socket(self, *tokens: str, version: str = "v1alpha") -> BareCaller:
        """Open the WebSocket without sending a message."""
        query = "&".join(f"access_token={token}" for token in tokens)
        socket = await self._client.ws_connect(f"{self.url}/ws/{SERVICE.format(version)}?{query}")
        self._calls.push_async_callback(socket.close)
        return BareCaller(socket)

    async def socket_by_header(self, token: str) -> BareCaller:
        """Open the WebSocket as Google's SDK for Python does."""
        headers = {"Authorization": f"Token {token}"}
        socket = await self._client.ws_connect(f"{self.url}//ws/{SERVICE.format('v1alpha')}", headers=headers)
        self._calls.push_async_callback(socket.close)
        return BareCaller(socket)

    async def call(self, token: str | None = None, /, **setup: Any) -> BareCaller:
        """Open the WebSocket with a token, by default a new one, and complete the setup."""
        caller = await self.socket(token or await self.token())
        await caller.send({"setup": {**SETUP, **setup}})
        assert await caller.receive() == {"setupComplete": {}}
        return caller

    async def call_of(
        self, agent: Agent, model: str = MODEL, instruction: str | None = None, **setup: Any
    ) -> BareCaller:
        """Call an agent with tools, and wait for its greeting unless it continues by an instruction."""
        token = await self.token(instruction or instruction_for(agent), model=model, tools_of=agent)
        caller = await self.call(token, model=model, **setup)
        caller.token = token
        await caller.type("The caller is on the line. Open the call now.")
        await caller.turn()
        return caller

    async def resume(self, token: str, handle: str) -> BareCaller:
        return await self.call(token, sessionResumption={"handle": handle})

    async def sdk_call(self) -> SdkCaller:
        """Open a call with google-genai."""
        assert self._tls
        trusting = ssl.create_default_context(cafile=str(self._tls.ca_file))
        return await self._calls.enter_async_context(SdkCaller.calling(self.url, await self.token(), MODEL, trusting))

    def let_pass(self, seconds: float) -> None:
        """Move the time forward, for all existing tokens and all time limits."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovableLoop)
        loop.let_pass(seconds)
        self._tokens.passed += timedelta(seconds=seconds)

    async def hang_up(self) -> None:
        await self._calls.aclose()


@asynccontextmanager
async def running_gemini(
    times: LiveTimes = FAST,
    tls: LoopbackTls | None = None,
    faults: Faults = NO_FAULTS,
    examples: Path = EXAMPLES,
) -> AsyncIterator[Gemini]:
    trusting = ssl.create_default_context(cafile=str(tls.ca_file)) if tls else True
    tokens = AgingTokens()
    app = gemini_app(tokens, KEY, times, faults=faults, examples=examples)
    async with (
        serving(app, tls=tls.server if tls else None) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as client,
        asyncio.timeout(3_600),  # includes the time by which a test moves the clock
    ):
        gemini = Gemini(url, tokens, client, tls)
        try:
            yield gemini
        finally:
            await gemini.hang_up()


@pytest.fixture
async def gemini() -> AsyncIterator[Gemini]:
    async with running_gemini() as gemini:
        yield gemini


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> LoopbackTls:
    return loopback_tls(Path(tmp_path_factory.mktemp("tls")))

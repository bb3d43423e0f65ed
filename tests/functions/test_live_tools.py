"""A call with functions and hang-up, held by google-genai's own live client with a token of our API."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from local.http_server import serving
from local.services import Gemini
from local.stand_ins.gemini import API_KEY, gemini_app
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_tokens import Tokens
from tests.functions.api import Api
from tests.functions.providers import Providers
from tests.local.live.callers import SdkCaller, Turn
from tests.support.tls import LoopbackTls, loopback_tls

pytestmark = pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"  # google-genai's
)

PREVIEW: Final = "gemini-3.1-flash-live-preview"
STABLE: Final = "gemini-3.8-live"
THINKING: Final = "gemini-3.8-live-extended-thinking"

SHOW_TABLE: Final[dict[str, Any]] = {
    "name": "show_table",
    "description": "Show a free table on the page.",
    "parameters": {
        "type": "object",
        "properties": {"guests": {"type": "integer"}, "area": {"enum": ["inside", "outside"]}},
        "required": ["guests", "area"],
    },
    "run": {"where": "client"},
}


@dataclass
class LiveApi:
    """The stand-in of the Live API over TLS, which google-genai requires; tokens are minted without TLS."""

    tls: LoopbackTls
    urls: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Gemini]:
        tokens, times = Tokens(), LiveTimes(pace=50)
        async with (
            serving(gemini_app(tokens, API_KEY, times)) as plain,
            serving(gemini_app(tokens, API_KEY, times), tls=self.tls.server) as secure,
        ):
            self.urls.append(secure)
            yield Gemini(API_KEY, plain)

    @asynccontextmanager
    async def call(self, session: dict[str, Any], api_version: str) -> AsyncIterator[SdkCaller]:
        live = session["connection"]["gemini_live"]
        trusting = ssl.create_default_context(cafile=str(self.tls.ca_file))
        async with SdkCaller.calling(self.urls[0], live["token"], live["model"], trusting, api_version) as caller:
            yield caller


@pytest.fixture(scope="module")
def live_api(tmp_path_factory: pytest.TempPathFactory) -> LiveApi:
    return LiveApi(loopback_tls(Path(tmp_path_factory.mktemp("tls"))))


@pytest.fixture(scope="module")
def providers(live_api: LiveApi) -> Iterator[Providers]:
    with Providers.running(live_api.served()) as providers:
        yield providers


@pytest.fixture
def with_model(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Set variables of the functions, and start new containers after the test."""
    api.functions.start_over()
    yield monkeypatch
    api.functions.start_over()


async def held(live_api: LiveApi, session: dict[str, Any], api_version: str, *, waits: bool) -> list[Turn]:
    """Hold a call in which the agent calls a function and hangs up, and return the agent's turns."""
    async with live_api.call(session, api_version) as caller:
        await caller.type("The caller is on the line. Open the call now.")
        turns = [await caller.turn()]
        await caller.say("Six, outside please.")
        turns.append(await caller.until("toolCall"))
        [call] = turns[-1].calls
        if not waits:  # the agent goes on
            turns.append(await caller.turn())
        await caller.answer(call, {"table": "T12"})
        turns.append(await caller.turn())
        await caller.say("No, thank you.")
        turns.append(await caller.turn())
        return turns


@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
@pytest.mark.parametrize(
    ("model", "speaks"),
    [(PREVIEW, None), (PREVIEW, "when_idle"), (STABLE, None), (STABLE, "when_idle"), (THINKING, None)],
)
def test_the_agent_calls_a_function_speaks_about_its_answer_and_hangs_up(
    live_api: LiveApi, api: Api, with_model: pytest.MonkeyPatch, api_version: str, model: str, speaks: str | None
) -> None:
    with_model.setenv("GEMINI_LIVE_MODEL", model)
    with_model.setenv("GEMINI_API_VERSION", api_version)
    agent_id = api.agent(
        questions=["For how many, and where?", "Anything else?"],
        behaviors={"greeting": "Linden.", "closing_message": "See you.", "may_hang_up": True},
        tools=[{**SHOW_TABLE, "speaks": speaks}],
    )
    session = api.session(agent_id)
    waits = model == PREVIEW or speaks is None

    turns = asyncio.run(held(live_api, session, api_version, waits=waits))

    [show_table], [hang_up] = turns[1].calls, turns[-1].calls
    assert (show_table["name"], show_table["args"]) == ("show_table", {"guests": 6, "area": "outside"})
    assert (hang_up["name"], hang_up["args"]) == ("hang_up", {"reason": "Everything was said."})
    spoken = ["Done: T12. Anything else?"] if waits else ["Thank you. Anything else?", "Done: T12."]
    assert [turn.words for turn in turns if turn.words] == ["Linden. For how many, and where?", *spoken, "See you."]


def test_the_calls_that_the_page_reports_are_in_the_session_that_the_agent_hung_up(
    live_api: LiveApi, api: Api, with_model: pytest.MonkeyPatch
) -> None:
    with_model.setenv("GEMINI_LIVE_MODEL", PREVIEW)
    agent_id = api.agent(behaviors={"may_hang_up": True}, tools=[SHOW_TABLE], questions=["Where?", "Anything else?"])
    session = api.session(agent_id)
    turns = asyncio.run(held(live_api, session, "v1alpha", waits=True))
    [call], page = turns[1].calls, api.client_of(session)
    path = f"/sessions/{session['session_id']}"

    response = {"table": "T12"}
    report = {"call_id": call["id"], "name": call["name"], "arguments": call["args"], "response": response}
    assert page.post(f"{path}/tool-calls", report).status == 200
    said = [{"role": "agent", "text": turn.text} for turn in turns if turn.text]
    page.post(f"{path}/complete", {"transcript": said, "duration_seconds": 9, "end_reason": "agent_hung_up"})

    completed = api.get(path).data
    assert completed["end_reason"] == "agent_hung_up"
    [recorded] = completed["tool_calls"]
    assert (recorded["call_id"], recorded["arguments"], recorded["response"]) == (call["id"], call["args"], response)

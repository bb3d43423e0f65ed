"""The Python reference client runs the functions that the agent calls, hangs up for it, and reports its tokens."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest

from demo.tool_server import tool_server
from demo.voice_api import VoiceApi
from demo.webhooks import receiving
from docs.clients.usage import add_usage
from local.running import running_api
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_faults import live_faults
from tests.browser.api import BOOKING, SAYS, Api
from tests.browser.faults import IN_PROGRESS
from tests.browser.python_client import PATIENCE_SECONDS, python_client
from tests.browser.scripted import Line, ScriptedCall
from tests.browser.stand_in import StandInCall, spoken_input
from tests.local.live.conftest import running_gemini
from tests.unit.examples import agent

SHOW_TABLE: Final[dict[str, Any]] = {
    "name": "show_table",
    "description": "Show a table.",
    "parameters": {"type": "object", "properties": {"area": {"enum": ["inside", "terrace"]}}},
    "run": {"where": "client"},
}
SHOW_MENU: Final = {
    "name": "show_menu",
    "description": "Show the menu.",
    "parameters": {"type": "object", "properties": {"kind": {"enum": ["lunch", "dinner"]}}},
    "run": {"where": "client"},
}
AGENT: Final[dict[str, Any]] = {
    "name": "Nora",
    "instructions": "You help.",
    "questions": ["Where would you like to sit?", "Anything else?"],
    "behaviors": {"greeting": "Hello.", "closing_message": "See you soon!"},
    "tools": [SHOW_TABLE, SHOW_MENU],
}
NORA: Final = agent(
    name="Nora",
    questions=AGENT["questions"],
    behaviors={**AGENT["behaviors"], "may_hang_up": True},
    tools=[SHOW_TABLE],
)
TERRACE: Final = "On the terrace."
"""Words for which the stand-in calls show_table."""

Client = Any


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with running_api({**os.environ, "GEMINI_STAND_IN_PACE": "20"}) as running:
        yield Api(running.base_url, running.api_key)


@pytest.fixture(scope="module")
def api_38() -> Iterator[Api]:
    """Serve an API whose model goes on talking while a function runs."""
    with running_api({**os.environ, "GEMINI_STAND_IN_PACE": "20", "GEMINI_LIVE_MODEL": "gemini-3.8-live"}) as running:
        yield Api(running.base_url, running.api_key)


@asynccontextmanager
async def call_of(session: Any, url: str, functions: Any = None, **constants: object) -> AsyncIterator[Client]:
    """Prepare a call; a test sets its hooks and holds it."""
    module = python_client(**constants)
    async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as http:
        yield module.Call(http, session, url, tools=functions or {})


def types(call: Client, *says: str) -> None:
    """Let the caller type lines, one after each turn of the agent, and hang up after the turn that follows."""
    words = iter(says)

    async def reply() -> None:
        if word := next(words, None):
            await call.send({"text": word})
        else:
            call.hang_up("completed")

    call.on_turn = reply


def held(api: Api, functions: Any, *says: str, by: Any = AGENT, **constants: object) -> Any:
    """Hold a whole call, and return the completed session."""

    async def hold() -> Any:
        async with call_of(api.session(by), api.url, functions, **constants) as call:
            types(call, *says)
            return await call.complete(await call.hold(None))

    return asyncio.run(hold())


def agents_words(state: Any) -> list[str]:
    return [turn["text"] for turn in state["transcript"] if turn["role"] == "agent"]


def recorded(state: Any) -> list[tuple[str, Any, str]]:
    return [(call["name"], call["response"], call["status"]) for call in state["tool_calls"]]


# ---- Functions ----


def test_a_function_is_run_answered_and_recorded(api: Api) -> None:
    asked: list[Any] = []

    async def show_table(arguments: Any) -> Any:
        asked.append(arguments)
        return {"table": "T12"}

    state = held(api, {"show_table": show_table}, TERRACE)

    assert asked == [{"area": "terrace"}]
    assert recorded(state) == [("show_table", {"table": "T12"}, "succeeded")]
    assert state["tool_calls"][0]["arguments"] == {"area": "terrace"}
    assert state["tool_calls"][0]["milliseconds"] >= 0
    assert "T12" in agents_words(state)[1]


async def throwing(_: Any) -> Any:
    raise RuntimeError("the password of the database")


async def canceling_itself(_: Any) -> Any:
    raise asyncio.CancelledError


async def endless(_: Any) -> Any:
    await asyncio.Event().wait()


async def text(_: Any) -> Any:
    return "T12"


async def no_json(_: Any) -> Any:
    return {"table": object()}


async def no_number(_: Any) -> Any:
    return {"table": float("nan")}


FAILURE: Final = ({"error": "This did not work."}, "failed")


@pytest.mark.parametrize(
    ("functions", "response", "status"),
    [
        ({"show_table": throwing}, *FAILURE),
        ({"show_table": text}, *FAILURE),
        ({"show_table": no_json}, *FAILURE),
        ({"show_table": no_number}, *FAILURE),
        ({"show_table": lambda _: {"table": "T12"}}, *FAILURE),
        ({"show_table": canceling_itself}, {"error": "The call was canceled."}, "failed"),
        ({"show_table": endless}, {"error": "This takes too long."}, "timeout"),
        ({}, {"error": "This page has no function show_table."}, "failed"),
    ],
    ids=["throws", "a text", "no JSON", "not a number", "not async", "cancels itself", "takes too long", "unknown"],
)
def test_a_function_that_fails_is_answered_and_recorded_as_failed(
    api: Api, functions: Any, response: Any, status: str
) -> None:
    state = held(api, functions, TERRACE, "No.", TOOL_SECONDS=0.2)

    assert recorded(state) == [("show_table", response, status)]
    assert len(agents_words(state)) == 3
    assert agents_words(state)[-1] == "See you soon!"


def test_the_agent_does_not_wait_for_a_function_that_cannot_be_cancelled(api: Api) -> None:
    async def hold() -> Any:
        over = asyncio.Event()

        async def stubborn(_: Any) -> Any:
            try:
                await over.wait()
            except asyncio.CancelledError:
                await over.wait()
            return {}

        async with call_of(api.session(AGENT), api.url, {"show_table": stubborn}, TOOL_SECONDS=0.2) as call:
            types(call, TERRACE, "No.")
            state = await call.complete(await call.hold(None))
            over.set()
            return state

    state = asyncio.run(hold())

    assert recorded(state) == [("show_table", {"error": "This takes too long."}, "timeout")]
    assert agents_words(state)[-1] == "See you soon!"


def test_functions_run_concurrently(api: Api) -> None:
    async def hold() -> Any:
        both = asyncio.Barrier(2)

        async def meet(arguments: Any) -> Any:
            await both.wait()
            return {"shown": next(iter(arguments.values()))}

        async with call_of(api.session(AGENT), api.url, {"show_table": meet, "show_menu": meet}) as call:
            types(call, "The terrace, and the menu for dinner.")
            return await call.complete(await call.hold(None))

    state = asyncio.run(hold())

    assert sorted(recorded(state)) == [
        ("show_menu", {"shown": "dinner"}, "succeeded"),
        ("show_table", {"shown": "terrace"}, "succeeded"),
    ]


def test_an_interruption_cancels_the_function_for_which_the_agent_waits(api: Api) -> None:
    canceled: list[bool] = []
    calls: list[Client] = []

    async def show_table(_: Any) -> Any:
        try:
            await calls[0].send({"text": "Wait, who are you?"})
            await asyncio.Event().wait()
        finally:
            canceled.append(True)

    async def hold() -> Any:
        async with call_of(api.session(AGENT), api.url, {"show_table": show_table}) as call:
            calls.append(call)
            types(call, TERRACE, "No.")
            return await call.complete(await call.hold(None))

    state = asyncio.run(hold())

    assert canceled == [True]
    assert recorded(state) == [("show_table", {"error": "The call was canceled."}, "failed")]
    assert agents_words(state)[-1] == "See you soon!"


@pytest.mark.parametrize(("speaks", "is_told"), [("when_idle", True), ("interrupt", True), ("silent", False)])
def test_the_conversation_goes_on_while_a_function_runs(api_38: Api, speaks: str, is_told: bool) -> None:  # noqa: FBT001
    speaking = {**AGENT, "tools": [{**SHOW_TABLE, "speaks": speaks}]}

    async def hold() -> Any:
        has_gone_on = asyncio.Event()

        async def show_table(_: Any) -> Any:
            await has_gone_on.wait()
            return {"table": "T12"}

        async with call_of(api_38.session(speaking), api_38.url, {"show_table": show_table}) as call:
            answered = asyncio.Event()
            call.on_tool_call = lambda _: answered.set()
            types(call, TERRACE)
            reply = call.on_turn

            async def go_on() -> None:
                """Answer the greeting; during the next turn, the function ends."""
                if len(call.transcript.turns) < 3:
                    await reply()
                elif not has_gone_on.is_set():
                    has_gone_on.set()
                    if not is_told:
                        await answered.wait()
                        await call.send({"text": "No."})
                else:
                    call.hang_up("completed")

            call.on_turn = go_on
            return await call.complete(await call.hold(None))

    state = asyncio.run(hold())

    assert recorded(state) == [("show_table", {"table": "T12"}, "succeeded")]
    assert "T12" not in agents_words(state)[1]
    assert ("T12" in agents_words(state)[2]) == is_told


FAULTS: Final[dict[str, list[str]]] = {
    "": ["succeeded", "succeeded"],
    "tool_cancelled": ["failed", "succeeded"],
    "claims_tool": ["succeeded"],
    "late_speech,late_text,bundled,go_away": ["succeeded", "succeeded"],
    "drop": ["succeeded", "succeeded"],
    "go_away_now,resume_1011": ["succeeded", "succeeded"],
    "drop,resume_1007": ["succeeded", "succeeded"],
}
"""Faults of Gemini Live, and how the tool calls end: show_table, unless the agent only claims to have called it, and
hang_up."""


@pytest.mark.parametrize("faults", FAULTS)
def test_a_call_with_functions_bears_the_faults_of_gemini_live(faults: str) -> None:
    says = iter([spoken_input(TERRACE), spoken_input("No.")])

    async def show_table(_: Any) -> Any:
        if faults == "tool_cancelled":
            await asyncio.Event().wait()
        return {"table": "T12"}

    async def hold() -> Any:
        named = live_faults({"GEMINI_STAND_IN_LIVE": faults})
        async with running_gemini(LiveTimes(pace=20), faults=named) as gemini:
            call = StandInCall(gemini_url=gemini.url, mint=gemini.token, agent=NORA)
            async with call.served() as (session, url):
                module = python_client(LATE_SECONDS=6) if "late_text" in faults else python_client()
                tools = {"show_table": show_table}
                return call, await module.hold_call(session, url, lambda _: next(says, None), tools)

    call, state = asyncio.run(hold())

    assert state["end_reason"] == "agent_hung_up"
    assert all(any(question in words for words in agents_words(state)) for question in NORA.questions)
    assert agents_words(state)[-1] == "See you soon!"
    assert [record["status"] for record in call.recorded] == FAULTS[faults]
    assert [record["name"] for record in call.recorded] == ["show_table", "hang_up"][-len(FAULTS[faults]) :]


# ---- Functions, when connections are lost ----


def scripted(call: ScriptedCall, functions: Any, prepare: Callable[[Client], None], **constants: object) -> Any:
    """Hold a call with a scripted Gemini, and return the completed session."""

    async def hold() -> Any:
        async with call.served() as (session, url), call_of(session, url, functions, **constants) as client:
            client.on_turn = hanging_up(client)
            prepare(client)
            return await client.complete(await client.hold(None))

    return asyncio.run(hold())


def hanging_up(client: Client) -> Callable[[], Awaitable[None]]:
    async def hang_up() -> None:
        client.hang_up("completed")

    return hang_up


def nothing(_: Client) -> None:
    """Prepare nothing."""


async def goodbye(line: Line) -> None:
    await line.say("Goodbye.")
    await line.end_turn()
    await line.until_closed()


@pytest.mark.parametrize("is_resumed", [True, False])
def test_an_answer_without_a_connection_is_sent_if_the_conversation_is_resumed(is_resumed: bool) -> None:  # noqa: FBT001
    lost, ended = asyncio.Event(), asyncio.Event()

    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        if is_resumed:
            await line.issue_handle()
        await line.call("call-1")

    async def show_table(_: Any) -> Any:
        await lost.wait()
        return {"table": "T12"}

    async def until_ended() -> None:
        lost.set()
        await ended.wait()

    call = ScriptedCall(scripts=[begin, goodbye], before_setup=until_ended)

    def prepare(client: Client) -> None:
        client.on_tool_call = lambda _: ended.set()

    state = scripted(call, {"show_table": show_table}, prepare)

    answer = {"id": "call-1", "name": "show_table", "response": {"table": "T12"}}
    assert call.answers == [[], [answer] if is_resumed else []]
    assert call.renewals == ([] if is_resumed else [False])
    assert [record["call_id"] for record in call.recorded] == ["call-1"]
    assert state["end_reason"] == "completed"


def test_an_answer_to_a_conversation_that_has_begun_anew_is_recorded_and_not_sent() -> None:
    is_anew = asyncio.Event()

    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        await line.call("call-1")

    async def go_on(line: Line) -> None:
        is_anew.set()
        await ended.wait()
        await goodbye(line)

    async def show_table(_: Any) -> Any:
        await is_anew.wait()
        return {"table": "T12"}

    ended = asyncio.Event()
    call = ScriptedCall(scripts=[begin, go_on])

    def prepare(client: Client) -> None:
        client.on_tool_call = lambda _: ended.set()

    scripted(call, {"show_table": show_table}, prepare)

    assert call.answers == [[], []]
    assert [record["response"] for record in call.recorded] == [{"table": "T12"}]


def test_calls_are_recorded_before_the_conversation_begins_anew() -> None:
    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        await line.call("call-1")
        await line.until("toolResponse")

    call = ScriptedCall(scripts=[begin, goodbye], tool_calls=[503, 503])

    scripted(call, {"show_table": text_of_t12}, nothing, RECORD_SECONDS=PATIENCE_SECONDS)

    assert call.asked == ["tool-calls", "renew", "complete"]


async def text_of_t12(_: Any) -> Any:
    return {"table": "T12"}


def test_a_cancelled_call_gets_no_answer() -> None:
    began = asyncio.Event()

    async def cancel(line: Line) -> None:
        await line.until("realtimeInput")
        await line.call("call-1")
        await began.wait()
        await line.send(toolCallCancellation={"ids": ["call-1", "call-of-before"]})
        await line.call("call-2", "no_such_function")
        await line.until("toolResponse")
        await goodbye(line)

    async def show_table(_: Any) -> Any:
        began.set()
        await asyncio.Event().wait()

    call = ScriptedCall(scripts=[cancel])

    scripted(call, {"show_table": show_table}, nothing)

    assert [[answer["id"] for answer in answers] for answers in call.answers] == [["call-2"]]
    assert sorted((record["call_id"], record["status"]) for record in call.recorded) == [
        ("call-1", "failed"),
        ("call-2", "failed"),
    ]


def test_an_unanswered_function_is_no_reason_to_stay_silent_on_the_next_connection() -> None:
    """Gemini may not know the call any more; the caller's last words still wait for the agent."""
    ended, lost = asyncio.Event(), asyncio.Event()

    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        await line.issue_handle()
        await line.send(serverContent={"inputTranscription": {"text": "On the terrace."}})
        await line.call("call-1")

    async def go_on(line: Line) -> None:
        await line.until("toolResponse")
        said = await line.until("realtimeInput")
        assert "Go on" in said["text"]
        await goodbye(line)

    async def show_table(_: Any) -> Any:
        await lost.wait()
        return {}

    async def until_ended() -> None:
        lost.set()
        await ended.wait()

    call = ScriptedCall(scripts=[begin, go_on], before_setup=until_ended)

    def prepare(client: Client) -> None:
        client.on_tool_call = lambda _: ended.set()

    assert scripted(call, {"show_table": show_table}, prepare)["end_reason"] == "completed"


def test_late_words_are_no_answer_to_text_that_waits_for_the_next_connection() -> None:
    has_typed = asyncio.Event()

    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        await line.issue_handle()
        await line.send(goAway={"timeLeft": "50s"})
        await line.say("Hello")
        await line.end_turn()
        await has_typed.wait()
        await line.send(serverContent={"outputTranscription": {"text": " there."}})

    async def go_on(line: Line) -> None:
        assert await line.until("realtimeInput") == {"text": "One."}
        await goodbye(line)

    def prepare(client: Client) -> None:
        hang_up = client.on_turn

        async def reply() -> None:
            if len(client.transcript.turns) > 1:
                await hang_up()
            else:
                await client.send({"text": "One."})
                has_typed.set()

        client.on_turn = reply

    state = scripted(ScriptedCall(scripts=[begin, go_on]), {}, prepare)

    assert [turn["text"] for turn in state["transcript"]] == ["Hello there.", "One.", "Goodbye."]


# ---- Records ----


async def one_call(line: Line) -> None:
    await line.until("realtimeInput")
    await line.call("call-1", area="terrace")
    await line.until("toolResponse")
    await goodbye(line)


def test_a_record_without_an_answer_is_repeated_and_awaited_before_completion() -> None:
    call = ScriptedCall(scripts=[one_call], tool_calls=[503, None])

    state = scripted(call, {"show_table": text_of_t12}, nothing, FINISH_SECONDS=PATIENCE_SECONDS)

    [record] = call.recorded
    assert record == {
        "call_id": "call-1",
        "name": "show_table",
        "arguments": {"area": "terrace"},
        "response": {"table": "T12"},
        "status": "succeeded",
        "milliseconds": record["milliseconds"],
    }
    assert call.asked == ["tool-calls", "complete"]
    assert [turn["text"] for turn in state["transcript"]] == ["Goodbye."]


def test_a_refused_record_loses_neither_the_call_nor_the_transcript(caplog: pytest.LogCaptureFixture) -> None:
    call = ScriptedCall(scripts=[one_call], tool_calls=[413])

    state = scripted(call, {"show_table": text_of_t12}, nothing)

    assert (call.recorded, call.asked) == ([], ["complete"])
    assert [turn["text"] for turn in state["transcript"]] == ["Goodbye."]
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "show_table is not recorded: voice_transcript_too_large" in warning.getMessage()


def test_completion_waits_for_records_and_functions_only_for_a_while() -> None:
    async def call_and_end(line: Line) -> None:
        await line.until("realtimeInput")
        await line.call("call-1")
        await goodbye(line)

    call = ScriptedCall(scripts=[call_and_end])

    state = scripted(call, {"show_table": endless}, nothing, FINISH_SECONDS=0.1)

    assert (call.recorded, call.asked, state["end_reason"]) == ([], ["complete"], "completed")


def test_an_error_of_the_clients_user_cancels_the_functions() -> None:
    canceled: list[bool] = []

    async def call_and_end(line: Line) -> None:
        await line.until("realtimeInput")
        await line.call("call-1")
        await began.wait()
        await goodbye(line)

    async def show_table(_: Any) -> Any:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            canceled.append(True)

    def prepare(client: Client) -> None:
        async def fail() -> None:
            raise ValueError("mine")

        client.on_turn = fail

    began = asyncio.Event()
    with pytest.raises(ValueError, match="mine"):
        scripted(ScriptedCall(scripts=[call_and_end]), {"show_table": show_table}, prepare)
    assert canceled == [True]


# ---- Tools on a server ----


BOOKED: Final = {"book_table": {"status": "succeeded", "response": {"table": "T12"}}}


async def one_booking(line: Line) -> None:
    await line.until("realtimeInput")
    await line.call("call-1", "book_table", area="terrace")
    await line.until("toolResponse")
    await goodbye(line)


def test_a_server_tool_is_relayed_to_the_api_and_not_recorded_again() -> None:
    call, seen = ScriptedCall(scripts=[one_booking], server_tools=BOOKED), list[Any]()

    def prepare(client: Client) -> None:
        client.on_tool_call = seen.append

    state = scripted(call, {"book_table": throwing}, prepare)

    assert call.recorded == [{"call_id": "call-1", "name": "book_table", "arguments": {"area": "terrace"}}]
    assert call.answers == [[{"id": "call-1", "name": "book_table", "response": {"table": "T12"}}]]
    assert [(record["status"], record["response"]) for record in seen] == [("succeeded", {"table": "T12"})]
    assert call.asked == ["tool-calls", "complete"]
    assert state["end_reason"] == "completed"


def test_a_server_tool_is_asked_for_again_with_the_same_call_until_there_is_its_answer() -> None:
    faults = [503, None, IN_PROGRESS, IN_PROGRESS]
    call = ScriptedCall(scripts=[one_booking], server_tools=BOOKED, tool_calls=faults)

    scripted(call, {}, nothing, SERVER_TOOL_SECONDS=PATIENCE_SECONDS)

    assert [record["call_id"] for record in call.recorded] == ["call-1"]
    assert [answer["response"] for answer in call.answers[0]] == [{"table": "T12"}]


def test_the_failure_of_a_server_tool_is_answered_as_the_server_describes_it() -> None:
    taken = {"book_table": {"status": "failed", "response": {"error": "No such table is free."}}}
    call = ScriptedCall(scripts=[one_booking], server_tools=taken)

    scripted(call, {}, nothing)

    assert [answer["response"] for answer in call.answers[0]] == [{"error": "No such table is free."}]


def test_a_server_tool_that_the_api_refuses_is_answered_as_failed(caplog: pytest.LogCaptureFixture) -> None:
    call = ScriptedCall(scripts=[one_booking], server_tools=BOOKED, tool_calls=[409])

    state = scripted(call, {}, nothing)

    assert [answer["response"] for answer in call.answers[0]] == [{"error": "This did not work."}]
    assert "book_table did not run: voice_session_not_active" in caplog.text
    assert state["end_reason"] == "completed"


def test_a_server_tool_has_a_time_limit_of_its_own() -> None:
    over = asyncio.Event()
    call = ScriptedCall(scripts=[one_booking], server_tools=BOOKED, run_server_tool=over.wait)

    scripted(call, {}, nothing, SERVER_TOOL_SECONDS=0.2)

    assert [answer["response"] for answer in call.answers[0]] == [{"error": "This takes too long."}]


def test_the_time_limit_of_functions_is_not_that_of_a_server_tool() -> None:
    call = ScriptedCall(scripts=[one_booking], server_tools=BOOKED, run_server_tool=lambda: asyncio.sleep(0.2))

    scripted(call, {}, nothing, TOOL_SECONDS=0)

    assert [answer["response"] for answer in call.answers[0]] == [{"table": "T12"}]


def test_the_answer_of_a_server_tool_is_dropped_if_the_call_was_cancelled() -> None:
    began, over = asyncio.Event(), asyncio.Event()

    async def cancel(line: Line) -> None:
        await line.until("realtimeInput")
        await line.call("call-1", "book_table")
        await began.wait()
        await line.send(toolCallCancellation={"ids": ["call-1"]})
        over.set()
        await line.call("call-2", "book_table")
        await line.until("toolResponse")
        await goodbye(line)

    async def run() -> None:
        began.set()
        await over.wait()

    call = ScriptedCall(scripts=[cancel], server_tools=BOOKED, run_server_tool=run)

    scripted(call, {}, nothing)

    assert [[answer["id"] for answer in answers] for answers in call.answers] == [["call-2"]]
    assert [record["call_id"] for record in call.recorded] == ["call-1", "call-2"]


@pytest.mark.parametrize("is_resumed", [True, False])
def test_the_answer_of_a_server_tool_is_held_until_the_conversation_is_resumed(is_resumed: bool) -> None:  # noqa: FBT001
    lost, ended = asyncio.Event(), asyncio.Event()

    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        if is_resumed:
            await line.issue_handle()
        await line.call("call-1", "book_table")
        await asked.wait()

    async def run() -> None:
        asked.set()
        await lost.wait()

    async def until_ended() -> None:
        lost.set()
        await ended.wait()

    asked = asyncio.Event()
    call = ScriptedCall(scripts=[begin, goodbye], before_setup=until_ended, server_tools=BOOKED, run_server_tool=run)

    def prepare(client: Client) -> None:
        client.on_tool_call = lambda _: ended.set()

    scripted(call, {}, prepare, RECORD_SECONDS=0.1)

    answer = {"id": "call-1", "name": "book_table", "response": {"table": "T12"}}
    assert call.answers == [[], [answer] if is_resumed else []]
    assert [record["call_id"] for record in call.recorded] == ["call-1"]


def test_a_conversation_begins_anew_after_the_tools_that_run() -> None:
    """Their records are in its instruction, so the agent does not call them again."""
    is_lost = asyncio.Event()

    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        await line.call("call-1", "book_table")
        await asked.wait()
        asyncio.get_running_loop().call_later(0.2, is_lost.set)

    async def run() -> None:
        asked.set()
        await is_lost.wait()
        call.asked.append("answered")

    asked = asyncio.Event()
    call = ScriptedCall(scripts=[begin, goodbye], server_tools=BOOKED, run_server_tool=run)

    scripted(call, {}, nothing, RECORD_SECONDS=PATIENCE_SECONDS)

    assert call.asked == ["tool-calls", "answered", "renew", "complete"]


def test_a_table_is_booked_by_the_server_of_the_example(api: Api) -> None:
    says = iter(SAYS)

    async def show_table(_: Any) -> Any:
        return {"view": "the lake"}

    def answer(_: Any) -> Any:
        return {"text": word} if (word := next(says, None)) else None

    async def hold() -> tuple[Any, list[Any]]:
        assert BOOKING.server
        async with aiohttp.ClientSession() as http:
            voice_api = VoiceApi(http, api.url, api.key)
            async with receiving(voice_api) as webhooks, tool_server(voice_api, BOOKING.server, "tests") as server:
                session = api.session(BOOKING.with_endpoint(server.endpoint_id).agent)
                ended = await python_client().hold_call(session, api.url, answer, {"show_table": show_table})
                await webhooks.deliveries(session["session_id"], {"session.completed"}, PATIENCE_SECONDS)
                events = [each for each in webhooks.verified.values() if each["type"] == "session.completed"]
                return ended, events

    state, [event] = asyncio.run(hold())

    assert event["data"]["tool_calls"] == state["tool_calls"]
    assert [call["name"] for call in state["tool_calls"]] == ["find_slots", "show_table", "book_table", "hang_up"]
    assert {call["status"] for call in state["tool_calls"]} == {"succeeded"}
    assert agents_words(state)[-1] == "Done: T12. Thank you, see you soon!"
    assert state["results"]["table"] == "T12"


# ---- hang_up ----


def test_the_agent_hangs_up_after_its_sentence(api: Api) -> None:
    ending = {**AGENT, "behaviors": {**AGENT["behaviors"], "may_hang_up": True}}

    state = held(api, {"show_table": text_of_t12}, TERRACE, "No.", "Hello?", by=ending)

    assert state["end_reason"] == "agent_hung_up"
    assert agents_words(state)[-1] == "See you soon!"
    assert [call["name"] for call in state["tool_calls"]] == ["show_table", "hang_up"]
    assert [turn["text"] for turn in state["transcript"] if turn["role"] == "user"] == [TERRACE, "No."]


async def before_its_sentence(line: Line) -> None:
    await line.call("bye", "hang_up", reason="Done.")
    await line.until("toolResponse")
    await line.say("Goodbye.")
    await line.end_turn()


async def in_its_sentence(line: Line) -> None:
    await line.say("Good")
    await line.call("bye", "hang_up", reason="Done.")
    await line.until("toolResponse")
    await line.say("bye.")
    await line.end_turn()


async def after_its_sentence(line: Line) -> None:
    await line.say("Goodbye.")
    await line.end_turn()
    await line.call("bye", "hang_up", reason="Done.")


@pytest.mark.parametrize("ending", [before_its_sentence, in_its_sentence, after_its_sentence])
def test_a_call_ends_when_the_sentence_around_hang_up_was_played(ending: Callable[[Line], Awaitable[None]]) -> None:
    played: list[str] = []

    async def talk(line: Line) -> None:
        await line.until("realtimeInput")
        await ending(line)
        await line.until_closed()

    def prepare(client: Client) -> None:
        async def play() -> None:
            played.extend(turn["text"] for turn in client.transcript.turns)

        async def stay() -> None:
            """Go on with the call, as the caller."""

        client.on_turn, client.played = stay, play

    call = ScriptedCall(scripts=[talk])
    goodbye_seconds = 0.1 if ending is after_its_sentence else PATIENCE_SECONDS

    state = scripted(call, {}, prepare, GOODBYE_SECONDS=goodbye_seconds)

    assert state["end_reason"] == "agent_hung_up"
    assert played == ["Goodbye."]
    assert [(record["name"], record["arguments"]) for record in call.recorded] == [("hang_up", {"reason": "Done."})]


@pytest.mark.parametrize(
    "keeping", [{"serverContent": {"interrupted": True}}, {"toolCallCancellation": {"ids": ["bye"]}}]
)
def test_a_caller_who_speaks_up_keeps_the_call(keeping: Any) -> None:
    async def talk(line: Line) -> None:
        await line.until("realtimeInput")
        await line.say("Goodbye.")
        await line.call("bye", "hang_up", reason="Done.")
        await line.until("toolResponse")
        await line.send(**keeping)
        await line.end_turn()
        await line.say("Yes?")
        await line.end_turn()
        await line.until_closed()

    turns: list[str] = []

    def prepare(client: Client) -> None:
        async def reply() -> None:
            turns.append(client.transcript.turns[-1]["text"])
            if turns[-1].endswith("Yes?"):
                client.hang_up("completed")

        client.on_turn = reply

    state = scripted(ScriptedCall(scripts=[talk]), {}, prepare)

    assert state["end_reason"] == "completed"
    assert turns[-1].endswith("Yes?")


def test_what_the_agent_says_while_its_sentence_is_played_is_played_too() -> None:
    speaks = asyncio.Event()
    played: list[str] = []

    async def talk(line: Line) -> None:
        await line.until("realtimeInput")
        await line.say("Goodbye.")
        await line.call("bye", "hang_up", reason="Done.")
        await line.end_turn()
        await playing.wait()
        await line.say("And take care.")
        await heard.wait()
        await line.end_turn()
        await line.until_closed()

    playing, heard = asyncio.Event(), asyncio.Event()

    def prepare(client: Client) -> None:
        def take(message: Any) -> None:
            if "And" in str(message):
                speaks.set()

        async def play() -> None:
            played.append(client.transcript.turns[-1]["text"])
            if len(played) == 1:
                playing.set()
                await speaks.wait()
                heard.set()

        client.on_message, client.played = take, play

    state = scripted(ScriptedCall(scripts=[talk]), {}, prepare)

    assert state["end_reason"] == "agent_hung_up"
    assert played == ["Goodbye.", "And take care."]


def test_an_error_of_the_player_does_not_keep_the_line_open(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(line: Line) -> None:
        await line.until("realtimeInput")
        await in_its_sentence(line)
        await line.until_closed()

    def prepare(client: Client) -> None:
        async def play() -> None:
            raise ValueError("mine")

        client.played = play

    assert scripted(ScriptedCall(scripts=[talk]), {}, prepare)["end_reason"] == "agent_hung_up"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# ---- Usage ----


def test_the_tokens_of_all_turns_are_reported(api: Api) -> None:
    reports: list[Any] = []

    async def hold() -> Any:
        async with call_of(api.session(AGENT), api.url) as call:
            call.on_message = lambda message: reports.extend(filter(None, [message.get("usageMetadata")]))
            types(call, "Inside.", "No.")
            return await call.complete(await call.hold(None))

    state = asyncio.run(hold())

    assert len(reports) == 3
    sums = {field: sum(report[field] for report in reports) for field in ("promptTokenCount", "responseTokenCount")}
    usage = state["usage"]
    assert sum(usage["input_tokens"].values()) == sums["promptTokenCount"]
    assert sum(usage["output_tokens"].values()) == sums["responseTokenCount"]
    assert usage["reported_by"] == "client"


REPORT: Final = {
    "promptTokenCount": 522,
    "responseTokenCount": 42,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 332}, {"modality": "AUDIO", "tokenCount": 165}],
    "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 42}],
    "thoughtsTokenCount": 136,
    "totalTokenCount": 700,
}


def test_tokens_are_added_by_modality_and_the_others_named_so() -> None:
    totals: dict[str, Any] = {}

    assert add_usage(totals, {"usageMetadata": REPORT})
    assert add_usage(totals, {"usageMetadata": REPORT, "serverContent": {}})
    assert not add_usage(totals, {"serverContent": {}})

    assert totals == {
        "input_tokens": {"text": 664, "audio": 330, "other": 50},
        "output_tokens": {"audio": 84},
        "thinking_tokens": 272,
    }


def test_the_names_of_all_models_and_counts_without_details_are_known() -> None:
    totals: dict[str, Any] = {}
    add_usage(
        totals,
        {
            "usageMetadata": {
                "promptTokenCount": 7,
                "candidatesTokenCount": 5,
                "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
                "cachedContentTokenCount": 2,
                "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 2}],
                "toolUsePromptTokenCount": 3,
                "toolUsePromptTokensDetails": [{"tokenCount": 3}],
            }
        },
    )

    assert totals == {
        "input_tokens": {"other": 7},
        "output_tokens": {"audio": 5},
        "cached_tokens": {"text": 2},
        "tool_use_tokens": {"other": 3},
    }


def test_tokens_of_a_resumed_connection_are_added() -> None:
    async def begin(line: Line) -> None:
        await line.until("realtimeInput")
        await line.say("Hello.")
        await line.send(serverContent={"turnComplete": True}, usageMetadata=REPORT)
        await line.issue_handle()
        await line.send(goAway={"timeLeft": "5s"})

    async def go_on(line: Line) -> None:
        await line.send(usageMetadata=REPORT)
        await goodbye(line)

    call = ScriptedCall(scripts=[begin, go_on], usage=[503])

    def prepare(client: Client) -> None:
        hang_up = client.on_turn

        async def reply() -> None:
            if len(client.transcript.turns) > 1:
                await hang_up()

        client.on_turn = reply

    scripted(call, {}, prepare, FINISH_SECONDS=PATIENCE_SECONDS)

    [report] = call.reported
    assert report["input_tokens"] == {"text": 664, "audio": 330, "other": 50}
    assert call.asked == ["usage", "complete"]


@pytest.mark.parametrize(("seconds", "reports"), [(0.0, 3), (float(PATIENCE_SECONDS), 1)])
def test_tokens_are_reported_during_the_call_now_and_then(seconds: float, reports: int) -> None:
    async def talk(line: Line) -> None:
        await line.until("realtimeInput")
        for number in range(1, 3):
            await line.send(usageMetadata=REPORT)
            if seconds == 0.0:
                await until_reported(number)
        await goodbye(line)

    async def until_reported(number: int) -> None:
        while len(call.reported) < number:  # noqa: ASYNC110 (nothing reports this)
            await asyncio.sleep(0.01)

    call = ScriptedCall(scripts=[talk])

    scripted(call, {}, nothing, USAGE_SECONDS=seconds)

    assert [report["thinking_tokens"] for report in call.reported] == [136, 272, 272][-reports:]


def test_a_call_is_completed_if_its_tokens_cannot_be_reported() -> None:
    async def talk(line: Line) -> None:
        await line.until("realtimeInput")
        await line.send(usageMetadata=REPORT)
        await goodbye(line)

    call = ScriptedCall(scripts=[talk], usage=[503] * 6)

    assert scripted(call, {}, nothing)["end_reason"] == "completed"
    assert call.reported == []

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.errors import (
    InvalidApiKey,
    InvalidRequest,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    ToolCallsTooLarge,
)
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import MAX_BYTES, CallToolRequest, Run, ToolCall, lines
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.call_tool import CallTool
from pi_voice.use_cases.run_server_tool import RunServerTool
from tests.support.fakes import (
    FakeAgents,
    FakeCaller,
    FakeClient,
    FakeClock,
    FakeSessions,
    FakeToolCalls,
    FakeToolSender,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
    UnknownCaller,
)
from tests.unit.examples import NOW, SESSION_ID, WEBHOOK_SECRETS, agent, session

ACME = FakeCaller("acme")
SHOW: JsonValue = {"name": "show", "description": "Show a page.", "run": {"where": "client"}}
WITH_TOOL = agent(tools=[SHOW])


def request(call_id: str = "one", **fields: Any) -> CallToolRequest:
    """Parse a request to record a call of `show`."""
    document = {"call_id": call_id, "name": "show", "response": {"shown": True}, **fields}
    return CallToolRequest.model_validate_json(json.dumps(document))


def call_tool(of: Any, sessions: FakeSessions, tool_calls: FakeToolCalls) -> CallTool:
    """Return a CallTool on fakes."""
    run = RunServerTool(tool_calls, FakeWebhookEndpoints(), FakeWebhookDeliveries(), WEBHOOK_SECRETS, FakeToolSender())
    return CallTool(FakeAgents(of), sessions, tool_calls, run, FakeClock(NOW + 9))


class Setup:
    """A CallTool on fakes."""

    def __init__(self, *, stored: Session | None = None, of: Any = WITH_TOOL) -> None:
        self.sessions = FakeSessions(stored or session())
        self.tool_calls = FakeToolCalls(self.sessions)
        self.call_tool = call_tool(of, self.sessions, self.tool_calls)

    def call(self, sent: CallToolRequest, caller: SessionCaller = ACME) -> ToolCall:
        return asyncio.run(self.call_tool(SESSION_ID, sent, caller))

    @property
    def recorded(self) -> list[ToolCall]:
        return self.tool_calls.stored.get(SESSION_ID, [])


def details(error: InvalidRequest | ToolCallsTooLarge) -> list[str]:
    return [detail.path for detail in error.details]


def test_a_call_is_recorded_with_what_the_page_did() -> None:
    setup = Setup()

    call = setup.call(request(arguments={"page": 7}, status="failed", milliseconds=12))

    assert call.model_dump() == {
        "call_id": "one",
        "name": "show",
        "arguments": {"page": 7},
        "status": "failed",
        "response": {"shown": True},
        "milliseconds": 12,
        "called_at": NOW + 9,
    }
    assert setup.recorded == [call]
    assert setup.sessions.stored[SESSION_ID].tool_calls == 1


def test_the_session_s_own_client_can_record_calls() -> None:
    assert Setup().call(request(), FakeClient(SESSION_ID)).call_id == "one"


def test_a_repeated_call_returns_what_was_recorded_first() -> None:
    setup = Setup()
    first = setup.call(request())

    assert setup.call(request(response={"shown": False})) == first
    assert setup.recorded == [first]


def test_a_recorded_call_is_returned_after_the_session_has_ended() -> None:
    setup = Setup()
    first = setup.call(request())
    setup.sessions.stored[SESSION_ID] = replace(setup.sessions.stored[SESSION_ID], status="completed")

    assert setup.call(request()) == first
    with pytest.raises(SessionNotActive):
        setup.call(request("two"))


def test_calls_are_taken_after_a_hang_up_because_the_page_may_be_late() -> None:
    assert Setup(stored=replace(session(), hung_up_at=NOW)).call(request()).call_id == "one"


@pytest.mark.parametrize(
    ("of", "sent", "paths"),
    [
        (WITH_TOOL, request(name="delete"), ["name"]),
        (agent(), request(), ["name"]),
        (WITH_TOOL, request(name="hang_up"), ["name"]),
        (WITH_TOOL, request(response=None), ["response"]),
    ],
    ids=["another tool", "no tools", "no hang-up", "no response"],
)
def test_what_the_agent_cannot_have_called_is_refused(of: Any, sent: CallToolRequest, paths: list[str]) -> None:
    setup = Setup(of=of)

    with pytest.raises(InvalidRequest) as raised:
        setup.call(sent)
    assert details(raised.value) == paths
    assert setup.recorded == []


def test_the_built_in_hang_up_is_recorded_where_the_agent_has_it() -> None:
    setup = Setup(of=agent(behaviors={"may_hang_up": True}))

    assert setup.call(request(name="hang_up", arguments={"reason": "done"})).name == "hang_up"


@pytest.mark.parametrize(
    ("stored", "sent", "paths"),
    [
        (session(), request(arguments={"a": "x" * 8_192}), ["arguments"]),
        (session(), request(response={"a": "x" * 65_536}), ["response"]),
        (session(), request(response=json.loads('{"a":' * 40 + "1" + "}" * 40)), ["response"]),
        (replace(session(), tool_calls=1, tool_call_bytes=MAX_BYTES - 5), request(), [""]),
        (replace(session(), tool_calls=100), request(), [""]),
    ],
    ids=["arguments", "response", "depth", "all calls", "number"],
)
def test_a_call_beyond_a_limit_is_refused(stored: Session, sent: CallToolRequest, paths: list[str]) -> None:
    setup = Setup(stored=stored)

    with pytest.raises(ToolCallsTooLarge) as raised:
        setup.call(sent)
    assert details(raised.value) == paths
    assert setup.recorded == []


def test_concurrent_calls_are_all_recorded_once() -> None:
    setup = Setup()

    async def all_at_once() -> list[ToolCall]:
        sent = [request(call_id) for call_id in ("one", "two", "one", "three")]
        return await asyncio.gather(*(setup.call_tool(SESSION_ID, each, ACME) for each in sent))

    answers = asyncio.run(all_at_once())
    assert [each.call_id for each in answers] == ["one", "two", "one", "three"]
    assert sorted(each.call_id for each in setup.recorded) == ["one", "three", "two"]


def test_a_store_that_never_takes_the_call_is_an_error() -> None:
    class Full(FakeToolCalls):
        async def record(self, session: Session, call: ToolCall, size: int, run: Run | None = None) -> Session | None:
            del session, call, size, run
            return None

    setup = Setup()
    refusing = call_tool(WITH_TOOL, setup.sessions, Full(setup.sessions))

    with pytest.raises(StorageError):
        asyncio.run(refusing(SESSION_ID, request(), ACME))


def test_others_cannot_record_calls() -> None:
    with pytest.raises(SessionNotFound):
        Setup().call(request(), FakeCaller("other"))
    with pytest.raises(InvalidApiKey):
        Setup().call(request(), UnknownCaller())


def test_a_call_in_a_prompt_is_one_line_and_a_long_response_is_cut() -> None:
    call = Setup().call(request(response={"text": "a\u2028b\n" + "x" * 5_000}))

    [line] = lines([call])
    assert len(line.splitlines()) == 1
    assert len(line) < 4_300
    assert json.loads(line)["tool_call"] == 0


def test_the_first_tool_call_starts_the_call_and_later_ones_do_not() -> None:
    setup = Setup()

    setup.call(request())
    setup.call(request(call_id="two"))

    stored = setup.sessions.stored[SESSION_ID]
    [owed] = stored.owed_events
    assert (owed.type, owed.at, stored.started_at) == ("session.started", NOW + 9, NOW + 9)

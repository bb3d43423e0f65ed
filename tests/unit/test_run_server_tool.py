import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.deadline import answer_within
from pi_voice.domain.errors import (
    InvalidRequest,
    SessionNotActive,
    SessionNotFound,
    SettingsError,
    StorageError,
    ToolCallInProgress,
    ToolCallsTooLarge,
)
from pi_voice.domain.ids import EndpointId, EventId, SessionId, WorkspaceId, is_uuid
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import MAX_BYTES, MAX_RESPONSE_BYTES, CallToolRequest, Run, ToolCall
from pi_voice.domain.webhook_deliveries import Delivery, delivery_id
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets
from pi_voice.ports import FinishedRun, Sent
from pi_voice.use_cases.call_tool import CallTool
from pi_voice.use_cases.run_server_tool import RECORD_SECONDS, RunServerTool
from tests.support.fakes import (
    FakeAgents,
    FakeCaller,
    FakeClock,
    FakeSessions,
    FakeToolCalls,
    FakeToolSender,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
)
from tests.support.metrics import metrics
from tests.unit.examples import (
    AGENT_ID,
    ENDPOINT_ID,
    NOW,
    SESSION_ID,
    WEBHOOK_SECRETS,
    agent,
    session,
    webhook_endpoint,
)

ACME = FakeCaller("acme")
PARAMETERS: JsonValue = {
    "type": "object",
    "properties": {"day": {"type": "string", "format": "date"}, "guests": {"type": "integer", "maximum": 8}},
    "required": ["day"],
}
BOOK: JsonValue = {
    "name": "book",
    "description": "Book a table.",
    "parameters": PARAMETERS,
    "run": {"where": "server", "endpoint_id": ENDPOINT_ID, "timeout_seconds": 4},
}
PING: JsonValue = {
    "name": "ping",
    "description": "Ask whether the kitchen is open.",
    "run": {"where": "server", "endpoint_id": ENDPOINT_ID},
}
BOOKED = Sent(200, 34, None, b'{"table": "T12"}')


def request(call_id: str = "one", **fields: Any) -> CallToolRequest:
    """Parse a request to call `book`."""
    document = {"call_id": call_id, "name": "book", "arguments": {"day": "2027-01-15"}, **fields}
    return CallToolRequest.model_validate_json(json.dumps(document))


class World:
    """A CallTool with an agent whose tools run on a server."""

    def __init__(
        self,
        *answers: Sent | Exception,
        stored: Session | None = None,
        endpoints: FakeWebhookEndpoints | None = None,
        tool_calls: type[FakeToolCalls] = FakeToolCalls,
        secrets: WebhookSecrets = WEBHOOK_SECRETS,
        deliveries: FakeWebhookDeliveries | None = None,
    ) -> None:
        self.sessions = FakeSessions(stored or session())
        self.tool_calls = tool_calls(self.sessions)
        self.endpoints = endpoints or FakeWebhookEndpoints(webhook_endpoint())
        self.deliveries = deliveries or FakeWebhookDeliveries()
        self.clock = FakeClock(NOW + 9)
        self._secrets = secrets
        self.use(FakeToolSender(*(answers or (BOOKED,))))

    def use(self, sender: FakeToolSender) -> None:
        """Send with another sender from now on, as another container does."""
        self.sender = sender
        run = RunServerTool(self.tool_calls, self.endpoints, self.deliveries, self._secrets, sender, self.clock)
        agents = FakeAgents(agent(tools=[BOOK, PING]))
        self.call_tool = CallTool(agents, self.sessions, self.tool_calls, run, self.clock)

    async def begin(self) -> asyncio.Task[ToolCall]:
        """Call, and return the task once the endpoint was asked."""
        task = asyncio.create_task(self.call_tool(SESSION_ID, request(), ACME))
        await self.sender.begun.wait()
        return task

    def call(self, sent: CallToolRequest | None = None) -> ToolCall:
        return asyncio.run(self.call_tool(SESSION_ID, sent or request(), ACME))

    @property
    def recorded(self) -> list[ToolCall]:
        return self.tool_calls.stored.get(SESSION_ID, [])

    @property
    def logged(self) -> Delivery:
        [logged] = self.deliveries.stored.values()
        return logged


# ---- The answer -----------------------------------------------------------------------------------------


def test_the_endpoint_s_answer_is_recorded_and_returned() -> None:
    world = World()

    call = world.call()

    assert call.model_dump() == {
        "call_id": "one",
        "name": "book",
        "arguments": {"day": "2027-01-15"},
        "status": "succeeded",
        "response": {"table": "T12"},
        "milliseconds": 34,
        "called_at": NOW + 9,
    }
    assert world.recorded == [call]
    counted = world.sessions.stored[SESSION_ID]
    assert counted.tool_calls == 1
    assert counted.tool_call_bytes == len('{"day":"2027-01-15"}') + len("null") + len('{"table":"T12"}')


def test_the_endpoint_gets_the_call_with_what_the_session_knows() -> None:
    world = World(
        stored=replace(session(), metadata={"order": "A-7"}, variables={"guest_name": "Kim", "regular": True})
    )

    world.call()

    [sent] = world.sender.sent
    assert sent.url == webhook_endpoint().url
    assert is_uuid(sent.event_id)
    assert sent.secrets == (WEBHOOK_SECRETS.reveal(ENDPOINT_ID, webhook_endpoint().secret),)
    assert json.loads(sent.body) == {
        "type": "tool.call",
        "timestamp": NOW + 9,
        "data": {
            "session_id": SESSION_ID,
            "agent_id": AGENT_ID,
            "agent_version": 1,
            "participant": {"identity": "caller-1", "name": "Kim"},
            "metadata": {"order": "A-7"},
            "variables": {"guest_name": "Kim", "regular": True},
            "call_id": "one",
            "name": "book",
            "arguments": {"day": "2027-01-15"},
        },
    }


def test_both_secrets_sign_during_a_rotation() -> None:
    rotating = webhook_endpoint(
        secret=SecretVersion("a1", 2), previous_secret=SecretVersion("a1", 1), previous_secret_ends_at=NOW + 60
    )
    world = World(endpoints=FakeWebhookEndpoints(rotating))

    world.call()

    expected = tuple(WEBHOOK_SECRETS.reveal(ENDPOINT_ID, SecretVersion("a1", each)) for each in (2, 1))
    assert world.sender.sent[0].secrets == expected


@pytest.mark.parametrize(
    ("sent", "status", "response"),
    [
        (Sent(204, 5, None), "succeeded", {}),
        (Sent(200, 5, None, b" \n"), "succeeded", {}),
        (Sent(409, 5, "http_error", b'{"error": "The table is taken."}'), "failed", {"error": "The table is taken."}),
        (Sent(200, 5, None, b'{"name": "\\ud83d"}'), "succeeded", {"name": "\ufffd"}),
    ],
    ids=["no content", "spaces", "refused", "half a surrogate pair"],
)
def test_the_endpoint_decides_what_the_agent_gets(sent: Sent, status: str, response: JsonValue) -> None:
    call = World(sent).call()

    assert (call.status, call.response) == (status, response)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (Sent(200, 5, None, b"<html>"), "invalid_response"),
        (Sent(200, 5, None, b"[1]"), "invalid_response"),
        (Sent(200, 5, None, b'"booked"'), "invalid_response"),
        (Sent(200, 5, None, b"null"), "invalid_response"),
        (Sent(200, 5, None, b'{"a": NaN}'), "invalid_response"),
        (Sent(200, 5, None, b'{"a": "\xff"}'), "invalid_response"),
        (Sent(200, 5, None, b'{"a":' * 33 + b"1" + b"}" * 33), "invalid_response"),
        (Sent(200, 5, None, b'{"a":' * 50_000), "invalid_response"),
        (Sent(400, 5, "http_error", b"Bad request"), "http_error"),
        (Sent(404, 5, "http_error", b"{}"), "http_error"),
        (Sent(500, 5, "http_error", b'{"trace": "secret"}'), "http_error"),
        (Sent(302, 5, "redirected", b'{"a": 1}'), "redirected"),
        (Sent(None, 5, "connection_failed"), "connection_failed"),
        (Sent(None, 5, "tls_failed"), "tls_failed"),
        (Sent(None, 5, "address_refused"), "address_refused"),
        (RuntimeError("secret"), "internal_error"),
    ],
)
def test_a_failure_of_the_endpoint_is_an_answer_without_its_content(sent: Sent | Exception, error: str) -> None:
    world = World(sent)

    call = world.call()

    assert (call.status, list(call.response)) == ("failed", ["error"])
    assert "secret" not in str(call.response)
    assert world.recorded == [call]
    assert (world.logged.status, world.logged.error) == ("failed", error)


def test_an_endpoint_that_is_too_late_is_an_answer() -> None:
    world = World(Sent(None, 4_000, "timeout"))

    call = world.call()

    assert (call.status, call.milliseconds, list(call.response)) == ("timeout", 4_000, ["error"])
    assert (world.logged.status, world.logged.error) == ("failed", "timeout")


@pytest.mark.parametrize(
    "sent",
    [
        Sent(200, 5, "response_too_large", b"{"),
        Sent(200, 5, None, b'{"a":[' + b"1e15," * 4_000 + b"1]}"),  # each is written as 1000000000000000.0
    ],
)
def test_an_answer_that_is_too_large_is_a_failure(sent: Sent) -> None:
    world = World(sent)

    call = world.call()

    assert call.status == "failed"
    assert len(json.dumps(call.response)) < 100
    assert world.logged.error == "response_too_large"


def test_an_answer_that_the_session_has_no_room_for_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(
        Sent(200, 5, None, json.dumps({"a": "x" * (MAX_RESPONSE_BYTES - 100)}).encode()),
        stored=replace(session(), tool_calls=1, tool_call_bytes=MAX_BYTES - 1_000),
    )

    call = world.call()

    assert call.status == "failed"
    assert world.recorded == [call]
    assert world.sessions.stored[SESSION_ID].tool_call_bytes <= MAX_BYTES
    assert metrics(capsys, "ToolCallsFailed") == 1


# ---- What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (request(arguments={}), "Lacks day"),
        (request(arguments={"day": "tomorrow"}), "day:"),
        (request(arguments={"day": "2027-01-15", "guests": 9}), "guests:"),
        (request(name="ping", arguments={"a": 1}), "no arguments"),
    ],
)
def test_arguments_that_the_schema_does_not_allow_are_answered_without_asking(sent: CallToolRequest, said: str) -> None:
    world = World()

    call = world.call(sent)

    assert call.status == "failed"
    assert said in str(call.response["error"])
    assert world.recorded == [call]
    assert world.sender.sent == []
    assert world.deliveries.stored == {}


def test_the_faults_of_arguments_are_bounded() -> None:
    call = World().call(request(arguments={"day": 1, "guests": ["x" * 4_000]}))

    assert len(str(call.response["error"])) < 3_000


def test_a_function_without_parameters_is_called_without_arguments() -> None:
    world = World()

    assert world.call(request(name="ping", arguments={})).status == "succeeded"
    assert world.sender.seconds == [10]


@pytest.mark.parametrize(
    "stored",
    [
        replace(session(), status="completed"),
        replace(session(), hung_up_at=NOW),
        replace(session(), expires_at=NOW + 9),
    ],
    ids=["ended", "hung up", "expired"],
)
def test_no_tool_runs_after_the_call(stored: Session) -> None:
    world = World(stored=stored)

    with pytest.raises(SessionNotActive):
        world.call()
    assert world.sender.sent == []


def test_the_page_cannot_answer_for_a_server() -> None:
    world = World()

    with pytest.raises(InvalidRequest) as raised:
        world.call(request(response={"table": "T1"}))
    assert [each.path for each in raised.value.details] == ["response"]
    assert world.recorded == []


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        (session(), request(arguments={"day": "2027-01-15", "note": "x" * 8_192})),
        (replace(session(), tool_calls=100), request()),
        (replace(session(), tool_calls=100), request(arguments={})),
        (replace(session(), tool_calls=1, tool_call_bytes=MAX_BYTES - 5), request()),
    ],
    ids=["arguments", "number", "number, not asked", "all calls"],
)
def test_a_call_beyond_a_limit_is_not_run(stored: Session, sent: CallToolRequest) -> None:
    world = World(stored=stored)

    with pytest.raises(ToolCallsTooLarge):
        world.call(sent)
    assert world.sender.sent == []
    assert world.recorded == []


@pytest.mark.parametrize(
    "endpoints",
    [
        FakeWebhookEndpoints(),
        FakeWebhookEndpoints(webhook_endpoint(active=False)),
        FakeWebhookEndpoints(webhook_endpoint(disabled_at=NOW, disabled_reason="gone")),
        FakeWebhookEndpoints(webhook_endpoint(workspace=WorkspaceId("globex"))),
    ],
    ids=["deleted", "not active", "disabled", "another workspace's"],
)
def test_an_endpoint_that_cannot_be_asked_is_a_failure(
    endpoints: FakeWebhookEndpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(endpoints=endpoints)

    call = world.call()

    assert (call.status, world.sender.sent, world.deliveries.stored) == ("failed", [], {})
    assert world.recorded == [call]
    assert metrics(capsys, "ToolCallsFailed") == 1


def test_an_endpoint_that_cannot_be_read_is_a_failure() -> None:
    class Broken(FakeWebhookEndpoints):
        async def find(self, workspace: WorkspaceId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
            del workspace, endpoint_id
            raise StorageError

    world = World(endpoints=Broken())

    assert world.call().status == "failed"
    assert world.sender.sent == []


def test_a_missing_master_secret_is_a_failure_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = World(secrets=WebhookSecrets(lambda: Masters("b2", {"b2": "m" * 32})))

    assert world.call().status == "failed"
    assert world.sender.sent == []
    [failed] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert (failed.message, vars(failed)["error"]) == ("tool_call_failed", SettingsError.__name__)


# ---- The log of deliveries ------------------------------------------------------------------------------


def test_the_log_of_deliveries_has_the_call_and_does_not_judge_the_endpoint() -> None:
    world = World(Sent(503, 21, "http_error", b"busy"))

    world.call()

    event_id = EventId(world.sender.sent[0].event_id)
    logged = world.logged
    assert logged == Delivery(
        endpoint_id=ENDPOINT_ID,
        delivery_id=delivery_id(event_id, ENDPOINT_ID),
        workspace=WorkspaceId("acme"),
        event_id=event_id,
        type="tool.call",
        event_at=NOW + 9,
        created_at=NOW + 9,
        session_id=SESSION_ID,
        status="failed",
        tries=1,
        tried_at=NOW + 9,
        http_status=503,
        milliseconds=21,
        error="http_error",
    )
    assert world.endpoints.writes == 0


def test_a_log_that_cannot_be_written_does_not_lose_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeWebhookDeliveries):
        async def put(self, delivery: Delivery) -> None:
            del delivery
            raise StorageError

    assert World(deliveries=Broken()).call().status == "succeeded"
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == ["delivery_not_recorded"]


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        (BOOKED, 0),
        (Sent(409, 5, "http_error", b'{"error": "Taken."}'), 0),
        (Sent(500, 5, "http_error"), 1),
        (Sent(None, 5, "timeout"), 1),
    ],
    ids=["success", "refused by the endpoint", "failure", "too late"],
)
def test_failures_are_counted_and_refusals_are_not(
    sent: Sent, counted: int, capsys: pytest.CaptureFixture[str]
) -> None:
    World(sent).call()

    assert metrics(capsys, "ToolCallsFailed") == counted


def test_the_log_has_neither_arguments_nor_answers(caplog: pytest.LogCaptureFixture) -> None:
    World(Sent(200, 5, None, b'{"answer": "private-1"}')).call(
        request(arguments={"day": "2027-01-15", "note": "private-2"})
    )

    [answered] = caplog.records
    assert answered.message == "tool_call_answered"
    assert "private" not in str(vars(answered))


# ---- Once at a time -------------------------------------------------------------------------------------


def test_a_repeated_call_returns_the_recorded_answer() -> None:
    world = World()
    first = world.call()

    assert world.call(request(arguments={"day": "2028-02-28"})) == first
    assert len(world.sender.sent) == 1


def test_a_call_that_runs_is_not_run_by_another_request() -> None:
    world = World()

    async def both() -> ToolCall:
        until = asyncio.Event()
        world.use(FakeToolSender(BOOKED, until=until))
        first = await world.begin()
        with pytest.raises(ToolCallInProgress):
            await world.call_tool(SESSION_ID, request(), ACME)
        until.set()
        return await first

    call = asyncio.run(both())
    assert len(world.sender.sent) == 1
    assert world.recorded == [call]


def crashed() -> tuple[World, EventId]:
    """Return a world in which a function ended while its endpoint worked, and the id of its request."""
    world = World()

    async def crash() -> EventId:
        world.use(FakeToolSender(BOOKED, until=asyncio.Event()))
        task = await world.begin()
        task.cancel()
        await asyncio.wait([task])
        return EventId(world.sender.sent[0].event_id)

    asked = asyncio.run(crash())
    world.use(FakeToolSender(BOOKED))
    return world, asked


def test_after_a_crash_the_endpoint_is_asked_again_under_the_same_id() -> None:
    world, asked = crashed()
    assert [each.status for each in world.recorded] == ["running"]

    with pytest.raises(ToolCallInProgress):
        world.call()
    world.clock.now = NOW + 9 + 4 + RECORD_SECONDS

    call = world.call(request(arguments={"day": "2030-12-31"}))
    assert (call.status, call.arguments) == ("succeeded", {"day": "2027-01-15"})
    [sent] = world.sender.sent
    assert sent.event_id == asked
    assert world.logged.tries == 2
    assert world.recorded == [call]


def test_only_one_request_runs_a_call_again() -> None:
    world, _ = crashed()
    world.clock.now = NOW + 60

    async def both() -> list[ToolCall | BaseException]:
        requests = (world.call_tool(SESSION_ID, request(), ACME) for _ in range(3))
        return await asyncio.gather(*requests, return_exceptions=True)

    answers = asyncio.run(both())
    assert sorted(type(each).__name__ for each in answers) == ["ToolCall", "ToolCallInProgress", "ToolCallInProgress"]
    assert len(world.sender.sent) == 1


def test_an_answer_is_recorded_after_the_session_has_ended() -> None:
    class Ending(FakeToolCalls):
        async def finish(self, session_id: SessionId, call: ToolCall, run: Run, size: int, limit: int) -> FinishedRun:
            self._sessions.stored[session_id] = replace(self._sessions.stored[session_id], status="completed")
            return await super().finish(session_id, call, run, size, limit)

    world = World(tool_calls=Ending)

    assert world.call().status == "succeeded"
    assert [each.status for each in world.recorded] == ["succeeded"]


@pytest.mark.parametrize(
    ("finished", "error"), [("deleted", SessionNotFound), ("superseded", ToolCallInProgress), ("full", StorageError)]
)
def test_an_answer_that_cannot_be_recorded_is_not_returned(finished: FinishedRun, error: type[Exception]) -> None:
    class Refusing(FakeToolCalls):
        async def finish(self, session_id: SessionId, call: ToolCall, run: Run, size: int, limit: int) -> FinishedRun:
            del session_id, call, run, size, limit
            return finished

    with pytest.raises(error):
        World(tool_calls=Refusing).call()


# ---- Time -----------------------------------------------------------------------------------------------


def test_a_tool_gets_its_time_limit_or_what_is_left_of_the_request() -> None:
    world = World()
    world.call()
    with answer_within(RECORD_SECONDS + 2):
        world.call(request("two"))
    assert world.sender.seconds[0] == 4
    assert 0 < world.sender.seconds[1] <= 2


def test_a_request_without_time_for_the_tool_does_not_begin_it() -> None:
    world = World()

    with answer_within(RECORD_SECONDS - 1), pytest.raises(StorageError):
        world.call()
    assert world.recorded == []

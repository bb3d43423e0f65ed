"""Tools on a server: their calls through the function, with endpoints on loopback that misbehave."""

import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from tests.functions.api import Answer, Api
from tests.support.tool_endpoint import EMPTY, Sent, ToolEndpoint, answer_of, json_answer

ARGUMENT, ANSWERED = "an argument in confidence", "an answer in confidence"
CALL: dict[str, Any] = {"call_id": "call-1", "name": "find_table", "arguments": {"guests": 6, "wish": ARGUMENT}}
PARAMETERS = {
    "type": "object",
    "properties": {"guests": {"type": "integer"}, "wish": {"type": "string"}},
    "required": ["guests"],
}
STACK_TRACE = f'Traceback (most recent call last):\n  File "app.py", line 7\n    raise {ANSWERED}'


@pytest.fixture
def endpoint() -> Iterator[ToolEndpoint]:
    with ToolEndpoint.running() as endpoint:
        yield endpoint


@dataclass
class ToolSession:
    """A session of an agent with a tool on a server, its page, and the owner of both."""

    owner: Api
    page: Api
    path: str
    endpoint_path: str
    session: dict[str, Any]

    def call(self, **changes: Any) -> Answer:
        """Send a tool call as the page does."""
        return self.page.post(f"{self.path}/tool-calls", {**CALL, **changes})

    @property
    def recorded(self) -> list[dict[str, Any]]:
        """The calls of the session."""
        return list(self.owner.get(self.path).data["tool_calls"])

    @property
    def log(self) -> list[dict[str, Any]]:
        """The endpoint's log of deliveries."""
        return list(self.owner.get(f"{self.endpoint_path}/deliveries").json["data"])


@pytest.fixture
def tools(api: Api, endpoint: ToolEndpoint) -> ToolSession:
    return tool_session(api, endpoint)


def tool_session(api: Api, endpoint: ToolEndpoint, seconds: int = 15) -> ToolSession:
    """Create an endpoint, an agent with a tool there, and a session."""
    made = api.post("/webhook-endpoints", {"url": endpoint.url, "events": []}).data
    endpoint.secret = made["secret"]
    agent = api.agent(
        tools=[
            {
                "name": "find_table",
                "description": "Find a free table.",
                "parameters": PARAMETERS,
                "run": {"where": "server", "endpoint_id": made["endpoint_id"], "timeout_seconds": seconds},
            }
        ],
        variables={"house": {"type": "string", "default": "Linden"}},
    )
    session = api.session(agent, metadata={"order": "A-7"})
    return ToolSession(
        api,
        api.client_of(session),
        f"/sessions/{session['session_id']}",
        f"/webhook-endpoints/{made['endpoint_id']}",
        session,
    )


def ended(answer: Answer) -> tuple[str, Any]:
    """Return the status and the response of a call."""
    return answer.data["status"], answer.data["response"]


# ---- What the page gets -----------------------------------------------------------------------------


def test_a_call_returns_the_answer_of_the_endpoint(tools: ToolSession, endpoint: ToolEndpoint) -> None:
    endpoint.answers = [json_answer({"table": "T12", "said": ANSWERED})]

    answer = tools.call()

    assert ended(answer) == ("succeeded", {"table": "T12", "said": ANSWERED})
    assert tools.recorded == [answer.data]
    [body] = endpoint.bodies
    assert body == {
        "type": "tool.call",
        "timestamp": answer.data["called_at"],
        "data": {
            "session_id": tools.session["session_id"],
            "agent_id": tools.session["agent_id"],
            "agent_version": 1,
            "participant": tools.session["participant"],
            "metadata": {"order": "A-7"},
            "variables": {"house": "Linden"},
            **CALL,
        },
    }


def test_the_log_of_deliveries_has_the_call_without_its_content(tools: ToolSession, endpoint: ToolEndpoint) -> None:
    endpoint.answers = [json_answer({"said": ANSWERED})]

    tools.call()

    [logged] = tools.log
    assert (logged["type"], logged["status"], logged["tries"]) == ("tool.call", "succeeded", 1)
    assert (logged["http_status"], logged["error"], logged["next_try_at"]) == (200, None, None)
    assert (logged["event_id"], logged["session_id"]) == (endpoint.ids[0], tools.session["session_id"])
    assert ANSWERED not in json.dumps(logged)
    assert ARGUMENT not in json.dumps(logged)


def test_the_calls_of_a_container_use_one_connection(tools: ToolSession, endpoint: ToolEndpoint) -> None:
    endpoint.answers = [json_answer({})]

    for number in range(3):
        assert ended(tools.call(call_id=f"call-{number}")) == ("succeeded", {})

    assert len(set(endpoint.ids)) == 3
    assert endpoint.connections == 1


@pytest.mark.parametrize(
    ("answer", "response"),
    [
        (EMPTY, {}),
        (answer_of(""), {}),
        (answer_of(" \r\n"), {}),
        (answer_of("{}", 201), {}),
        (answer_of('{"a": 1}', 200, "Content-Type: text/html"), {"a": 1}),
        (answer_of('{"a": 1, "a": 2}'), {"a": 2}),
        (answer_of('{"a": "\\ud800"}'), {"a": "\ufffd"}),
        (answer_of('{"a": 1.0, "b": 12345678901234567890}'), {"a": 1.0, "b": 12345678901234567890}),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer_of('{"a": 1}'), {"a": 1}),
    ],
)
def test_a_success_with_an_object_or_nothing_has_succeeded(
    tools: ToolSession, endpoint: ToolEndpoint, answer: bytes, response: Any
) -> None:
    endpoint.answers = [answer]

    assert ended(tools.call()) == ("succeeded", response)
    assert [each["response"] for each in tools.recorded] == [response]


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422, 429, 499])
def test_a_refusal_with_an_object_is_passed_on(tools: ToolSession, endpoint: ToolEndpoint, status: int) -> None:
    endpoint.answers = [json_answer({"error": "No table for 6.", "free": [4, 2]}, status)]

    assert ended(tools.call()) == ("failed", {"error": "No table for 6.", "free": [4, 2]})
    [logged] = tools.log
    assert (logged["status"], logged["http_status"]) == ("failed", status)
    endpoint_now = tools.owner.get(tools.endpoint_path).data
    assert (endpoint_now["failing_since"], endpoint_now["disabled_reason"]) == (None, None)


# ---- Endpoints that misbehave -----------------------------------------------------------------------


def ends(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def ends_after(part: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(part)
        connection.shutdown(socket.SHUT_RDWR)

    return answer


def floods(connection: socket.socket) -> None:
    connection.sendall(answer_of(b'{"a": "' + b"x" * 10_000_000 + b'"}'))


BAD: dict[str, tuple[Sent, str]] = {
    "10 MB": (floods, "response_too_large"),
    "64 KB and a byte": (answer_of(b'{"a":"' + b"x" * 65_529 + b'"}'), "response_too_large"),
    "100,000 levels": (answer_of(b"[" * 100_000 + b"]" * 100_000), "response_too_large"),
    "10,000 levels": (answer_of(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "invalid_response"),
    "33 levels": (answer_of(b'{"a":' * 33 + b"1" + b"}" * 33), "invalid_response"),
    "not JSON": (answer_of(f"<h1>{ANSWERED}</h1>"), "invalid_response"),
    "half an object": (answer_of(f'{{"a": "{ANSWERED}'), "invalid_response"),
    "an object and more": (answer_of(f'{{"a": "{ANSWERED}"}} {{}}'), "invalid_response"),
    "a list": (answer_of(f'["{ANSWERED}"]'), "invalid_response"),
    "a string": (answer_of(f'"{ANSWERED}"'), "invalid_response"),
    "a number": (answer_of("7"), "invalid_response"),
    "null": (answer_of("null"), "invalid_response"),
    "true": (answer_of("true"), "invalid_response"),
    "NaN": (answer_of('{"a": NaN}'), "invalid_response"),
    "Infinity": (answer_of('{"a": -Infinity}'), "invalid_response"),
    "a number without end": (answer_of(b'{"a": ' + b"9" * 60_000 + b"}"), "invalid_response"),
    "invalid UTF-8": (answer_of(b'{"a": "\xff\xfe"}'), "invalid_response"),
    "UTF-16": (answer_of('{"a": 1}'.encode("utf-16")), "invalid_response"),
    "gzip": (answer_of(b"\x1f\x8b\x08\x00", 200, "Content-Encoding: gzip"), "invalid_response"),
    "500 with a stack trace": (answer_of(STACK_TRACE, 500), "http_error"),
    "500 with an object": (json_answer({"error": STACK_TRACE}, 500), "http_error"),
    "503 with an object": (json_answer({"error": ANSWERED}, 503), "http_error"),
    "400 with a text": (answer_of(ANSWERED, 400), "http_error"),
    "400 with a list": (json_answer([ANSWERED], 400), "http_error"),
    "400 without a body": (answer_of("", 400), "http_error"),
    "a redirect": (answer_of(ANSWERED, 302, "Location: http://169.254.169.254/latest/meta-data/"), "redirected"),
    "a redirect that keeps the method": (json_answer({"a": ANSWERED}, 308), "redirected"),
    "an upgrade": (b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "http_error"),
    "no HTTP": (ends_after(ANSWERED.encode()), "connection_failed"),
    "no answer": (ends, "connection_failed"),
    "half a header": (ends_after(b"HTTP/1.1 200 OK\r\nContent-Le"), "connection_failed"),
    "half a body": (ends_after(answer_of('{"a": 1, "b": 2}')[:-4]), "connection_failed"),
    "chunks without end": (
        ends_after(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1}\r\n'),
        "connection_failed",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_is_a_failure_without_its_content(
    tools: ToolSession, endpoint: ToolEndpoint, logged: io.StringIO, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    answer, error = BAD[kind]
    endpoint.answers = [answer]

    got = tools.call()

    status, response = ended(got)
    assert (status, list(response)) == ("failed", ["error"])
    assert response["error"].endswith(".")
    assert tools.recorded == [got.data]
    assert [(each["status"], each["error"]) for each in tools.log] == [("failed", error)]
    assert len(endpoint.bodies) == 1
    lines = logged.getvalue() + caplog.text
    for text in (got.text, json.dumps(tools.recorded), json.dumps(tools.log), lines):
        assert ANSWERED not in text
    assert ARGUMENT not in lines
    assert ended(tools.call()) == (status, response)  # the record
    assert len(endpoint.bodies) == 1


def test_an_endpoint_that_answers_by_the_byte_is_too_slow(api: Api, endpoint: ToolEndpoint) -> None:
    tools = tool_session(api, endpoint, seconds=1)

    def drips(connection: socket.socket) -> None:
        for byte in json_answer({"said": ANSWERED * 100}):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    endpoint.answers = [drips]

    status, response = ended(tools.call())

    assert (status, list(response)) == ("timeout", ["error"])
    assert [(each["status"], each["error"]) for each in tools.log] == [("failed", "timeout")]


def test_an_answer_that_is_too_late_changes_nothing(api: Api, endpoint: ToolEndpoint) -> None:
    tools = tool_session(api, endpoint, seconds=1)
    over = threading.Event()

    def late(connection: socket.socket) -> None:
        over.wait()
        connection.sendall(json_answer({"said": ANSWERED}))

    endpoint.answers = [late]

    first = tools.call()
    over.set()

    assert first.data["status"] == "timeout"
    assert tools.call().data == first.data
    assert tools.recorded == [first.data]
    assert len(endpoint.bodies) == 1


def test_the_next_call_does_not_get_the_late_answer_of_another(api: Api, endpoint: ToolEndpoint) -> None:
    tools = tool_session(api, endpoint, seconds=1)
    over = threading.Event()

    def late(connection: socket.socket) -> None:
        over.wait()
        connection.sendall(json_answer({"of": 2}))

    endpoint.answers = [json_answer({"of": 1}), late, json_answer({"of": 3})]

    statuses = [tools.call(call_id="1").data["status"], tools.call(call_id="2").data["status"]]
    over.set()

    assert statuses == ["succeeded", "timeout"]
    assert ended(tools.call(call_id="3")) == ("succeeded", {"of": 3})


# ---- Endpoints that are not asked -------------------------------------------------------------------


def deletes(tools: ToolSession, _: DynamoDBClient) -> None:
    assert tools.owner.delete(tools.endpoint_path).status == 204


def deactivates(tools: ToolSession, _: DynamoDBClient) -> None:
    assert tools.owner.patch(tools.endpoint_path, {"active": False}).status == 200


def disables(tools: ToolSession, dynamodb: DynamoDBClient) -> None:
    dynamodb.update_item(
        TableName=os.environ["VOICE_WEBHOOK_ENDPOINTS_TABLE"],
        Key={
            "workspace": {"S": tools.owner.workspace},
            "endpoint_id": {"S": tools.endpoint_path.rpartition("/")[2]},
        },
        UpdateExpression="SET disabled_at = :now, disabled_reason = :reason",
        ConditionExpression="attribute_exists(endpoint_id)",
        ExpressionAttributeValues={":now": {"N": "1800000000"}, ":reason": {"S": "failing"}},
    )


@pytest.mark.parametrize("change", [deletes, deactivates, disables])
def test_an_endpoint_that_is_gone_or_switched_off_is_not_asked(
    tools: ToolSession,
    endpoint: ToolEndpoint,
    dynamodb: DynamoDBClient,
    change: Callable[[ToolSession, DynamoDBClient], None],
) -> None:
    change(tools, dynamodb)

    status, response = ended(tools.call())

    assert (status, list(response)) == ("failed", ["error"])
    assert endpoint.bodies == []
    assert [each["status"] for each in tools.recorded] == ["failed"]


def test_an_agent_cannot_name_the_endpoint_of_another_workspace(
    api: Api, stranger: Api, endpoint: ToolEndpoint
) -> None:
    theirs = stranger.post("/webhook-endpoints", {"url": endpoint.url, "events": []}).data["endpoint_id"]
    tool = {"name": "t", "description": "d", "run": {"where": "server", "endpoint_id": theirs}}

    error = api.post("/agents", {"name": "Ana", "instructions": "x", "tools": [tool]}).error("invalid_request", 400)
    assert error.paths == ["tools.0.run.endpoint_id"]
    agent = api.agent()
    error = api.patch(f"/agents/{agent}", {"tools": [tool]}).error("invalid_request", 400)
    assert error.paths == ["tools.0.run.endpoint_id"]


def test_a_stored_agent_that_names_the_endpoint_of_another_workspace_does_not_ask_it(
    tools: ToolSession, stranger: Api, endpoint: ToolEndpoint, dynamodb: DynamoDBClient
) -> None:
    theirs = stranger.post("/webhook-endpoints", {"url": endpoint.url, "events": []}).data["endpoint_id"]
    key = {"agent_id": {"S": tools.session["agent_id"]}, "version": {"N": "1"}}
    table = os.environ["VOICE_AGENTS_TABLE"]
    document = dynamodb.get_item(TableName=table, Key=key)["Item"]["document"]["S"]
    dynamodb.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET document = :changed",
        ExpressionAttributeValues={":changed": {"S": document.replace(tools.endpoint_path.rpartition("/")[2], theirs)}},
    )

    assert tools.call().data["status"] == "failed"

    assert endpoint.bodies == []
    assert stranger.get(f"/webhook-endpoints/{theirs}/deliveries").json["data"] == []


@pytest.mark.parametrize(
    "arguments",
    [{}, {"guests": "6"}, {"guests": None}, {"guests": 1.5}, {"guests": 6, "wish": {"a": [ARGUMENT]}}],
)
def test_arguments_that_the_schema_does_not_allow_are_not_sent(
    tools: ToolSession, endpoint: ToolEndpoint, logged: io.StringIO, arguments: dict[str, Any]
) -> None:
    status, response = ended(tools.call(arguments=arguments))

    assert (status, list(response)) == ("failed", ["error"])
    assert endpoint.bodies == []
    assert tools.log == []
    assert [each["arguments"] for each in tools.recorded] == [arguments]
    assert ARGUMENT not in logged.getvalue()


def test_the_page_cannot_say_what_a_server_answered(tools: ToolSession, endpoint: ToolEndpoint) -> None:
    error = tools.call(response={"table": "forged"}).error("invalid_request", 400)

    assert error.paths == ["response"]
    assert endpoint.bodies == []
    assert tools.recorded == []


def test_no_endpoint_is_asked_after_the_end_but_a_repeat_is_answered(
    tools: ToolSession, endpoint: ToolEndpoint
) -> None:
    endpoint.answers = [json_answer({"table": "T12"})]
    first = tools.call()
    assert tools.owner.post(f"{tools.path}/complete", {}).status == 200

    assert tools.call().data == first.data
    tools.call(call_id="call-2").error("voice_session_not_active", 409)

    assert len(endpoint.bodies) == 1


def test_no_endpoint_is_asked_after_the_call_was_hung_up(tools: ToolSession, endpoint: ToolEndpoint) -> None:
    assert tools.owner.post(f"{tools.path}/stop", {}).status == 200

    tools.call().error("voice_session_not_active", 409)

    assert endpoint.bodies == []


def test_a_tool_call_is_not_delivered_again(tools: ToolSession, endpoint: ToolEndpoint) -> None:
    endpoint.answers = [answer_of("", 500)]
    tools.call()
    [logged] = tools.log

    again = tools.owner.post(f"{tools.endpoint_path}/deliveries/{logged['delivery_id']}/redeliver")

    again.error("invalid_request", 400)
    assert tools.log == [logged]
    assert len(endpoint.bodies) == 1


# ---- Limits of a session ----------------------------------------------------------------------------


def test_answers_beyond_a_megabyte_are_failures_that_the_session_has_room_for(
    tools: ToolSession, endpoint: ToolEndpoint
) -> None:
    endpoint.answers = [json_answer({"a": "x" * 65_000})]

    statuses = [tools.call(call_id=f"call-{number}").data["status"] for number in range(18)]

    assert statuses == ["succeeded"] * 16 + ["failed"] * 2
    assert [each["status"] for each in tools.recorded] == statuses
    endpoint.answers = [json_answer({"a": 1})]
    assert ended(tools.call(call_id="small")) == ("succeeded", {"a": 1})


def test_a_session_has_at_most_a_hundred_calls(
    tools: ToolSession, endpoint: ToolEndpoint, dynamodb: DynamoDBClient
) -> None:
    endpoint.answers = [json_answer({})]
    dynamodb.update_item(
        TableName=os.environ["VOICE_SESSIONS_TABLE"],
        Key={"session_id": {"S": tools.session["session_id"]}},
        UpdateExpression="SET tool_calls = :before, tool_call_bytes = :none",
        ExpressionAttributeValues={":before": {"N": "98"}, ":none": {"N": "0"}},
    )

    statuses = [tools.call(call_id=call_id).data["status"] for call_id in ("call-99", "call-100")]
    tools.call(call_id="one-more").error("request_too_large", 413)

    assert statuses == ["succeeded", "succeeded"]
    assert len(endpoint.bodies) == len(tools.recorded) == 2
    assert tools.call(call_id="call-99").data["status"] == "succeeded"


# ---- Secrets ----------------------------------------------------------------------------------------


def test_no_secret_argument_or_answer_is_in_a_log_line_and_no_secret_reaches_the_page(
    tools: ToolSession,
    endpoint: ToolEndpoint,
    logged: io.StringIO,
    caplog: pytest.LogCaptureFixture,
    dynamodb: DynamoDBClient,
) -> None:
    caplog.set_level("DEBUG")
    first_secret = endpoint.secret
    endpoint.secret = tools.owner.post(f"{tools.endpoint_path}/rotate-secret").data["secret"]
    endpoint.answers = [
        json_answer({"said": ANSWERED}),
        json_answer({"error": ANSWERED}, 400),
        answer_of(ANSWERED, 500),
    ]

    pages = [
        tools.call(call_id=f"call-{number}", arguments={"guests": number, "wish": ARGUMENT}) for number in range(3)
    ]
    pages.append(tools.page.get(tools.path))

    assert [each.data["status"] for each in pages[:3]] == ["succeeded", "failed", "failed"]
    lines = logged.getvalue() + caplog.text
    assert "tool_call_answered" in lines
    secrets = [endpoint.secret, first_secret, *(part for each in endpoint.signatures for part in each.split())]
    assert len(secrets) == 2 + 3 * 2
    tables = [dynamodb.scan(TableName=table)["Items"] for table in dynamodb.list_tables()["TableNames"]]
    places = {"logs": lines, "page": "".join(each.text for each in pages), "tables": json.dumps(tables, default=repr)}
    found = [place for place, text in places.items() for secret in secrets if secret.removeprefix("whsec_") in text]
    assert found == []
    for word in (ARGUMENT, ANSWERED, endpoint.url):
        assert word not in logged.getvalue()

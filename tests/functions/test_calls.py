"""Calls that one request makes to DynamoDB, LiveKit and Gemini in a new container."""

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import boto3
import pytest
from aiohttp import web

from events.samples import AGENT_ID, API_KEY, ENDPOINT_ID, EVENT_ID, SAMPLES, SESSION_ID
from events.samples import event as sample_event
from local.http_server import serving
from local.sample_call import SampleCall
from pi_voice import container
from tests.functions.api import Api, Functions
from tests.functions.livekit_webhooks import Webhook, event
from tests.functions.providers import Providers
from tests.functions.transcripts import ENDING
from tests.functions.work import EVERY_MINUTE, Work, message
from tests.support.moto_server import MotoServer
from tests.support.template import ROOT, snake_case
from tests.support.tool_endpoint import ToolEndpoint, json_answer

BARRIER_SECONDS: Final = 30
KEY: Final = ["GetItem api_keys"]
COUNT: Final = "UpdateItem idempotency"
"""Counts the request for the rate limit."""

CALLS: Final[Mapping[str, list[str]]] = {
    "create_agent": [*KEY, "TransactWriteItems agents agents"],
    "list_agents": [*KEY, "Query agents/by_workspace"],
    "get_agent": [*KEY, "GetItem agents"],
    "update_agent": [*KEY, "GetItem agents", "TransactWriteItems agents agents"],
    "list_agent_versions": [*KEY, "GetItem agents", "Query agents"],
    "get_agent_version": [*KEY, "GetItem agents"],
    "get_agent_version, an earlier one": [*KEY, "GetItem agents", "GetItem agents"],
    "restore_agent_version": [*KEY, "GetItem agents", "GetItem agents", "TransactWriteItems agents agents"],
    "delete_agent": [*KEY, "GetItem agents", "DeleteItem agents"],
    "create_webhook_endpoint": [
        *KEY,
        "Query webhook_endpoints",
        "PutItem webhook_endpoints",
        "Query webhook_endpoints",
    ],
    "list_webhook_endpoints": [*KEY, "Query webhook_endpoints"],
    "get_webhook_endpoint": [*KEY, "GetItem webhook_endpoints"],
    "update_webhook_endpoint": [
        *KEY,
        "GetItem webhook_endpoints",
        "GetItem agents",
        "UpdateItem webhook_endpoints",
    ],
    "rotate_webhook_secret": [*KEY, "GetItem webhook_endpoints", "UpdateItem webhook_endpoints"],
    "delete_webhook_endpoint": [*KEY, "DeleteItem webhook_endpoints"],
    "test_webhook_endpoint": [
        *KEY,
        "GetItem webhook_endpoints",
        "PutItem webhook_deliveries",
        "SendMessage deliveries",
    ],
    "list_webhook_deliveries": [*KEY, "GetItem webhook_endpoints", "Query webhook_deliveries"],
    "redeliver_webhook": [*KEY, "GetItem webhook_endpoints", "GetItem webhook_deliveries"],
    "list_voices": KEY,
    "create_session": [*KEY, COUNT, "GetItem agents", "CreateRoom", "auth_tokens", "PutItem sessions"],
    "create_session, of an earlier version": [
        *KEY,
        COUNT,
        "GetItem agents",
        "GetItem agents",
        "CreateRoom",
        "auth_tokens",
        "PutItem sessions",
    ],
    "list_sessions": [*KEY, "Query sessions/by_workspace", "BatchGetItem sessions"],
    "get_session": [*KEY, "GetItem sessions"],
    "get_session, with transcript": [*KEY, "GetItem sessions", "Query transcripts"],
    "call_tool": [*KEY, "GetItem sessions", "GetItem agents", "TransactWriteItems sessions transcripts"],
    "call_tool, on a server": [
        "GetItem sessions",
        "GetItem agents",
        "GetItem transcripts",
        "GetItem webhook_endpoints",
        *2 * ["TransactWriteItems sessions transcripts"],
        "PutItem webhook_deliveries",
    ],
    "get_session, with tool calls": [*KEY, "GetItem sessions", "Query transcripts"],
    "delete_session": [
        *KEY,
        "GetItem sessions",
        "PutItem sessions",
        "Query transcripts",
        "BatchWriteItem transcripts",
    ],
    "complete_session": [
        *KEY,
        COUNT,
        "GetItem sessions",
        "PutItem transcripts",
        "UpdateItem sessions",
        "GetItem agents",
        "generateContent",
        "UpdateItem sessions",
        "DeleteRoom",
        *2 * ["SendMessage events"],
    ],
    "complete_session, with checkpoints": [
        *KEY,
        COUNT,
        "GetItem sessions",
        "Query transcripts",
        "PutItem transcripts",
        "UpdateItem sessions",
        "GetItem agents",
        "generateContent",
        "UpdateItem sessions",
        "DeleteRoom",
        *2 * ["SendMessage events"],
    ],
    "rerun_extraction": [
        *KEY,
        "GetItem sessions",
        "GetItem agents",
        COUNT,
        "Query transcripts",
        "generateContent",
        "UpdateItem sessions",
    ],
    "preview_extraction": [*KEY, COUNT, "generateContent"],
    "save_transcript": [*KEY, "GetItem sessions", "TransactWriteItems sessions transcripts"],
    "report_usage": [*KEY, "GetItem sessions", "UpdateItem sessions"],
    "renew_session": [
        *KEY,
        "GetItem sessions",
        "UpdateItem sessions",
        "GetItem agents",
        "CreateRoom",
        "auth_tokens",
        "UpdateItem sessions",
    ],
    "stop_session": [*KEY, "GetItem sessions", "UpdateItem sessions", "DeleteRoom", "UpdateItem sessions"],
    "add_participant": [*KEY, "GetItem sessions"],
    "receive_livekit_webhook": ["UpdateItem sessions"],
    "receive_livekit_webhook, a first join": ["UpdateItem sessions", "UpdateItem sessions", "SendMessage events"],
    "receive_livekit_webhook, a later join": ["UpdateItem sessions"],
    "extract_results": ["GetItem sessions"],
    "sweep_sessions": ["Query sessions/by_due"] * 16,
    "dispatch_events": ["GetItem sessions"],
    "dispatch_events, without endpoints": ["GetItem sessions", "Query webhook_endpoints", "UpdateItem sessions"],
    "deliver_event": [
        "GetItem webhook_deliveries",
        "GetItem webhook_endpoints",
        "UpdateItem webhook_deliveries",
        "UpdateItem webhook_deliveries",
    ],
    "sweep_deliveries": ["Query webhook_deliveries/by_due"] * 16,
    "create_api_key": ["PutItem api_keys"],
    "list_api_keys": ["Query api_keys/by_workspace"],
    "revoke_api_key": ["Query api_keys/by_workspace", "UpdateItem api_keys"],
}


@dataclass
class Listener:
    """Records every call to DynamoDB and to the stand-ins."""

    functions: Functions
    calls: list[str] = field(default_factory=list)
    together: threading.Barrier | None = None
    """A barrier for some requests. Requests that are not concurrent never pass it."""
    at_barrier: tuple[str, ...] = ("GetItem",)
    """The requests that wait at the barrier, by the start of their name."""

    def during(self, work: Callable[[], Any]) -> list[str]:
        """Do the work in a new container, and return its calls, sorted."""
        self.functions.start_over()
        self.calls.clear()
        work()
        return sorted(self.calls)

    def record(self, operation: str, params: Mapping[str, Any]) -> None:
        """Record one request to DynamoDB, or one message to a queue."""
        if "QueueUrl" in params:
            if operation == "SendMessage":
                self.calls.append(f"SendMessage {_queue_at(params['QueueUrl'])}")
            return
        names = {str(table): name for name, table in container.tables()._asdict().items()}
        match operation:
            case "BatchGetItem" | "BatchWriteItem":
                tables = [*params["RequestItems"]]
            case "TransactWriteItems":
                tables = sorted(part["TableName"] for each in params["TransactItems"] for part in each.values())
            case _:
                tables = [params["TableName"]]
        index = f"/{params['IndexName']}" if "IndexName" in params else ""
        self.calls.append(" ".join([operation, *(names[table] for table in tables)]) + index + _lack(operation, params))
        if self.together and self.calls[-1].startswith(self.at_barrier):
            self.together.wait(BARRIER_SECONDS)

    @contextmanager
    def relayed(self, providers: Providers, url: str) -> Iterator[str]:
        """Serve a relay to a provider that records the last segment of each path."""
        relay = AsyncExitStack()

        async def start() -> str:
            http = await relay.enter_async_context(aiohttp.ClientSession())

            async def pass_on(request: web.Request) -> web.Response:
                self.calls.append(request.path.replace(":", "/").rpartition("/")[2])
                headers = {name: value for name, value in request.headers.items() if name != "Host"}
                body = await request.read()
                async with http.request(request.method, url + request.path_qs, data=body, headers=headers) as answer:
                    return web.Response(
                        status=answer.status, body=await answer.read(), headers={"Content-Type": answer.content_type}
                    )

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", pass_on)
            return await relay.enter_async_context(serving(app))

        yield providers.do(start())
        providers.do(relay.aclose())


def _queue_at(url: str) -> str:
    """Return what a queue holds; that of `work` has a name of its own."""
    named = {os.environ["EVENT_QUEUE_URL"]: "events", os.environ["DELIVERY_QUEUE_URL"]: "deliveries"}
    return named.get(url, "extractions")


def _lack(operation: str, params: Mapping[str, Any]) -> str:
    """Name what a request lacks: reads of a table are consistent, and transactions have a token."""
    if operation == "TransactWriteItems":
        return "" if params.get("ClientRequestToken") else " WITHOUT A TOKEN"
    if operation not in ("GetItem", "BatchGetItem", "Query") or "IndexName" in params:
        return ""
    reads = params["RequestItems"].values() if operation == "BatchGetItem" else [params]
    return "" if all(read.get("ConsistentRead") for read in reads) else " EVENTUALLY CONSISTENT"


@pytest.fixture
def listener(functions: Functions, providers: Providers, work: Work, moto: MotoServer) -> Iterator[Listener]:
    del work  # sets the queue before the first function is loaded
    listener = Listener(functions)
    variables = providers.variables
    moto.listeners.append(listener.record)
    with (
        pytest.MonkeyPatch.context() as environment,
        listener.relayed(providers, variables["LIVEKIT_URL"].replace("ws:", "http:")) as livekit,
        listener.relayed(providers, variables["GOOGLE_GEMINI_BASE_URL"]) as gemini,
    ):
        environment.setenv("LIVEKIT_URL", livekit.replace("http:", "ws:"))
        environment.setenv("GOOGLE_GEMINI_BASE_URL", gemini)
        functions.start_over()
        yield listener
        functions.start_over()
    moto.listeners.remove(listener.record)


class Call:
    """An agent, its sessions and an endpoint, each made when it is first asked for."""

    def __init__(self, api: Api) -> None:
        self.api = api

    @cached_property
    def agent_id(self) -> str:
        return self.api.agent(
            output_schema={"guests": "integer"},
            variables={"customer": {"type": "string", "default": "x"}},
            tools=SAMPLES["CreateAgent"].body["tools"],
        )

    @cached_property
    def changed_agent_id(self) -> str:
        """An agent with two versions."""
        agent_id = self.api.agent()
        assert self.api.patch(f"/agents/{agent_id}", {"name": "Bea"}).data["version"] == 2
        return agent_id

    @cached_property
    def ongoing(self) -> dict[str, Any]:
        return self.api.session(self.agent_id)

    @cached_property
    def completed(self) -> str:
        session_id = str(self.api.session(self.agent_id)["session_id"])
        assert self.api.post(f"/sessions/{session_id}/complete", ENDING).status == 200
        return session_id

    @cached_property
    def with_checkpoints(self) -> str:
        """The path of a session whose turns were saved."""
        path = f"/sessions/{self.api.session(self.agent_id)['session_id']}"
        assert self.api.post(f"{path}/transcript", {"from": 0, "turns": ENDING["transcript"]}).status == 200
        return path

    @cached_property
    def endpoint_id(self) -> str:
        return str(self.api.post("/webhook-endpoints", url="https://9.9.9.9/").data["endpoint_id"])  # is not looked up

    @cached_property
    def event_id(self) -> str:
        """The test event of the endpoint."""
        return str(self.api.post(f"/webhook-endpoints/{self.endpoint_id}/test").json["data"]["event_id"])


@pytest.fixture
def call(api: Api, listener: Listener) -> Call:
    del listener  # its environment must be set before these requests
    return Call(api)


def call_server_tool(api: Api, listener: Listener) -> Any:
    """Call a tool on a server by a page, in a session that has had a call before."""
    with ToolEndpoint.running() as endpoint:
        endpoint.answers = [json_answer({"in_stock": 212})]
        made = api.post("/webhook-endpoints", {"url": endpoint.url, "events": []}).data
        endpoint.secret = made["secret"]
        run = {"where": "server", "endpoint_id": made["endpoint_id"]}
        session = api.session(api.agent(tools=[{"name": "find", "description": "Find a product.", "run": run}]))
        page, path = api.client_of(session), f"/sessions/{session['session_id']}/tool-calls"
        assert page.post(path, {"call_id": "1", "name": "find"}).status == 200
        api.functions.start_over()
        listener.calls.clear()
        return page.post(path, {"call_id": "2", "name": "find"}).data


Request = Callable[[], Any]


@dataclass(frozen=True)
class Requests:
    """Makes what one good request of a kind needs, and only that, before it returns the request."""

    call: Call
    functions: Functions
    work: Work
    listener: Listener

    def prepare(self, kind: str) -> Request:
        """Return the sample of a route, or a request named here."""
        call = self.call
        kinds: dict[str, Callable[[], Request]] = {
            **{snake_case(function): partial(self._sample, function) for function in SAMPLES},
            "call_tool, on a server": lambda: partial(call_server_tool, call.api, self.listener),
            "get_session, with tool calls": self._with_tool_calls,
            "get_agent_version, an earlier one": lambda: self._get(f"/agents/{call.changed_agent_id}/versions/1"),
            "restore_agent_version": lambda: self._post(f"/agents/{call.changed_agent_id}/versions/1/restore"),
            "create_session, of an earlier version": self._of_an_earlier_version,
            "get_session, with transcript": lambda: self._get(f"/sessions/{call.completed}"),
            "delete_session": lambda: partial(call.api.delete, f"/sessions/{call.completed}"),
            "complete_session, with checkpoints": self._completion,
            "rerun_extraction": lambda: self._post(f"/sessions/{call.completed}/extract"),
            "receive_livekit_webhook": lambda: self._webhook("room_finished"),
            "receive_livekit_webhook, a first join": lambda: self._webhook("participant_joined"),
            "receive_livekit_webhook, a later join": self._later_join,
            "extract_results": self._extraction,
            "sweep_sessions": lambda: self._with_nothing_due(self.work.sweep),
            "dispatch_events": lambda: self._dispatch(SESSION_ID),  # there is no such session
            "dispatch_events, without endpoints": lambda: self._dispatch(call.completed),
            "deliver_event": self._delivery,
            "sweep_deliveries": lambda: self._with_nothing_due(
                lambda: self.functions.invoke("sweep_deliveries", EVERY_MINUTE)
            ),
            "create_api_key": lambda: self._operation("create_api_key", workspace="w", name="k"),
            "list_api_keys": lambda: self._operation("list_api_keys", workspace="w"),
            "revoke_api_key": self._revocation,
        }
        return kinds[kind]()

    def _sample(self, function: str) -> Request:
        call, text = self.call, json.dumps(sample_event(function))
        is_list = function.startswith("List")  # of something, so that a request for each item is noticed
        made: dict[str, Request] = {
            API_KEY: lambda: call.api.key,
            AGENT_ID: lambda: call.agent_id,
            ENDPOINT_ID: lambda: call.endpoint_id,
            EVENT_ID: lambda: call.event_id,
            SESSION_ID: lambda: call.completed if is_list else call.ongoing["session_id"],
        }
        texts = {given: make() for given, make in made.items() if given in text or is_list}
        sample = SampleCall(lambda name, event: self.functions.invoke(snake_case(name), event), texts=texts)

        def good() -> None:
            sample.request(function)
            assert sample.statuses[function] == SAMPLES[function].status

        return good

    def _get(self, path: str) -> Request:
        return lambda: self.call.api.get(path).data

    def _post(self, path: str, body: object = None) -> Request:
        return lambda: self.call.api.post(path, body).data

    def _with_tool_calls(self) -> Request:
        path = self.call.with_checkpoints
        assert self.call.api.post(f"{path}/tool-calls", SAMPLES["CallTool"].body).status == 200
        return self._get(path)

    def _of_an_earlier_version(self) -> Request:
        order = {
            "agent_id": self.call.changed_agent_id,
            "agent_version": 1,
            "participant": {"identity": "caller-1"},
        }
        return self._post("/sessions", order)

    def _completion(self) -> Request:
        path = f"{self.call.with_checkpoints}/complete"
        return lambda: self.call.api.post(path).json["results"]

    def _webhook(self, kind: str) -> Request:
        session = self.call.ongoing
        facts = self.call.api.get(f"/sessions/{session['session_id']}").data["livekit"]
        body = event(kind, {**session, "sid": facts["room_sid"]})
        return lambda: Webhook(self.functions).send(body)

    def _later_join(self) -> Request:
        join = self._webhook("participant_joined")
        join()
        return join

    def _extraction(self) -> Request:
        self.work.put(self.call.completed)
        return self.work.deliver

    def _dispatch(self, session_id: str) -> Request:
        records = [message(json.dumps({"session_id": session_id}))]
        return lambda: self.functions.invoke("dispatch_events", {"Records": records})

    def _delivery(self) -> Request:
        unreachable = self.call.api.post("/webhook-endpoints", url="http://127.0.0.1:9/").data
        tried = self.call.api.post(f"/webhook-endpoints/{unreachable['endpoint_id']}/test").json["data"]
        due = {**{name: tried[name] for name in ("endpoint_id", "delivery_id", "tries")}, "redeliveries": 0}
        return lambda: self.functions.invoke("deliver_event", {"Records": [message(json.dumps(due))]})

    def _with_nothing_due(self, sweep: Request) -> Request:
        """Run a schedule until it finds nothing due: what other tests left becomes due from second to second."""

        def last() -> Any:
            for _ in range(5):
                self.functions.start_over()
                self.listener.calls.clear()
                result = sweep()
                if all(call.startswith("Query") for call in self.listener.calls):
                    break
            return result

        return last

    def _operation(self, function: str, **fields: str) -> Request:
        return lambda: self.functions.invoke(function, fields)["data"]

    def _revocation(self) -> Request:
        key = self._operation("create_api_key", workspace="w", name="k")()
        return self._operation("revoke_api_key", workspace="w", key_id=key["key_id"])


@pytest.fixture
def requests(call: Call, functions: Functions, work: Work, listener: Listener) -> Requests:
    return Requests(call, functions, work, listener)


@pytest.mark.parametrize("kind", CALLS)
def test_a_request_makes_exactly_these_calls(kind: str, listener: Listener, requests: Requests) -> None:
    assert listener.during(requests.prepare(kind)) == sorted(CALLS[kind])


@pytest.mark.parametrize("kind", ["create_session", "get_session", "complete_session"])
def test_the_key_and_the_resource_are_read_concurrently(kind: str, listener: Listener, requests: Requests) -> None:
    request = requests.prepare(kind)
    listener.together = threading.Barrier(2)
    if kind == "complete_session":  # it reads the agent later, without a concurrent read
        listener.together = threading.Barrier(2, action=lambda: setattr(listener, "together", None))

    assert listener.during(request) == sorted(CALLS[kind])


@pytest.mark.parametrize("kind", ["create_session", "complete_session"])
def test_with_a_cached_key_the_count_and_the_read_are_concurrent(
    kind: str, listener: Listener, requests: Requests
) -> None:
    first, request = requests.prepare("create_session"), requests.prepare(kind)
    listener.during(first)  # caches the key
    listener.calls.clear()
    listener.at_barrier = (COUNT, "GetItem")
    listener.together = threading.Barrier(2, action=lambda: setattr(listener, "together", None))

    request()

    assert sorted(listener.calls) == sorted(each for each in CALLS[kind] if each not in KEY)


@pytest.mark.parametrize("kind", ["create_session", "get_session"])
def test_a_cached_key_is_not_looked_up_again(kind: str, listener: Listener, requests: Requests) -> None:
    request = requests.prepare(kind)
    listener.during(request)
    listener.calls.clear()

    request()

    assert sorted(listener.calls) == sorted(set(CALLS[kind]) - set(KEY))


def test_a_container_creates_one_client_per_service(
    call: Call, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[str] = []
    create = boto3.client

    def count(service: str, **arguments: Any) -> Any:
        created.append(service)
        return create(service, **arguments)  # type: ignore[call-overload]

    functions.start_over()
    monkeypatch.setattr(boto3, "client", count)
    for _ in range(2):
        call.api.headers["idempotency-key"] = uuid.uuid4().hex
        session = call.api.session(call.agent_id)
        assert call.api.post(f"/sessions/{session['session_id']}/complete", ENDING).status == 200

    assert sorted(created) == ["dynamodb", "sqs"]


def test_every_function_is_in_the_list_of_calls() -> None:
    assert {path.parent.name for path in Path(ROOT / "functions").glob("*/app.py")} == {
        kind.partition(",")[0] for kind in CALLS
    }

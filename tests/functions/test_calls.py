"""What one request asks of DynamoDB, LiveKit and Gemini: each call by name, in a container that has just started."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from local.http_server import serving
from pi_voice import container
from tests.functions.conftest import ROOT, Api, Functions
from tests.functions.providers import Providers
from tests.functions.test_complete import ENDING
from tests.functions.test_webhook import Webhook, event
from tests.functions.work import Work
from tests.moto_server import MotoServer

BARRIER_SECONDS: Final = 30
KEY: Final = ["GetItem api_keys"]

CALLS: Final[Mapping[str, list[str]]] = {
    "create_agent": [*KEY, "TransactWriteItems agents agents"],
    "list_agents": [*KEY, "Query agents/by_workspace"],
    "get_agent": [*KEY, "GetItem agents"],
    "update_agent": [*KEY, "GetItem agents", "TransactWriteItems agents agents"],
    "delete_agent": [*KEY, "GetItem agents", "DeleteItem agents"],
    "list_voices": KEY,
    "create_session": [*KEY, "GetItem agents", "CreateRoom", "auth_tokens", "PutItem sessions"],
    "list_sessions": [*KEY, "Query sessions/by_workspace", "BatchGetItem sessions"],
    "get_session": [*KEY, "GetItem sessions"],
    "get_session, with transcript": [*KEY, "GetItem sessions", "Query transcripts"],
    "delete_session": [
        *KEY,
        "GetItem sessions",
        "Query transcripts",
        "DeleteItem transcripts",
        "DeleteItem sessions",
    ],
    "complete_session": [
        *KEY,
        "GetItem sessions",
        "PutItem transcripts",
        "UpdateItem sessions",
        "GetItem agents",
        "generateContent",
        "UpdateItem sessions",
        "DeleteRoom",
    ],
    "complete_session, with kept turns": [
        *KEY,
        "GetItem sessions",
        "Query transcripts",
        "PutItem transcripts",
        "UpdateItem sessions",
        "GetItem agents",
        "generateContent",
        "UpdateItem sessions",
        "DeleteRoom",
    ],
    "rerun_extraction": [
        *KEY,
        "GetItem sessions",
        "GetItem agents",
        "UpdateItem idempotency",
        "Query transcripts",
        "generateContent",
        "UpdateItem sessions",
    ],
    "preview_extraction": [*KEY, "UpdateItem idempotency", "generateContent"],
    "save_transcript": [*KEY, "GetItem sessions", "TransactWriteItems sessions transcripts"],
    "renew_session": [
        *KEY,
        "GetItem sessions",
        "GetItem agents",
        "CreateRoom",
        "auth_tokens",
        "UpdateItem sessions",
    ],
    "stop_session": [*KEY, "GetItem sessions", "UpdateItem sessions", "DeleteRoom", "UpdateItem sessions"],
    "add_participant": [*KEY, "GetItem sessions"],
    "receive_livekit_webhook": ["UpdateItem sessions"],
    "extract_results": ["GetItem sessions"],
    "sweep_sessions": ["Query sessions/by_due"] * 16,
    "create_api_key": ["PutItem api_keys"],
    "list_api_keys": ["Query api_keys/by_workspace"],
    "revoke_api_key": ["Query api_keys/by_workspace", "UpdateItem api_keys"],
}


@dataclass
class Listener:
    """Hears every call, on its way into DynamoDB or into a provider's stand-in."""

    functions: Functions
    heard: list[str] = field(default_factory=list)
    together: threading.Barrier | None = None
    """Where reads wait for one another: those that are not made side by side never get through."""

    def during(self, work: Callable[[], Any]) -> list[str]:
        """Do something in a container that has just started, and return the calls that it made, in no order."""
        self.functions.start_over()
        self.heard.clear()
        work()
        return sorted(self.heard)

    def note(self, operation: str, params: Mapping[str, Any]) -> None:
        """Take note of one request to DynamoDB."""
        if "QueueUrl" in params:
            return
        names = {getattr(container.tables(), each.name): each.name for each in fields(container.tables())}
        match operation:
            case "BatchGetItem":
                tables = [*params["RequestItems"]]
            case "TransactWriteItems":
                tables = sorted(part["TableName"] for each in params["TransactItems"] for part in each.values())
            case _:
                tables = [params["TableName"]]
        index = f"/{params['IndexName']}" if "IndexName" in params else ""
        self.heard.append(" ".join([operation, *(names[table] for table in tables)]) + index)
        if operation == "GetItem" and self.together:
            self.together.wait(BARRIER_SECONDS)

    @contextmanager
    def relayed(self, providers: Providers, url: str) -> Iterator[str]:
        """Serve a relay to a provider that notes the last word of each path."""
        relay = AsyncExitStack()

        async def start() -> str:
            http = await relay.enter_async_context(aiohttp.ClientSession())

            async def pass_on(request: web.Request) -> web.Response:
                self.heard.append(request.path.replace(":", "/").rpartition("/")[2])
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


@pytest.fixture
def listener(functions: Functions, providers: Providers, work: Work, moto: MotoServer) -> Iterator[Listener]:
    del work  # the environment has its queue from before the first function is loaded
    listener = Listener(functions)
    variables = providers.variables
    moto.listeners.append(listener.note)
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
    moto.listeners.remove(listener.note)


@dataclass(frozen=True)
class Call:
    """An agent with a call that is on, one that was completed, and one of which turns were kept."""

    api: Api
    agent_id: str
    session: dict[str, Any]
    on: str
    over: str
    kept: str


@pytest.fixture
def call(api: Api, listener: Listener) -> Call:
    del listener  # what is made here is made by the same functions
    agent_id = api.agent(output_schema={"guests": "integer"})
    paths = [f"/sessions/{api.session(agent_id)['session_id']}" for _ in range(2)]
    assert api.post(f"{paths[0]}/complete", ENDING).status == 200
    assert api.post(f"{paths[1]}/transcript", {"from": 0, "turns": ENDING["transcript"]}).status == 200
    session = api.session(agent_id)
    return Call(api, agent_id, session, f"/sessions/{session['session_id']}", *paths)


@pytest.fixture
def requests(call: Call, functions: Functions, work: Work) -> Mapping[str, Callable[[], Any]]:
    """One good request of each kind."""
    api, said = call.api, {"from": 0, "turns": ENDING["transcript"]}
    order = {"agent_id": call.agent_id, "participant": {"identity": "caller-1"}}
    facts = api.get(call.on).data["livekit"]
    told = event("room_finished", {**call.session, "sid": facts["room_sid"]})
    key = functions.invoke("create_api_key", {"workspace": "w", "name": "k"})["data"]
    work.put(call.over.removeprefix("/sessions/"))
    return {
        "create_agent": api.agent,
        "list_agents": lambda: api.get("/agents").json["data"],
        "get_agent": lambda: api.get(f"/agents/{call.agent_id}").data,
        "update_agent": lambda: api.patch(f"/agents/{call.agent_id}", {"name": "Bea"}).data,
        "delete_agent": lambda: api.delete(f"/agents/{call.agent_id}"),
        "list_voices": lambda: api.get("/voices").json["data"],
        "create_session": lambda: api.post("/sessions", order).data,
        "list_sessions": lambda: api.get("/sessions").json["data"],
        "get_session": lambda: api.get(call.on).data,
        "get_session, with transcript": lambda: api.get(call.over).data,
        "delete_session": lambda: api.delete(call.over),
        "complete_session": lambda: api.post(f"{call.on}/complete", ENDING).json["results"],
        "complete_session, with kept turns": lambda: api.post(f"{call.kept}/complete").json["results"],
        "rerun_extraction": lambda: api.post(f"{call.over}/extract").data,
        "preview_extraction": lambda: (
            api.post("/extractions/preview", transcript=ENDING["transcript"], output_schema={"guests": "integer"}).data
        ),
        "save_transcript": lambda: api.post(f"{call.on}/transcript", said).data,
        "renew_session": lambda: api.post(f"{call.on}/renew").data,
        "stop_session": lambda: api.post(f"{call.on}/stop").data,
        "add_participant": lambda: api.post(f"{call.on}/participants", identity="listener").data,
        "receive_livekit_webhook": lambda: Webhook(functions).send(told),
        "extract_results": work.deliver,
        "sweep_sessions": work.sweep,
        "create_api_key": lambda: functions.invoke("create_api_key", {"workspace": "w", "name": "k"})["data"],
        "list_api_keys": lambda: functions.invoke("list_api_keys", {"workspace": "w"})["data"],
        "revoke_api_key": lambda: functions.invoke("revoke_api_key", {"workspace": "w", "key_id": key["key_id"]})[
            "data"
        ],
    }


@pytest.mark.parametrize("kind", CALLS)
def test_a_request_makes_exactly_these_calls(
    kind: str, listener: Listener, requests: Mapping[str, Callable[[], Any]]
) -> None:
    assert listener.during(requests[kind]) == sorted(CALLS[kind])


@pytest.mark.parametrize("kind", ["create_session", "get_session", "complete_session"])
def test_the_key_and_what_is_asked_for_are_read_side_by_side(
    kind: str, listener: Listener, requests: Mapping[str, Callable[[], Any]]
) -> None:
    listener.together = threading.Barrier(2)
    if kind == "complete_session":  # which reads the agent later, by itself
        listener.together = threading.Barrier(2, action=lambda: setattr(listener, "together", None))

    assert listener.during(requests[kind]) == sorted(CALLS[kind])


@pytest.mark.parametrize("kind", ["create_session", "get_session"])
def test_a_container_that_knows_the_key_does_not_look_it_up_again(
    kind: str, listener: Listener, requests: Mapping[str, Callable[[], Any]]
) -> None:
    listener.during(requests[kind])
    listener.heard.clear()

    requests[kind]()

    assert sorted(listener.heard) == sorted(set(CALLS[kind]) - set(KEY))


def test_every_function_has_its_calls() -> None:
    assert {path.parent.name for path in Path(ROOT / "functions").glob("*/app.py")} == {
        kind.partition(",")[0] for kind in CALLS
    }

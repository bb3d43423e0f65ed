"""Rights of the functions: what they ask of DynamoDB, SQS and the secrets is exactly what the template allows."""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from events.samples import API_KEY
from local.sample_call import SampleCall
from pi_voice import container
from pi_voice.domain.webhook_endpoints import MAX_ENDPOINTS
from tests.functions.api import GRACE_SECONDS, Api, Functions
from tests.functions.delivery_work import DeliveryWork
from tests.functions.front import Front, changed_environment, without_gemini
from tests.functions.livekit_webhooks import Webhook, event
from tests.functions.transcripts import ENDING
from tests.functions.work import Work, message
from tests.support.moto_server import MotoServer
from tests.support.template import FUNCTIONS, ROOT, ROUTES, SECRET, SECRETS, rights_of, snake_case
from tests.support.webhook_receiver import Receiver

Uses = dict[str, set[str]]

POLLED = {"DeleteMessage", "GetQueueAttributes", "ReceiveMessage"}
"""What Lambda does in the worker's name, to give it the queue's messages."""

REFERENCE = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))["paths"]
WITH_CLIENT_TOKEN = {
    function
    for function, (method, path) in ((function, route.split(" ")) for function, route in ROUTES.items())
    if {"client_token": []} in REFERENCE[path][method.lower()]["security"]
}
GROUPS = {name: group for group, name in SECRETS.items()}
TURNS = {"from": 0, "turns": ENDING["transcript"]}


class Watch:
    """Records the actions of functions on tables, indexes and queues."""

    def __init__(self, functions: Functions) -> None:
        self.seen: dict[str, Uses] = {}
        self.before: Callable[[str], None] = lambda _: None
        self._functions = functions
        self._current = ""

    def during(self, function: str, work: Callable[[], Any]) -> Any:
        """Do the work of one function in a new container, so that nothing is cached."""
        self._functions.start_over()
        self._current = function
        try:
            return work()
        finally:
            self._current = ""

    def record(self, operation: str, params: Mapping[str, Any]) -> None:
        """Record one request; a batch or a transaction needs the permissions of its parts."""
        if not self._current or operation in POLLED:
            return
        match operation:
            case "BatchGetItem" | "BatchWriteItem":
                used = [(str(table), str(operation)) for table in params["RequestItems"]]
            case "TransactWriteItems":
                parts = [part for item in params["TransactItems"] for part in item.items()]
                used = [
                    (part["TableName"], "ConditionCheckItem" if verb == "ConditionCheck" else f"{verb}Item")
                    for verb, part in parts
                ]
            case "GetParameters":
                used = [(f"{GROUPS[name.rpartition('/')[2]]}{SECRET}", "read") for name in params["Names"]]
            case _ if "QueueUrl" in params:
                used = [(_queue_at(params["QueueUrl"]), operation)]
            case _:
                index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
                used = [(params["TableName"] + index, operation)]
        for target, action in used:
            table, _, index = target.partition("/")
            resource = "/".join(filter(None, [self._logical_id(table), index]))
            self.seen.setdefault(self._current, {}).setdefault(resource, set()).add(action)
            self.before(f"{action} {resource}")

    @staticmethod
    def _logical_id(table: str) -> str:
        names = container.tables()
        return {
            names.agents: "AgentsTable",
            names.sessions: "SessionsTable",
            names.transcripts: "TranscriptsTable",
            names.api_keys: "ApiKeysTable",
            names.idempotency: "IdempotencyTable",
            names.webhook_endpoints: "WebhookEndpointsTable",
            names.webhook_deliveries: "WebhookDeliveriesTable",
        }.get(table, table)


def _queue_at(url: str) -> str:
    """Return the logical id of a queue; that of `work` has a name of its own."""
    if url.endswith("-deliveries.fifo"):
        return "DeliveryQueue"
    return "EventQueue" if url.endswith("-events") else "ExtractionQueue"


@pytest.fixture
def watch(functions: Functions, moto: MotoServer) -> Iterator[Watch]:
    watch = Watch(functions)
    moto.listeners.append(watch.record)
    yield watch
    moto.listeners.remove(watch.record)
    functions.start_over()


@contextmanager
def once(api: Api, key: str = "the-same") -> Iterator[None]:
    """Send this Idempotency-Key with every request."""
    api.headers["idempotency-key"] = key
    yield
    del api.headers["idempotency-key"]


class BothCredentials(SampleCall):
    """A whole call that sends each request with the API key, and with the client token where a route accepts it."""

    def request(
        self, function: str, without: Collection[str] = (), changes: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        """Send the sample of a function with each credential; return the response to the API key."""
        document = super().request(function, without, changes)
        if function in WITH_CLIENT_TOKEN:
            api_key, self.texts[API_KEY] = self.texts[API_KEY], self.documents["CreateSession"]["data"]["client_token"]
            super().request(function, without, changes)
            self.texts[API_KEY] = api_key
        return document


@dataclass(frozen=True)
class Day:
    """All work of the functions, recorded."""

    watch: Watch
    api: Api
    work: Work
    dynamodb: DynamoDBClient

    def call(self, **fields: object) -> str:
        """Create a session without recording, and return its path."""
        agent = self.api.agent(output_schema={"guests": "integer"})
        return f"/sessions/{self.api.session(agent, **fields)['session_id']}"

    def overdue_call(self) -> str:
        """Create a session with checkpoints whose grace time is over."""
        call = self.call(ttl_seconds=60)
        assert self.api.post(f"{call}/transcript", TURNS).status == 200
        self.work.advance(id_in(call), 60 + GRACE_SECONDS)
        return call

    def write_late(self, path: str) -> None:
        """Write a piece of a session that was deleted, as a request that lost a race may do."""
        key = {"session_id": {"S": id_in(path)}, "piece": {"S": "transcript#late#000"}}
        self.dynamodb.put_item(TableName=container.tables().transcripts, Item=key)

    def row_of_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """Return the stored row of a webhook endpoint."""
        key = {"workspace": {"S": self.api.workspace}, "endpoint_id": {"S": endpoint_id}}
        table = container.tables().webhook_endpoints
        return dict(self.dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"])

    def add_endpoint(self, row: dict[str, Any], number: int) -> None:
        """Store another webhook endpoint like this one."""
        another = {**row, "endpoint_id": {"S": f"01a1f31c-9e40-7b16-8c53-{number:012}"}}
        del another["secret_made_by"]
        self.dynamodb.put_item(TableName=container.tables().webhook_endpoints, Item=another)

    def fail_a_session(self, front: Front) -> None:
        """Make Gemini fail while a session is being stored."""
        agent_id, is_stored = self.api.agent(), threading.Event()
        self.watch.before = lambda step: is_stored.set() if step == "PutItem SessionsTable" else None
        with (
            front.answering(503, after=is_stored) as url,
            changed_environment(self.api, GOOGLE_GEMINI_BASE_URL=url) as broken,
        ):
            request = {"agent_id": agent_id, "participant": {"identity": "caller-1"}}
            self.watch.during(
                "CreateSession", lambda: broken.post("/sessions", request).error("gemini_unavailable", 503)
            )
        self.watch.before = lambda _: None

    def lose_race(self, function: str, path: str, complete: Callable[[], Any]) -> Any:
        """Complete a session concurrently, while its transcript is written.

        The rival's update is recorded as the function's, which has that right. To stop recording for it would lose
        what the function does at the same time.
        """

        def rival(step: str) -> None:
            if step != "PutItem TranscriptsTable":
                return
            self.dynamodb.update_item(
                TableName=container.tables().sessions,
                Key={"session_id": {"S": id_in(path)}},
                UpdateExpression="SET #status = :completed",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={":completed": {"S": "completed"}},
            )

        self.watch.before = rival
        try:
            return self.watch.during(function, complete)
        finally:
            self.watch.before = lambda _: None


def id_in(path: str) -> str:
    return path.removeprefix("/sessions/")


def each_function_gets_its_sample(day: Day, functions: Functions) -> None:
    def invoke(function: str, event: Any) -> Any:
        return day.watch.during(function, lambda: functions.invoke(snake_case(function), event))

    BothCredentials(invoke).hold()


def requests_are_repeated(day: Day) -> None:
    watch, api = day.watch, day.api
    bad_agent = {"name": "Ana", "instructions": "Take the call.", "output_schema": {"": "string"}}
    request = {"agent_id": api.agent(), "participant": {"identity": "caller-1"}}
    with once(api):
        watch.during("CreateAgent", lambda: api.post("/agents", bad_agent).error("invalid_output_schema", 400))
        assert watch.during("CreateAgent", api.agent) == watch.during("CreateAgent", api.agent)
        unknown = {**request, "agent_id": "unknown"}
        watch.during("CreateSession", lambda: api.post("/sessions", unknown).error("voice_agent_not_found", 404))
        first, again = (watch.during("CreateSession", lambda: api.post("/sessions", request).data) for _ in range(2))
        assert first["session_id"] == again["session_id"]
    agent = f"/agents/{api.agent()}"
    assert api.patch(agent, {"name": "Bea"}).status == 200
    for version, status in (("1", 200), ("1", 200), ("9", 404)):
        with once(api):
            restore = partial(api.post, f"{agent}/versions/{version}/restore")
            assert watch.during("RestoreAgentVersion", restore).status == status
    call = day.call()
    for key, status in (("the-same", 200), ("the-same", 200), ("another", 409)):
        with once(api, key):
            assert watch.during("CompleteSession", lambda: api.post(f"{call}/complete", ENDING)).status == status


def webhook_endpoints_are_registered(day: Day) -> None:
    watch, api = day.watch, day.api
    create = partial(api.post, "/webhook-endpoints", url="https://9.9.9.9/", agent_id=api.agent())
    with once(api):
        for refused in ({"url": "ftp://9.9.9.9/"}, {"url": "https://9.9.9.9/", "agent_id": "unknown"}):
            failing = partial(api.post, "/webhook-endpoints", refused)
            assert watch.during("CreateWebhookEndpoint", failing).status == 400
        first, again = (watch.during("CreateWebhookEndpoint", create).data for _ in range(2))
        assert first == again
        for endpoint_id, status in ((first["endpoint_id"], 200), (first["endpoint_id"], 200), ("unknown", 404)):
            rotate = partial(api.post, f"/webhook-endpoints/{endpoint_id}/rotate-secret")
            assert watch.during("RotateWebhookSecret", rotate).status == status
    row = day.row_of_endpoint(first["endpoint_id"])
    for number in range(MAX_ENDPOINTS - 2):
        day.add_endpoint(row, number)

    def rival(step: str) -> None:
        if step == "PutItem WebhookEndpointsTable":
            watch.before = lambda _: None
            day.add_endpoint(row, 99)

    watch.before = rival
    assert watch.during("CreateWebhookEndpoint", create).status == 400  # the rival's endpoint was the last one


def a_call_is_made(day: Day, webhook: Webhook) -> None:
    watch, api = day.watch, day.api
    session = api.session()
    path = f"/sessions/{session['session_id']}"
    with once(api):
        for identity, status in (("listener", 201), ("listener", 201), (session["participant"]["identity"], 422)):
            add = partial(api.post, f"{path}/participants", identity=identity)
            assert watch.during("AddParticipant", add).status == status
    with once(api, "another"):
        own_identity = partial(api.post, f"{path}/participants", identity=session["participant"]["identity"])
        assert watch.during("AddParticipant", own_identity).status == 400
    facts = api.get(path).data["livekit"]
    join = event("participant_joined", {**session, "sid": facts["room_sid"]})  # it starts the call
    assert watch.during("ReceiveLivekitWebhook", partial(webhook.send, join)).status == 200
    for _ in range(2):
        assert watch.during("SaveTranscript", partial(api.post, f"{path}/transcript", TURNS)).status == 200
    assert watch.during("RenewSession", lambda: api.post(f"{path}/renew")).status == 200  # with the turns so far
    assert api.post(f"{path}/stop").status == 200
    for kind, sid in (("participant_joined", facts["room_sid"]), ("room_finished", "RM_another")):
        body = event(kind, {**session, "sid": sid})  # the room of the stopped call is closed again
        assert watch.during("ReceiveLivekitWebhook", partial(webhook.send, body)).status == 200
    assert watch.during("CompleteSession", lambda: api.post(f"{path}/complete")).status == 200
    assert watch.during("GetSession", lambda: api.get(path)).status == 200
    assert watch.during("DeleteSession", lambda: api.delete(path)).status == 204
    day.write_late(path)
    day.work.advance(session["session_id"], 2 * GRACE_SECONDS)
    assert watch.during("SweepSessions", day.work.sweep)["deleted"] == 1


def calls_end_badly(day: Day, front: Front) -> None:
    watch, api, work = day.watch, day.api, day.work
    call = day.call()
    assert day.lose_race("CompleteSession", call, lambda: api.post(f"{call}/complete", ENDING).status) == 409
    day.fail_a_session(front)
    call = day.call()
    with without_gemini(api, front):
        assert watch.during("CompleteSession", lambda: api.post(f"{call}/complete", ENDING)).status == 200
        assert watch.during("ExtractResults", work.deliver) == [id_in(call)]
    work.put(id_in(call))
    assert watch.during("ExtractResults", work.deliver) == []
    day.overdue_call()
    assert watch.during("SweepSessions", work.sweep)["completed"] == 1
    day.lose_race("SweepSessions", day.overdue_call(), work.sweep)


def results_are_extracted_by_hand(day: Day) -> None:
    call = day.call()
    assert day.api.post(f"{call}/complete", ENDING).status == 200
    day.watch.during("RerunExtraction", lambda: day.api.post(f"{call}/extract").data)


def events_are_delivered(day: Day, receiver: Receiver) -> None:
    watch, api = day.watch, day.api
    work = DeliveryWork(api.functions, day.dynamodb, day.work.sqs)
    for drain in (work.dispatch, work.deliver):  # what other requests left
        drain()
    fields = {"events": ["session.completed"], "include": ["transcript"]}
    endpoint = api.post("/webhook-endpoints", url=receiver.url, **fields).data
    receiver.secret, receiver.statuses = endpoint["secret"], [500, 500, 204]
    path = f"/webhook-endpoints/{endpoint['endpoint_id']}"
    with once(api):
        for tested, status in (("/webhook-endpoints/unknown", 404), (path, 202), (path, 202)):
            assert watch.during("TestWebhookEndpoint", partial(api.post, f"{tested}/test")).status == status
    call = day.call()
    assert api.post(f"{call}/complete", ENDING).status == 200
    assert watch.during("DispatchEvents", work.dispatch)
    assert watch.during("DeliverEvent", work.deliver) == 2
    list_deliveries = partial(api.get, f"{path}/deliveries")
    log = watch.during("ListWebhookDeliveries", list_deliveries).json["data"]
    assert {each["status"] for each in log} == {"pending"}
    for each in log:
        work.make_due(each["delivery_id"])
    assert watch.during("SweepDeliveries", work.sweep)["queued"] == 2
    assert watch.during("DeliverEvent", work.deliver) == 2
    redeliver = partial(api.post, f"{path}/deliveries/{log[0]['delivery_id']}/redeliver")
    assert watch.during("RedeliverWebhook", redeliver).status == 202
    broken = {"Records": [message("?")]}
    assert watch.during("DeliverEvent", partial(api.functions.invoke, "deliver_event", broken))["batchItemFailures"]
    assert watch.during("DispatchEvents", partial(api.functions.invoke, "dispatch_events", broken))["batchItemFailures"]
    assert api.delete(path).status == 204


def tools_run_on_a_server(day: Day, receiver: Receiver) -> None:
    watch, api = day.watch, day.api
    endpoint = api.post("/webhook-endpoints", url=receiver.url).data
    receiver.secret, receiver.statuses = endpoint["secret"], [204]
    run = {"where": "server", "endpoint_id": endpoint["endpoint_id"]}
    fields = {"tools": [{"name": "book", "description": "Book a table.", "run": run}]}
    agent = watch.during("CreateAgent", lambda: api.agent(**fields))
    assert watch.during("UpdateAgent", lambda: api.patch(f"/agents/{agent}", {"name": "Bea"})).status == 200
    restore = partial(api.post, f"/agents/{agent}/versions/1/restore")
    assert watch.during("RestoreAgentVersion", restore).status == 200
    path = f"/sessions/{api.session(agent)['session_id']}"
    for call_id in ("one", "two", "two"):
        call = watch.during("CallTool", lambda: api.post(f"{path}/tool-calls", call_id=call_id, name="book").data)  # noqa: B023
        assert call["status"] == "succeeded"
    assert len(receiver.ids) == 2
    assert api.delete(f"/webhook-endpoints/{endpoint['endpoint_id']}").status == 204


@pytest.mark.usefixtures("secrets")
def test_functions_use_exactly_the_rights_of_the_template(
    functions: Functions, dynamodb: DynamoDBClient, work: Work, watch: Watch, api: Api, front: Front
) -> None:
    day = Day(watch, api, work, dynamodb)

    each_function_gets_its_sample(day, functions)
    requests_are_repeated(day)
    with Receiver.running() as receiver:
        events_are_delivered(day, receiver)
        receiver.ids.clear()
        tools_run_on_a_server(day, receiver)
    webhook_endpoints_are_registered(day)
    a_call_is_made(day, Webhook(functions))
    calls_end_badly(day, front)
    results_are_extracted_by_hand(day)

    allowed = {
        function: {resource: actions - POLLED for resource, actions in rights_of(properties).items()}
        for function, properties in FUNCTIONS.items()
    }
    assert watch.seen.keys() == allowed.keys()
    for function, rights in allowed.items():
        assert (function, watch.seen[function]) == (function, rights)

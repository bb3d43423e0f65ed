"""Deliveries to webhook endpoints: their routes, the worker and the schedule, with a receiver on loopback."""

import io
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from local import template
from local.sqs import make_queues
from pi_voice.domain.ids import is_uuid
from tests.functions.api import Answer, Api, Functions
from tests.functions.delivery_work import DeliveryWork
from tests.functions.work import message
from tests.support.template import ROOT
from tests.support.webhook_receiver import Receiver

EVENTS = ["session.started", "session.completed", "session.failed", "extraction.succeeded", "extraction.failed"]
TURNS = [{"role": "agent", "text": "For how many?"}, {"role": "user", "text": "For 4, please."}]
UNKNOWN = "0199a0f0-0000-7000-8000-000000000000"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.running() as receiver:
        yield receiver


@pytest.fixture
def deliveries(functions: Functions, dynamodb: DynamoDBClient) -> Iterator[DeliveryWork]:
    """Worker and schedule of deliveries, with queues of their own and nothing due."""
    sqs = boto3.client("sqs")
    prefix = f"q-{uuid.uuid4().hex}"
    read = template.load(ROOT / "template.yaml", {"LIVEKIT_URL": "wss://livekit.example"})
    queues = [
        replace(
            queue,
            name=queue.name.replace(template.STACK_NAME, prefix),
            dead_letters=queue.dead_letters and queue.dead_letters.replace(template.STACK_NAME, prefix),
        )
        for queue in read.queues
    ]
    urls = make_queues(sqs, queues)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DELIVERY_QUEUE_URL", urls[f"{prefix}-deliveries.fifo"])
        environment.setenv("EVENT_QUEUE_URL", urls[f"{prefix}-events"])
        functions.start_over()
        work = DeliveryWork(functions, dynamodb, sqs)
        work.sweep()  # what other tests left due
        sqs.purge_queue(QueueUrl=os.environ["DELIVERY_QUEUE_URL"])
        yield work
    functions.start_over()


def endpoint_at(api: Api, receiver: Receiver, **fields: object) -> str:
    """Create an endpoint for the receiver and return its path."""
    endpoint = api.post("/webhook-endpoints", {"url": receiver.url, "events": EVENTS, **fields}).data
    receiver.secret = endpoint["secret"]
    return f"/webhook-endpoints/{endpoint['endpoint_id']}"


def accepted(answer: Answer) -> dict[str, Any]:
    assert answer.status == 202, answer.text
    return dict(answer.json["data"])


def log_of(api: Api, path: str, **query: str) -> list[dict[str, Any]]:
    return list(api.get(f"{path}/deliveries", **query).json["data"])


def only(api: Api, path: str) -> dict[str, Any]:
    [delivery] = log_of(api, path)
    return delivery


# ---- Tests of an endpoint ---------------------------------------------------------------------------


def test_a_test_reaches_the_receiver_which_verifies_it(api: Api, receiver: Receiver, deliveries: DeliveryWork) -> None:
    path = endpoint_at(api, receiver)

    pending = accepted(api.post(f"{path}/test"))
    assert only(api, path) == pending
    assert deliveries.deliver() == 1

    assert receiver.bodies == [
        {
            "type": "endpoint.test",
            "timestamp": pending["created_at"],
            "data": {"endpoint_id": pending["endpoint_id"]},
        }
    ]
    assert receiver.ids == [pending["event_id"]]
    done = only(api, path)
    assert (done["status"], done["tries"], done["http_status"], done["error"]) == ("succeeded", 1, 204, None)
    assert (done["next_try_at"], done["response"], done["session_id"]) == (None, "", None)
    assert done["milliseconds"] >= 0


def test_the_response_to_a_test_is_shown(api: Api, receiver: Receiver, deliveries: DeliveryWork) -> None:
    receiver.statuses = [503]
    path = endpoint_at(api, receiver)
    accepted(api.post(f"{path}/test"))

    deliveries.deliver()

    tried = only(api, path)
    assert (tried["status"], tried["http_status"], tried["error"]) == ("pending", 503, "http_error")
    assert tried["response"] == "answer 1"
    assert api.get(path).data["failing_since"] is None


def test_a_test_with_the_same_idempotency_key_is_sent_once(
    api: Api, receiver: Receiver, deliveries: DeliveryWork
) -> None:
    path = endpoint_at(api, receiver)
    once = replace(api, headers={"idempotency-key": uuid.uuid4().hex})

    first, second = once.post(f"{path}/test"), once.post(f"{path}/test")

    assert accepted(first) == accepted(second)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert deliveries.deliver() == 1
    assert len(receiver.bodies) == 1


# ---- Events of sessions -----------------------------------------------------------------------------


def test_the_events_of_a_call_reach_the_receiver(api: Api, receiver: Receiver, deliveries: DeliveryWork) -> None:
    path = endpoint_at(api, receiver, include=["transcript", "results"])
    session = api.session(api.agent(output_schema={"guests": "integer"}))
    at = f"/sessions/{session['session_id']}"
    api.post(f"{at}/transcript", {"from": 0, "turns": TURNS[:1]})
    completed = api.post(f"{at}/complete", transcript=TURNS)
    assert completed.json["results"] == {"guests": 4}

    deliveries.dispatch()
    deliveries.deliver()

    types = ["extraction.succeeded", "session.completed", "session.started"]
    assert sorted(body["type"] for body in receiver.bodies) == types
    assert all(is_uuid(event_id) for event_id in receiver.ids)
    for body in receiver.bodies:
        assert body["data"] == api.get(at).data
        assert body["data"]["results"] == {"guests": 4}
    log = log_of(api, path, session_id=session["session_id"])
    assert sorted((each["type"], each["status"]) for each in log) == [(each, "succeeded") for each in types]
    assert all(each["response"] is None for each in log)
    assert log_of(api, path, session_id=UNKNOWN) == []


def test_what_was_said_is_sent_to_no_endpoint_that_does_not_include_it(
    api: Api, receiver: Receiver, deliveries: DeliveryWork
) -> None:
    endpoint_at(api, receiver)
    session = api.session(api.agent(output_schema={"guests": "integer"}, evidence=True))
    api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)

    deliveries.dispatch()
    deliveries.deliver()

    assert len(receiver.bodies) == 2
    for body in receiver.bodies:
        assert body["data"]["session_id"] == session["session_id"]
        assert body["data"].keys().isdisjoint({"transcript", "tool_calls", "results"})
        assert "please" not in json.dumps(body)


def test_events_of_a_session_that_is_deleted_meanwhile_are_cancelled(
    api: Api, receiver: Receiver, deliveries: DeliveryWork
) -> None:
    path = endpoint_at(api, receiver, events=["session.completed"])
    session = api.session()
    api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)
    deliveries.dispatch()
    assert api.delete(f"/sessions/{session['session_id']}").status == 204

    deliveries.deliver()

    assert receiver.bodies == []
    done = only(api, path)
    assert (done["status"], done["http_status"], done["next_try_at"]) == ("cancelled", None, None)


# ---- Retries and the schedule -----------------------------------------------------------------------


def test_the_schedule_queues_a_failed_delivery_when_its_next_try_is_due(
    api: Api, receiver: Receiver, deliveries: DeliveryWork
) -> None:
    receiver.statuses = [500, 204]
    path = endpoint_at(api, receiver)
    pending = accepted(api.post(f"{path}/test"))
    deliveries.deliver()
    assert deliveries.sweep() == {"queued": 0, "left": 0, "hanging": 0, "errors": 0}
    deliveries.make_due(pending["delivery_id"])

    assert deliveries.sweep() == {"queued": 1, "left": 0, "hanging": 0, "errors": 0}
    assert deliveries.waiting() == [
        {
            "endpoint_id": pending["endpoint_id"],
            "delivery_id": pending["delivery_id"],
            "redeliveries": 0,
            "tries": 1,
        }
    ]
    deliveries.deliver()

    done = only(api, path)
    assert (done["status"], done["tries"], done["error"]) == ("succeeded", 2, None)
    assert receiver.ids == [pending["event_id"]] * 2


def test_after_eight_tries_a_delivery_has_failed(
    api: Api, receiver: Receiver, deliveries: DeliveryWork, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.statuses = [500]
    path = endpoint_at(api, receiver)
    pending = accepted(api.post(f"{path}/test"))
    deliveries.deliver()
    for _ in range(7):
        deliveries.make_due(pending["delivery_id"])
        deliveries.sweep()
        deliveries.deliver()

    done = only(api, path)

    assert (done["status"], done["tries"], done["next_try_at"]) == ("failed", 8, None)
    assert len(receiver.bodies) == 8
    assert "WebhookDeliveriesFailed" in capsys.readouterr().out


def test_a_message_that_is_delivered_twice_is_sent_once(api: Api, receiver: Receiver, deliveries: DeliveryWork) -> None:
    path = endpoint_at(api, receiver)
    accepted(api.post(f"{path}/test"))
    [body] = deliveries.waiting()
    deliveries.deliver()

    again = deliveries.functions.invoke("deliver_event", {"Records": [message(json.dumps(body))]})

    assert again == {"batchItemFailures": []}
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"endpoint_id": 1, "delivery_id": 2, "redeliveries": 0, "tries": 0}']
)
def test_a_malformed_message_fails_and_so_becomes_a_dead_letter(deliveries: DeliveryWork, body: str) -> None:
    answer = deliveries.functions.invoke("deliver_event", {"Records": [message(body, message_id="m-7")]})

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-7"}]}


def test_an_endpoint_that_responds_410_is_disabled_until_its_owner_enables_it(
    api: Api, receiver: Receiver, deliveries: DeliveryWork, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.statuses = [410, 204]
    path = endpoint_at(api, receiver, events=["session.completed"])
    for _ in range(2):
        session = api.session()
        api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)
    deliveries.dispatch()
    deliveries.deliver()

    endpoint = api.get(path).data
    assert (endpoint["disabled_reason"], len(receiver.bodies)) == ("gone", 1)
    assert sorted(each["status"] for each in log_of(api, path)) == ["cancelled", "failed"]
    assert "WebhookEndpointsDisabled" in capsys.readouterr().out

    assert api.patch(path, {"active": True}).data["disabled_at"] is None
    for each in log_of(api, path):
        accepted(api.post(f"{path}/deliveries/{each['delivery_id']}/redeliver"))
    deliveries.deliver()
    assert [each["status"] for each in log_of(api, path)] == ["succeeded", "succeeded"]


def test_a_failure_of_an_event_is_shown_by_the_endpoint_until_one_succeeds(
    api: Api, receiver: Receiver, deliveries: DeliveryWork
) -> None:
    receiver.statuses = [500, 204]
    path = endpoint_at(api, receiver, events=["session.completed"])
    session = api.session()
    api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)
    deliveries.dispatch()
    deliveries.deliver()
    assert api.get(path).data["failing_since"] is not None

    deliveries.make_due(only(api, path)["delivery_id"])
    deliveries.sweep()
    deliveries.deliver()

    assert api.get(path).data["failing_since"] is None


# ---- Secrets ----------------------------------------------------------------------------------------


def test_after_a_rotation_the_old_and_the_new_secret_verify_a_request(
    api: Api, receiver: Receiver, deliveries: DeliveryWork
) -> None:
    path = endpoint_at(api, receiver)
    old = receiver.secret
    new = api.post(f"{path}/rotate-secret").data["secret"]
    assert new != old

    for secret in (old, new):
        receiver.secret = secret
        accepted(api.post(f"{path}/test"))
        deliveries.deliver()

    assert [each["status"] for each in log_of(api, path)] == ["succeeded", "succeeded"]


def test_neither_secrets_nor_responses_are_logged_or_stored(
    api: Api, receiver: Receiver, deliveries: DeliveryWork, dynamodb: DynamoDBClient, logged: io.StringIO
) -> None:
    receiver.statuses = [500]
    path = endpoint_at(api, receiver, events=["session.completed"])
    session = api.session()
    api.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)
    deliveries.dispatch()
    deliveries.deliver()

    rows = dynamodb.scan(TableName=os.environ["VOICE_WEBHOOK_DELIVERIES_TABLE"])["Items"]
    [row] = [row for row in rows if row["workspace"]["S"] == api.workspace]
    assert "delivery_tried" in logged.getvalue()
    for text in (receiver.secret, receiver.secret.removeprefix("whsec_"), "answer 1", "please", receiver.url):
        assert text not in logged.getvalue()
        assert text not in json.dumps(row)
    assert only(api, path)["response"] is None


# ---- Addresses --------------------------------------------------------------------------------------


def test_a_deployment_sends_nothing_to_loopback(
    api: Api, receiver: Receiver, deliveries: DeliveryWork, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = endpoint_at(api, receiver)
    accepted(api.post(f"{path}/test"))
    monkeypatch.setenv("WEBHOOK_ALLOW_LOOPBACK", "")
    functions.start_over()

    deliveries.deliver()

    tried = only(api, path)
    assert (tried["status"], tried["http_status"], tried["error"]) == ("pending", None, "address_refused")
    assert receiver.bodies == []


# ---- Who may do what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "below"),
    [
        ("POST", "test"),
        ("GET", "deliveries"),
        ("POST", f"deliveries/{UNKNOWN}.{UNKNOWN}/redeliver"),
    ],
)
def test_an_endpoint_of_another_workspace_is_not_found(
    api: Api, stranger: Api, receiver: Receiver, deliveries: DeliveryWork, method: str, below: str
) -> None:
    path = endpoint_at(api, receiver)

    stranger.call(method, f"{path}/{below}").error("webhook_endpoint_not_found", 404)
    api.call(method, f"/webhook-endpoints/{UNKNOWN}/{below}").error("webhook_endpoint_not_found", 404)
    api.call(method, f"/webhook-endpoints/x/{below}").error("webhook_endpoint_not_found", 404)

    assert deliveries.waiting() == []


@pytest.mark.parametrize("delivery_id", ["x", UNKNOWN, f"{UNKNOWN}.{UNKNOWN}", "a.b.c", "x" * 3_000])
def test_an_unknown_delivery_is_not_found(api: Api, receiver: Receiver, delivery_id: str) -> None:
    path = endpoint_at(api, receiver)

    api.post(f"{path}/deliveries/{delivery_id}/redeliver").error("webhook_delivery_not_found", 404)


def test_a_delivery_is_not_found_under_another_endpoint(api: Api, receiver: Receiver, deliveries: DeliveryWork) -> None:
    path, other = endpoint_at(api, receiver), endpoint_at(api, receiver)
    delivery = accepted(api.post(f"{path}/test"))

    api.post(f"{other}/deliveries/{delivery['delivery_id']}/redeliver").error("webhook_delivery_not_found", 404)
    assert len(deliveries.waiting()) == 1


# ---- Lists ------------------------------------------------------------------------------------------


def test_a_list_of_deliveries_has_pages(api: Api, receiver: Receiver) -> None:
    path = endpoint_at(api, receiver)
    ids = [accepted(api.post(f"{path}/test"))["delivery_id"] for _ in range(5)]

    first = api.get(f"{path}/deliveries", limit="3").json
    second = api.get(f"{path}/deliveries", limit="3", cursor=first["next_cursor"]).json

    assert {each["delivery_id"] for page in (first, second) for each in page["data"]} == set(ids)
    assert (len(first["data"]), len(second["data"]), second["next_cursor"]) == (3, 2, None)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": "0"}, "invalid_request"),
        ({"limit": "101"}, "invalid_request"),
        ({"cursor": "x"}, "invalid_cursor"),
        ({"status": "failed"}, "invalid_request"),
    ],
)
def test_a_bad_query_is_refused(api: Api, receiver: Receiver, query: dict[str, str], code: str) -> None:
    path = endpoint_at(api, receiver)

    api.get(f"{path}/deliveries", **query).error(code, 400)


def test_a_pending_delivery_is_returned_unchanged_by_redeliver(
    api: Api, receiver: Receiver, deliveries: DeliveryWork
) -> None:
    path = endpoint_at(api, receiver)
    pending = accepted(api.post(f"{path}/test"))

    again = accepted(api.post(f"{path}/deliveries/{pending['delivery_id']}/redeliver"))

    assert again == pending
    assert len(deliveries.waiting()) == 1

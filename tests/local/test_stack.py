"""The whole stack with the real template: its parts are reachable and work together."""

import asyncio
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from livekit import api as livekit
from livekit.protocol.room import DeleteRoomRequest
from mypy_boto3_dynamodb.client import DynamoDBClient
from mypy_boto3_sqs.client import SQSClient

from local import template
from local.dynamodb import make_tables
from local.running import LocalApi, running_api
from local.stand_ins.livekit import API_KEY, API_SECRET
from pi_voice.domain import api_keys
from tests.local.conftest import Answer, Site
from tests.local.processes import until
from tests.support.template import ROOT
from tests.support.webhook_receiver import Receiver

BASE = "/api/v1/voice"
FIXED_KEY = api_keys.generate().reveal()
PAGE = "https://app.example"


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalApi]:
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    own = {
        "RETENTION_DAYS": "7",
        "SCHEDULE_SECONDS": "1",
        "CORS_ALLOW_ORIGINS": f"https://other.example,{PAGE}",
        "POWERTOOLS_LOG_LEVEL": "DEBUG",  # a sweep without due records is logged at this level only
    }
    with running_api({**clean, **own, "PI_VOICE_API_KEY": FIXED_KEY}) as running:
        yield running


@pytest.fixture(scope="module")
def aws() -> boto3.Session:
    return boto3.Session("local", "local", region_name="us-east-1")


@pytest.fixture(scope="module")
def dynamodb(stack: LocalApi, aws: boto3.Session) -> Iterator[DynamoDBClient]:
    client = aws.client("dynamodb", endpoint_url=stack.dynamodb_url, config=Config(max_pool_connections=32))
    yield client
    client.close()


@pytest.fixture(scope="module")
def sqs(stack: LocalApi, aws: boto3.Session) -> Iterator[SQSClient]:
    client = aws.client("sqs", endpoint_url=stack.sqs_url)
    yield client
    client.close()


class Caller:
    """A client with an API key."""

    def __init__(self, stack: LocalApi, key: str) -> None:
        self._site = Site(stack.base_url)
        self._header = ("Authorization", f"Bearer {key}")

    def get(self, path: str) -> Answer:
        return self._site.get(BASE + path, self._header)

    def post(self, path: str, **fields: Any) -> Answer:
        return self._site.post(BASE + path, fields, self._header)


@pytest.fixture(scope="module")
def caller(stack: LocalApi) -> Caller:
    return Caller(stack, stack.api_key)


def start_session(caller: Caller) -> Any:
    agent = caller.post(
        "/agents",
        name="Booking",
        instructions="Book a table.",
        questions=["What is your name?", "How many people will come?"],
        output_schema={"name": "string", "people": "integer"},
    ).json["data"]
    started = caller.post(
        "/sessions",
        agent_id=agent["agent_id"],
        participant={"identity": "ada", "name": "Ada"},
        max_duration_seconds=None,
    )
    assert started.status == 201, started.body
    return started.json["data"]


def test_the_configured_api_key_is_valid(stack: LocalApi, caller: Caller) -> None:
    assert stack.api_key == FIXED_KEY
    assert len(caller.get("/voices").json["data"]) == 30


def test_a_whole_call_gives_results(caller: Caller) -> None:
    session = start_session(caller)
    transcript = [
        {"role": "agent", "text": "What is your name?"},
        {"role": "user", "text": "This is Ada Lovelace."},
        {"role": "agent", "text": "How many people will come?"},
        {"role": "user", "text": "We are twelve."},
    ]
    completed = caller.post(f"/sessions/{session['session_id']}/complete", transcript=transcript, duration_seconds=20)

    assert completed.status == 200, completed.body
    assert completed.json["results"] == {"name": "Ada Lovelace", "people": 12}
    assert completed.json["extraction"]["model"] == "stand-in"


def test_livekit_s_webhooks_reach_the_session(stack: LocalApi, caller: Caller) -> None:
    session_id = start_session(caller)["session_id"]

    async def close_the_room() -> None:
        async with livekit.LiveKitAPI(stack.livekit_url, API_KEY, API_SECRET) as client:
            await client.room.delete_room(DeleteRoomRequest(room=session_id))

    asyncio.run(close_the_room())

    until(lambda: caller.get(f"/sessions/{session_id}").json["data"]["livekit"]["finished_at"] is not None)


@pytest.mark.parametrize("path", ["/", "/any/where"])
def test_the_webhooks_function_url_accepts_any_path_and_requires_a_signature(stack: LocalApi, path: str) -> None:
    answer = Site(stack.webhook_url).call("POST", path, b"{}", [("Content-Type", "application/webhook+json")])

    assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_webhook_signature")


def test_functions_without_a_route_can_be_invoked(stack: LocalApi, aws: boto3.Session) -> None:
    client = aws.client("lambda", endpoint_url=stack.invoke_url)
    answer = client.invoke(FunctionName="CreateApiKey", Payload=b'{"workspace": "acme", "name": "backend"}')
    with answer["Payload"] as payload:
        key = json.loads(payload.read())["data"]
    client.close()

    assert key["workspace"] == "acme"
    assert Caller(stack, key["api_key"]).get("/voices").status == 200


def test_the_root_path_is_404(stack: LocalApi) -> None:
    assert Site(stack.base_url).get("/").json == {"message": "Not Found"}


def test_settings_of_the_environment_reach_the_functions(dynamodb: DynamoDBClient, caller: Caller) -> None:
    session_id = start_session(caller)["session_id"]
    row = dynamodb.get_item(
        TableName="pi-voice-local-voice_sessions", Key={"session_id": {"S": session_id}}, ConsistentRead=True
    )["Item"]

    assert "ttl" in row  # RETENTION_DAYS is 7, not the template's 0


def test_a_preflight_request_of_an_allowed_origin_succeeds(stack: LocalApi) -> None:
    asks = [("Origin", PAGE), ("Access-Control-Request-Method", "POST")]
    answer = Site(stack.base_url).call("OPTIONS", f"{BASE}/sessions", headers=asks)

    assert (answer.status, answer.header("access-control-allow-origin")) == (204, PAGE)
    assert "authorization" in answer.header("access-control-allow-headers").split(",")


# ---- Webhooks ----


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.running() as receiver:
        yield receiver


def endpoint_of(caller: Caller, receiver: Receiver, *events: str) -> str:
    """Register the receiver and return the path of its endpoint."""
    created = caller.post("/webhook-endpoints", url=receiver.url, events=events, include=["results"])
    assert created.status == 201, created.body
    receiver.secret = created.json["data"]["secret"]
    return f"/webhook-endpoints/{created.json['data']['endpoint_id']}"


def test_an_endpoint_on_this_machine_receives_a_signed_test(caller: Caller, receiver: Receiver) -> None:
    path = endpoint_of(caller, receiver)

    assert caller.post(f"{path}/test").status == 202

    until(lambda: [each["status"] for each in caller.get(f"{path}/deliveries").json["data"]] == ["succeeded"])
    assert [body["type"] for body in receiver.bodies] == ["endpoint.test"]


def test_an_endpoint_on_this_machine_receives_the_events_of_a_call(caller: Caller, receiver: Receiver) -> None:
    path = endpoint_of(caller, receiver, "session.completed", "extraction.succeeded")
    session = start_session(caller)
    transcript = [{"role": "agent", "text": "What is your name?"}, {"role": "user", "text": "This is Ada Lovelace."}]
    assert caller.post(f"/sessions/{session['session_id']}/complete", transcript=transcript).status == 200

    def statuses() -> list[str]:
        return [each["status"] for each in caller.get(f"{path}/deliveries").json["data"]]

    until(lambda: statuses() == ["succeeded", "succeeded"])
    assert {body["type"] for body in receiver.bodies} == {"session.completed", "extraction.succeeded"}
    assert {body["data"]["results"]["name"] for body in receiver.bodies} == {"Ada Lovelace"}


def test_the_queue_of_deliveries_is_a_fifo_queue_as_in_the_template(sqs: SQSClient) -> None:
    url = sqs.get_queue_url(QueueName="pi-voice-local-deliveries.fifo")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]

    assert (attributes["FifoQueue"], attributes["DeduplicationScope"]) == ("true", "messageGroup")
    assert (attributes["VisibilityTimeout"], attributes["MessageRetentionPeriod"]) == ("270", "3600")
    assert json.loads(attributes["RedrivePolicy"]) == {
        "deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:pi-voice-local-deliveries-dead.fifo",
        "maxReceiveCount": 6,
    }


# ---- Queues and schedules ----


def test_queues_have_the_templates_attributes(sqs: SQSClient) -> None:
    attributes = sqs.get_queue_attributes(QueueUrl=queue(sqs), AttributeNames=["All"])["Attributes"]

    assert attributes["VisibilityTimeout"] == "540"
    assert json.loads(attributes["RedrivePolicy"]) == {
        "deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:pi-voice-local-extractions-dead",
        "maxReceiveCount": 6,
    }


def test_messages_of_the_queue_reach_the_function(stack: LocalApi, sqs: SQSClient) -> None:
    sqs.send_message(QueueUrl=queue(sqs), MessageBody='{"session_id": "one-that-is-not-there"}')

    until(lambda: "one-that-is-not-there" in stack.output)
    until(lambda: waiting(sqs) == 0)


def test_the_scheduler_runs_the_sweeper(stack: LocalApi) -> None:
    assert "SweepSessions every 1 s" in stack.output
    until(lambda: stack.output.count('"sweep"') >= 2)


def queue(sqs: SQSClient) -> str:
    return sqs.get_queue_url(QueueName="pi-voice-local-extractions")["QueueUrl"]


def waiting(sqs: SQSClient) -> int:
    kinds: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(map(int, sqs.get_queue_attributes(QueueUrl=queue(sqs), AttributeNames=kinds)["Attributes"].values()))


# ---- DynamoDB ----


def test_tables_have_the_templates_indexes_and_ttl(dynamodb: DynamoDBClient) -> None:
    sessions = dynamodb.describe_table(TableName="pi-voice-local-voice_sessions")["Table"]
    ttl = dynamodb.describe_time_to_live(TableName="pi-voice-local-voice_sessions")["TimeToLiveDescription"]

    assert {index["IndexName"] for index in sessions["GlobalSecondaryIndexes"]} == {"by_workspace", "by_due"}
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "ttl")


def test_existing_tables_are_unchanged(dynamodb: DynamoDBClient) -> None:
    def items() -> int:
        return dynamodb.scan(TableName="pi-voice-local-voice_api_keys")["Count"]

    before = items()
    make_tables(dynamodb, template.load(ROOT / "template.yaml", {"LIVEKIT_URL": ""}).tables)

    assert items() == before > 0


def test_of_racing_transactions_one_wins_and_no_other_write_is_lost(dynamodb: DynamoDBClient) -> None:
    table = "pi-voice-local-voice_agents"

    def race(number: int) -> bool:
        dynamodb.put_item(TableName=table, Item={"agent_id": {"S": f"bystander-{number}"}, "version": {"N": "1"}})
        prize = {"agent_id": {"S": "prize"}, "version": {"N": "1"}, "winner": {"N": str(number)}}
        put: Any = {"TableName": table, "Item": prize, "ConditionExpression": "attribute_not_exists(agent_id)"}
        try:
            dynamodb.transact_write_items(TransactItems=[{"Put": put}])
        except dynamodb.exceptions.TransactionCanceledException:
            return False
        return True

    with ThreadPoolExecutor(16) as racers:
        won = list(racers.map(race, range(32)))

    assert won.count(True) == 1
    written = dynamodb.scan(
        TableName=table,
        FilterExpression="begins_with(agent_id, :bystander)",
        ExpressionAttributeValues={":bystander": {"S": "bystander-"}},
    )
    assert written["Count"] == 32


def test_a_transaction_sent_twice_with_one_token_is_applied_once(dynamodb: DynamoDBClient) -> None:
    put: Any = {
        "TableName": "pi-voice-local-voice_agents",
        "Item": {"agent_id": {"S": "once"}, "version": {"N": "1"}},
        "ConditionExpression": "attribute_not_exists(agent_id)",
    }
    for _ in range(2):
        dynamodb.transact_write_items(TransactItems=[{"Put": put}], ClientRequestToken="once")

    with pytest.raises(dynamodb.exceptions.TransactionCanceledException):
        dynamodb.transact_write_items(TransactItems=[{"Put": put}], ClientRequestToken="again")

"""Worker and schedule of deliveries, invoked as AWS does."""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.functions.work import EVERY_MINUTE, message

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_sqs.client import SQSClient

    from tests.functions.api import Functions


@dataclass(frozen=True)
class DeliveryWork:
    """The queue and the schedule of deliveries, and a way to move time forward."""

    functions: "Functions"
    dynamodb: "DynamoDBClient"
    sqs: "SQSClient"

    def waiting(self) -> list[dict[str, Any]]:
        """Return the messages in the queue without removing them."""
        url = os.environ["DELIVERY_QUEUE_URL"]
        received = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [json.loads(each["Body"]) for each in received.get("Messages", [])]

    def deliver(self) -> int:
        """Deliver each message to the worker, as Lambda does, and return their number."""
        return self._drain("DELIVERY_QUEUE_URL", "deliver_event")

    def dispatch(self) -> int:
        """Deliver each session that owes events to its function, and return their number."""
        return self._drain("EVENT_QUEUE_URL", "dispatch_events")

    def sweep(self) -> dict[str, int]:
        """Run the schedule once, and return its result."""
        return dict(self.functions.invoke("sweep_deliveries", EVERY_MINUTE)["data"])

    def make_due(self, delivery_id: str) -> None:
        """Move the next try of a pending delivery to the past."""
        _, _, endpoint_id = delivery_id.partition(".")
        self.dynamodb.update_item(
            TableName=os.environ["VOICE_WEBHOOK_DELIVERIES_TABLE"],
            Key={"endpoint_id": {"S": endpoint_id}, "delivery_id": {"S": delivery_id}},
            UpdateExpression="SET due_at = :past",
            ConditionExpression="attribute_exists(due_at)",
            ExpressionAttributeValues={":past": {"N": "1"}},
        )

    def _drain(self, queue: str, function: str) -> int:
        count = 0
        while received := self.sqs.receive_message(
            QueueUrl=os.environ[queue], MaxNumberOfMessages=1, MessageSystemAttributeNames=["All"]
        ).get("Messages"):
            [each] = received
            record = message(each["Body"], 1, each["ReceiptHandle"], each["MessageId"])
            record["attributes"] |= each["Attributes"]
            assert self.functions.invoke(function, {"Records": [record]}) == {"batchItemFailures": []}
            self.sqs.delete_message(QueueUrl=os.environ[queue], ReceiptHandle=each["ReceiptHandle"])
            count += 1
        return count

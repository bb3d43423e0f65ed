"""Queue worker and sweeper, invoked as AWS does."""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.support.session_rows import put_back

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_sqs.client import SQSClient

    from tests.functions.api import Functions

EVERY_MINUTE: Final = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-11-22T16:00:00Z",
    "region": "us-east-1",
    "resources": ["arn:aws:events:us-east-1:123456789012:rule/pi-voice-SweepSessionsEveryMinute"],
    "detail": {},
}


def message(body: str, delivery: int = 1, receipt: str = "no-receipt", message_id: str = "m-1") -> dict[str, Any]:
    """Build one record as the Lambda service gets it from SQS."""
    return {
        "messageId": message_id,
        "receiptHandle": receipt,
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": str(delivery),
            "SentTimestamp": "1795363200000",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1795363200001",
        },
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:pi-voice-extractions",
        "awsRegion": "us-east-1",
    }


@dataclass(frozen=True)
class Work:
    """The queue, the schedule, and a way to move time forward."""

    functions: "Functions"
    dynamodb: "DynamoDBClient"
    sqs: "SQSClient"
    url: str

    def waiting(self) -> list[str]:
        """Return the ids of the sessions in the queue without removing them."""
        received = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [json.loads(each["Body"])["session_id"] for each in received.get("Messages", [])]

    def put(self, session_id: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps({"session_id": session_id}))

    def delete_all(self) -> None:
        """Delete all messages in the queue."""
        received = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        for each in received["Messages"]:
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=each["ReceiptHandle"])

    def deliver(self, delivery: int = 1) -> list[str]:
        """Deliver each message to the worker, and return the ids of the sessions for which it failed.

        Like the Lambda service, delete a message unless it failed.
        """
        failed = []
        received = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        for each in received.get("Messages", []):
            record = message(each["Body"], delivery, each["ReceiptHandle"], each["MessageId"])
            answer = self.functions.invoke("extract_results", {"Records": [record]})
            if answer == {"batchItemFailures": [{"itemIdentifier": each["MessageId"]}]}:
                failed.append(json.loads(each["Body"])["session_id"])
            else:
                assert answer == {"batchItemFailures": []}
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=each["ReceiptHandle"])
        return failed

    def sweep(self) -> dict[str, int]:
        """Run the schedule once, and return its result."""
        return dict(self.functions.invoke("sweep_sessions", EVERY_MINUTE)["data"])

    def advance(self, session_id: str, seconds: int) -> None:
        """Move all times of a session back by this many seconds."""
        table, key = os.environ["VOICE_SESSIONS_TABLE"], {"session_id": {"S": session_id}}
        row: dict[str, Any] = self.dynamodb.get_item(TableName=table, Key=key)["Item"]
        put_back(row, seconds)
        self.dynamodb.put_item(TableName=table, Item=row)

"""A receiver of webhooks on loopback, and what Lambda does with queue and schedule of deliveries."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from standardwebhooks import Webhook

from tests.functions.work import EVERY_MINUTE, message

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_sqs.client import SQSClient

    from tests.functions.api import Functions


@dataclass
class Receiver:
    """Verifies each request with the library of Standard Webhooks, and responds with the statuses in order."""

    url: str
    secret: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def receive(self, body: bytes, headers: dict[str, str]) -> int:
        """Verify and record one request, and return the status of the response."""
        self.bodies.append(Webhook(self.secret).verify(body, headers))
        self.ids.append(headers["webhook-id"])
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Receiver"]:
        """Run a receiver on any free port."""
        receiver: Receiver

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    status = receiver.receive(body, {name.lower(): value for name, value in self.headers.items()})
                except Exception as error:  # noqa: BLE001 (the test sees it as the response)
                    status, answer = 500, repr(error).encode()
                else:
                    answer = f"answer {len(receiver.bodies)}".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(0 if status == 204 else len(answer)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        receiver = cls(f"http://127.0.0.1:{server.server_port}/hook")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield receiver
        server.shutdown()
        server.server_close()
        thread.join()


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

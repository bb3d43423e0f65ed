"""The queue poller: invoke a function with a queue's messages, as Lambda's event source mapping does.

received ──► processed ──► deleted
                └── failed: visible again after the visibility timeout, and finally in the dead-letter queue
"""

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never

from local.template import REGION, QueueEvents
from local.workers import MAX_WORKERS, FunctionError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

Json = Any
Invoke = Callable[[str, Json], Awaitable[Json]]
"""Invokes a function by its logical id with an event and returns its answer; raises FunctionError."""


@dataclass(frozen=True, slots=True)
class Poller:
    """Polls one queue for one function: immediately after a message, and after a pause if the queue was empty."""

    sqs: "SQSClient"
    queue_url: str
    events: QueueEvents
    function: str
    invoke: Invoke
    pause_seconds: float = 1.0

    async def run(self) -> Never:
        """Poll until canceled; failures do not stop the poller."""
        turns = asyncio.Semaphore(min(self.events.max_concurrency or MAX_WORKERS, MAX_WORKERS))
        async with asyncio.TaskGroup() as batches:
            while True:
                await turns.acquire()
                if messages := await self._receive():
                    batches.create_task(self._process(messages)).add_done_callback(lambda _: turns.release())
                else:
                    turns.release()
                    await asyncio.sleep(self.pause_seconds)

    async def _receive(self) -> "list[MessageTypeDef]":
        try:
            answer = await asyncio.to_thread(
                self.sqs.receive_message,
                QueueUrl=self.queue_url,
                MaxNumberOfMessages=self.events.batch_size,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
                WaitTimeSeconds=0,  # moto handles one request at a time, so a long poll would block all others
            )
        except Exception as error:  # noqa: BLE001 (the next poll may succeed)
            self._log(f"cannot read the queue: {error}")
            return []
        return answer.get("Messages", [])

    async def _process(self, messages: "list[MessageTypeDef]") -> None:
        event = {"Records": [_record(message, self.events) for message in messages]}
        try:
            answer = await self.invoke(self.function, event)
            ids = {message["MessageId"] for message in messages}
            failed = failures(answer, ids) if self.events.reports_failures else set()
            if done := [message for message in messages if message["MessageId"] not in failed]:
                await asyncio.to_thread(self._delete, done)
        except FunctionError as error:
            self._log(f"a batch of {len(messages)} failed and will be retried: {error}")
        except Exception as error:  # noqa: BLE001 (the queue delivers the messages again)
            self._log(f"a batch of {len(messages)} could not be deleted: {error}")

    def _delete(self, messages: "list[MessageTypeDef]") -> None:
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])

    def _log(self, what: str) -> None:
        print(f"{self.function}: {what.rstrip('.')}.", file=sys.stderr, flush=True)


def failures(answer: Json, ids: set[str]) -> set[str]:
    """Return the ids that an answer reports as failed; all ids if Lambda would reject the answer."""
    try:
        failed = {failure["itemIdentifier"] for failure in (answer or {}).get("batchItemFailures") or ()}
    except (AttributeError, KeyError, TypeError):
        return ids
    return ids if failed - ids else failed


def _record(message: "MessageTypeDef", events: QueueEvents) -> Json:
    record = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message["Attributes"]),
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": events.queue_arn,
        "awsRegion": REGION,
    }
    if "MD5OfMessageAttributes" in message:
        record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return record


def _attribute(value: Mapping[str, Any]) -> Json:
    attribute = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if "BinaryValue" in value:
        return {"binaryValue": base64.b64encode(value["BinaryValue"]).decode(), **attribute}
    return {"stringValue": value["StringValue"], **attribute}

"""SQS: queues of sessions and of deliveries."""

import json
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from pi_voice.adapters.aws import AwsClient
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import SessionId
from pi_voice.domain.webhook_deliveries import Delivery
from pi_voice.logs import logger

DEADLINE_SECONDS: Final = 4.0
"""Time limit of a request with its retries in seconds; the client of complete_session may be waiting."""


class _SqsQueue:
    """Requests to one queue."""

    def __init__(self, sqs: AwsClient, url: str) -> None:
        self._sqs = sqs
        self._url = url

    async def delay(self, receipt_handle: str, seconds: int) -> None:
        """Set when a received message becomes visible again; raises StorageError."""
        await self._request("change_message_visibility", ReceiptHandle=receipt_handle, VisibilityTimeout=seconds)

    async def _request(self, operation: str, **arguments: Any) -> None:
        try:
            await self._sqs.request(operation, QueueUrl=self._url, **arguments)
        except (ClientError, BotoCoreError, TimeoutError) as error:
            logger.error("sqs_request_failed", error=type(error).__name__)
            raise StorageError from None


class SqsSessionQueue(_SqsQueue):
    """Queue of sessions: those whose results are still to be extracted, or those that owe events."""

    async def put(self, session_id: SessionId, delay_seconds: int = 0) -> None:
        """Enqueue a session, to be delivered after a pause; raises StorageError."""
        delay = {"DelaySeconds": delay_seconds} if delay_seconds else {}
        await self._request("send_message", MessageBody=json.dumps({"session_id": session_id}), **delay)


class SqsDeliveryQueue(_SqsQueue):
    """FIFO queue of deliveries that are due: one group for each endpoint, and one message for each try."""

    async def put(self, delivery: Delivery) -> None:
        """Enqueue the next try of a delivery, once in five minutes; raises StorageError."""
        redeliveries, tries = delivery.next_try
        message = {
            "endpoint_id": delivery.endpoint_id,
            "delivery_id": delivery.delivery_id,
            "redeliveries": redeliveries,
            "tries": tries,
        }
        await self._request(
            "send_message",
            MessageBody=json.dumps(message),
            MessageGroupId=delivery.endpoint_id,
            MessageDeduplicationId=f"{delivery.delivery_id}#{redeliveries}#{tries}",
        )

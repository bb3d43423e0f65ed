"""SQS: queues of sessions."""

import json
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from pi_voice.adapters.aws import AwsClient
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import SessionId
from pi_voice.logs import logger

DEADLINE_SECONDS: Final = 4.0
"""Time limit of a request with its retries in seconds; the client of complete_session may be waiting."""


class SqsSessionQueue:
    """Queue of sessions: those whose results are still to be extracted, or those that owe events."""

    def __init__(self, sqs: AwsClient, url: str) -> None:
        self._sqs = sqs
        self._url = url

    async def put(self, session_id: SessionId, delay_seconds: int = 0) -> None:
        """Enqueue a session, to be delivered after a pause; raises StorageError."""
        delay = {"DelaySeconds": delay_seconds} if delay_seconds else {}
        await self._request("send_message", MessageBody=json.dumps({"session_id": session_id}), **delay)

    async def delay(self, receipt_handle: str, seconds: int) -> None:
        """Set when a received message becomes visible again; raises StorageError."""
        await self._request("change_message_visibility", ReceiptHandle=receipt_handle, VisibilityTimeout=seconds)

    async def _request(self, operation: str, **arguments: Any) -> None:
        try:
            await self._sqs.request(operation, QueueUrl=self._url, **arguments)
        except (ClientError, BotoCoreError, TimeoutError) as error:
            logger.error("sqs_request_failed", error=type(error).__name__)
            raise StorageError from None

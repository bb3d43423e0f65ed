"""SQS: extractions that are to be done later."""

import asyncio
import json
from typing import Any, Final

from pi_voice.adapters.aws import AwsService, Refused, Unanswered
from pi_voice.errors import StorageError
from pi_voice.ids import SessionId
from pi_voice.logs import logger

PATIENCE_SECONDS: Final = 4.0
"""What a request may take, repeats included: whoever puts a session here has a call to answer."""


class SqsExtractionQueue:
    """The queue of unfinished extractions."""

    def __init__(self, sqs: AwsService, url: str) -> None:
        self._sqs = sqs
        self._url = url

    async def put(self, session_id: SessionId) -> None:
        """Have a session's results extracted soon; raises StorageError."""
        await self._ask("SendMessage", MessageBody=json.dumps({"session_id": session_id}))

    async def again(self, receipt_handle: str, seconds: int) -> None:
        """Have a message that is being worked on delivered again after a pause; raises StorageError."""
        await self._ask("ChangeMessageVisibility", ReceiptHandle=receipt_handle, VisibilityTimeout=seconds)

    async def _ask(self, operation: str, **arguments: Any) -> None:
        try:
            async with asyncio.timeout(self._sqs.patience_seconds):
                await asyncio.to_thread(self._sqs.ask, operation, {"QueueUrl": self._url, **arguments})
        except (Refused, Unanswered, TimeoutError) as error:
            logger.error("sqs failed", error=str(error) or type(error).__name__)
            raise StorageError from None

"""SQS: extractions that are to be done later."""

import asyncio
import json
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pi_voice.errors import StorageError
from pi_voice.ids import SessionId
from pi_voice.logs import logger

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

TIME_LIMIT_SECONDS: Final = 4.0


class SqsExtractionQueue:
    """The queue of unfinished extractions; its client is made at its first use, because most calls need none."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def put(self, session_id: SessionId) -> None:
        """Have a session's results extracted soon; raises StorageError."""
        await self._ask(self._client.send_message, MessageBody=json.dumps({"session_id": session_id}))

    async def again(self, receipt_handle: str, seconds: int) -> None:
        """Have a message that is being worked on delivered again after a pause; raises StorageError."""
        await self._ask(self._client.change_message_visibility, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds)

    async def _ask(self, request: Callable[..., Any], **arguments: Any) -> None:
        try:
            async with asyncio.timeout(TIME_LIMIT_SECONDS):  # botocore's own begins anew with every try, and every byte
                await asyncio.to_thread(request, QueueUrl=self._url, **arguments)
        except (BotoCoreError, ClientError, TimeoutError) as error:
            logger.error("sqs failed", error=type(error).__name__)
            raise StorageError from None

    @cached_property
    def _client(self) -> "SQSClient":
        return boto3.client(
            "sqs",
            config=Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3}),
        )

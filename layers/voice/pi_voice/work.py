"""The edge of what nobody calls: messages of a queue, and the clock."""

import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pi_voice import wiring
from pi_voice.errors import StorageError
from pi_voice.http import run
from pi_voice.ids import SessionId
from pi_voice.logs import logger, trace

MAX_DELIVERIES: Final = 6
"""How often a message is delivered before the queue gives it up (`maxReceiveCount` in template.yaml, a test holds)."""

_FIRST_PAUSE_SECONDS: Final = 30
_LONGEST_PAUSE_SECONDS: Final = 900

Event = dict[str, Any]


class Job(BaseModel):
    """One message: which session's results are wanted."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    session_id: SessionId


def worker(function: Callable[[SessionId, bool], Coroutine[Any, Any, None]]) -> Callable[[Event, LambdaContext], Event]:
    """Make the handler of a queue: what fails is delivered again after a pause that doubles, and told as failed.

    The function gets a session's id, and whether this is the last delivery.
    """
    reader = TypeAdapter(Job)

    def handler(event: Event, _: LambdaContext) -> Event:
        failed = []
        for record in event["Records"]:
            delivery = int(record["attributes"]["ApproximateReceiveCount"])
            try:
                job = reader.validate_json(record["body"])
                run(function(job.session_id, delivery >= MAX_DELIVERIES))
            except Exception as error:  # noqa: BLE001 (whatever it was, the message must not be lost)
                logger.warning("a job failed", delivery=delivery, **trace(error))
                _pause(record["receiptHandle"], delivery)
                failed.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": failed}

    return handler


def scheduled(function: Callable[[], Coroutine[Any, Any, BaseModel]]) -> Callable[[Event, LambdaContext], Event]:
    """Make the handler of a schedule; what its function returns is for an operator who invokes it by hand."""

    def handler(_: Event, __: LambdaContext) -> Event:
        return {"data": run(function()).model_dump(mode="json")}

    return handler


def _pause(receipt_handle: str, delivery: int) -> None:
    """Have a message come back later; where that fails, it does when the queue's own time is over."""
    longest = min(_FIRST_PAUSE_SECONDS * 2 ** (delivery - 1), _LONGEST_PAUSE_SECONDS)
    try:
        run(wiring.extraction_queue().again(receipt_handle, round(longest * random.uniform(0.75, 1.0))))  # noqa: S311
    except StorageError:
        logger.error("a job waits for its visibility timeout")

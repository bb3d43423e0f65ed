"""Lambda handlers for SQS messages, EventBridge schedules and operators' invocations."""

import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar, get_type_hints

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import to_json

from pi_voice.domain.base import parse_request
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import DeliveryId, EndpointId, SessionId
from pi_voice.domain.pagination import Page
from pi_voice.domain.webhook_deliveries import Try
from pi_voice.entrypoints.error_responses import as_voice_error, error_document
from pi_voice.entrypoints.runner import run
from pi_voice.logs import exception_fields, logger
from pi_voice.ports import DeliveryQueue, SessionQueue

MAX_DELIVERIES: Final = 6
"""Deliveries of a message before it moves to the dead-letter queue (`maxReceiveCount` in template.yaml)."""

_FIRST_PAUSE_SECONDS: Final = 30
_LONGEST_PAUSE_SECONDS: Final = 900

Event = dict[str, Any]
LambdaHandler = Callable[[Event, LambdaContext], Event]
Message = TypeVar("Message", bound=BaseModel)


class SessionMessage(BaseModel):
    """An SQS message: the session that the function works on."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    session_id: SessionId


class DeliveryMessage(BaseModel):
    """An SQS message: a try of a delivery that is due."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    endpoint_id: EndpointId
    delivery_id: DeliveryId
    redeliveries: int
    tries: int


class _Queue(Protocol):
    async def delay(self, receipt_handle: str, seconds: int) -> None: ...


def queue_handler(
    function: Callable[[SessionId, bool], Coroutine[Any, Any, None]], queue: SessionQueue
) -> LambdaHandler:
    """Make the handler of a queue. A failed message is reported and delivered again after a growing pause.

    The function gets a session id, and whether this is the last delivery.
    """

    def work(message: SessionMessage, is_last: bool) -> Coroutine[Any, Any, None]:  # noqa: FBT001 (by _handler)
        return function(message.session_id, is_last)

    return _handler(SessionMessage, work, queue)


def delivery_handler(
    function: Callable[[EndpointId, DeliveryId, Try], Coroutine[Any, Any, None]], queue: DeliveryQueue
) -> LambdaHandler:
    """Make the handler of the queue of deliveries; its failures are handled as those of `queue_handler`."""

    def work(message: DeliveryMessage, _: bool) -> Coroutine[Any, Any, None]:  # noqa: FBT001 (by _handler)
        return function(message.endpoint_id, message.delivery_id, Try(message.redeliveries, message.tries))

    return _handler(DeliveryMessage, work, queue)


def _handler(
    model: type[Message], work: Callable[[Message, bool], Coroutine[Any, Any, None]], queue: _Queue
) -> LambdaHandler:
    adapter = TypeAdapter(model)

    def handler(event: Event, _: LambdaContext) -> Event:
        failed = []
        for record in event["Records"]:
            delivery = int(record["attributes"]["ApproximateReceiveCount"])
            try:
                run(work(adapter.validate_json(record["body"]), delivery >= MAX_DELIVERIES))
            except Exception as error:  # noqa: BLE001 (any error must keep the message)
                logger.warning("message_failed", delivery=delivery, **exception_fields(error))
                _delay(queue, record["receiptHandle"], delivery)
                failed.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": failed}

    return handler


def schedule_handler(function: Callable[[], Coroutine[Any, Any, BaseModel]]) -> LambdaHandler:
    """Make the handler of a schedule. Its result is for an operator who invokes it manually."""

    def handler(_: Event, __: LambdaContext) -> Event:
        return {"data": run(function()).model_dump(mode="json")}

    return handler


def operator_handler(function: Callable[..., Coroutine[Any, Any, BaseModel | None]]) -> LambdaHandler:
    """Make the handler of a function that operators invoke with a JSON document as the event."""
    adapter = TypeAdapter(get_type_hints(function)["request"])
    name = function.__name__

    def handler(event: Event, context: LambdaContext) -> Event:
        try:
            request = parse_request(lambda: adapter.validate_json(to_json(event)))
            result = run(function(request))
        except Exception as error:  # noqa: BLE001 (returned to the operator as an error document, and logged)
            voice_error = as_voice_error(error)
            logger.info("operator_request", operation=name, code=voice_error.code)
            return error_document(voice_error, context.aws_request_id)
        logger.info("operator_request", operation=name, code="ok")
        document = result.model_dump(mode="json") if result is not None else None
        return document if isinstance(result, Page) and document else {"data": document}

    return handler


def _delay(queue: _Queue, receipt_handle: str, delivery: int) -> None:
    """Delay the next delivery. If that fails, the queue's visibility timeout applies."""
    longest = min(_FIRST_PAUSE_SECONDS * 2 ** (delivery - 1), _LONGEST_PAUSE_SECONDS)
    try:
        run(queue.delay(receipt_handle, round(longest * random.uniform(0.75, 1.0))))  # noqa: S311
    except StorageError:
        logger.error("message_not_delayed")

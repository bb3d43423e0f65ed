"""Deliver one event to one webhook endpoint: one try, and what follows from it."""

import random
import time
from http import HTTPStatus
from typing import Final

from pi_voice.domain.errors import InternalError, StorageError
from pi_voice.domain.ids import Clock, DeliveryId, EndpointId
from pi_voice.domain.webhook_deliveries import (
    HELD_SECONDS,
    MAX_TRIES,
    Delivery,
    DeliveryStatus,
    Outcome,
    Try,
    due_after,
)
from pi_voice.domain.webhook_endpoint_api import WebhookDisabledReason
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.domain.webhook_events import TEST
from pi_voice.domain.webhook_secrets import WebhookSecrets
from pi_voice.logs import exception_fields, logger
from pi_voice.metrics import count
from pi_voice.ports import DueDelivery, Sent, SignedRequest, WebhookDeliveries, WebhookEndpoints, WebhookSender
from pi_voice.use_cases.event_bodies import EventBodies

FAILING_SECONDS: Final = 3 * 86_400
"""How long the events of an endpoint fail before it is disabled."""


class DeliverEvent:
    """Delivers events. A try is counted before it is made, so that a worker that is killed makes no endless tries."""

    def __init__(
        self,
        deliveries: WebhookDeliveries,
        endpoints: WebhookEndpoints,
        secrets: WebhookSecrets,
        bodies: EventBodies,
        sender: WebhookSender,
        *,
        clock: Clock = time.time,
    ) -> None:
        self._deliveries = deliveries
        self._endpoints = endpoints
        self._secrets = secrets
        self._bodies = bodies
        self._sender = sender
        self._clock = clock

    async def __call__(self, endpoint_id: EndpointId, delivery_id: DeliveryId, due: Try) -> None:
        """Make the try that a message stands for, and record its outcome.

        A message whose try was begun before is skipped, because it may be delivered twice. While the endpoint rests,
        the delivery is put off without a try. Nothing is raised once the try was counted. Raises StorageError and
        SettingsError before; neither uses up a try.
        """
        delivery = await self._deliveries.find(endpoint_id, delivery_id)
        if delivery is None or delivery.status != "pending" or delivery.next_try != due:
            logger.info("delivery_not_needed", delivery_id=delivery_id)
            return
        if delivery.tries >= MAX_TRIES:  # the worker of the last try ended without recording its outcome
            await self._record(delivery, Outcome("failed", error=InternalError.code))
            return
        endpoint = await self._endpoints.find(delivery.workspace, endpoint_id)
        if endpoint is None or not endpoint.receives:
            await self._cancel(delivery)
            return
        now = int(self._clock())
        if endpoint.rests_at(now) and delivery.type != TEST:
            await self._put_off(delivery, endpoint, now)
            return
        secrets = tuple(self._secrets.reveal(endpoint_id, version) for version in endpoint.secrets_at(now))
        due_at = due_after(delivery.tries + 1, now, random.random())  # noqa: S311 (no secret)
        claimed = await self._deliveries.claim(delivery, now, due_at)
        if claimed is None:
            logger.info("delivery_not_needed", delivery_id=delivery_id)
            return
        try:
            await self._try(claimed, endpoint, secrets)
        except Exception as error:  # noqa: BLE001 (another message would be skipped: the next try is due later)
            logger.error("delivery_try_failed", delivery_id=delivery_id, **exception_fields(error))
            await self._record_quietly(claimed, _after(claimed, error=InternalError.code))

    async def _put_off(self, delivery: Delivery, endpoint: WebhookEndpoint, now: int) -> None:
        """Make a delivery due after its endpoint's rest; one that is too old fails with the error of its last try."""
        if delivery.is_too_old_at(now):
            error = delivery.error or "timeout"
            await self._record(delivery, Outcome("failed", delivery.http_status, delivery.milliseconds, error))
            return
        until = max(endpoint.resting_until or now, now + HELD_SECONDS)
        due = DueDelivery(delivery.endpoint_id, delivery.delivery_id, delivery.due_at or now)
        if await self._deliveries.put_off(due, until) is not None:
            logger.info("delivery_put_off", delivery_id=delivery.delivery_id, until=until)

    async def _try(self, delivery: Delivery, endpoint: WebhookEndpoint, secrets: tuple[str, ...]) -> None:
        body = await self._bodies.body(delivery, endpoint)
        if body is None:
            await self._cancel(delivery)
            return
        sent = await self._sender.send(SignedRequest(endpoint.url, delivery.event_id, body, secrets))
        await self._record_quietly(delivery, _outcome(delivery, sent))
        if delivery.type != TEST:
            await self._judge(endpoint, sent)

    async def _judge(self, endpoint: WebhookEndpoint, sent: Sent) -> None:
        """Record whether an endpoint works or hangs, and disable one that is gone or has failed for too long."""
        now = int(self._clock())
        try:
            if sent.error is None:
                await self._endpoints.note_success(endpoint)
            elif sent.http_status == HTTPStatus.GONE:
                await self._disable(endpoint, "gone", now)
            else:
                noted = await self._endpoints.note_failure(endpoint, now, timed_out=sent.error == "timeout")
                if noted is not None and now - (noted.failing_since or now) >= FAILING_SECONDS:
                    await self._disable(noted, "failing", now)
                elif noted is not None and noted.hangs:
                    logger.warning(
                        "webhook_endpoint_hangs", endpoint_id=noted.endpoint_id, resting_until=noted.resting_until
                    )
        except StorageError:
            logger.error("webhook_endpoint_not_judged", endpoint_id=endpoint.endpoint_id)

    async def _disable(self, endpoint: WebhookEndpoint, reason: WebhookDisabledReason, now: int) -> None:
        if await self._endpoints.disable(endpoint, reason, now) is not None:
            logger.error("webhook_endpoint_disabled", endpoint_id=endpoint.endpoint_id, reason=reason)
            count("WebhookEndpointsDisabled")

    async def _cancel(self, delivery: Delivery) -> None:
        if await self._deliveries.cancel(delivery) is not None:
            logger.info("delivery_cancelled", delivery_id=delivery.delivery_id)

    async def _record_quietly(self, delivery: Delivery, outcome: Outcome) -> None:
        """Record the outcome of a try. If that fails, the delivery is tried again when it is due."""
        try:
            await self._record(delivery, outcome)
        except StorageError:
            logger.error("delivery_not_recorded", delivery_id=delivery.delivery_id)

    async def _record(self, delivery: Delivery, outcome: Outcome) -> None:
        await self._deliveries.record(delivery, outcome)
        logger.info(
            "delivery_tried",
            delivery_id=delivery.delivery_id,
            type=delivery.type,
            session_id=delivery.session_id,
            tries=delivery.tries,
            status=outcome.status,
            http_status=outcome.http_status,
            milliseconds=outcome.milliseconds,
            error=outcome.error,
        )
        if outcome.status == "failed":
            logger.warning("delivery_given_up", delivery_id=delivery.delivery_id)
            count("WebhookDeliveriesFailed")


def _outcome(delivery: Delivery, sent: Sent) -> Outcome:
    response = sent.response.decode(errors="replace") if delivery.type == TEST else None
    if sent.error is None:
        return Outcome("succeeded", sent.http_status, sent.milliseconds, None, response)
    is_gone = sent.http_status == HTTPStatus.GONE
    return _after(delivery, sent.http_status, sent.milliseconds, sent.error, response, is_final=is_gone)


def _after(
    delivery: Delivery,
    http_status: int | None = None,
    milliseconds: int | None = None,
    error: str | None = None,
    response: str | None = None,
    *,
    is_final: bool = False,
) -> Outcome:
    """Return the outcome of a failed try: it was the last one, or another one is due."""
    status: DeliveryStatus = "failed" if is_final or delivery.tries >= MAX_TRIES else "pending"
    return Outcome(status, http_status, milliseconds, error, response)

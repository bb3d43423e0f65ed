"""Deliver an event to a webhook endpoint again."""

import time

from pi_voice.domain.errors import InvalidRequest, WebhookDeliveryNotFound, WebhookEndpointNotFound
from pi_voice.domain.ids import Clock, DeliveryId, EndpointId
from pi_voice.domain.webhook_delivery_api import WebhookDelivery
from pi_voice.domain.webhook_events import TOOL_CALL
from pi_voice.ports import Caller, DeliveryQueue, WebhookDeliveries, WebhookEndpoints
from pi_voice.use_cases.authorization import authorized_endpoint
from pi_voice.use_cases.webhook_authorization import delivery_to, put_in_queue


class RedeliverWebhook:
    """Makes deliveries that have ended pending again."""

    ERRORS = (WebhookEndpointNotFound, WebhookDeliveryNotFound)

    def __init__(
        self,
        endpoints: WebhookEndpoints,
        deliveries: WebhookDeliveries,
        queue: DeliveryQueue,
        clock: Clock = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._queue = queue
        self._clock = clock

    async def __call__(self, endpoint_id: EndpointId, delivery_id: DeliveryId, caller: Caller) -> WebhookDelivery:
        """Make a delivery pending again, with all its tries, and queue it. A pending one does not change.

        Raises WebhookEndpointNotFound, WebhookDeliveryNotFound, and InvalidRequest for a tool call.
        """
        endpoint = await authorized_endpoint(caller, self._endpoints, endpoint_id)
        delivery = await delivery_to(endpoint, self._deliveries, delivery_id)
        if delivery.type == TOOL_CALL:
            raise InvalidRequest("This is a tool call, which is not delivered again: its call has gone on without it.")
        if delivery.status == "pending":
            return WebhookDelivery.of(delivery)
        again = await self._deliveries.redeliver(delivery, int(self._clock()))
        if again is None:  # a concurrent request made it pending
            return WebhookDelivery.of(await delivery_to(endpoint, self._deliveries, delivery_id))
        await put_in_queue(self._queue, again)
        return WebhookDelivery.of(again)

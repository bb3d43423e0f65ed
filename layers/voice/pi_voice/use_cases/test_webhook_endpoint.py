"""Send a test event to a webhook endpoint."""

import time

from pi_voice.domain.errors import WebhookDeliveryNotFound, WebhookEndpointNotFound
from pi_voice.domain.ids import Clock, DeliveryId, EndpointId, EventId, uuid7
from pi_voice.domain.webhook_deliveries import Delivery, delivery_id
from pi_voice.domain.webhook_delivery_api import WebhookDelivery
from pi_voice.domain.webhook_events import TEST
from pi_voice.ports import Caller, DeliveryQueue, WebhookDeliveries, WebhookEndpoints
from pi_voice.use_cases.authorization import authorized_endpoint
from pi_voice.use_cases.webhook_authorization import delivery_to, put_in_queue


class TestWebhookEndpoint:
    """Creates deliveries of test events."""

    ERRORS = (WebhookEndpointNotFound,)
    __test__ = False
    """Not a class of tests, as pytest would infer from its name."""

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

    async def __call__(self, endpoint_id: EndpointId, caller: Caller) -> WebhookDelivery:
        """Create a test event and queue its delivery; raises WebhookEndpointNotFound."""
        endpoint = await authorized_endpoint(caller, self._endpoints, endpoint_id)
        now, event_id = int(self._clock()), EventId(uuid7(self._clock))
        delivery = Delivery(
            endpoint_id=endpoint_id,
            delivery_id=delivery_id(event_id, endpoint_id),
            workspace=endpoint.workspace,
            event_id=event_id,
            type=TEST,
            event_at=now,
            created_at=now,
            due_at=now,
        )
        await self._deliveries.add(delivery)
        await put_in_queue(self._queue, delivery)
        return WebhookDelivery.of(delivery)

    async def repeat(self, delivery_id: DeliveryId, caller: Caller) -> WebhookDelivery:
        """Return the delivery of a test that was sent before; raises WebhookEndpointNotFound."""
        _, _, endpoint_id = delivery_id.partition(".")
        endpoint = await authorized_endpoint(caller, self._endpoints, EndpointId(endpoint_id))
        try:
            return WebhookDelivery.of(await delivery_to(endpoint, self._deliveries, delivery_id))
        except WebhookDeliveryNotFound:
            raise WebhookEndpointNotFound from None

"""List the deliveries to a webhook endpoint."""

from pi_voice.domain.errors import InvalidCursor, WebhookEndpointNotFound
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.pagination import Page
from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery, WebhookDelivery
from pi_voice.ports import Caller, WebhookDeliveries, WebhookEndpoints
from pi_voice.use_cases.authorization import authorized_endpoint


class ListWebhookDeliveries:
    """Reads the log of deliveries."""

    ERRORS = (InvalidCursor, WebhookEndpointNotFound)

    def __init__(self, endpoints: WebhookEndpoints, deliveries: WebhookDeliveries) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries

    async def __call__(
        self, endpoint_id: EndpointId, query: ListWebhookDeliveriesQuery, caller: Caller
    ) -> Page[WebhookDelivery]:
        """Return one page of an endpoint's deliveries, newest first; raises WebhookEndpointNotFound, InvalidCursor."""
        await authorized_endpoint(caller, self._endpoints, endpoint_id)
        page = await self._deliveries.page(endpoint_id, query)
        views = [WebhookDelivery.of(delivery) for delivery in page.data]
        return Page[WebhookDelivery](data=views, next_cursor=page.next_cursor)

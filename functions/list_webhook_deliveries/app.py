"""GET /api/v1/voice/webhook-endpoints/{endpoint_id}/deliveries."""

from pi_voice import container
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.pagination import Page
from pi_voice.domain.webhook_delivery_api import ListWebhookDeliveriesQuery, WebhookDelivery
from pi_voice.entrypoints.callers import Caller

app = container.api()
list_webhook_deliveries = container.list_webhook_deliveries()


@app.get(
    "/api/v1/voice/webhook-endpoints/{endpoint_id}/deliveries",
    summary="List webhook deliveries",
    raises=list_webhook_deliveries.ERRORS,
)
async def handle(endpoint_id: EndpointId, query: ListWebhookDeliveriesQuery, caller: Caller) -> Page[WebhookDelivery]:
    """Return one page of the deliveries of 30 days to the endpoint, newest event first.

    A page of one session's deliveries may have fewer items than `limit`; continue until `next_cursor` is null.
    """
    return await list_webhook_deliveries(endpoint_id, query, caller)


handler = app.handler

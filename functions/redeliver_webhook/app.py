"""POST /api/v1/voice/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver."""

from pi_voice import container
from pi_voice.domain.ids import DeliveryId, EndpointId
from pi_voice.domain.webhook_delivery_api import WebhookDelivery
from pi_voice.entrypoints.callers import Caller

app = container.api()
redeliver_webhook = container.redeliver_webhook()


@app.post(
    "/api/v1/voice/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    summary="Redeliver a webhook",
    raises=redeliver_webhook.ERRORS,
)
async def handle(endpoint_id: EndpointId, delivery_id: DeliveryId, caller: Caller) -> WebhookDelivery:
    """Send an event to the endpoint again, with the same `webhook-id`. A delivery that is pending does not change."""
    return await redeliver_webhook(endpoint_id, delivery_id, caller)


handler = app.handler

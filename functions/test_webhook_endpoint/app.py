"""POST /api/v1/voice/webhook-endpoints/{endpoint_id}/test."""

from pi_voice import container
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.webhook_delivery_api import WebhookDelivery
from pi_voice.entrypoints.callers import Caller
from pi_voice.entrypoints.http import Idempotent

app = container.api()
test_webhook_endpoint = container.test_webhook_endpoint()


@app.post(
    "/api/v1/voice/webhook-endpoints/{endpoint_id}/test",
    status_code=202,
    summary="Test a webhook endpoint",
    raises=test_webhook_endpoint.ERRORS,
    idempotent=Idempotent("delivery_id", test_webhook_endpoint.repeat),
)
async def handle(endpoint_id: EndpointId, caller: Caller) -> WebhookDelivery:
    """Send the event `endpoint.test` to the endpoint. List its deliveries to see how the endpoint responded."""
    return await test_webhook_endpoint(endpoint_id, caller)


handler = app.handler

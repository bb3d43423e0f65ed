"""GET /api/v1/voice/webhook-endpoints/{endpoint_id}."""

from pi_voice import container
from pi_voice.domain.errors import WebhookEndpointNotFound
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.webhook_endpoint_api import WebhookEndpoint
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_webhook_endpoints = container.manage_webhook_endpoints()


@app.get(
    "/api/v1/voice/webhook-endpoints/{endpoint_id}",
    summary="Get a webhook endpoint",
    raises=(WebhookEndpointNotFound,),
)
async def handle(endpoint_id: EndpointId, caller: Caller) -> WebhookEndpoint:
    """Return a webhook endpoint, and whether it is failing or was disabled."""
    return await manage_webhook_endpoints.get_webhook_endpoint(endpoint_id, caller)


handler = app.handler

"""DELETE /api/v1/voice/webhook-endpoints/{endpoint_id}."""

from pi_voice import container
from pi_voice.domain.errors import WebhookEndpointNotFound
from pi_voice.domain.ids import EndpointId
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_webhook_endpoints = container.manage_webhook_endpoints()


@app.delete(
    "/api/v1/voice/webhook-endpoints/{endpoint_id}",
    summary="Delete a webhook endpoint",
    raises=(WebhookEndpointNotFound,),
)
async def handle(endpoint_id: EndpointId, caller: Caller) -> None:
    """Delete a webhook endpoint. What is still to be sent to it is cancelled."""
    await manage_webhook_endpoints.delete_webhook_endpoint(endpoint_id, caller)


handler = app.handler

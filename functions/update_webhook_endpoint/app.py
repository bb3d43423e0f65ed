"""PATCH /api/v1/voice/webhook-endpoints/{endpoint_id}."""

from pi_voice import container
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.merge_patch import MergePatch
from pi_voice.domain.webhook_endpoint_api import WebhookEndpoint
from pi_voice.entrypoints.callers import Caller

app = container.api()
update_webhook_endpoint = container.update_webhook_endpoint()


@app.patch(
    "/api/v1/voice/webhook-endpoints/{endpoint_id}",
    summary="Update a webhook endpoint",
    raises=update_webhook_endpoint.ERRORS,
)
async def handle(endpoint_id: EndpointId, patch: MergePatch, caller: Caller) -> WebhookEndpoint:
    """Change a webhook endpoint by a JSON merge patch. Setting `active` to true enables one that was disabled."""
    return await update_webhook_endpoint(endpoint_id, patch, caller)


handler = app.handler

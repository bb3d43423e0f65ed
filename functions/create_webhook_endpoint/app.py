"""POST /api/v1/voice/webhook-endpoints."""

from pi_voice import container
from pi_voice.domain.webhook_endpoint_api import CreateWebhookEndpointRequest, WebhookEndpointWithSecret
from pi_voice.entrypoints.callers import Caller, RequestHash
from pi_voice.entrypoints.http import Idempotent

app = container.api()
create_webhook_endpoint = container.create_webhook_endpoint()


@app.post(
    "/api/v1/voice/webhook-endpoints",
    status_code=201,
    summary="Create a webhook endpoint",
    raises=create_webhook_endpoint.ERRORS,
    idempotent=Idempotent("endpoint_id", create_webhook_endpoint.repeat),
)
async def handle(
    request: CreateWebhookEndpointRequest, caller: Caller, request_hash: RequestHash
) -> WebhookEndpointWithSecret:
    """Register a URL for events of the workspace's sessions. The response has the secret that signs them."""
    return await create_webhook_endpoint(request, caller, request_hash)


handler = app.handler

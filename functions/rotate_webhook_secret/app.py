"""POST /api/v1/voice/webhook-endpoints/{endpoint_id}/rotate-secret."""

from pi_voice import container
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.webhook_endpoint_api import WebhookEndpointWithSecret
from pi_voice.entrypoints.callers import Caller, RequestHash
from pi_voice.entrypoints.http import Idempotent

app = container.api()
rotate_webhook_secret = container.rotate_webhook_secret()


@app.post(
    "/api/v1/voice/webhook-endpoints/{endpoint_id}/rotate-secret",
    summary="Rotate the secret of a webhook endpoint",
    raises=rotate_webhook_secret.ERRORS,
    idempotent=Idempotent("endpoint_id", rotate_webhook_secret.repeat),
)
async def handle(endpoint_id: EndpointId, caller: Caller, request_hash: RequestHash) -> WebhookEndpointWithSecret:
    """Give a webhook endpoint a new secret. For a day, each webhook is signed with the secret before it too."""
    return await rotate_webhook_secret(endpoint_id, caller, request_hash)


handler = app.handler

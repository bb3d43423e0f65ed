"""GET /api/v1/voice/webhook-endpoints."""

from pi_voice import container
from pi_voice.domain.errors import InvalidCursor
from pi_voice.domain.pagination import Page
from pi_voice.domain.webhook_endpoint_api import ListWebhookEndpointsQuery, WebhookEndpoint
from pi_voice.entrypoints.callers import Caller

app = container.api()
manage_webhook_endpoints = container.manage_webhook_endpoints()


@app.get("/api/v1/voice/webhook-endpoints", summary="List webhook endpoints", raises=(InvalidCursor,))
async def handle(query: ListWebhookEndpointsQuery, caller: Caller) -> Page[WebhookEndpoint]:
    """Return one page of webhook endpoints, newest first. Follow `next_cursor` until it is null."""
    return await manage_webhook_endpoints.list_webhook_endpoints(query, caller)


handler = app.handler

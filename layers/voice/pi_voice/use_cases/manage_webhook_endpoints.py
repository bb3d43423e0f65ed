"""Get, list and delete webhook endpoints."""

import time

from pi_voice.domain.errors import WebhookEndpointNotFound
from pi_voice.domain.ids import Clock, EndpointId
from pi_voice.domain.pagination import Page
from pi_voice.domain.webhook_endpoint_api import ListWebhookEndpointsQuery, WebhookEndpoint
from pi_voice.ports import Caller, WebhookEndpoints
from pi_voice.use_cases.authorization import authorized_endpoint


class ManageWebhookEndpoints:
    """Webhook endpoints of a workspace, without their secrets."""

    def __init__(self, endpoints: WebhookEndpoints, clock: Clock = time.time) -> None:
        self._endpoints = endpoints
        self._clock = clock

    async def get_webhook_endpoint(self, endpoint_id: EndpointId, caller: Caller) -> WebhookEndpoint:
        """Return an endpoint; raises WebhookEndpointNotFound."""
        endpoint = await authorized_endpoint(caller, self._endpoints, endpoint_id)
        return WebhookEndpoint.of_stored(endpoint, self._clock())

    async def list_webhook_endpoints(self, query: ListWebhookEndpointsQuery, caller: Caller) -> Page[WebhookEndpoint]:
        """Return one page of the workspace's endpoints, newest first; raises InvalidCursor."""
        page = await self._endpoints.page(await caller.workspace(), query)
        shown = [WebhookEndpoint.of_stored(endpoint, self._clock()) for endpoint in page.data]
        return Page[WebhookEndpoint](data=shown, next_cursor=page.next_cursor)

    async def delete_webhook_endpoint(self, endpoint_id: EndpointId, caller: Caller) -> None:
        """Delete an endpoint; raises WebhookEndpointNotFound."""
        if not await self._endpoints.delete(await caller.workspace(), endpoint_id):
            raise WebhookEndpointNotFound

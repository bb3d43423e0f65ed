"""Create a webhook endpoint."""

import time
from typing import Final

from pi_voice.domain.errors import AlreadyProcessed, InvalidRequest, WebhookEndpointNotFound
from pi_voice.domain.ids import Clock, EndpointId, uuid7
from pi_voice.domain.webhook_endpoint_api import CreateWebhookEndpointRequest, WebhookEndpointWithSecret
from pi_voice.domain.webhook_endpoints import MAX_ENDPOINTS, WebhookEndpoint
from pi_voice.domain.webhook_secrets import WebhookSecrets
from pi_voice.ports import Agents, Caller, WebhookEndpoints, WebhookTargets
from pi_voice.use_cases.authorization import authorized_endpoint
from pi_voice.use_cases.webhook_endpoint_checks import check_agent

_TOO_MANY: Final = f"The workspace has {MAX_ENDPOINTS} webhook endpoints, which is the limit. Delete one first."


class CreateWebhookEndpoint:
    """Creates webhook endpoints, with the first secret of each."""

    ERRORS = (WebhookEndpointNotFound,)
    """Of a repeated request, whose endpoint was deleted."""

    def __init__(
        self,
        endpoints: WebhookEndpoints,
        agents: Agents,
        targets: WebhookTargets,
        secrets: WebhookSecrets,
        clock: Clock = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._agents = agents
        self._targets = targets
        self._secrets = secrets
        self._clock = clock

    async def __call__(
        self, request: CreateWebhookEndpointRequest, caller: Caller, request_hash: str | None = None
    ) -> WebhookEndpointWithSecret:
        """Check the agent and the URL, and store the endpoint.

        Raises InvalidRequest, also over the limit of the workspace, and AlreadyProcessed if the same request created
        an endpoint before.
        """
        workspace = await caller.workspace()
        existing = await self._endpoints.in_workspace(workspace)
        for endpoint in existing:
            if request_hash is not None and endpoint.secret_made_by == request_hash:
                raise AlreadyProcessed(endpoint.endpoint_id)
        if len(existing) >= MAX_ENDPOINTS:
            raise InvalidRequest(_TOO_MANY)
        await check_agent(self._agents, workspace, request.agent_id)
        await self._targets.check(request.url)
        now = int(self._clock())
        endpoint = WebhookEndpoint(
            **dict(request),
            endpoint_id=EndpointId(uuid7(self._clock)),
            workspace=workspace,
            secret=self._secrets.current(generation=1),
            created_at=now,
            updated_at=now,
            secret_made_by=request_hash,
        )
        created = self._with_secret(endpoint)  # before the write: without a master there is no endpoint
        await self._endpoints.add(endpoint)
        if len(await self._endpoints.in_workspace(workspace)) > MAX_ENDPOINTS:  # concurrent requests added others
            await self._endpoints.delete(workspace, endpoint.endpoint_id)
            raise InvalidRequest(_TOO_MANY)
        return created

    async def repeat(self, endpoint_id: EndpointId, caller: Caller) -> WebhookEndpointWithSecret:
        """Return the endpoint of an earlier request as it is now, for its Idempotency-Key.

        Raises WebhookEndpointNotFound.
        """
        return self._with_secret(await authorized_endpoint(caller, self._endpoints, endpoint_id))

    def _with_secret(self, endpoint: WebhookEndpoint) -> WebhookEndpointWithSecret:
        secret = self._secrets.reveal(endpoint.endpoint_id, endpoint.secret)
        return WebhookEndpointWithSecret.of_secret(endpoint, self._clock(), secret)

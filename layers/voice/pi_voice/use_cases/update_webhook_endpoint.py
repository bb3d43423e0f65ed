"""Change a webhook endpoint."""

import time
from dataclasses import replace
from typing import Final

from pydantic_core import to_json

from pi_voice.domain import webhook_endpoint_api
from pi_voice.domain.base import UNKNOWN_FIELD, parse_request
from pi_voice.domain.errors import ErrorDetail, InvalidRequest, StorageError, WebhookEndpointNotFound
from pi_voice.domain.ids import Clock, EndpointId
from pi_voice.domain.merge_patch import MergePatch, merge
from pi_voice.domain.webhook_endpoint_api import WebhookEndpointConfig
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.ports import Agents, Caller, WebhookEndpoints, WebhookTargets
from pi_voice.use_cases.authorization import authorized_endpoint
from pi_voice.use_cases.webhook_endpoint_checks import check_agent

_SAVE_ATTEMPTS: Final = 5


class UpdateWebhookEndpoint:
    """Changes what the owner set of a webhook endpoint."""

    ERRORS = (WebhookEndpointNotFound,)

    def __init__(
        self, endpoints: WebhookEndpoints, agents: Agents, targets: WebhookTargets, clock: Clock = time.time
    ) -> None:
        self._endpoints = endpoints
        self._agents = agents
        self._targets = targets
        self._clock = clock

    async def __call__(
        self, endpoint_id: EndpointId, patch: MergePatch, caller: Caller
    ) -> webhook_endpoint_api.WebhookEndpoint:
        """Apply a merge patch, and return the endpoint.

        Of two concurrent updates the later one is applied to the result of the first. `"active": true` enables an
        endpoint that was disabled, and ends the rest of one that hangs; a new URL starts without failures. Raises
        WebhookEndpointNotFound, and InvalidRequest if the result is not valid.
        """
        for _ in range(_SAVE_ATTEMPTS):
            before = await authorized_endpoint(caller, self._endpoints, endpoint_id)
            after = await self._patched(before, patch)
            saved = before if after == before else await self._save(before, after)
            if saved is not None:
                return webhook_endpoint_api.WebhookEndpoint.of_stored(saved, self._clock())
        raise StorageError

    async def _patched(self, before: WebhookEndpoint, patch: MergePatch) -> WebhookEndpoint:
        names = WebhookEndpointConfig.model_fields.keys()
        if unknown := patch.keys() - names:
            raise InvalidRequest(details=[ErrorDetail(name, UNKNOWN_FIELD) for name in sorted(unknown)])
        merged = to_json(merge({name: getattr(before, name) for name in names}, patch))
        config = parse_request(lambda: WebhookEndpointConfig.model_validate_json(merged))
        after = replace(before, **dict(config))
        if after.agent_id != before.agent_id:
            await check_agent(self._agents, before.workspace, after.agent_id)
        if after.url != before.url:
            await self._targets.check(after.url)
            after = replace(after.awake(), failing_since=None)
        if patch.get("active") is True:
            after = after.awake()
            if before.disabled_at is not None:
                after = replace(after, failing_since=None, disabled_at=None, disabled_reason=None)
        return after

    async def _save(self, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint | None:
        return await self._endpoints.update(before, replace(after, updated_at=int(self._clock())))

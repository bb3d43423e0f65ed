"""Give a webhook endpoint a new secret."""

import time
from dataclasses import replace
from typing import Final

from pi_voice.domain.errors import AlreadyProcessed, StorageError, WebhookEndpointNotFound
from pi_voice.domain.ids import Clock, EndpointId, uuid7
from pi_voice.domain.webhook_endpoint_api import WebhookEndpointWithSecret
from pi_voice.domain.webhook_endpoints import ROTATION_SECONDS, WebhookEndpoint
from pi_voice.domain.webhook_secrets import WebhookSecrets
from pi_voice.ports import Caller, WebhookEndpoints
from pi_voice.use_cases.authorization import authorized_endpoint

_SAVE_ATTEMPTS: Final = 5


class RotateWebhookSecret:
    """Replaces the secret of a webhook endpoint, while the one before it signs too for a day."""

    ERRORS = (WebhookEndpointNotFound,)

    def __init__(self, endpoints: WebhookEndpoints, secrets: WebhookSecrets, clock: Clock = time.time) -> None:
        self._endpoints = endpoints
        self._secrets = secrets
        self._clock = clock

    async def __call__(
        self, endpoint_id: EndpointId, caller: Caller, request_hash: str | None = None
    ) -> WebhookEndpointWithSecret:
        """Make the next secret, with the current master. Only the last two secrets sign.

        Raises WebhookEndpointNotFound, and AlreadyProcessed if the same request made the current secret.
        """
        made_by = request_hash or uuid7(self._clock)
        for _ in range(_SAVE_ATTEMPTS):
            before = await authorized_endpoint(caller, self._endpoints, endpoint_id)
            if before.secret_made_by == made_by:
                if request_hash is not None:
                    raise AlreadyProcessed(endpoint_id)
                return self._with_secret(before)  # by this request, whose response from the table was lost
            after = self._rotated(before, made_by)
            revealed = self._with_secret(after)  # before the write: without a master there is no new secret
            if await self._endpoints.rotate(before, after) is not None:
                return revealed
        raise StorageError

    async def repeat(self, endpoint_id: EndpointId, caller: Caller) -> WebhookEndpointWithSecret:
        """Return the endpoint with its current secret, for a repeated request; raises WebhookEndpointNotFound."""
        return self._with_secret(await authorized_endpoint(caller, self._endpoints, endpoint_id))

    def _rotated(self, before: WebhookEndpoint, made_by: str) -> WebhookEndpoint:
        now = int(self._clock())
        return replace(
            before,
            secret=self._secrets.current(before.secret.generation + 1),
            secret_made_by=made_by,
            previous_secret=before.secret,
            previous_secret_ends_at=now + ROTATION_SECONDS,
            updated_at=now,
        )

    def _with_secret(self, endpoint: WebhookEndpoint) -> WebhookEndpointWithSecret:
        secret = self._secrets.reveal(endpoint.endpoint_id, endpoint.secret)
        return WebhookEndpointWithSecret.of_secret(endpoint, self._clock(), secret)

"""Secrets of webhook endpoints: derived from a master secret of the deployment, so that none is stored.

A secret is `whsec_` and the base64 of an HMAC-SHA256 of the endpoint's id and the secret's generation, the form of
[Standard Webhooks](https://www.standardwebhooks.com). Masters have ids, and an endpoint has the id of its master:
endpoints that exist are not affected by a new master.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pi_voice.domain.errors import SettingsError
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.webhook_endpoints import SecretVersion

PREFIX: Final = "whsec_"
_CONTEXT: Final = "pi-voice webhook 1"
"""Start of what is signed, so that a signature made with the same master for another purpose is no secret here."""


@dataclass(frozen=True, slots=True)
class Masters:
    """Master secrets by their ids."""

    current: str
    """Id of the master of new secrets."""
    secrets: Mapping[str, str] = field(repr=False)
    """The current master and all earlier ones."""


class WebhookSecrets:
    """Derives the secrets of endpoints from the deployment's masters."""

    def __init__(self, masters: Callable[[], Masters]) -> None:
        self._masters = masters

    def current(self, generation: int) -> SecretVersion:
        """Return the version of a new secret, with the current master; raises SettingsError."""
        return SecretVersion(self._masters().current, generation)

    def reveal(self, endpoint_id: EndpointId, version: SecretVersion) -> str:
        """Return a secret of an endpoint; raises SettingsError if its master is missing."""
        master = self._masters().secrets.get(version.master_id)
        if master is None:
            raise SettingsError(
                f"{variable(version.master_id)} is not set. Endpoints have secrets of this master: restore it in the "
                "secrets group webhooks."
            )
        signed = f"{_CONTEXT}:{endpoint_id}:{version.generation}"
        mac = hmac.digest(master.encode(), signed.encode(), hashlib.sha256)
        return PREFIX + base64.b64encode(mac).decode()


def variable(master_id: str) -> str:
    """Return the name of a master in the secrets group."""
    return f"WEBHOOK_MASTER_{master_id.upper()}"

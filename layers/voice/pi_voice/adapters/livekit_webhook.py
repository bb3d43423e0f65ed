"""Verification of LiveKit's webhook signature, stricter than livekit-api's `WebhookReceiver`.

The SDK's receiver accepts tokens valid for years, crashes if `sha256` is missing, reads the environment if the secret
is empty, and imports the whole SDK. PyJWT verifies the signature in both.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any, Final

import jwt

from pi_voice.domain.errors import InvalidWebhookSignature
from pi_voice.domain.ids import Clock
from pi_voice.ports import SignedWebhook
from pi_voice.settings import KeyPair, WebhookSettings

MAX_VALIDITY_SECONDS: Final = 600
"""Maximum time until a token expires."""

LEEWAY_SECONDS: Final = 60
"""Tolerated clock skew."""


class LiveKitWebhookVerifier:
    """Verifies that LiveKit signed a webhook."""

    def __init__(self, settings: Callable[[], WebhookSettings], clock: Clock = time.time) -> None:
        self._settings = settings
        self._clock = clock

    def verify(self, webhook: SignedWebhook) -> None:
        """Check that LiveKit signed exactly this body, with a short-lived token; raises InvalidWebhookSignature."""
        for pair in self._settings().pairs:
            if (claims := self._claims(webhook.token, pair)) is not None:
                break
        else:
            raise InvalidWebhookSignature
        exp, sha256 = claims["exp"], claims["sha256"]
        if not isinstance(exp, int | float) or exp > self._clock() + MAX_VALIDITY_SECONDS + LEEWAY_SECONDS:
            raise InvalidWebhookSignature
        digest = base64.b64encode(hashlib.sha256(webhook.body).digest())
        if not isinstance(sha256, str) or not hmac.compare_digest(sha256.encode(errors="replace"), digest):
            raise InvalidWebhookSignature

    @staticmethod
    def _claims(token: str, pair: KeyPair) -> dict[str, Any] | None:
        """Return the claims of a token that is signed with a key pair; None if it is not."""
        if not pair.api_key or not pair.api_secret:
            return None
        try:
            return jwt.decode(
                token,
                key=pair.api_secret,
                algorithms=["HS256"],
                issuer=pair.api_key,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "exp", "sha256"]},
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError):  # the last two are from parsers of PyJWT
            return None

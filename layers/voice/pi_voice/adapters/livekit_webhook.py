"""LiveKit's webhook signature, checked more strictly than livekit-api's own receiver does.

That one takes a validity of years, a missing `sha256` for a crash and an empty secret for "look in the
environment", and it imports the whole SDK. The signature itself is PyJWT's work, there as here.
"""

import base64
import hashlib
import hmac
import time
from typing import Final

import jwt

from pi_voice.domain.errors import InvalidWebhookSignature
from pi_voice.domain.ids import Clock
from pi_voice.domain.livekit_webhooks import SignedWebhook
from pi_voice.settings import WebhookSettings

MAX_VALIDITY_SECONDS: Final = 600
LEEWAY_SECONDS: Final = 60


class LiveKitWebhookVerifier:
    """Tells LiveKit's webhooks from everybody else's."""

    def __init__(self, settings: WebhookSettings, clock: Clock = time.time) -> None:
        self._settings = settings
        self._clock = clock

    def verify(self, webhook: SignedWebhook) -> None:
        """Check that LiveKit signed exactly these bytes, and lately; raises InvalidWebhookSignature."""
        if not self._settings.api_key or not self._settings.api_secret:
            raise InvalidWebhookSignature
        try:
            claims = jwt.decode(
                webhook.token,
                key=self._settings.api_secret,
                algorithms=["HS256"],
                issuer=self._settings.api_key,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "exp", "sha256"]},
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError):  # the last two are those of the parsers below PyJWT
            raise InvalidWebhookSignature from None
        exp, sha256 = claims["exp"], claims["sha256"]
        lately = isinstance(exp, int | float) and exp <= self._clock() + MAX_VALIDITY_SECONDS + LEEWAY_SECONDS
        digest = base64.b64encode(hashlib.sha256(webhook.body).digest())
        signed = isinstance(sha256, str) and hmac.compare_digest(sha256.encode(errors="replace"), digest)
        if not (lately and signed):
            raise InvalidWebhookSignature

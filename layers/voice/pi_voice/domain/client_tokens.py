"""Client tokens: short-lived credentials for browsers, each limited to the routes of one session.

A token is `pi_sess_` and base64url of the session's id (16 bytes), its expiry (5 bytes, Unix seconds) and an
HMAC-SHA256 of both. It is verified without a lookup, and not stored.
"""

import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from pi_voice.domain.errors import InvalidApiKey
from pi_voice.domain.ids import Clock, SessionId

PREFIX: Final = "pi_sess_"
_ID_BYTES: Final = 16
_EXPIRY_BYTES: Final = 5
_CONTEXT: Final = b"pi-voice client token 1:"
"""Prefix of the signed bytes, so that a signature made with the same secret for another purpose is not valid here."""

_INVALID: Final = "The client token is mistyped or has expired. Use an API key."


class ClientTokens:
    """Signs client tokens with the deployment's secret, and verifies them with it, the previous and the next one."""

    def __init__(self, secrets: Callable[[], Sequence[str]], clock: Clock = time.time) -> None:
        self._secrets = secrets
        self._clock = clock

    def issue(self, session_id: SessionId, expires_at: int) -> str:
        """Return a token for a session, valid until `expires_at` in Unix seconds."""
        return _sign(self._secrets()[0], session_id, expires_at)

    def session_of(self, token: str) -> SessionId:
        """Verify a token and return the id of its session; raises InvalidApiKey."""
        letters = token.removeprefix(PREFIX)
        try:
            raw = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
            session_id = SessionId(str(uuid.UUID(bytes=raw[:_ID_BYTES])))
        except ValueError:
            raise InvalidApiKey(_INVALID) from None
        expires_at = int.from_bytes(raw[_ID_BYTES : _ID_BYTES + _EXPIRY_BYTES], "big")
        # Compare the whole text, because the same bytes have more than one encoding in base64.
        expected = [_sign(secret, session_id, expires_at) for secret in self._secrets()]
        if not any(hmac.compare_digest(token, each) for each in expected) or expires_at <= self._clock():
            raise InvalidApiKey(_INVALID)
        return session_id


def _sign(secret: str, session_id: SessionId, expires_at: int) -> str:
    signed = uuid.UUID(session_id).bytes + expires_at.to_bytes(_EXPIRY_BYTES, "big")
    mac = hmac.digest(secret.encode(), _CONTEXT + signed, hashlib.sha256)
    return PREFIX + base64.urlsafe_b64encode(signed + mac).decode().rstrip("=")

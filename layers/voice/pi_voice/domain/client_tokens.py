"""Client tokens: what a browser holds instead of an API key. Each opens the routes of one session, for a while.

A token is `pi_sess_` and base64url of the session's id (16 bytes), its expiry (5 bytes, Unix seconds) and an
HMAC-SHA256 of both. So it is checked without a look-up, and kept nowhere.
"""

import base64
import hashlib
import hmac
import time
import uuid
from typing import Final

from pi_voice.domain.errors import InvalidApiKey
from pi_voice.domain.ids import Clock, SessionId

PREFIX: Final = "pi_sess_"
_ID_BYTES: Final = 16
_EXPIRY_BYTES: Final = 5
_CONTEXT: Final = b"pi-voice client token 1:"
"""What this use of the secret signs, so that a signature made for another can never pass here."""

_REFUSED: Final = "The client token is mistyped or has expired. Use an API key."


class ClientTokens:
    """Makes and checks client tokens by one secret of the deployment."""

    def __init__(self, secret: str, clock: Clock = time.time) -> None:
        self._secret = secret.encode()
        self._clock = clock

    def issue(self, session_id: SessionId, expires_at: int) -> str:
        """Make a session's token, good until a Unix second."""
        signed = uuid.UUID(session_id).bytes + expires_at.to_bytes(_EXPIRY_BYTES, "big")
        return PREFIX + base64.urlsafe_b64encode(signed + self._mac(signed)).decode().rstrip("=")

    def session_of(self, token: str) -> SessionId:
        """Return the id of the session that a token opens; raises InvalidApiKey."""
        letters = token.removeprefix(PREFIX)
        try:
            raw = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
            session_id = SessionId(str(uuid.UUID(bytes=raw[:_ID_BYTES])))
        except ValueError:
            raise InvalidApiKey(_REFUSED) from None
        expires_at = int.from_bytes(raw[_ID_BYTES : _ID_BYTES + _EXPIRY_BYTES], "big")
        # The whole text is compared, because base64 has more than one spelling of the same bytes.
        if not hmac.compare_digest(token, self.issue(session_id, expires_at)) or expires_at <= self._clock():
            raise InvalidApiKey(_REFUSED)
        return session_id

    def _mac(self, signed: bytes) -> bytes:
        return hmac.digest(self._secret, _CONTEXT + signed, hashlib.sha256)

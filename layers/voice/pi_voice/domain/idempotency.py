"""Idempotency-Key: how a repeated request is recognized."""

import hashlib
import re
from typing import Final, NamedTuple

from pi_voice.domain.errors import ErrorDetail, InvalidRequest

KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
"""Valid keys: 1 to 255 visible ASCII characters."""


class IdempotentRequest(NamedTuple):
    """A request with an Idempotency-Key."""

    caller: str
    """Workspace or session id of the caller."""
    route: str
    """Method and path."""
    key: str
    body: bytes

    @property
    def identity(self) -> str:
        """Text by which a repeat is recognized. Keys of different callers or routes do not collide."""
        return f"{self.caller}\n{self.route}\n{self.key}"

    @property
    def body_hash(self) -> str:
        """SHA-256 of the body, to detect a key that is used with another body."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def request_hash(self) -> str:
        """SHA-256 of identity and body, to store with the resource that the request created."""
        return hashlib.sha256(f"{self.identity}\n{self.body_hash}".encode()).hexdigest()

    def check_key(self) -> None:
        """Raise InvalidRequest if the key is malformed."""
        if not KEY.fullmatch(self.key):
            message = "Should be 1 to 255 visible ASCII characters, such as a UUID."
            raise InvalidRequest(details=[ErrorDetail("Idempotency-Key", message)])

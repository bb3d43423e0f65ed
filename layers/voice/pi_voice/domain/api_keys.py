"""API keys: their format, checksum and hash.

A key is `pi_live_`, 43 letters and digits that encode 256 random bits, and 6 more that encode a CRC-32 of those 43. The
checksum rejects a mistyped key without a lookup. Only the SHA-256 of the whole key is stored; 256 random bits cannot be
guessed, so a slow hash would add no security.
"""

import hashlib
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import StringConstraints

from pi_voice.domain.base import Document
from pi_voice.domain.errors import InvalidApiKey
from pi_voice.domain.ids import KeyHash, KeyId, WorkspaceId

PREFIX: Final = "pi_live_"
_ALPHABET: Final = string.digits + string.ascii_letters
_RANDOM_LETTERS: Final = 43  # 62 ** 43 > 2 ** 256
_CHECK_LETTERS: Final = 6  # 62 ** 6 > 2 ** 32
_HINT_LETTERS: Final = 4

WorkspaceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class CreateApiKeyRequest(Document):
    """Event of the CreateApiKey function. A workspace is created with its first key."""

    workspace: WorkspaceName
    name: Annotated[str, StringConstraints(min_length=1, max_length=120)] = "default"


class ListApiKeysRequest(Document):
    """Event of the ListApiKeys function."""

    workspace: WorkspaceName


class RevokeApiKeyRequest(Document):
    """Event of the RevokeApiKey function."""

    workspace: WorkspaceName
    key_id: str


class ApiKey(Document):
    """An API key without its secret, as stored and as listed."""

    key_id: KeyId
    workspace: WorkspaceId
    name: str = ""
    hint: str = ""
    created_at: int
    revoked_at: int | None = None


class CreatedApiKey(Document):
    """A new API key with its secret, which is returned once and not stored."""

    key_id: KeyId
    workspace: WorkspaceId
    name: str
    api_key: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Secret:
    """The secret of an API key; its `repr` does not contain it, so that logs do not either."""

    _text: str

    def reveal(self) -> str:
        """Return the secret, for the response that creates the key."""
        return self._text

    @property
    def hash(self) -> KeyHash:
        """SHA-256 of the secret, which is stored instead of it."""
        return KeyHash(hashlib.sha256(self._text.encode()).hexdigest())

    @property
    def hint(self) -> str:
        """Last four characters of the secret, to tell keys apart in a list."""
        return self._text[-_HINT_LETTERS:]

    def __repr__(self) -> str:
        return "Secret(...)"


def generate() -> Secret:
    """Return a new random key."""
    letters = _base62(secrets.randbits(256), _RANDOM_LETTERS)
    return Secret(PREFIX + letters + _check(letters))


def parse(text: str) -> Secret:
    """Parse a key from a request; raises InvalidApiKey if its format or checksum is wrong."""
    letters = text.removeprefix(PREFIX)
    random, check = letters[:_RANDOM_LETTERS], letters[_RANDOM_LETTERS:]
    if not text.startswith(PREFIX) or len(random) != _RANDOM_LETTERS or check != _check(random):
        raise InvalidApiKey
    return Secret(text)


def _check(letters: str) -> str:
    return _base62(zlib.crc32(letters.encode()), _CHECK_LETTERS)


def _base62(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters))

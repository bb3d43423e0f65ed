"""API keys: how they look, how they are checked, and what is kept of them.

A key is `pi_live_`, 43 letters and digits that hold 256 random bits, and 6 more that check the rest, so that a
mistyped key is told from an unknown one without a look-up. Only the SHA-256 of the whole is ever stored: with
256 random bits there is nothing to guess, so a slow hash would only slow us down.
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
    """What an operator asks for: a key of a workspace, which begins to exist with its first key."""

    workspace: WorkspaceName
    name: Annotated[str, StringConstraints(min_length=1, max_length=120)] = "default"


class ListApiKeysRequest(Document):
    """Whose keys to list."""

    workspace: WorkspaceName


class RevokeApiKeyRequest(Document):
    """Which key to revoke."""

    workspace: WorkspaceName
    key_id: str


class ApiKey(Document):
    """A key as an operator sees it later: without the secret."""

    key_id: KeyId
    workspace: WorkspaceId
    name: str
    hint: str
    created_at: int
    revoked_at: int | None = None


class CreatedApiKey(Document):
    """A new key with its secret, which is shown this once and stored nowhere."""

    key_id: KeyId
    workspace: WorkspaceId
    name: str
    api_key: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A key's secret, kept out of every representation that might be logged."""

    _text: str

    def reveal(self) -> str:
        """Return the secret itself, for the one answer that shows it."""
        return self._text

    @property
    def hash(self) -> KeyHash:
        """What is stored instead of the secret."""
        return KeyHash(hashlib.sha256(self._text.encode()).hexdigest())

    @property
    def hint(self) -> str:
        """The last letters, by which a person tells keys apart."""
        return self._text[-_HINT_LETTERS:]

    def __repr__(self) -> str:
        return "Secret(...)"


def generate() -> Secret:
    """Make a new key."""
    letters = _base62(secrets.randbits(256), _RANDOM_LETTERS)
    return Secret(PREFIX + letters + _check(letters))


def parse(text: str) -> Secret:
    """Read a key as a caller sends it; raises InvalidApiKey when it was mistyped."""
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

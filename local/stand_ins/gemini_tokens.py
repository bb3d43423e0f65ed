"""Ephemeral tokens of the Live API: check the requests for them, and store the tokens."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from local.stand_ins.gemini_errors import GeminiError
from local.stand_ins.gemini_messages import Message, fields, snake

LONGEST: Final = timedelta(hours=20)
DEFAULT_EXPIRY: Final = timedelta(minutes=30)
DEFAULT_START: Final = timedelta(seconds=60)
_SETUP: Final = "BidiGenerateContentSetup"


@dataclass(frozen=True, slots=True)
class EphemeralToken:
    """A token: the number of sessions it may open (0: unlimited), its expiry, and the setup it locks.

    Without a mask the whole setup is locked. Without a setup nothing is locked.
    """

    name: str
    version: str
    uses: int
    expires_at: datetime
    start_before: datetime
    setup: Message | None
    mask: tuple[str, ...]


class Tokens:
    """The tokens that have not expired."""

    def __init__(self) -> None:
        self._tokens: dict[str, EphemeralToken] = {}

    def find(self, name: str) -> EphemeralToken | None:
        """Return the token of a name; None if it does not exist or was removed after its expiry."""
        return self._tokens.get(name)

    def mint(self, request: Message, version: str, now: datetime) -> EphemeralToken:
        """Mint a token for a valid request; raises GeminiError."""
        uses = int(request.get("uses", 1))
        if uses < 0:
            raise GeminiError(400, "uses must not be negative.")
        setup = request.get("bidiGenerateContentSetup")
        mask = _mask(request.get("fieldMask", ""), version)
        if mask and setup:
            _refuse_outside(mask, setup)
        token = EphemeralToken(
            name=f"auth_tokens/{secrets.token_hex(32)}",
            version=version,
            uses=uses,
            expires_at=_time(request, "expireTime", now, DEFAULT_EXPIRY),
            start_before=_time(request, "newSessionExpireTime", now, DEFAULT_START),
            setup=setup,
            mask=mask,
        )
        self._tokens = {name: other for name, other in self._tokens.items() if other.expires_at > now}
        self._tokens[token.name] = token
        return token


def _time(request: Message, name: str, now: datetime, default: timedelta) -> datetime:
    if name not in request:
        return now + default
    time = datetime.fromisoformat(request[name]).astimezone(UTC)
    if time <= now:
        raise GeminiError(400, f"{snake(name)} must be in the future.")
    if time - now >= LONGEST:
        raise GeminiError(400, f"{snake(name)} must be less than 20 hours in the future.")
    return time


def _mask(text: str, version: str) -> tuple[str, ...]:
    """Parse a mask of top-level fields and fields of generationConfig, the only ones that Google accepts."""
    paths = tuple(_camel_path(path) for path in text.split(",") if path)
    known = {*fields(version)[_SETUP], *(f"generationConfig.{name}" for name in fields(version)["GenerationConfig"])}
    if not known.issuperset(paths):
        raise GeminiError(400, f"field_mask is invalid for {_SETUP}")
    return paths


def _camel_path(path: str) -> str:
    head, *rest = path.strip().split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


def _refuse_outside(mask: tuple[str, ...], setup: Message) -> None:
    """Refuse a setup with fields outside the mask, because they would not be locked."""
    given = {name for name in setup if name != "generationConfig"}
    given |= {f"generationConfig.{name}" for name in setup.get("generationConfig", {})}
    outside = sorted(path for path in given if path not in mask and path.partition(".")[0] not in mask)
    if outside:
        names = ", ".join(map(snake, outside))
        raise GeminiError(400, f"bidi_generate_content_setup has fields that field_mask does not name: {names}")

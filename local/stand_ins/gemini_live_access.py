"""Who is let in to the Live API, and with which setup: tokens, what they lock, and sessions that can be resumed."""

import re
import secrets
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from local.stand_ins.gemini_live_agent import Interview
from local.stand_ins.gemini_messages import Message
from local.stand_ins.gemini_tokens import EphemeralToken, Tokens

INVALID_ARGUMENT: Final = 1007
REFUSED: Final = 1008
ENDED: Final = 1011

_LONGEST_REASON_BYTES: Final = 123
_LIVE_MODEL: Final = re.compile(r"models/gemini-[\w.-]*(?:live|native-audio)[\w.-]*")
_UNREGISTERED: Final = (
    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other "
    "form of API consumer identity to call this API."
)
_NO_MODEL: Final = (
    "{model} is not found for API version {version}, or is not supported for bidiGenerateContent. Call ListModels "
    "to see the list of available models and their supported methods."
)
_NOT_PLAYED: Final = "The stand-in does not play {} of realtimeInputConfig."


class Hangup(Exception):
    """The server closes the connection, with a WebSocket close code and a reason, clipped to what a frame holds."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:_LONGEST_REASON_BYTES].decode(errors="ignore").encode()


class Access:
    """Counts the uses of tokens, and keeps what resumption handles stand for."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._uses: Counter[str] = Counter()
        self._interviews: dict[str, Interview] = {}

    def token(self, names: Sequence[str], version: str) -> EphemeralToken:
        """Find the token that a connection was opened with; raises Hangup."""
        if not names:
            raise Hangup(REFUSED, _UNREGISTERED)
        if len(names) > 1:
            raise Hangup(INVALID_ARGUMENT, "Request contains more than one access_token.")
        token = self._tokens.find(names[0])
        if token is None or token.version != version:
            raise Hangup(INVALID_ARGUMENT, "API key not valid. Please pass a valid API key.")
        if token.expires_at <= datetime.now(UTC):
            raise expired()
        return token

    def admit(self, token: EphemeralToken, setup: Message) -> tuple[Message, Interview | None]:
        """Begin or resume a session: return the setup that counts, and how far a resumed one had come.

        Raises Hangup. Resuming is not a use of the token.
        """
        _check_model(setup, token.version)
        setup = _locked(setup, token)
        _check(setup, token.version)
        if handle := setup.get("sessionResumption", {}).get("handle"):
            if handle not in self._interviews:
                raise Hangup(REFUSED, "BidiGenerateContent session not found")
            return setup, self._interviews[handle]
        if token.start_before <= datetime.now(UTC):
            raise Hangup(ENDED, "auth token has expired for new sessions")
        if token.uses and self._uses[token.name] >= token.uses:
            raise Hangup(ENDED, "Token has been used too many times")
        self._uses[token.name] += 1
        return setup, None

    def new_handle(self, interview: Interview) -> str:
        """Return a handle by which any connection can go on from here."""
        handle = secrets.token_urlsafe(32)
        self._interviews[handle] = interview
        return handle


def expired() -> Hangup:
    """What ends a connection when its token's time is over."""
    return Hangup(ENDED, "auth token has expired")


def _locked(setup: Message, token: EphemeralToken) -> Message:
    """Return the setup that counts.

    Without a mask the token's setup replaces the client's; with one, its fields do, and a field that the token does
    not have is locked to nothing.
    """
    if not token.mask:
        return setup if token.setup is None else token.setup
    locked = setup
    for path in token.mask:
        locked = _overwritten(locked, path.split("."), token.setup or {})
    return locked


def _overwritten(message: Message, path: list[str], by: Message) -> Message:
    name, *rest = path
    others = {key: value for key, value in message.items() if key != name}
    value: Any = _overwritten(message.get(name, {}), rest, by.get(name, {})) if rest else by.get(name)
    return {**others, name: value} if value is not None else others


def _check(setup: Message, version: str) -> None:
    _check_model({"model": "", **setup}, version)
    if setup.get("generationConfig", {}).get("responseModalities", ["AUDIO"]) != ["AUDIO"]:
        raise Hangup(INVALID_ARGUMENT, "Request contains an invalid argument.")
    activity = setup.get("realtimeInputConfig", {})
    if activity.get("activityHandling") == "NO_INTERRUPTION":
        raise Hangup(INVALID_ARGUMENT, _NOT_PLAYED.format("NO_INTERRUPTION"))
    if activity.get("automaticActivityDetection", {}).get("disabled"):
        raise Hangup(INVALID_ARGUMENT, _NOT_PLAYED.format("automaticActivityDetection.disabled"))


def _check_model(setup: Message, version: str) -> None:
    model = setup.get("model")
    if model is None:
        return
    if not model.startswith("models/"):
        raise Hangup(INVALID_ARGUMENT, "Request contains an invalid argument.")
    if not _LIVE_MODEL.fullmatch(model):
        raise Hangup(REFUSED, _NO_MODEL.format(model=model, version=version))

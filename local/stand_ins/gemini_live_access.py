"""Access to the Live API: check tokens, apply the setup that they lock, and resume sessions."""

import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from local.stand_ins.gemini_live_agent import Interview
from local.stand_ins.gemini_live_faults import Faults
from local.stand_ins.gemini_live_function_calls import FunctionCalls
from local.stand_ins.gemini_messages import Message
from local.stand_ins.gemini_models import setup_fault
from local.stand_ins.gemini_tokens import EphemeralToken, Tokens

INVALID_ARGUMENT: Final = 1007
REFUSED: Final = 1008
ENDED: Final = 1011
ABORTED: Final = 1006
"""The code that a client sees when the connection breaks without a close frame."""

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
_STILL_CONNECTED: Final = "The session has another connection: close it before you open the next one."
_NOT_SUPPORTED: Final = "The stand-in does not support {} of realtimeInputConfig."


class Hangup(Exception):
    """Closes the connection with a WebSocket close code and a reason, truncated to the size of a close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:_LONGEST_REASON_BYTES].decode(errors="ignore").encode()


@dataclass(eq=False, slots=True)
class LiveSession:
    """A session, over all its connections; counts include what a fault has spoiled."""

    calls: FunctionCalls = field(default_factory=FunctionCalls)
    is_connected: bool = False
    resumptions: int = 0
    turns: int = 0
    texts: int = 0
    reads_words: bool = False
    """Whether the caller's audio has carried its words, so that speech without any is a fault of the client."""


class Access:
    """Counts the uses of tokens, and stores the states behind resumption handles."""

    def __init__(self, tokens: Tokens, faults: Faults) -> None:
        self._tokens = tokens
        self._faults = faults
        self._uses: Counter[str] = Counter()
        self._sessions = 0
        self._states: dict[str, tuple[LiveSession, Interview]] = {}

    def token(self, names: Sequence[str], version: str) -> EphemeralToken:
        """Return the token that a connection was opened with; raises Hangup."""
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

    def admit(self, token: EphemeralToken, setup: Message) -> tuple[Message, LiveSession, Interview | None]:
        """Begin or resume a session: return the effective setup, the session, and the state of a resumed one.

        Raises Hangup. Resuming does not count as a use of the token.
        """
        _check_model(setup, token.version)
        setup = _locked(setup, token)
        _check(setup, token.version)
        if handle := setup.get("sessionResumption", {}).get("handle"):
            if handle not in self._states:
                raise Hangup(REFUSED, "BidiGenerateContent session not found")
            session, interview = self._states[handle]
            self._check_resumption(session)
            return setup, session, interview
        if token.start_before <= datetime.now(UTC):
            raise Hangup(ENDED, "auth token has expired for new sessions")
        if token.uses and self._uses[token.name] >= token.uses:
            raise Hangup(ENDED, "Token has been used too many times")
        self._uses[token.name] += 1
        self._sessions += 1
        return setup, LiveSession(FunctionCalls(self._sessions)), None

    def _check_resumption(self, session: LiveSession) -> None:
        session.resumptions += 1
        if session.is_connected:
            raise Hangup(ENDED, _STILL_CONNECTED)
        if "resume_1007" in self._faults:
            raise Hangup(INVALID_ARGUMENT, "Request contains an invalid argument.")
        if "resume_1011" in self._faults and session.resumptions == 1:
            raise Hangup(ENDED, "Internal error encountered.")

    def new_handle(self, session: LiveSession, interview: Interview) -> str:
        """Return a handle with which another connection can resume a session from this state."""
        handle = secrets.token_urlsafe(32)
        self._states[handle] = session, interview
        return handle


def expired() -> Hangup:
    """Return the Hangup for an expired token."""
    return Hangup(ENDED, "auth token has expired")


def _locked(setup: Message, token: EphemeralToken) -> Message:
    """Return the effective setup.

    Without a mask the token's setup replaces the client's. With a mask only the masked fields are replaced, and those
    that the token's setup lacks are removed.
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
    if fault := setup_fault(setup):
        raise Hangup(INVALID_ARGUMENT, fault)
    activity = setup.get("realtimeInputConfig", {})
    if activity.get("activityHandling") == "NO_INTERRUPTION":
        raise Hangup(INVALID_ARGUMENT, _NOT_SUPPORTED.format("NO_INTERRUPTION"))
    if activity.get("automaticActivityDetection", {}).get("disabled"):
        raise Hangup(INVALID_ARGUMENT, _NOT_SUPPORTED.format("automaticActivityDetection.disabled"))


def _check_model(setup: Message, version: str) -> None:
    model = setup.get("model")
    if model is None:
        return
    if not model.startswith("models/"):
        raise Hangup(INVALID_ARGUMENT, "Request contains an invalid argument.")
    if not _LIVE_MODEL.fullmatch(model):
        raise Hangup(REFUSED, _NO_MODEL.format(model=model, version=version))

"""Checks of Gemini: the key, the models, ephemeral tokens, and a short Live call that is resumed once."""

import asyncio
import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final, Literal

import aiohttp
from jsonschema import Draft202012Validator

from docs.clients.client import GREET, PROMPT_SECONDS
from doctor.checks import Check, Fault, Passed
from doctor.live_socket import BROKEN, Json, LiveClosed, LiveSocket
from doctor.target import Target
from pi_voice.adapters.gemini_extraction import GeminiExtractionModel
from pi_voice.adapters.gemini_live import GeminiLiveTokens
from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.connection_api import GeminiLiveConnection
from pi_voice.domain.errors import GeminiError, GeminiMisconfigured, GeminiUnavailable, SettingsError, UpstreamTimeout
from pi_voice.domain.live_models import STABLE, shutdown_notice, unknown_model_notice
from pi_voice.ports import LiveTokenRequest, ModelRequest
from pi_voice.settings import GeminiSettings, TranscriptionHints

Version = Literal["v1alpha", "v1beta"]

KEY: Final = "Gemini key"
MODEL: Final = "Live model"
TOKENS: Final[dict[Version, str]] = {"v1alpha": "Token in v1alpha", "v1beta": "Token in v1beta"}
SETUP: Final = "Live setup"
GREETING: Final = "Live greeting"
HANDLE: Final = "Resumption handle"
RESUMED: Final = "Live resumption"
SECOND_TURN: Final = "Live second turn"
EXTRACTION: Final = "Extraction model"

_VOICE: Final = "Kore"
_INSTRUCTION: Final = (
    "You check a voice connection. Say one short sentence of at most five words in each of your turns."
)
_LANGUAGES: Final = ("en-US",)
_VOCABULARY: Final = ("Pi Voice",)
_ASK: Final = {"text": "Say goodbye now."}
_TOKEN_SECONDS: Final = 180
_EXTRACTION_SECONDS: Final = 30.0
_SCHEMA: Final[Json] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "guests": {"type": "integer"}},
    "required": ["name", "guests"],
}

_OK: Final = 200
_BAD_REQUEST: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_INVALID: Final = 1007
_REFUSED: Final = 1008
_ENDED: Final = 1011


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for the parts of a call, in seconds."""

    prompt: float = PROMPT_SECONDS
    greeting: float = 20.0
    turn: float = 30.0
    handle: float = 10.0


PATIENT: Final = Patience()


class GeminiChecks:
    """Checks with one short call."""

    def __init__(
        self, target: Target, http: HttpClient, patience: Patience = PATIENT, today: date | None = None
    ) -> None:
        self._target = target
        self._http = http
        self._patience = patience
        self._today = today or datetime.now(UTC).date()
        self._connection: GeminiLiveConnection | None = None
        self._socket: LiveSocket | None = None
        self._handle: str | None = None
        self._notices: list[str] = []

    def checks(self) -> list[Check]:
        """Return the checks in order; the token of the configured version opens the call."""
        configured = TOKENS["v1beta" if self._target.variables.get("GEMINI_API_VERSION") == "v1beta" else "v1alpha"]
        return [
            Check(KEY, self.key),
            Check(MODEL, self.model),
            Check(TOKENS["v1alpha"], lambda: self.token("v1alpha"), needs=(KEY,)),
            Check(TOKENS["v1beta"], lambda: self.token("v1beta"), needs=(KEY,)),
            Check(SETUP, self.set_up, needs=(configured,)),
            Check(GREETING, self.greeting, self._patience.greeting + self._patience.turn, (SETUP,)),
            Check(HANDLE, self.handle, self._patience.turn, (GREETING,)),
            Check(RESUMED, self.resume, 2 * self._patience.turn, (HANDLE,)),
            Check(SECOND_TURN, self.second_turn, 2 * self._patience.turn, (RESUMED,)),
            Check(EXTRACTION, self.extraction, _EXTRACTION_SECONDS + 5, (KEY,)),
        ]

    async def close(self) -> None:
        """Close the call."""
        if self._socket:
            await self._socket.close()
            self._socket = None

    # ---- Requests ----

    async def key(self) -> Passed:
        """List models, which costs nothing, to see whether the key is valid."""
        settings = self._settings()
        url, headers = f"{settings.base_url}/v1beta/models", {"x-goog-api-key": settings.api_key}
        try:
            async with self._http.session.get(
                url, params={"pageSize": "1"}, headers=headers, allow_redirects=False
            ) as response:
                status, text = response.status, await response.text()
        except (aiohttp.ClientError, OSError) as error:
            raise Fault(
                f"{settings.base_url} cannot be reached ({type(error).__name__}). Check the network and its proxy."
            ) from None
        where = "" if self._target.has_real_gemini else " by a stand-in"
        if status == _OK:
            return Passed(f"The key is accepted{where}.")
        if status == _NOT_FOUND:
            return Passed(
                "The gateway lists no models, so the key was not checked.", (f"Look at {settings.base_url}.",)
            )
        raise Fault(self._refused_key(status, text))

    def _refused_key(self, status: int, text: str) -> str:
        replacing = self._target.replace("GEMINI_API_KEY")
        if status == _UNAUTHORIZED or (status == _BAD_REQUEST and "API_KEY_" in text):
            return f"The Gemini key is not valid. {replacing} Google AI Studio lists your keys."
        if status in (_BAD_REQUEST, _FORBIDDEN):
            return (
                f"Google refuses the project of the Gemini key ({status}): its billing is off, the Gemini API is not "
                "enabled, the key is restricted to other APIs or addresses, or Google does not serve its region."
            )
        if status == _TOO_MANY:
            return "The quota of the Gemini key is used up (429). Wait, or raise it in Google AI Studio."
        return f"Google answers with the status {status}. Run make doctor again, and look at Google's status page."

    async def model(self) -> Passed:
        """Warn about a Live model that Pi Voice does not know, or that Google may have shut down."""
        settings = self._settings()
        name = settings.live_model.removeprefix("models/")
        shutdown = shutdown_notice(name, self._today, self._target.change("GEMINI_LIVE_MODEL", ""))
        notices = unknown_model_notice(name), shutdown if self._target.has_real_gemini else None
        return Passed(f"{name}.", tuple(notice for notice in notices if notice))

    async def token(self, version: Version) -> Passed:
        """Create a token in one version of the API; only the configured one has to work."""
        settings = self._settings()
        if version == settings.api_version:
            self._connection = await self._issue(settings)
            return Passed("It was created; clients use this version.")
        try:
            await self._issue(replace(settings, api_version=version))
        except Fault:
            keep = f"Clients use {settings.api_version}, so leave GEMINI_API_VERSION as it is."
            return Passed("Google creates none here.", (keep,))
        return Passed(f"It was created; clients use {settings.api_version}.")

    async def _issue(self, settings: GeminiSettings) -> GeminiLiveConnection:
        try:
            return await self._tokens(settings).issue(_token_request())
        except (GeminiUnavailable, UpstreamTimeout) as error:
            raise Fault(f"No token was created: {error.message}") from None
        except GeminiError:
            if settings.transcription_hints != "none" and await self._accepts_without_hints(settings):
                raise Fault(
                    "Google refuses a token with hints for the transcription, and accepts one without: "
                    f"{self._target.change('GEMINI_TRANSCRIPTION_HINTS', 'none')}"
                ) from None
            other = "v1beta" if settings.api_version == "v1alpha" else "v1alpha"
            raise Fault(
                f"Google refuses to create a token in {settings.api_version}. If the other version is accepted: "
                f"{self._target.change('GEMINI_API_VERSION', other)}"
            ) from None

    async def _accepts_without_hints(self, settings: GeminiSettings) -> bool:
        hints: TranscriptionHints = "none"
        try:
            await self._tokens(replace(settings, transcription_hints=hints)).issue(_token_request())
        except (GeminiError, GeminiUnavailable, UpstreamTimeout):
            return False
        return True

    def _tokens(self, settings: GeminiSettings) -> GeminiLiveTokens:
        return GeminiLiveTokens(lambda: settings, self._http)

    async def extraction(self) -> Passed:
        """Extract two values from a sentence."""
        settings = self._settings()
        name = settings.extraction_model
        model = GeminiExtractionModel(name, lambda: settings, self._http)
        request = ModelRequest(
            "Extract the name and the number of guests from the text.",
            ("Ana Torres booked a table for six guests.",),
            _SCHEMA,
        )
        try:
            response = await model.generate(request, _EXTRACTION_SECONDS)
        except GeminiMisconfigured as error:
            raise Fault(self._misconfigured(error, name)) from None
        except (GeminiError, GeminiUnavailable, UpstreamTimeout) as error:
            raise Fault(f"{name} does not answer: {error.message}") from None
        if response.end != "finished":
            raise Fault(
                f"The answer of {name} is {response.end}. Run make doctor again; try another model: {self._model}"
            )
        try:
            faults = [fault.message for fault in Draft202012Validator(_SCHEMA).iter_errors(json.loads(response.text))]
        except ValueError:
            faults = ["it is no JSON"]
        if faults:
            raise Fault(
                f"The answer of {name} does not follow the schema: {faults[0]}. Use another model: {self._model}"
            )
        return Passed(f"{name} answers by the schema.")

    @property
    def _model(self) -> str:
        return self._target.change("GEMINI_EXTRACTION_MODEL", "gemini-3.5-flash-lite")

    def _misconfigured(self, error: GeminiMisconfigured, name: str) -> str:
        if error.cause == "key":
            return f"Google refuses the key. {self._target.replace('GEMINI_API_KEY')}"
        if error.cause == "permission":
            return f"Google does not let the project of the key use {name}: check its rights, billing and region."
        return (
            f"Google has no {name} any more, or the model refuses the thinking level. Use another: {self._model} or "
            f"{self._target.change('GEMINI_EXTRACTION_THINKING_LEVEL', 'auto')}"
        )

    # ---- The call ----

    async def set_up(self) -> Passed:
        """Open the WebSocket with the token."""
        assert self._connection  # noqa: S101 (the token's check came before)
        try:
            self._socket = await LiveSocket.open(self._http.session, self._connection)
        except LiveClosed as closed:
            raise Fault(self._refused_setup(closed)) from None
        except aiohttp.WSServerHandshakeError as error:
            raise Fault(
                f"The WebSocket was refused with the status {error.status}. A proxy or gateway may not support "
                f"WebSockets: look at {self._settings().base_url}."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Fault(f"The WebSocket cannot be opened ({type(error).__name__}). Check the network.") from None
        return Passed("The token and the setup are accepted.")

    def _refused_setup(self, closed: LiveClosed) -> str:
        name = self._settings().live_model
        stable = self._target.change("GEMINI_LIVE_MODEL", STABLE.name)
        if closed.code == _REFUSED:
            return f"Google refuses the model {name} with {closed}. Use the stable model: {stable}"
        if closed.code == _INVALID:
            version = "v1beta" if self._settings().api_version == "v1alpha" else "v1alpha"
            return (
                f"Google refuses the token or the setup of {name} with {closed}. Try the stable model: {stable} or the "
                f"other version of the API: {self._target.change('GEMINI_API_VERSION', version)}"
            )
        return f"The connection was closed with {closed} before the setup. Run make doctor again; {_LATER}"

    async def greeting(self) -> Passed:
        """Let the agent speak first; the text that asks for it is repeated once, as by the reference clients."""
        socket, began = self._live(), time.monotonic()
        await self._send(GREET)
        is_heard, is_repeated = False, False
        while not is_heard:
            left = (self._patience.greeting if is_repeated else self._patience.prompt) - (time.monotonic() - began)
            message = await self._next(socket, max(left, 0.0))
            if message is None and is_repeated:
                raise Fault(
                    f"The agent said nothing within {self._patience.greeting:g} s, after two texts that ask for a "
                    f"greeting. Try the stable model: {self._target.change('GEMINI_LIVE_MODEL', STABLE.name)}"
                )
            if message is None:
                is_repeated = True
                await self._send(GREET)
            is_heard = message is not None and _has_audio(message)
        seconds = time.monotonic() - began
        await self._end_of_turn(socket)
        warning = (
            f"The first text got no answer within {self._patience.prompt:g} s, and was sent again. Clients have to "
            "repeat it, as the reference clients do."
        )
        return Passed(f"The agent was heard after {seconds:.1f} s.", (warning,) if is_repeated else ())

    async def handle(self) -> Passed:
        """Wait for a resumption handle, which comes after the turn."""
        socket, until = self._live(), time.monotonic() + self._patience.handle
        while self._handle is None:
            if await self._next(socket, max(until - time.monotonic(), 0.0)) is None:
                raise Fault(
                    f"Google sent no resumption handle within {self._patience.handle:g} s, so calls end with their "
                    f"first connection. Try the stable model: {self._target.change('GEMINI_LIVE_MODEL', STABLE.name)}"
                )
        return Passed("It was received.")

    async def resume(self) -> Passed:
        """Close the connection, and resume the call over a new one; as the clients do, try twice, with a new token."""
        assert self._connection  # noqa: S101 (the token's check came before)
        await self.close()
        first = await self._resume_once(self._connection)
        if first is None:
            return Passed("The call was resumed over a second connection.")
        is_final = first.code == _INVALID
        second = first if is_final else await self._resume_once(await self._issue(self._settings()))
        if second is None:
            warning = f"The first was refused with {first}. Clients have to do the same, as the reference clients do."
            return Passed("The call was resumed at the second try, with a new token.", (warning,))
        raise Fault(
            f"Google refuses to resume the call with {second}. A call then starts anew after each connection, with its "
            f"saved turns. Try the stable model: {self._target.change('GEMINI_LIVE_MODEL', STABLE.name)}"
        )

    async def _resume_once(self, connection: GeminiLiveConnection) -> LiveClosed | None:
        try:
            async with asyncio.timeout(self._patience.turn / 2):
                self._socket = await LiveSocket.open(self._http.session, connection, self._handle)
        except LiveClosed as closed:
            return closed
        except TimeoutError:
            return LiveClosed(BROKEN, "no answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return LiveClosed(BROKEN, type(error).__name__)
        return None

    async def second_turn(self) -> Passed:
        """Ask for one more turn over the second connection."""
        socket = self._live()
        await self._send(_ASK)
        await self._end_of_turn(socket)
        await self.close()
        return Passed("The agent answered.", tuple(self._notices))

    async def _end_of_turn(self, socket: LiveSocket) -> None:
        """Wait for the end of the agent's turn; raises Fault."""
        until = time.monotonic() + self._patience.turn
        while (message := await self._next(socket, max(until - time.monotonic(), 0.0))) is not None:
            if self._ends_turn(message):
                return
        raise Fault(
            f"The agent's turn did not end within {self._patience.turn:g} s. Try the stable model: "
            f"{self._target.change('GEMINI_LIVE_MODEL', STABLE.name)}"
        )

    def _ends_turn(self, message: Json) -> bool:
        content = message.get("serverContent", {})
        if self._connection and self._connection.turn_ends_at == "idle":
            return bool(content.get("interactionStatus") == "IDLE")
        return bool(content.get("turnComplete"))

    async def _next(self, socket: LiveSocket, seconds: float) -> Json | None:
        """Return the next message, None if there is none in time; note handles and goAway. Raises Fault."""
        try:
            message = await socket.receive_within(seconds)
        except LiveClosed as closed:
            raise Fault(_closed_in_call(closed)) from None
        if message is None:
            return None
        update = message.get("sessionResumptionUpdate", {})
        if update.get("resumable") and update.get("newHandle"):
            self._handle = update["newHandle"]
        if "goAway" in message:
            self._notices.append(
                f"Google announced the end of the connection (goAway, {message['goAway'].get('timeLeft')} left) within "
                "a call of seconds. Clients have to move to a new connection, as the reference clients do."
            )
        return message

    async def _send(self, text: Json) -> None:
        try:
            await self._live().send({"realtimeInput": text})
        except LiveClosed as closed:
            raise Fault(_closed_in_call(closed)) from None

    def _live(self) -> LiveSocket:
        assert self._socket  # noqa: S101 (the check of the setup came before)
        return self._socket

    def _settings(self) -> GeminiSettings:
        try:
            return GeminiSettings.of(self._target.variables)
        except SettingsError as error:
            raise Fault(str(error)) from None


_LATER: Final = "if it happens again, look at Google's status page."


def _closed_in_call(closed: LiveClosed) -> str:
    if closed.code == BROKEN:
        return (
            "The connection broke in the middle of a call, without a close code. Check the proxies and firewalls on "
            f"the way, and run make doctor again; {_LATER}"
        )
    what = "ended the call" if closed.code == _ENDED else "closed the connection"
    return f"Google {what} with {closed} in the middle of a turn. Run make doctor again; {_LATER}"


def _has_audio(message: Json) -> bool:
    parts = message.get("serverContent", {}).get("modelTurn", {}).get("parts", ())
    return any("inlineData" in part for part in parts)


def _token_request() -> LiveTokenRequest:
    return LiveTokenRequest(_INSTRUCTION, _VOICE, int(time.time()) + _TOKEN_SECONDS, _LANGUAGES, _VOCABULARY)

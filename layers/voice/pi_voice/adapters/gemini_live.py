"""Gemini Live: ephemeral tokens, created by one POST.

The SDK sends the same request, byte for byte (verified by a test), but adds half a second to every cold start:
docs/adr/0003 has the figures.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pi_voice.adapters.http_client import DEAD_CONNECTION, HttpClient, ResponseTooLarge
from pi_voice.domain.connection_api import GeminiLiveConnection, LiveTool
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, UpstreamTimeout
from pi_voice.domain.live_models import LiveModel, profile_of
from pi_voice.domain.tools import HANG_UP
from pi_voice.logs import logger
from pi_voice.ports import LiveTokenRequest
from pi_voice.settings import GeminiSettings

TIME_LIMIT_SECONDS: Final = 5.0
"""Time limit of a request with its retry."""

LOCKED_FIELDS: Final = (
    "model,generationConfig,systemInstruction,tools,inputAudioTranscription,outputAudioTranscription,"
    "contextWindowCompression,realtimeInputConfig,historyConfig"
)
"""Fields of the setup that the client cannot change, in both versions of the API.

The setup lacks `realtimeInputConfig` and `historyConfig`, and `tools` where the agent has none, so these are locked to
their defaults.
`sessionResumption` is not locked, because the client sends its resumption handle there. `proactivity`, which only
v1alpha has, is not locked either: empty, it could mean `proactiveAudio: false`, which gemini-3.8-live refuses.
"""

_OK: Final = 200
_RETRYABLE: Final = (408, 429)
_SERVER_ERROR: Final = 500


class _AuthToken(BaseModel):
    """Google's response; `name` is the token itself."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)


class GeminiLiveTokens:
    """Ephemeral tokens, each valid for one Live connection and locked to one agent's setup."""

    def __init__(
        self,
        settings: Callable[[], GeminiSettings],
        http_client: HttpClient,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
    ) -> None:
        self._settings = settings
        self._http_client = http_client
        self._time_limit_seconds = time_limit_seconds

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        """Create a token that is valid until the request's `expires_at`.

        Raises GeminiError, GeminiUnavailable, UpstreamTimeout.
        """
        settings = self._settings()
        model = _model_id(settings)
        answer = await self._post(settings, json.dumps(token_request(request, settings)).encode())
        try:
            token = _AuthToken.model_validate_json(answer).name
        except ValidationError:
            logger.warning("gemini_live_response_invalid")
            raise GeminiError from None
        return GeminiLiveConnection(
            url=settings.live_url,
            token=token,
            model=model,
            setup={"setup": {"model": f"models/{model}", "sessionResumption": {}}},
            turn_ends_at=profile_of(model).turn_ends_at,
            tools=_live_tools(request, profile_of(model)),
        )

    async def _post(self, settings: GeminiSettings, body: bytes) -> bytes:
        """Send the request, once more if the reused connection was closed; an unused token does no harm."""
        try:
            async with asyncio.timeout(self._time_limit_seconds):
                try:
                    status, answer = await self._exchange(settings, body)
                except DEAD_CONNECTION:
                    status, answer = await self._exchange(settings, body)
        except TimeoutError:
            logger.warning("gemini_live_timed_out", seconds=self._time_limit_seconds)
            raise UpstreamTimeout("Gemini did not respond in time. Try again in a moment.") from None
        except aiohttp.ClientError as error:
            logger.warning("gemini_live_unreachable", error=type(error).__name__)
            raise GeminiUnavailable from None
        except ResponseTooLarge:
            logger.warning("gemini_live_response_invalid")
            raise GeminiError from None
        if status == _OK:
            return answer
        logger.warning("gemini_live_request_refused", status=status)
        raise GeminiUnavailable if status in _RETRYABLE or status >= _SERVER_ERROR else GeminiError

    async def _exchange(self, settings: GeminiSettings, body: bytes) -> tuple[int, bytes]:
        url = f"{settings.base_url}/{settings.api_version}/auth_tokens"
        headers = {"x-goog-api-key": settings.api_key, "Content-Type": "application/json"}
        # A redirect would send the API key to another host.
        async with self._http_client.session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, await response.read()


def _model_id(settings: GeminiSettings) -> str:
    return settings.live_model.removeprefix("models/")


def token_request(request: LiveTokenRequest, settings: GeminiSettings) -> dict[str, Any]:
    """Return the AuthToken resource that locks a connection to the requested setup."""
    expiry = datetime.fromtimestamp(request.expires_at, UTC).isoformat()
    return {
        "expireTime": expiry,
        "newSessionExpireTime": expiry,
        "uses": 1,
        "bidiGenerateContentSetup": {
            "model": f"models/{_model_id(settings)}",
            "generationConfig": {
                "responseModalities": ["AUDIO"],
                "speechConfig": {"voice_config": {"prebuilt_voice_config": {"voice_name": request.voice}}},
                **_thinking(settings),
            },
            "systemInstruction": {"parts": [{"text": request.instruction}], "role": "user"},
            **_tools(request, profile_of(_model_id(settings))),
            # Without transcriptions there is no transcript to extract results from.
            "inputAudioTranscription": _transcription_hints(request, settings),
            "outputAudioTranscription": {},
            # Without compression an audio session ends after 15 minutes.
            "contextWindowCompression": {"sliding_window": {}},
        },
        "fieldMask": LOCKED_FIELDS,
    }


def _thinking(settings: GeminiSettings) -> dict[str, Any]:
    if not profile_of(_model_id(settings)).needs_thinking_level:
        return {}
    return {"thinkingConfig": {"thinking_level": settings.live_thinking_level.upper()}}


def _tools(request: LiveTokenRequest, profile: LiveModel) -> dict[str, Any]:
    """Return the declarations of the tools. The model waits for an answer, unless the tool says when to speak of it."""
    if not request.tools and not request.may_hang_up:
        return {}
    from pi_voice.domain.function_declarations import declarations  # noqa: PLC0415 (10 ms, only for agents with tools)

    speaking = {tool.name for tool in request.tools if tool.speaks is not None}
    declared = declarations(request.tools, may_hang_up=request.may_hang_up)
    if profile.takes_behavior:
        behavior = {True: "NON_BLOCKING", False: "BLOCKING"}
        declared = [{**each, "behavior": behavior[each["name"] in speaking]} for each in declared]
    return {"tools": [{"functionDeclarations": declared}]}


def _live_tools(request: LiveTokenRequest, profile: LiveModel) -> list[LiveTool]:
    """Return what the client has to know of the tools."""
    tools = [
        LiveTool(name=tool.name, where=tool.run.where, speaks=tool.speaks if profile.takes_scheduling else None)
        for tool in request.tools
    ]
    return [*tools, *[LiveTool(name=HANG_UP, where="client", speaks=None)] * request.may_hang_up]


def _transcription_hints(request: LiveTokenRequest, settings: GeminiSettings) -> dict[str, Any]:
    """Return hints in the fields of the API version: v1alpha has no vocabulary, and its languages lie deeper."""
    if settings.transcription_hints == "none" or not request.languages:
        return {}
    languages = {"language_codes": list(request.languages)}
    if settings.api_version == "v1alpha":
        return {"language_hints": languages}
    if settings.transcription_hints == "language" or not request.vocabulary:
        return languages
    return {**languages, "custom_vocabulary": list(request.vocabulary)}

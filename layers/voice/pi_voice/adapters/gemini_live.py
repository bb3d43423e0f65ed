"""Gemini Live: ephemeral tokens, minted by one plain POST.

The SDK would do the same, byte for byte (a test holds that), for half a second more of every cold start:
docs/adr/0003 has the figures.
"""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pi_voice.adapters.http_client import DEAD_CONNECTION, HttpClient
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, UpstreamTimeout
from pi_voice.domain.session_api import GeminiLiveConnection
from pi_voice.logs import logger
from pi_voice.ports import LiveTokenRequest
from pi_voice.settings import GeminiSettings

TIME_LIMIT_SECONDS: Final = 5.0

LOCKED_FIELDS: Final = (
    "model,generationConfig,systemInstruction,tools,inputAudioTranscription,outputAudioTranscription,"
    "contextWindowCompression"
)
"""The fields of the setup that the browser cannot change.

`tools` is locked to nothing, so that nobody can add one; `sessionResumption` is left to the browser, which could
not resume otherwise.
"""

_OK: Final = 200
_BUSY: Final = (408, 429)
_BROKEN: Final = 500


class _Minted(BaseModel):
    """Google's answer: the token's name is the token itself."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)


class GeminiLiveTokens:
    """Tokens that open one Live connection each, locked to one agent's setup."""

    def __init__(
        self, settings: GeminiSettings, web: HttpClient, time_limit_seconds: float = TIME_LIMIT_SECONDS
    ) -> None:
        self._settings = settings
        self._web = web
        self._time_limit_seconds = time_limit_seconds

    async def issue(self, request: LiveTokenRequest) -> GeminiLiveConnection:
        """Make a token that is good until the order's expiry.

        Raises GeminiError, GeminiUnavailable, UpstreamTimeout.
        """
        model = f"models/{self._settings.live_model.removeprefix('models/')}"
        answer = await self._post(json.dumps(token_request(request, model)).encode())
        try:
            token = _Minted.model_validate_json(answer).name
        except ValidationError:
            logger.warning("gemini answered with something else than a token")
            raise GeminiError from None
        return GeminiLiveConnection(
            url=self._settings.live_url,
            token=token,
            model=model.removeprefix("models/"),
            setup={"setup": {"model": model, "sessionResumption": {}}},
        )

    async def _post(self, body: bytes) -> bytes:
        """Send the one request, again if a kept connection turns out to be dead: a token more does no harm."""
        try:
            async with asyncio.timeout(self._time_limit_seconds):
                try:
                    status, answer = await self._exchange(body)
                except DEAD_CONNECTION:
                    status, answer = await self._exchange(body)
        except TimeoutError:
            logger.warning("gemini did not answer", seconds=self._time_limit_seconds)
            raise UpstreamTimeout("Gemini did not answer in time. Try again in a moment.") from None
        except aiohttp.ClientError as error:
            logger.warning("gemini cannot be reached", error=type(error).__name__)
            raise GeminiUnavailable from None
        if status == _OK:
            return answer
        logger.warning("gemini refused", status=status)
        raise GeminiUnavailable if status in _BUSY or status >= _BROKEN else GeminiError

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        url = f"{self._settings.base_url}/{self._settings.api_version}/auth_tokens"
        headers = {"x-goog-api-key": self._settings.api_key, "Content-Type": "application/json"}
        # A redirect would carry the key to wherever it leads.
        async with self._web.session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, await response.read()


def token_request(request: LiveTokenRequest, model: str) -> dict[str, Any]:
    """Write the AuthToken resource (v1alpha) that locks a connection to what the request says."""
    expiry = datetime.fromtimestamp(request.expires_at, UTC).isoformat()
    return {
        "expireTime": expiry,
        "newSessionExpireTime": expiry,
        "uses": 1,
        "bidiGenerateContentSetup": {
            "model": model,
            "generationConfig": {
                "responseModalities": ["AUDIO"],
                "speechConfig": {"voice_config": {"prebuilt_voice_config": {"voice_name": request.voice}}},
            },
            "systemInstruction": {"parts": [{"text": request.instruction}], "role": "user"},
            # Without the transcriptions there would be nothing to extract from.
            "inputAudioTranscription": {},
            "outputAudioTranscription": {},
            # Without compression an audio session ends after 15 minutes.
            "contextWindowCompression": {"sliding_window": {}},
        },
        "fieldMask": LOCKED_FIELDS,
    }

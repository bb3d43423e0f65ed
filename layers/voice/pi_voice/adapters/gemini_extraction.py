"""Gemini's non-live model, which reads transcripts; by google-genai."""

import asyncio
from functools import cached_property
from typing import Final

import aiohttp
from google import genai
from google.genai import errors, types
from google.genai.client import AsyncClient
from pydantic import JsonValue

from pi_voice.adapters.web import Web
from pi_voice.errors import GeminiError, GeminiUnavailable, UpstreamTimeout
from pi_voice.logs import logger
from pi_voice.ports import ModelAnswer
from pi_voice.settings import GeminiSettings

API_VERSION: Final = "v1beta"
MAX_OUTPUT_TOKENS: Final = 8_192  # thinking cannot be switched off, and takes its share of these

_BAD_REQUEST: Final = 400
_BUSY: Final = (408, 429)
_BROKEN: Final = 500
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


class GeminiExtractionModel:
    """Asks for JSON of a schema, one attempt a call."""

    def __init__(self, settings: GeminiSettings, web: Web) -> None:
        self.name = settings.extraction_model
        self._settings = settings
        self._web = web

    async def answer(self, instruction: str, text: str, schema: dict[str, JsonValue], seconds: float) -> ModelAnswer:
        """Ask once; raises GeminiError, GeminiUnavailable, UpstreamTimeout.

        The text goes as one user turn, because the model refuses a request whose last turn is its own.
        """
        try:
            async with asyncio.timeout(seconds):  # the SDK has no time limit of its own
                response = await self._client.models.generate_content(
                    model=self.name,
                    contents=text,
                    config=types.GenerateContentConfig(
                        system_instruction=instruction,
                        response_mime_type="application/json",
                        response_json_schema=schema,
                        max_output_tokens=MAX_OUTPUT_TOKENS,
                        thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.MINIMAL),
                    ),
                )
        except TimeoutError:
            logger.warning("the extraction model did not answer", seconds=seconds)
            raise UpstreamTimeout("Gemini did not answer in time.") from None
        except errors.APIError as error:
            logger.warning("the extraction model refused", status=error.code)
            raise _translated(error) from None
        except (aiohttp.ClientError, OSError) as error:
            logger.warning("the extraction model cannot be reached", error=type(error).__name__)
            raise GeminiUnavailable from None
        except (TypeError, ValueError) as error:  # the SDK's and pydantic's, for an answer that is no answer
            logger.warning("the extraction model answered nonsense", error=type(error).__name__)
            raise GeminiError from None
        return _said(response, self.name)

    @cached_property
    def _client(self) -> AsyncClient:
        """The SDK's client, made at its first use, because the HTTP session needs a running event loop."""
        options = types.HttpOptions(
            base_url=self._settings.base_url,
            api_version=API_VERSION,
            aiohttp_client=self._web.session,
            # Without any options the SDK would wait up to ten seconds by itself after a broken connection.
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        return genai.Client(api_key=self._settings.api_key, vertexai=False, http_options=options).aio


def _said(response: types.GenerateContentResponse, asked: str) -> ModelAnswer:
    """Take the text of a finished answer; a block or a truncation is HTTP 200 without one."""
    candidate = response.candidates[0] if response.candidates else None
    reason = candidate.finish_reason if candidate else None
    if candidate is None or reason != types.FinishReason.STOP or not response.text:
        cut = reason == types.FinishReason.MAX_TOKENS
        logger.warning("the extraction model gave no answer", reason=reason.name if reason else "blocked")
        raise GeminiError(
            "Gemini's answer was cut off, because the results are too long. Ask for less in the output schema."
            if cut
            else "Gemini gave no answer for this transcript."
        )
    return ModelAnswer(response.text, response.model_version or asked)


def _translated(error: errors.APIError) -> GeminiError | GeminiUnavailable:
    if error.code in _BUSY or error.code >= _BROKEN:
        return GeminiUnavailable(retry_after_seconds=_retry_after(error.details))
    if error.code == _BAD_REQUEST:
        return GeminiError(
            "Gemini refused the extraction request. Most often the output schema is too complex for it: "
            "make it flatter, with fewer and shorter names and enums."
        )
    return GeminiError()


def _retry_after(details: object) -> float | None:
    """Find the pause that Google asks for (google.rpc.RetryInfo, a duration such as "3.5s")."""
    match details:
        case {"error": {"details": [*infos]}}:
            for info in infos:
                match info:
                    case {"@type": type_url, "retryDelay": str(delay)} if type_url == _RETRY_INFO:
                        try:
                            return float(delay.removesuffix("s"))
                        except ValueError:
                            return None
    return None

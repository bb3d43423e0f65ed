"""Gemini's non-live model, which reads transcripts; by google-genai."""

import asyncio
from functools import cached_property
from itertools import cycle
from typing import Final, Literal

import aiohttp
from google import genai
from google.genai import errors, types
from google.genai.client import AsyncClient

from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, UpstreamTimeout
from pi_voice.logs import logger
from pi_voice.ports import ModelRequest, ModelResponse
from pi_voice.settings import GeminiSettings

API_VERSION: Final = "v1beta"
MAX_OUTPUT_TOKENS: Final = 16_384  # thinking cannot be switched off, and takes its share of these

_BAD_REQUEST: Final = 400
_BUSY: Final = (408, 429)
_BROKEN: Final = 500
_BLOCKED: Final = frozenset(
    {
        types.FinishReason.SAFETY,
        types.FinishReason.RECITATION,
        types.FinishReason.LANGUAGE,
        types.FinishReason.BLOCKLIST,
        types.FinishReason.PROHIBITED_CONTENT,
        types.FinishReason.SPII,
    }
)
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


class GeminiExtractionModel:
    """Asks for JSON of a schema, one attempt a call."""

    def __init__(self, settings: GeminiSettings, web: HttpClient) -> None:
        self.name = settings.extraction_model
        self._settings = settings
        self._web = web

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        """Ask once; raises GeminiError, GeminiUnavailable, UpstreamTimeout.

        The last turn is always the user's, because the model refuses a request that ends with its own.
        """
        try:
            async with asyncio.timeout(seconds):  # the SDK has no time limit of its own
                response = await self._client.models.generate_content(
                    model=self.name,
                    contents=[
                        types.Content(role=role, parts=[types.Part(text=text)])
                        for role, text in zip(cycle(("user", "model")), request.messages, strict=False)
                    ],
                    config=types.GenerateContentConfig(
                        system_instruction=request.instruction,
                        response_mime_type="application/json",
                        response_json_schema=request.schema,
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


def _said(response: types.GenerateContentResponse, asked: str) -> ModelResponse:
    """Take the text of a finished answer; a block or a truncation is HTTP 200 without one."""
    candidate = response.candidates[0] if response.candidates else None
    reason = candidate.finish_reason if candidate else None
    end: Literal["finished", "truncated", "blocked", "broken"] = "broken"
    if reason == types.FinishReason.STOP and response.text:
        end = "finished"
    elif reason == types.FinishReason.MAX_TOKENS:
        end = "truncated"
    elif reason in _BLOCKED or (candidate is None and response.prompt_feedback is not None):
        end = "blocked"
    if end != "finished":
        logger.warning("the extraction model gave no answer", end=end, reason=reason.name if reason else None)
    used = response.usage_metadata or types.GenerateContentResponseUsageMetadata()
    return ModelResponse(
        text=(response.text or "") if end == "finished" else "",
        model=response.model_version or asked,
        end=end,
        input_tokens=used.prompt_token_count or 0,
        output_tokens=(used.candidates_token_count or 0) + (used.thoughts_token_count or 0),
    )


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

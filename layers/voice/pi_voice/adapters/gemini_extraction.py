"""Gemini's extraction model, through google-genai."""

import asyncio
import re
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Final, Literal

import aiohttp
from google import genai
from google.genai import errors, types
from google.genai.client import AsyncClient

from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.errors import (
    GeminiError,
    GeminiMisconfigured,
    GeminiUnavailable,
    Misconfiguration,
    UpstreamTimeout,
)
from pi_voice.logs import logger
from pi_voice.ports import ModelRequest, ModelResponse
from pi_voice.settings import ExtractionThinkingLevel, GeminiSettings

API_VERSION: Final = "v1beta"
MAX_OUTPUT_TOKENS: Final = 16_384  # thoughts included; thinking cannot be switched off

_LEVELS: Final[Mapping[str, ExtractionThinkingLevel]] = {
    "gemini-2": "none",  # refuses levels
    "gemini-3.5-flash-lite": "minimal",
}
"""Thinking level by the beginning of a model's id. Other models get `low`: Flash 3.7 and later refuse `minimal`."""

_MISCONFIGURED: Final[Mapping[int, Misconfiguration]] = {
    401: "key",
    402: "permission",
    403: "permission",
    404: "model",
}
_THINKING_LEVEL: Final = re.compile("thinking[ _]?(level|config)", re.IGNORECASE)
_FAILED_PRECONDITION: Final = "FAILED_PRECONDITION"  # billing is off, or the region is not supported
_RETRYABLE: Final = (408, 429)
_SERVER_ERROR: Final = 500
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
    """Generates JSON that follows a schema; one attempt per call."""

    def __init__(self, name: str, settings: Callable[[], GeminiSettings], http_client: HttpClient) -> None:
        self.name = name
        self._settings = settings
        self._http_client = http_client
        self._client_of: tuple[GeminiSettings, AsyncClient] | None = None

    async def generate(self, request: ModelRequest, seconds: float) -> ModelResponse:
        """Send one request; raises GeminiError, GeminiMisconfigured, GeminiUnavailable, UpstreamTimeout.

        The last message must be the user's, because the model refuses a request that ends with its own.
        """
        settings = self._settings()
        try:
            async with asyncio.timeout(seconds):  # the SDK has no time limit
                response = await self._client(settings).models.generate_content(
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
                        thinking_config=_thinking(self.name, settings),
                    ),
                )
        except TimeoutError:
            logger.warning("extraction_model_timed_out", seconds=seconds)
            raise UpstreamTimeout("Gemini did not respond in time.") from None
        except errors.APIError as error:
            logger.warning("extraction_model_request_refused", status=error.code)
            raise _translated(error) from None
        except (aiohttp.ClientError, OSError) as error:
            logger.warning("extraction_model_unreachable", error=type(error).__name__)
            raise GeminiUnavailable from None
        except (TypeError, ValueError) as error:  # an invalid or too large response, or a redirect
            logger.warning("extraction_model_response_invalid", error=type(error).__name__)
            return ModelResponse(text="", model=self.name, end="broken")
        return _model_response(response, self.name)

    def _client(self, settings: GeminiSettings) -> AsyncClient:
        """Return the SDK's client, a new one if the settings changed; the HTTP session needs a running event loop."""
        if self._client_of is None or self._client_of[0] != settings:
            options = types.HttpOptions(
                base_url=settings.base_url,
                api_version=API_VERSION,
                aiohttp_client=self._http_client.session,
                # By default the SDK would wait up to ten seconds before its own retry.
                retry_options=types.HttpRetryOptions(attempts=1),
                # By default Google stores requests for the project's logs, and a deletion here does not reach them.
                extra_body={"store": False},
            )
            client = genai.Client(api_key=settings.api_key, vertexai=False, http_options=options).aio
            self._client_of = settings, client
        return self._client_of[1]


def _thinking(model: str, settings: GeminiSettings) -> types.ThinkingConfig | None:
    """Return the setting's thinking level, or else the lowest that the model accepts: extraction needs little."""
    level, name = settings.extraction_thinking_level, model.removeprefix("models/")
    if level == "auto":
        level = next((level for beginning, level in _LEVELS.items() if name.startswith(beginning)), "low")
    return None if level == "none" else types.ThinkingConfig(thinking_level=types.ThinkingLevel(level.upper()))


def _model_response(response: types.GenerateContentResponse, requested_model: str) -> ModelResponse:
    """Return the text of a finished answer, or how it ended; blocked and truncated answers are HTTP 200 too."""
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
        logger.warning("extraction_model_answer_unusable", end=end, reason=reason.name if reason else None)
    usage = response.usage_metadata or types.GenerateContentResponseUsageMetadata()
    return ModelResponse(
        text=(response.text or "") if end == "finished" else "",
        model=response.model_version or requested_model,
        end=end,
        input_tokens=usage.prompt_token_count or 0,
        output_tokens=(usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
    )


def _translated(error: errors.APIError) -> GeminiError | GeminiUnavailable:
    if error.code in _RETRYABLE or error.code >= _SERVER_ERROR:
        return GeminiUnavailable(retry_after_seconds=_retry_after(error.details))
    if (cause := _misconfiguration(error)) is not None:
        return GeminiMisconfigured(cause)
    return GeminiError(
        "Gemini refused the extraction request, probably because the output schema is too complex. "
        "Make it flatter, with fewer and shorter names and enums."
    )


def _misconfiguration(error: errors.APIError) -> Misconfiguration | None:
    """Return what is wrong with the deployment; None if the request is at fault.

    Google refuses an API key with 400 and a reason in google.rpc.ErrorInfo, and a thinking level with 400 and words.
    """
    if any(str(info.get("reason", "")).startswith("API_KEY_") for info in _infos(error.details)):
        return "key"
    if error.status == _FAILED_PRECONDITION:
        return "permission"
    if _THINKING_LEVEL.search(error.message or ""):
        return "model"
    return _MISCONFIGURED.get(error.code)


def _retry_after(details: object) -> float | None:
    """Return the delay that Google requests, in seconds (google.rpc.RetryInfo, a duration such as "3.5s")."""
    for info in _infos(details):
        match info:
            case {"@type": type_url, "retryDelay": str(delay)} if type_url == _RETRY_INFO:
                try:
                    return float(delay.removesuffix("s"))
                except ValueError:
                    return None
    return None


def _infos(details: object) -> list[dict[str, object]]:
    match details:
        case {"error": {"details": [*infos]}}:
            return [info for info in infos if isinstance(info, dict)]
    return []

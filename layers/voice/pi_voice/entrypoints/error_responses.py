"""Error responses in the format of the API contract."""

import math
from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic_core import to_json

from pi_voice.domain.errors import InternalError, InvalidApiKey, MissingApiKey, VoiceError
from pi_voice.entrypoints.bodies import JSON
from pi_voice.logs import exception_fields, logger

_RETRY_AFTER_SECONDS: Final = 2


def error_response(error: Exception) -> Response[str]:
    """Build the response for an exception. An unexpected one is logged without its message."""
    voice_error = as_voice_error(error)
    headers: dict[str, str | list[str]] = {}
    if isinstance(voice_error, MissingApiKey | InvalidApiKey):
        headers["WWW-Authenticate"] = "Bearer"
    if voice_error.status in (429, 503):
        headers["Retry-After"] = str(math.ceil(voice_error.retry_after_seconds or _RETRY_AFTER_SECONDS))
    event: APIGatewayProxyEventV2 = APIGatewayHttpResolver.current_event
    request_id = event.raw_event["requestContext"]["requestId"]
    logger.info("request_rejected", code=voice_error.code, request_id=request_id)
    document = error_document(voice_error, request_id)
    return Response(voice_error.status, JSON, to_json(document).decode(), headers=headers)


def not_found_response(_: Exception) -> Response[str]:
    """Respond as API Gateway does to an unknown route. Only the function URL and unexpected methods need this."""
    return Response(404, JSON, '{"message":"Not Found"}')


def as_voice_error(error: Exception) -> VoiceError:
    """Return the error itself, or InternalError for an unexpected exception, which is logged."""
    if isinstance(error, VoiceError):
        return error
    logger.error("unexpected_error", **exception_fields(error))
    return InternalError()


def error_document(error: VoiceError, request_id: str) -> dict[str, Any]:
    """Return the JSON document of an error."""
    document: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "request_id": request_id,
        "retryable": error.retryable,
    }
    if error.next is not None:
        document["next"] = error.next
    if error.details:
        document["details"] = [{"path": detail.path, "message": detail.message} for detail in error.details]
    return {"error": document}

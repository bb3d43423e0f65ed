"""Structured logs without secrets and without spoken text."""

import logging
import traceback
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from aws_lambda_powertools import Logger

from pi_voice.domain.errors import SettingsError

logger: Final = Logger()

for library in ("aiohttp", "asyncio", "boto3", "botocore", "google_genai", "livekit", "urllib3"):
    # At lower levels they log whole requests, with keys and transcripts.
    logging.getLogger(library).setLevel(logging.WARNING)


class ExceptionFields(TypedDict):
    """Log fields of an exception, without its message."""

    error: str
    frames: list[str]
    reason: NotRequired[str]


def exception_fields(error: BaseException) -> ExceptionFields:
    """Return type and stack of an exception for the log.

    The message is omitted: botocore and pydantic quote invalid values in it, and a provider may quote the request. That
    of a SettingsError is included, because it names the setting without its value.
    """
    fields: ExceptionFields = {
        "error": type(error).__qualname__,
        "frames": [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ],
    }
    if isinstance(error, SettingsError):
        fields["reason"] = str(error)
    return fields

"""Structured logs that hold no secret and no word of a call."""

import logging
import traceback
from pathlib import Path
from typing import Final, TypedDict

from aws_lambda_powertools import Logger

logger: Final = Logger()

for library in ("aiohttp", "asyncio", "boto3", "botocore", "google_genai", "livekit", "urllib3"):
    # Below this they write whole requests, with keys and with what was said, whatever level we log at.
    logging.getLogger(library).setLevel(logging.WARNING)


class Trace(TypedDict):
    """An exception without its message."""

    error: str
    frames: list[str]


def trace(error: BaseException) -> Trace:
    """Describe an exception by its type and where it came from.

    Its message is left out: botocore's and pydantic's repeat the values that they complain about, and a
    provider's may repeat our request.
    """
    return {
        "error": type(error).__qualname__,
        "frames": [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ],
    }

"""Tool calls of a session: what the agent asked for during the call, and what came of it."""

import json
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, JsonValue, StringConstraints
from typing_extensions import TypeAliasType

from pi_voice.domain.base import Document, JsonObject
from pi_voice.domain.errors import ErrorDetail, ToolCallsTooLarge
from pi_voice.domain.ids import EventId
from pi_voice.domain.json_text import one_line
from pi_voice.domain.row_limits import MAX_RESULT_DEPTH, is_deeper, size_of
from pi_voice.domain.tools import ToolName

MAX_CALLS: Final = 100
"""Maximum number of tool calls of a session."""

MAX_ARGUMENT_BYTES: Final = 8_192
MAX_RESPONSE_BYTES: Final = 65_536
MAX_BYTES: Final = 1_048_576
"""Maximum size of all tool calls of a session as JSON, so that a session fits a response of Lambda."""

_MAX_LINE_CHARACTERS: Final = 4_000
"""Maximum length of a tool call in a prompt; of a longer one, the response is cut."""

CallId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]
"""Id of a tool call, as Gemini gives it: 1 to 128 visible ASCII characters."""

ToolCallOutcome = TypeAliasType("ToolCallOutcome", Literal["succeeded", "failed", "timeout"])
"""How a tool call ended."""

ToolCallStatus = TypeAliasType("ToolCallStatus", Literal["running", "succeeded", "failed", "timeout"])
"""How a tool call ended.

`running`: it has not ended, or its end was not recorded, and it may or may not have taken effect.
"""


class CallToolRequest(Document):
    """Request body of POST /sessions/{session_id}/tool-calls."""

    call_id: CallId
    """Id of the function call, as Gemini sent it. A repeated id returns the recorded call."""
    name: ToolName
    """Name of the tool."""
    arguments: JsonObject = Field(default={})
    """Arguments of the function call, up to 8 KB of JSON."""
    response: JsonObject | None = None
    """What the page answered to Gemini, up to 64 KB of JSON: required for a tool that the page runs, and not taken for
    one that runs on your server."""
    status: ToolCallOutcome = "succeeded"
    """How the call ended on the page."""
    milliseconds: Annotated[int, Field(ge=0, le=86_400_000)] | None = None
    """Duration of the call on the page."""


class ToolCall(Document):
    """A tool call of a session."""

    call_id: str
    """Id of the function call."""
    name: str
    """Name of the tool."""
    arguments: JsonObject
    """Arguments of the function call."""
    status: ToolCallStatus
    """How the call ended."""
    response: JsonObject
    """Answer that the agent got."""
    milliseconds: int | None = None
    """Duration of the call; null if the page did not report it."""
    called_at: int
    """When it was first recorded."""


class Run(NamedTuple):
    """A run of a tool on a server that has not ended."""

    event_id: EventId
    """Sent as `webhook-id`, the same over all runs of one call."""
    number: int
    """Counted from 1: a call is run again if its function ended without recording an answer."""
    ends_at: int
    """When another run may begin."""


class StoredToolCall(NamedTuple):
    """A tool call, and its run unless that has ended."""

    call: ToolCall
    run: Run | None = None


def check_size(request: CallToolRequest, recorded_bytes: int) -> int:
    """Check a tool call against the limits of its session, and return its size as JSON; raises ToolCallsTooLarge."""
    details = []
    for name, value, most in (
        ("arguments", request.arguments, MAX_ARGUMENT_BYTES),
        ("response", request.response, MAX_RESPONSE_BYTES),
    ):
        if (size := size_of(value)) > most:
            details.append(ErrorDetail(name, f"Takes {size:,} bytes as JSON; at most {most:,} are taken."))
        elif is_deeper(value, MAX_RESULT_DEPTH):
            details.append(ErrorDetail(name, f"Is nested more than {MAX_RESULT_DEPTH} levels deep."))
    size = size_of(request.arguments) + size_of(request.response)
    if not details and recorded_bytes + size > MAX_BYTES:
        details.append(ErrorDetail("", f"Would make the session's tool calls larger than {MAX_BYTES:,} bytes."))
    if details:
        raise ToolCallsTooLarge(details=details)
    return size


def check_count(recorded: int) -> None:
    """Raise ToolCallsTooLarge if a session has its maximum number of tool calls."""
    if recorded >= MAX_CALLS:
        raise ToolCallsTooLarge(details=[ErrorDetail("", f"A session takes at most {MAX_CALLS} tool calls.")])


def lines(calls: Sequence[ToolCall]) -> list[str]:
    """Format each tool call as one line of JSON for a model, so that no answer can end the line or imitate a call."""
    return [_line(number, call) for number, call in enumerate(calls)]


def latest_lines(calls: Sequence[ToolCall], most: int) -> list[str]:
    """Format the latest tool calls, with at most so many characters in all; the latest one is always there."""
    latest: list[str] = []
    left = most
    for line in reversed(lines(calls)):
        left -= len(line)
        if latest and left < 0:
            break
        latest.append(line)
    return latest[::-1]


def _line(number: int, call: ToolCall) -> str:
    document: dict[str, JsonValue] = {
        "tool_call": number,
        "name": call.name,
        "arguments": call.arguments,
        "status": call.status,
        "response": call.response,
    }
    line = one_line(document)
    if len(line) <= _MAX_LINE_CHARACTERS:
        return line
    text = json.dumps(call.response, ensure_ascii=False)
    return one_line({**document, "response": f"{text[:_MAX_LINE_CHARACTERS]}\u2026"})

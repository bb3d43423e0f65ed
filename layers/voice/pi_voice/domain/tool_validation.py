"""Validation of an agent's tools in requests."""

from collections.abc import Sequence
from typing import Final

from pi_voice.domain.errors import ErrorDetail, InvalidOutputSchema, InvalidRequest
from pi_voice.domain.output_schema_validation import validate_schema
from pi_voice.domain.row_limits import size_of
from pi_voice.domain.tools import HANG_UP, Tool

MAX_BYTES: Final = 65_536
"""Maximum size of all tools of an agent as JSON."""


def validate_tools(tools: Sequence[Tool]) -> list[ErrorDetail]:
    """Validate the tools of an agent and return warnings about their parameters; raises InvalidRequest."""
    details = [*_name_errors(tools)]
    if (size := size_of([tool.model_dump() for tool in tools])) > MAX_BYTES:
        details.append(ErrorDetail("tools", f"Take {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken."))
        raise InvalidRequest(details=details)
    warnings: list[ErrorDetail] = []
    for number, tool in enumerate(tools):
        if tool.parameters is not None:
            try:
                warnings += validate_schema(f"tools.{number}.parameters", tool.parameters, of_results=False)
            except InvalidOutputSchema as error:
                details += error.details
    if details:
        raise InvalidRequest(details=details)
    return warnings


def _name_errors(tools: Sequence[Tool]) -> list[ErrorDetail]:
    names = [tool.name for tool in tools]
    repeated = [
        ErrorDetail(f"tools.{number}.name", "Is the name of another tool. Give each tool a name of its own.")
        for number, name in enumerate(names)
        if name in names[:number]
    ]
    reserved = [
        ErrorDetail(f"tools.{number}.name", "Is built in. Set behaviors.may_hang_up, or choose another name.")
        for number, name in enumerate(names)
        if name == HANG_UP
    ]
    return [*repeated, *reserved]

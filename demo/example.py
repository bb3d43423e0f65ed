"""Examples: the body of `POST /agents` in one file, and the caller in a second one.

The caller of `booking.json` is in `booking.caller.json`: the session's values, what the caller says, and what the page
answers when the agent calls its functions. A tool that runs on a server has the name of a program beside the example,
which serves it, in place of the id of a webhook endpoint.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from local.errors import CannotStart

Agent = dict[str, Any]


class ToolCall(BaseModel):
    """A function and its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, JsonValue] = {}


class Line(BaseModel):
    """One line of the caller, said after the agent's turn or as an interruption of it.

    `calls` are the functions that the agent calls for this line, if it is the stand-in's: it reads them from the
    examples, because it understands no speech. Gemini decides itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Annotated[str, Field(min_length=1)]
    interrupts: bool = False
    calls: tuple[ToolCall, ...] = ()


class Participant(BaseModel):
    """The caller's identity and name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: str
    name: str


class Caller(BaseModel):
    """The caller, the session's `ttl_seconds` and `variables`, and the lines that the caller says.

    `tools` has what the page answers, by the name of the function.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    participant: Participant
    ttl_seconds: int
    variables: dict[str, StrictStr | StrictBool | StrictInt | StrictFloat] = {}
    tools: dict[str, dict[str, JsonValue]] = {}
    says: Annotated[tuple[Line | str, ...], Field(min_length=1)]

    @property
    def lines(self) -> tuple[Line, ...]:
        """The caller's lines, in order."""
        return tuple(Line(text=line) if isinstance(line, str) else line for line in self.says)


@dataclass(frozen=True, slots=True)
class Example:
    """An agent and its caller."""

    path: Path
    agent: Agent
    caller: Caller

    @property
    def tools(self) -> list[str]:
        """The names of the agent's tools."""
        return [str(tool.get("name")) for tool in self._tools]

    @property
    def server_tools(self) -> list[str]:
        """The names of the tools that run on a server."""
        return [str(tool.get("name")) for tool in self._tools if _program(tool)]

    @property
    def server(self) -> Path | None:
        """The program that serves the agent's tools; None if all of them run on the page."""
        return next((self.path.parent / name for tool in self._tools if (name := _program(tool))), None)

    def with_endpoint(self, endpoint_id: str) -> Self:
        """Return the example with the id of its server's webhook endpoint."""
        tools = [
            {**tool, "run": {**tool["run"], "endpoint_id": endpoint_id}} if _program(tool) else tool
            for tool in self._tools
        ]
        return replace(self, agent={**self.agent, "tools": tools})

    def without_server_tools(self) -> Self:
        """Return the example with the tools of the page only."""
        return replace(self, agent={**self.agent, "tools": [tool for tool in self._tools if not _program(tool)]})

    @property
    def _tools(self) -> list[dict[str, Any]]:
        tools = self.agent.get("tools")
        return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []

    @property
    def language(self) -> str:
        """The language of the call, a BCP 47 tag."""
        spoken: str | None = self.agent.get("voice", {}).get("language_code")
        return spoken or str(self.agent.get("language", "en-US"))


def load(path: Path) -> Example:
    """Read an agent and its caller; raises CannotStart."""
    caller = path.with_suffix(".caller.json")
    agent = _read(path)
    if not isinstance(agent, dict):
        raise CannotStart(f"{path} is no agent: it has to be a JSON object.")
    try:
        example = Example(path, agent, Caller.model_validate(_read(caller)))
    except ValidationError as error:
        first = error.errors()[0]
        raise CannotStart(f"{caller}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    if fault := next(_faults(example), None):
        raise CannotStart(f"{caller}: {fault}.")
    if example.server and not example.server.is_file():
        raise CannotStart(f"There is no {example.server}: endpoint_id of a tool names the program that serves it.")
    return example


def _program(tool: dict[str, Any]) -> str | None:
    """Return the program that a tool names; None if it runs on the page."""
    run = tool.get("run")
    return str(run.get("endpoint_id")) if isinstance(run, dict) and run.get("where") == "server" else None


def _faults(example: Example) -> Iterator[str]:
    """Yield what does not fit between the caller and the agent's tools."""
    for name in example.caller.tools:
        if name not in example.tools:
            yield f"tools.{name}: The agent has no such tool"
        if name in example.server_tools:
            yield f"tools.{name}: The server answers, and not the page"
    for name in example.tools:
        if name not in [*example.caller.tools, *example.server_tools]:
            yield f"tools.{name}: Field required: the answer of the page"
    for number, line in enumerate(example.caller.lines):
        for call in line.calls:
            if call.name not in example.tools:
                yield f"says.{number}.calls: The agent has no tool {call.name}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CannotStart(
            f"There is no {path}: an example is an agent, and a caller in a .caller.json beside it."
        ) from None
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path} cannot be read: {error}.") from None

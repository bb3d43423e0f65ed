"""Tools of an agent: what it can do besides talking."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints
from typing_extensions import TypeAliasType

from pi_voice.domain.base import Document, JsonObject
from pi_voice.domain.ids import EndpointId

MAX_TOOLS: Final = 20

HANG_UP: Final = "hang_up"
"""Name of the built-in tool with which an agent ends the call (`behaviors.may_hang_up`)."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]{0,63}$")]
"""Name of a function as Gemini takes it; up to 64 characters, Gemini's earlier limit."""

Speaks = TypeAliasType("Speaks", Literal["when_idle", "interrupt", "silent"])
"""When the agent speaks about the answer of a tool."""


DEFAULT_TIMEOUT_SECONDS: Final = 10


class ClientRun(Document):
    """A tool that the page runs."""

    where: Literal["client"]
    """`client`: the page runs it, and reports what it did."""


class ServerRun(Document):
    """A tool that runs on your server."""

    where: Literal["server"]
    """`server`: Pi Voice asks a webhook endpoint, and returns its answer to the page."""
    endpoint_id: EndpointId
    """Webhook endpoint that answers the calls."""
    timeout_seconds: Annotated[int, Field(ge=1, le=15)] = DEFAULT_TIMEOUT_SECONDS
    """Time limit of a call in seconds, 1 to 15."""


ToolRun = TypeAliasType("ToolRun", Annotated[ClientRun | ServerRun, Field(discriminator="where")])
"""Where a tool runs."""


class Tool(Document):
    """A function that the agent may call."""

    name: ToolName
    """Name of the function: letters, digits and `_.:-`, up to 64, beginning with a letter or `_`."""
    description: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"\S")]
    """What the function does and when to call it, 1 to 1,000 characters; the model reads it."""
    parameters: JsonObject | None = None
    """JSON Schema of the arguments, an object; null: the function takes none."""
    run: ToolRun
    """Where the function runs."""
    speaks: Speaks | None = None
    """When the agent speaks about the answer, for live models that go on talking meanwhile; null: at once."""


Tools = Annotated[tuple[Tool, ...], Field(max_length=MAX_TOOLS)]
"""The tools of an agent, up to 20."""


def server_runs(tools: Iterable[Tool]) -> Iterator[tuple[int, ServerRun]]:
    """Yield the tools that run on a server, each with its position."""
    for number, tool in enumerate(tools):
        if isinstance(tool.run, ServerRun):
            yield number, tool.run

"""Examples: the body of `POST /agents` in one file, and the caller in a second one.

The caller of `booking.json` is in `booking.caller.json`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local.errors import CannotStart

Agent = dict[str, Any]


class Line(BaseModel):
    """One line of the caller, said after the agent's turn or as an interruption of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Annotated[str, Field(min_length=1)]
    interrupts: bool = False


class Participant(BaseModel):
    """The caller's identity and name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: str
    name: str


class Caller(BaseModel):
    """The caller, the session's `ttl_seconds`, and the lines that the caller says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    participant: Participant
    ttl_seconds: int
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
        return Example(path, agent, Caller.model_validate(_read(caller)))
    except ValidationError as error:
        first = error.errors()[0]
        raise CannotStart(f"{caller}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CannotStart(
            f"There is no {path}: an example is an agent, and a caller in a .caller.json beside it."
        ) from None
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path} cannot be read: {error}.") from None

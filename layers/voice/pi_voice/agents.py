"""Agents: who answers the call, what they ask and what is wanted of the answers."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from pi_voice.documents import Document, JsonObject, Metadata, Paging
from pi_voice.ids import AgentId, WorkspaceId
from pi_voice.voices import VoiceName

LanguageTag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35)]
"""A well-formed BCP 47 tag (RFC 5646, section 2.1), such as `de` or `pt-BR`."""

DurationCap = Annotated[int, Field(ge=60, le=1800)]
"""How long a call may last, in seconds."""

Words = Annotated[str, StringConstraints(max_length=1000)]


class Behaviors(Document):
    """How the agent conducts the call."""

    max_duration_seconds: DurationCap | None = None
    speaking_pace: Literal["slow", "normal", "fast"] = "normal"
    response_length: Literal["brief", "moderate", "detailed"] = "moderate"
    greeting: Words | None = None
    closing_message: Words | None = None


class VoiceChoice(Document):
    """Which voice speaks, and in which language where that differs from the agent's."""

    name: VoiceName = "Puck"
    language_code: LanguageTag | None = None


class AgentSpec(Document):
    """What a caller says of an agent."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"\S")]
    instructions: Annotated[str, StringConstraints(min_length=1, max_length=20_000, pattern=r"\S")]
    language: LanguageTag = "en-US"
    purpose: Annotated[str, StringConstraints(max_length=200)] | None = None
    questions: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"\S")], ...],
        Field(max_length=50),
    ] = ()
    behaviors: Behaviors = Behaviors()
    output_schema: JsonObject | None = None
    output_schema_strict: JsonObject | None = None
    voice: VoiceChoice = VoiceChoice()
    metadata: Metadata = Field(default={})

    @property
    def spoken_language(self) -> str:
        """The language of the call: the voice's where it says one, else the agent's."""
        return self.voice.language_code or self.language


class Stamp(Document):
    """Which agent and version this is; `created_at` is the first version's time and `updated_at` this one's."""

    agent_id: AgentId
    version: int
    created_at: int
    updated_at: int


class Agent(AgentSpec, Stamp):
    """One version of an agent, which never changes again."""


class AgentQuery(Paging):
    """Which agents to list."""


@dataclass(frozen=True, slots=True)
class OwnedAgent:
    """An agent and the workspace that it belongs to."""

    workspace: WorkspaceId
    agent: Agent


MergePatch = dict[str, JsonValue]
"""A change to a JSON document (RFC 7396): what is there replaces, null removes."""


def merge(document: dict[str, JsonValue], patch: MergePatch) -> dict[str, JsonValue]:
    """Apply a JSON merge patch (RFC 7396, section 2) and return the result; the document stays as it was."""
    merged = dict(document)
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        elif isinstance(change, dict):
            target = merged.get(name)
            merged[name] = merge(target if isinstance(target, dict) else {}, change)
        else:
            merged[name] = change
    return merged

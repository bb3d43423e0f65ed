"""Agents: who answers the call, what they ask and what is wanted of the answers."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, StringConstraints

from pi_voice.documents import Detail, Document, JsonObject, Metadata, Paging
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
    """How long a call may last; null is without a cap."""
    speaking_pace: Literal["slow", "normal", "fast"] = "normal"
    """How fast the agent speaks."""
    response_length: Literal["brief", "moderate", "detailed"] = "moderate"
    """How much the agent says at a time."""
    greeting: Words | None = None
    """What the agent opens the call with."""
    closing_message: Words | None = None
    """What the agent closes the call with."""


class VoiceChoice(Document):
    """Which voice speaks, and in which language where that differs from the agent's."""

    name: VoiceName = "Puck"
    """One of the 30 prebuilt voices."""
    language_code: LanguageTag | None = None
    """BCP 47 tag of the language to speak, where it is not the agent's."""


class AgentSpec(Document):
    """What a caller says of an agent."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"\S")]
    """What the agent is called, in lists and on the call."""
    instructions: Annotated[str, StringConstraints(min_length=1, max_length=20_000, pattern=r"\S")]
    """Who the agent is and what it should do."""
    language: LanguageTag = "en-US"
    """BCP 47 tag of the language that the agent speaks."""
    purpose: Annotated[str, StringConstraints(max_length=200)] | None = None
    """What the call is for."""
    questions: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"\S")], ...],
        Field(max_length=50),
    ] = ()
    """What the agent asks, one at a time and in this order."""
    behaviors: Behaviors = Behaviors()
    """How the agent conducts the call."""
    output_schema: JsonObject | None = None
    """The results wanted, by hints: a type name, a sentence, or objects and one-element arrays of these.

    Every key is in the results, null where the call does not tell.
    """
    output_schema_strict: JsonObject | None = None
    """The results wanted, by JSON Schema in the subset that Gemini supports; wins over the hints."""
    evidence: bool = False
    """Whether to tell for each value of the results where in the call it was said; costs a longer answer."""
    voice: VoiceChoice = VoiceChoice()
    """Who speaks."""
    metadata: Metadata = Field(default={})
    """Up to 16 notes of your own."""

    @property
    def spoken_language(self) -> str:
        """The language of the call: the voice's where it says one, else the agent's."""
        return self.voice.language_code or self.language


class Stamp(Document):
    """Which agent and version this is; `created_at` is the first version's time and `updated_at` this one's."""

    agent_id: AgentId
    """The agent."""
    version: int
    """Counts up with each change."""
    created_at: int
    """When the agent was made."""
    updated_at: int
    """When this version was made."""


class Agent(AgentSpec, Stamp):
    """One version of an agent, which never changes again."""


class SavedAgent(Agent):
    """An agent as it was saved, with what is worth a look."""

    warnings: list[Detail] = Field(default=[])
    """What Gemini will not see of the output schema, by its place; results are held to it where that can be done."""


class AgentQuery(Paging):
    """Which agents to list."""


@dataclass(frozen=True, slots=True)
class OwnedAgent:
    """An agent and the workspace that it belongs to."""

    workspace: WorkspaceId
    agent: Agent


MergePatch = dict[str, JsonValue]
"""A change to a JSON document (RFC 7396): what is there replaces, null removes."""


def unknown_fields(patch: MergePatch) -> list[str]:
    """Name the fields of a merge patch that an agent has not; merging alone would take a null for done."""
    return [
        path
        for name, change in patch.items()
        for path in (
            [name]
            if name not in AgentSpec.model_fields
            else [f"{name}.{inner}" for inner in change if inner not in _PARTS[name].model_fields]
            if name in _PARTS and isinstance(change, dict)
            else []
        )
    ]


_PARTS: Final[dict[str, type[Document]]] = {"behaviors": Behaviors, "voice": VoiceChoice}


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

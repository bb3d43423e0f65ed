"""Agents: instructions, questions, voice and output schema."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal, NamedTuple, NewType

from pydantic import Field, JsonValue, StringConstraints
from typing_extensions import TypeAliasType

from pi_voice.domain.base import Document, JsonObject, Metadata, dotted_path
from pi_voice.domain.errors import ErrorDetail
from pi_voice.domain.ids import AgentId, WorkspaceId
from pi_voice.domain.merge_patch import MergePatch
from pi_voice.domain.pagination import PageQuery
from pi_voice.domain.speech import LanguageTag, Question, Words
from pi_voice.domain.tools import Tools
from pi_voice.domain.variables import Variable, Variables
from pi_voice.domain.voices import VoiceName

MAX_VERSION: Final = 999_999_999
MAX_AGENT_BYTES: Final = 404_000
"""Maximum size of an agent as JSON; DynamoDB's limit for an item is 409,600 bytes."""

DurationCap = Annotated[int, Field(ge=60, le=1800)]
"""Time limit of a call in seconds, 60 to 1800."""

SpeakingPace = TypeAliasType("SpeakingPace", Literal["slow", "normal", "fast"])
"""Speaking rate of an agent."""

ResponseLength = TypeAliasType("ResponseLength", Literal["brief", "moderate", "detailed"])
"""Length of an agent's answers."""


class Behaviors(Document):
    """How the agent conducts the call."""

    max_duration_seconds: DurationCap | None = None
    """Time limit of a call in seconds, 60 to 1800; null: none."""
    speaking_pace: SpeakingPace = "normal"
    """Speaking rate."""
    response_length: ResponseLength = "moderate"
    """Length of the agent's answers."""
    greeting: Words | None = None
    """First words of the agent, up to 1,000 characters."""
    closing_message: Words | None = None
    """Last words of the agent, up to 1,000 characters."""
    may_hang_up: bool = False
    """Whether the agent ends the call itself, with the built-in tool `hang_up`."""


class VoiceChoice(Document):
    """Voice of the agent, and its language if it differs from the agent's."""

    name: VoiceName = "Puck"
    """One of the prebuilt voices."""
    language_code: LanguageTag | None = None
    """BCP 47 tag of the spoken language; null: the agent's."""


class AgentConfig(Document):
    """The fields of an agent that its owner sets."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"\S")]
    """Name of the agent in lists and in the call, 1 to 120 characters."""
    instructions: Annotated[str, StringConstraints(min_length=1, max_length=20_000, pattern=r"\S")]
    """Role and task of the agent, 1 to 20,000 characters."""
    language: LanguageTag = "en-US"
    """BCP 47 tag of the agent's language, also a hint for the transcription of the caller."""
    purpose: Annotated[str, StringConstraints(max_length=200)] | None = None
    """Purpose of the call, up to 200 characters."""
    questions: Annotated[tuple[Question, ...], Field(max_length=50)] = ()
    """Questions, asked one at a time in this order; up to 50."""
    behaviors: Behaviors = Behaviors()
    """Time limit, speaking pace, length of answers, first and last words."""
    output_schema: JsonObject | None = None
    """Output schema as hints: a type name, a sentence, a choice, or objects and one-element arrays of these.

    The results have every key; a value the call does not mention is null.
    """
    output_schema_strict: JsonObject | None = None
    """Output schema as JSON Schema, drafts 4 to 2020-12 or OpenAPI 3.0; takes precedence over `output_schema`."""
    evidence: bool = False
    """Whether to return for each value where in the call it was said; costs more output tokens."""
    voice: VoiceChoice = VoiceChoice()
    """Voice of the agent."""
    tools: Tools = ()
    """Functions that the agent may call, up to 20."""
    variables: Variables | None = None
    """Values that each session brings, by name, up to 50; null: texts are said as they are written.

    Instructions, questions, greeting and closing message name them as `{{name}}`.
    """
    metadata: Metadata = Field(default={})
    """Up to 16 key-value pairs for your own use."""

    @property
    def spoken_language(self) -> str:
        """The voice's language, or else the agent's."""
        return self.voice.language_code or self.language

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages to expect in a call: the agent's, and its voice's if that differs."""
        return tuple(dict.fromkeys((self.language, self.spoken_language)))

    @property
    def told(self) -> str:
        """Everything that the agent is told before a call."""
        behaviors = self.behaviors
        texts = (
            self.name,
            self.purpose,
            self.instructions,
            *self.questions,
            behaviors.greeting,
            behaviors.closing_message,
        )
        return "\n".join(filter(None, texts))


class CreateAgentRequest(AgentConfig):
    """Request body of POST /agents."""


class AgentVersion(Document):
    """Identity and times of one version of an agent."""

    agent_id: AgentId
    """Agent id, the same for all versions."""
    version: int
    """Version number, counted from 1."""
    created_at: int
    """When the first version was created."""
    updated_at: int
    """When this version was created."""

    @property
    def version_id(self) -> str:
        """Agent id and version, which name this version among those of all agents."""
        return f"{self.agent_id}/{self.version}"


class Agent(AgentConfig, AgentVersion):
    """One immutable version of an agent."""


class SavedAgent(Agent):
    """Response to a request that saves an agent: the agent, with warnings."""

    warnings: list[ErrorDetail] = Field(default=[])
    """By path: what Gemini ignores or reads differently in the output schema, what is not held, and what looks like a
    variable and is said as it is written."""


class ListAgentsQuery(PageQuery):
    """Query of GET /agents."""


class ListAgentVersionsQuery(PageQuery):
    """Query of GET /agents/{agent_id}/versions."""


VersionNumber = NewType("VersionNumber", str)
"""Number of a version in a path, as it was sent."""


class OwnedAgent(NamedTuple):
    """An agent and its workspace."""

    workspace: WorkspaceId
    agent: Agent
    request_hash: str | None = None
    """Hash of the request that made this version, if it carried an Idempotency-Key."""


def unknown_fields(patch: MergePatch) -> list[str]:
    """Return the paths of a merge patch that agents do not have; a merge alone would ignore a null there."""
    return list(map(dotted_path, _unknown_fields(patch)))


def _unknown_fields(patch: MergePatch) -> Iterator[tuple[str, ...]]:
    for name, change in patch.items():
        if name not in AgentConfig.model_fields:
            yield (name,)
        elif name in _PARTS:
            yield from ((name, inner) for inner in _names(change) if inner not in _PARTS[name].model_fields)
        elif name == "variables":
            for variable, fields in _members(change):
                yield from ((name, variable, inner) for inner in _names(fields) if inner not in Variable.model_fields)


def _names(value: JsonValue) -> Iterator[str]:
    return (name for name, _ in _members(value))


def _members(value: JsonValue) -> Iterable[tuple[str, JsonValue]]:
    return value.items() if isinstance(value, dict) else ()


_PARTS: Final[dict[str, type[Document]]] = {"behaviors": Behaviors, "voice": VoiceChoice}

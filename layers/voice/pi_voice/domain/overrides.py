"""Overrides: fields of an agent that a session sets for its own call."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from pi_voice.domain.base import Document
from pi_voice.domain.speech import LanguageTag, Question, Words
from pi_voice.domain.voices import VoiceName


class VoiceOverride(Document):
    """Voice of the call; a field that is null or absent is the agent's."""

    name: VoiceName | None = None
    """One of the prebuilt voices."""
    language_code: LanguageTag | None = None
    """BCP 47 tag of the spoken language."""


class SessionOverrides(Document):
    """Fields of the agent for this call alone; a field that is null or absent is the agent's."""

    language: LanguageTag | None = None
    """BCP 47 tag of the agent's language; takes precedence over the agent's voice."""
    voice: VoiceOverride | None = None
    """Voice of the agent."""
    greeting: Words | None = None
    """First words of the agent, up to 1,000 characters; empty: its usual greeting."""
    closing_message: Words | None = None
    """Last words of the agent, up to 1,000 characters; empty: its usual goodbye."""
    questions: Annotated[tuple[Question, ...], Field(max_length=50)] | None = None
    """Questions in place of the agent's, up to 50; an empty list: none."""

    @classmethod
    def stored(cls, fields: Mapping[str, Any]) -> "SessionOverrides | None":
        """Build overrides from those of a stored session, whatever its version knew; None if there are none."""
        known = {name: fields.get(name) for name in cls.model_fields}
        if voice := fields.get("voice"):
            known["voice"] = VoiceOverride.model_construct(
                name=voice.get("name"), language_code=voice.get("language_code")
            )
        if (questions := fields.get("questions")) is not None:
            known["questions"] = tuple(questions)
        return cls.model_construct(**known) if fields else None

"""Words that the transcription of the caller is likely to meet."""

from collections.abc import Iterable, Iterator
from typing import Final

from pydantic import JsonValue

from pi_voice.domain.agents import Agent

MAX_PHRASES: Final = 100
MAX_PHRASE_CHARACTERS: Final = 100


def vocabulary_of(agent: Agent, of_the_call: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the agent's name, phrases of the call, and the texts that the output schema lists as values, each once.

    Up to MAX_PHRASES; a text without letters or of more than MAX_PHRASE_CHARACTERS is left out.
    """
    schema = agent.output_schema if agent.output_schema_strict is None else agent.output_schema_strict
    phrases: dict[str, None] = {}
    for text in (agent.name, *of_the_call, *_listed_values(schema)):
        phrase = " ".join(text.replace("_", " ").split())
        if len(phrase) <= MAX_PHRASE_CHARACTERS and any(map(str.isalpha, phrase)):
            phrases[phrase] = None
            if len(phrases) == MAX_PHRASES:
                break
    return tuple(phrases)


def _listed_values(schema: JsonValue) -> Iterator[str]:
    """Yield the texts in `enum` and `const`, at any depth."""
    match schema:
        case dict():
            for keyword, inner in schema.items():
                if keyword == "enum" and isinstance(inner, list):
                    yield from (value for value in inner if isinstance(value, str))
                elif keyword == "const" and isinstance(inner, str):
                    yield inner
                else:
                    yield from _listed_values(inner)
        case list():
            for inner in schema:
                yield from _listed_values(inner)

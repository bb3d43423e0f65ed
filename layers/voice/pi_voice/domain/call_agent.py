"""The agent of one call: its version, with the session's overrides and the values of its variables."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pi_voice.domain import time_zones, variables
from pi_voice.domain.agents import Agent, AgentConfig
from pi_voice.domain.errors import ErrorDetail, InvalidVariables
from pi_voice.domain.sessions import Session

_SPOKEN: Final = ("greeting", "closing_message")
"""Fields of an agent's behaviors, and of overrides, that may name variables."""


def agent_of_call(agent: Agent, session: Session) -> Agent:
    """Return an agent as it speaks in a session; the same session always gets the same texts.

    An agent without `variables` keeps its texts as they are written.
    """
    overridden = _overridden(agent, session)
    return overridden if agent.variables is None else _filled(overridden, _values(agent, session))


# ---- Checks ----


def check_texts(config: AgentConfig) -> list[ErrorDetail]:
    """Check the places for values in the texts of an agent, and return warnings.

    An agent without `variables` says its texts as they are written, so each one that looks otherwise has a warning.
    Raises InvalidVariables.
    """
    declared = config.variables
    if declared is None:
        message = "Has {{, which is said as it is written. Declare variables, or {} for the built-in values alone."
        return [ErrorDetail(path, message) for path, text in _texts(config) if variables.has_places(text)]
    faults = list(_faults(config, _texts(config)))
    faults += [
        ErrorDetail(path, "Takes no variables, and would be said as it is written.")
        for path, text in (("name", config.name), ("purpose", config.purpose or ""))
        if any(_is_known(config, name) for name in variables.names_in(text))
    ]
    if faults:
        raise InvalidVariables(details=faults)
    _check_places(config)
    variables.check_size_of({name: each.default for name, each in declared.items()})
    return []


def check_call(agent: Agent, session: Session) -> None:
    """Check a session's overrides and the size of what its values fill; raises InvalidVariables."""
    if agent.variables is None:
        return
    overridden = _overridden(agent, session)
    if faults := list(_faults(agent, _override_texts(session.overrides))):
        raise InvalidVariables(details=faults)
    _check_places(overridden)
    values = _values(agent, session)
    filled = sum(len(values[name]) for _, text in _texts(overridden) for name in variables.names_in(text))
    if filled > variables.MAX_FILLED_CHARACTERS:
        message = f"Fill {filled:,} characters of the agent's texts; at most {variables.MAX_FILLED_CHARACTERS:,} fit."
        raise InvalidVariables(details=[ErrorDetail("variables", message)])


def _faults(config: AgentConfig, texts: Iterable[tuple[str, str]]) -> Iterator[ErrorDetail]:
    for path, text in texts:
        for fault in variables.faults_in(text, lambda name: _is_known(config, name)):
            yield ErrorDetail(path, fault)


def _is_known(config: AgentConfig, name: str) -> bool:
    return name in variables.BUILT_IN or name in (config.variables or {})


def _check_places(config: AgentConfig) -> None:
    """Raise InvalidVariables if the texts have too many places for values."""
    places = sum(1 for _, text in _texts(config) for _ in variables.names_in(text))
    if places > variables.MAX_PLACES:
        message = f"Have {places:,} places in the agent's texts; at most {variables.MAX_PLACES:,} are taken."
        raise InvalidVariables(details=[ErrorDetail("variables", message)])


# ---- Texts ----


def _texts(config: AgentConfig) -> Iterator[tuple[str, str]]:
    """Yield the texts that may name variables, by path."""
    yield "instructions", config.instructions
    yield from ((f"questions.{number}", question) for number, question in enumerate(config.questions))
    yield from ((f"behaviors.{name}", getattr(config.behaviors, name) or "") for name in _SPOKEN)
    yield from ((f"tools.{number}.description", tool.description) for number, tool in enumerate(config.tools))


def _override_texts(overrides: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((f"overrides.{name}", overrides.get(name) or "") for name in _SPOKEN)
    questions = enumerate(overrides.get("questions") or ())
    yield from ((f"overrides.questions.{number}", question) for number, question in questions)


def _filled(agent: Agent, values: variables.Values) -> Agent:
    """Return an agent whose texts have their values."""

    def fill(text: str | None) -> str | None:
        return text and variables.fill(text, values)

    behaviors = {name: fill(getattr(agent.behaviors, name)) for name in _SPOKEN}
    return agent.model_copy(
        update={
            "instructions": fill(agent.instructions),
            "questions": tuple(map(fill, agent.questions)),
            "behaviors": agent.behaviors.model_copy(update=behaviors),
            "tools": tuple(tool.model_copy(update={"description": fill(tool.description)}) for tool in agent.tools),
        }
    )


def _values(agent: Agent, session: Session) -> dict[str, str]:
    """Return what takes the place of each name in a session."""
    day = time_zones.date_in(session.time_zone, session.created_at)
    given = {name: session.variables.get(name, variable.default) for name, variable in (agent.variables or {}).items()}
    return {
        **{name: variables.written(value) for name, value in given.items()},
        "date": f"{day:%A, %Y-%m-%d}",
        "time_zone": session.time_zone,
        "participant.name": variables.written(session.participant.name),
    }


# ---- Overrides ----


def _overridden(agent: Agent, session: Session) -> Agent:
    """Return an agent with a session's overrides, which were validated when the session was created."""
    overrides: dict[str, Any] = session.overrides
    if not overrides:
        return agent
    voice = {name: value for name, value in (overrides.get("voice") or {}).items() if value is not None}
    language = overrides.get("language")
    if language is not None and "language_code" not in voice:
        voice["language_code"] = None  # else the agent's voice would keep its own language
    spoken = {name: overrides[name] for name in _SPOKEN if overrides.get(name) is not None}
    questions = overrides.get("questions")
    return agent.model_copy(
        update={
            "language": agent.language if language is None else language,
            "voice": agent.voice.model_copy(update=voice),
            "behaviors": agent.behaviors.model_copy(update=spoken),
            "questions": agent.questions if questions is None else tuple(questions),
        }
    )

"""Gemini Live models: what each needs in its setup, and what its clients have to know (docs/adr/0031)."""

from datetime import date
from typing import Final, Literal, NamedTuple


class LiveModel(NamedTuple):
    """Profile of a Live model."""

    name: str
    needs_thinking_level: bool = False
    """Whether the setup must have a thinking level. The other models get none: gemini-3.8-live refuses one."""
    takes_behavior: bool = True
    """Whether a function may say if the model waits for its answer. If it says nothing, 3.8 models go on talking."""
    takes_scheduling: bool = False
    """Whether a function's answer may say when the model speaks about it."""
    turn_ends_at: Literal["turnComplete", "idle"] = "turnComplete"
    """Message that ends a turn of the agent: `turnComplete`, or the interaction status IDLE."""
    shutdown_from: date | None = None
    """Earliest date on which Google may shut the model down, if one was announced."""


STABLE: Final = LiveModel("gemini-3.8-live", takes_scheduling=True)
LIVE_MODELS: Final = (
    STABLE,
    LiveModel("gemini-3.8-live-extended-thinking", needs_thinking_level=True, turn_ends_at="idle"),
    LiveModel("gemini-3.1-flash-live-preview", takes_behavior=False, shutdown_from=date(2026, 11, 17)),
)


def profile_of(name: str) -> LiveModel:
    """Return the profile of a model id, or of the known model whose id has most words in common with it."""
    words = set(name.split("-"))

    def likeness(model: LiveModel) -> float:
        others = set(model.name.split("-"))
        return len(words & others) / len(words | others)

    return max(LIVE_MODELS, key=likeness)  # the first of equals


def unknown_model_notice(name: str) -> str | None:
    """Return a warning if no profile is of this model id."""
    profile = profile_of(name)
    if profile.name == name:
        return None
    return f"{name} is not a Live model that Pi Voice knows. It gets the setup of {profile.name}."


def shutdown_notice(name: str, today: date, setting: str) -> str | None:
    """Return a warning if Google may have shut the model down; `setting` selects another, up to its value."""
    profile = profile_of(name)
    if profile.name != name or profile.shutdown_from is None or today < profile.shutdown_from:
        return None
    return (
        f"Google may have shut down {name}: the earliest date was {profile.shutdown_from}. "
        f"If calls fail, use the stable model: {setting}{STABLE.name}"
    )

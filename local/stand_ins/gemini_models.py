"""What single models refuse, and how Live models end a turn, by Google's pages and by reports.

Written apart from the profiles of the product, so that each is a check of the other.
"""

import re
from typing import Final

from local.stand_ins.gemini_messages import Message

_SINCE_3_8: Final = "models/gemini-3.8-live"
_EXTENDED_THINKING: Final = f"{_SINCE_3_8}-extended-thinking"
_LEVELS: Final = ("LOW", "MEDIUM", "HIGH")
_WITHOUT_LEVELS: Final = re.compile(r"gemini-[12]\b")
_WITHOUT_MINIMAL: Final = re.compile(r"gemini-(3\.[7-9]|[4-9]).*flash")


def setup_fault(setup: Message) -> str | None:
    """Return what the model of a setup refuses in it."""
    model = setup.get("model", "")
    level = setup.get("generationConfig", {}).get("thinkingConfig", {}).get("thinkingLevel")
    if ends_turns_when_idle(setup):
        if level not in _LEVELS:
            return f"{model} needs a thinking_level: {', '.join(_LEVELS)}."
    elif model.startswith(_SINCE_3_8) and level is not None:
        return f"thinking_level is not supported for {model}."
    if model.startswith(_SINCE_3_8) and setup.get("proactivity", {}).get("proactiveAudio") is False:
        return f"proactive_audio cannot be switched off for {model}."
    return None


def tool_response_fault(setup: Message, content: Message) -> str | None:
    """Return what the model of a setup refuses in the responses of functions."""
    if ends_turns_when_idle(setup) and any("scheduling" in each for each in content.get("functionResponses", [])):
        return f"scheduling is not supported for {setup['model']}."
    return None


def waits_for_function(setup: Message, declaration: Message) -> bool:
    """Return whether the model of a setup waits for the answer of a function: by default, 3.8 models do not."""
    return not setup.get("model", "").startswith(_SINCE_3_8) or declaration.get("behavior") == "BLOCKING"


def ends_turns_when_idle(setup: Message) -> bool:
    """Return whether the model of a setup sends an interaction status, which alone says that its turn is over."""
    return str(setup.get("model", "")).startswith(_EXTENDED_THINKING)


def thinking_fault(model: str, config: Message) -> str | None:
    """Return why a model that generates content refuses the thinking level of a generationConfig."""
    level = config.get("thinkingConfig", {}).get("thinkingLevel")
    if level and _WITHOUT_LEVELS.match(model):
        return "Thinking level is not supported for this model."
    if level == "MINIMAL" and _WITHOUT_MINIMAL.match(model):
        return f"Thinking level {level} is not supported for this model."
    return None

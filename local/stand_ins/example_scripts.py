"""The examples' scripts: what the caller answers, and which functions the agent then calls.

`examples/NAME.caller.json` has a line for each question of the agent, with `calls` beside it:

    {"text": "Six, please.", "calls": [{"name": "show_table", "arguments": {"guests": 6}}]}

Only what the stand-in needs is read; the demo checks the whole file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local.errors import CannotStart

EXAMPLES: Final = Path(__file__).parents[2] / "examples"

Calls = tuple[tuple[str, dict[str, Any]], ...]
"""Names and arguments of function calls."""

CallScript = Mapping[str, Calls]
"""The calls for each line of a caller, by `plain` words; empty for a line without calls."""

_CALLER: Final = ".caller.json"


@dataclass(frozen=True, slots=True)
class ExampleScript:
    """One example by `plain` words: the calls for each line, if any line has some, and the line for each question."""

    calls: CallScript
    answers: Mapping[str, str]


NO_SCRIPT: Final = ExampleScript({}, {})


def example_scripts(folder: Path = EXAMPLES) -> Mapping[str, ExampleScript]:
    """Return the scripts by the agent's name; raises CannotStart."""
    scripts = {}
    for path in sorted(folder.glob(f"*{_CALLER}")):
        lines = _lines(_read(path), path)
        agent_path = path.with_name(f"{path.name.removesuffix(_CALLER)}.json")
        agent = _read(agent_path)
        calls = {
            plain(line["text"]): tuple((call["name"], call.get("arguments", {})) for call in line["calls"])
            for line in lines
        }
        answers = {
            plain(question): line["text"] for question, line in zip(_questions(agent, agent_path), lines, strict=False)
        }
        scripts[str(agent.get("name"))] = ExampleScript(calls if any(calls.values()) else {}, answers)
    return scripts


def plain(words: str) -> str:
    """Return words without case and punctuation."""
    return " ".join(re.findall(r"\w+", words.casefold()))


def _lines(caller: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(caller.get("says", [])):
        match line:
            case str(text):
                lines.append({"text": text, "calls": []})
            case {"text": str(text), **others} if _are_calls(calls := others.get("calls") or []):
                lines.append({"text": text, "calls": calls})
            case _:
                raise CannotStart(f'{path}: says.{number}: give a "text", and "calls" with "name" and "arguments".')
    return lines


def _questions(agent: dict[str, Any], path: Path) -> list[str]:
    questions = agent.get("questions") or []
    if not isinstance(questions, list) or not all(isinstance(question, str) for question in questions):
        raise CannotStart(f"{path}: questions has to be a list of texts.")
    return questions


def _are_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments", {}), dict)
        for call in calls
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path} cannot be read: {error}.") from None
    if not isinstance(document, dict):
        raise CannotStart(f"{path} has to be a JSON object.")
    return document

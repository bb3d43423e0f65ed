"""Run checks in order, each with a time limit, and print a line for each."""

import asyncio
import re
import traceback
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Verdict = Literal["ok", "warning", "failed", "skipped"]

_NAME_WIDTH: Final = 20
_TOKEN: Final = re.compile(r"\beyJ[\w-]+(\.[\w-]*){0,2}|\bauth_tokens/\w+")
_FEWEST_SECRET_CHARACTERS: Final = 6


class Fault(Exception):
    """A check failed; the message says what is wrong and what to do."""


class NotChecked(Exception):
    """A check cannot run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A check that passed: what it found, and what to look at nevertheless."""

    found: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One check, with its time limit in seconds and the names of the checks that have to pass before it."""

    name: str
    run: Callable[[], Awaitable[Passed]]
    seconds: float = 20.0
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check."""

    name: str
    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:<9}{self.name:<{_NAME_WIDTH}}{' '.join(self.text.split())}"


async def run_checks(checks: Sequence[Check], report: Callable[[Result], None]) -> bool:
    """Run checks in order and report each; return whether none failed.

    A check whose needs failed or were skipped is skipped.
    """
    results: dict[str, Verdict] = {}
    for check in checks:
        missing = [name for name in check.needs if results.get(name) not in {"ok", "warning"}]
        if missing:
            result = Result(check.name, "skipped", f"Not checked, because it needs: {', '.join(missing)}.")
        else:
            result = await _run(check)
        results[check.name] = result.verdict
        report(result)
    return "failed" not in results.values()


async def _run(check: Check) -> Result:
    try:
        async with asyncio.timeout(check.seconds):
            passed = await check.run()
    except Fault as fault:
        return Result(check.name, "failed", str(fault))
    except NotChecked as reason:
        return Result(check.name, "skipped", str(reason))
    except TimeoutError:
        return Result(
            check.name,
            "failed",
            f"There was no result within {check.seconds:g} s. Check the network, and run make doctor again.",
        )
    except Exception as error:  # noqa: BLE001 (the other checks go on; a message may quote a key, so it is left out)
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        text = f"The check itself failed with {type(error).__name__} at {where}. Please report it as a bug."
        return Result(check.name, "failed", text)
    if passed.warnings:
        return Result(check.name, "warning", " ".join((passed.found, *passed.warnings)))
    return Result(check.name, "ok", passed.found)


def redacted(text: str, secrets: Collection[str]) -> str:
    """Replace secrets and tokens in a text, because a service may quote a request in its answer."""
    for secret in sorted((each for each in secrets if len(each) >= _FEWEST_SECRET_CHARACTERS), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _TOKEN.sub("***", text)

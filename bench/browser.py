"""The browser client: its size beside other packages, and the time from a click to the agent's first sound."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from bench.builds import FOLDER, ROOT, Builds, CannotMeasure
from bench.report import Target, p50, percentile, table

_WORKSPACE: Final = ROOT / "clients/js"
_SECONDS: Final = 600
_CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
"""As in clients/js/tests/browser."""

_STEPS: Final = {
    "created": "`POST /sessions`, while the microphone opens",
    "opened": "WebSocket to Gemini",
    "set up": "`setupComplete`",
    "received": "the agent's first audio is received",
    "heard": "it is heard",
}
"""The steps of a call in order, with what each waits for."""

Json = Any


def measure(_: Builds) -> Json:
    """Bundle the packages, and hold calls in Chromium. Needs npm and Chromium."""
    if not Path(_CHROMIUM).is_file():
        raise CannotMeasure(f"There is no {_CHROMIUM}: install Chromium, or set CHROMIUM to its path.")
    _run("make", "--no-print-directory", "-C", str(ROOT), "js-client")
    sizes = _run("node", "bench/sizes.js", str(FOLDER / "packages"))
    with tempfile.TemporaryDirectory() as folder:
        steps = Path(folder) / "steps.json"
        _run("npx", "--no-install", "vitest", "run", "--config", "bench/vitest.config.ts", FIRST_SOUND=str(steps))
        return {"sizes": json.loads(sizes), "calls": json.loads(steps.read_text(encoding="utf-8"))}


def _run(*command: str, **variables: str) -> str:
    try:
        ran = subprocess.run(
            command,
            cwd=_WORKSPACE,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except FileNotFoundError:
        raise CannotMeasure(f"There is no {command[0]} on PATH: install Node.js 20 or later.") from None
    except subprocess.CalledProcessError as failed:
        raise CannotMeasure(f"{' '.join(command)} failed:\n{failed.stdout}{failed.stderr}") from None
    return ran.stdout


def tables(figures: Json) -> dict[str, str]:
    """Return the table of sizes and the table of steps, whose times add up."""
    smallest = figures["sizes"][0][1]
    sizes = [[name, f"{size / 1000:.1f}", f"{size / smallest:.1f}"] for name, size in figures["sizes"]]
    rows, before = [], dict.fromkeys(range(len(figures["calls"])), 0.0)
    for step, what in _STEPS.items():
        ends = [call[step] for call in figures["calls"]]
        took = [end - before[number] for number, end in enumerate(ends)]
        before = dict(enumerate(ends))
        rows.append([what, f"{p50(took):.0f}", f"{p50(ends):.0f}", f"{percentile(ends, 0.95):.0f}"])
    return {
        "client_sizes": table(["package", "KB, gzipped", "times ours"], sizes),
        "first_sound": table(["step", "ms, p50", "since the click, p50", "p95"], rows),
        "first_sound_calls": str(len(figures["calls"])),
    }


def targets(figures: Json) -> list[Target]:
    """Return the target of the size."""
    return [Target("browser client with both worklets, minified and gzipped", 15, figures["sizes"][0][1] / 1000, "KB")]

"""The model of a session row (docs/model/session.pml), checked exhaustively by SPIN, one scenario at a time.

Each scenario is also run with rules broken on purpose, which has to violate a property: a model that cannot fail proves
nothing.
"""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.model

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = ROOT / "docs/model/session.pml"
STORE: Final = ROOT / "layers/voice/pi_voice/adapters/dynamodb"

SECONDS: Final = 1_800
"""Bounds a hang; a run takes seconds."""

SCENARIOS: Final = {
    "create": "-DCREATING -DFAULTS=2",
    "save and complete": "-DSAVING -DCOMPLETING -DFAULTS=1",
    "renew and complete": "-DRENEWING -DCOMPLETING -DFAULTS=1",
    "two sweepers": "-DSWEEPERS=2 -DFAULTS=2",
    "complete and extract": "-DCOMPLETING -DRESULTS -DFAULTS=1",
    "complete and delete": "-DCOMPLETING -DDELETING -DFAULTS=1",
    "stop with a join": "-DROOM -DSAVED=0 -DJOINS=1 -DSTOPPING -DFAULTS=0",
    "complete and delete with a join": "-DROOM -DSAVED=0 -DJOINS=1 -DCOMPLETING -DDELETING -DFAULTS=0",
}
"""Which processes run, and how many writes may be lost or late, processes killed and services down, all together."""

BROKEN: Final = [
    ("save and complete", "BUG_COMPLETE_WITHOUT_TURNS"),
    ("save and complete", "BUG_FLIP_BEFORE_TRANSCRIPT"),
    ("save and complete", "BUG_EXPIRE_WHEN_REFUSED"),
    ("renew and complete", "BUG_COMPLETE_WITHOUT_EXPIRY"),
    ("complete and delete", "BUG_COMPLETE_WITHOUT_STATUS"),
    ("complete and delete", "BUG_NO_DELETE_AGAIN"),
    ("complete and extract", "BUG_EXTRACT_DONE_WHEN_QUEUED"),
    ("stop with a join", "BUG_ROOM_CLOSED_ONCE"),
    ("complete and delete with a join", "BUG_MERGE_INTO_TOMBSTONE"),
]


def check(folder: Path, definitions: str) -> str:
    """Check a scenario, and return SPIN's report."""
    for command in (
        ["spin", *definitions.split(), "-a", str(MODEL)],
        # Without optimization: compiling takes longer than searching.
        ["gcc", "-O0", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=4000", "-DVECTORSZ=2048", "-o", "pan", "pan.c"],
        ["./pan", "-m1000000", "-w22"],
    ):
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_property_is_violated(name: str, tmp_path: Path) -> None:
    report = check(tmp_path, SCENARIOS[name])

    assert "errors: 0" in report, report
    assert "max search depth too small" not in report
    assert "Search not completed" not in report


@pytest.mark.parametrize(("name", "bug"), BROKEN)
def test_a_broken_rule_is_noticed(name: str, bug: str, tmp_path: Path) -> None:
    assert f"ifdef {bug}" in MODEL.read_text(encoding="utf-8") or f"ifndef {bug}" in MODEL.read_text(encoding="utf-8")

    assert "errors: 1" in check(tmp_path, f"{SCENARIOS[name]} -D{bug}")


def test_each_conditional_write_of_the_code_is_a_transition_of_the_model() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(STORE.glob("*.py")))
    written = set(re.findall(r"Transition: `(\w+)`", code))
    modeled = set(re.findall(r"^inline (\w+)\(", MODEL.read_text(encoding="utf-8"), re.MULTILINE))

    assert len(written) > 10
    assert written <= modeled

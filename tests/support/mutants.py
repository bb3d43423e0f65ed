"""Change the product in one place at a time, and print the changes that no test notices: `make mutants`.

Cosmic Ray makes the changes. Only the tests that run a changed line are repeated, the fast ones first. All this happens
in copies of the working tree.
"""

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, WorkResult
from coverage import CoverageData

ROOT: Final = Path(__file__).parents[2]
PRODUCT: Final = "layers/voice/pi_voice"
TESTED: Final = tuple(f"{PRODUCT}/{name}" for name in ("domain", "use_cases", "adapters", "logs.py", "settings.py"))
"""The part of the product that these tests run; the rest is tested through the functions, which is much slower."""
TESTS: Final = ("tests/unit", "tests/integration")
PYTEST: Final = (str(ROOT / ".venv/bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header")
MINUTES: Final = 15
WORKERS: Final = max(2, (os.cpu_count() or 1) // 2)
SLOW_SECONDS: Final = 240
"""Time limit of the tests of one change, which may be an endless loop."""

MANY: Final = 200
"""Number of tests from which on their files are run instead, because pytest takes long to find single tests."""

NOT_CHANGED: Final = re.compile(
    r"core/(ReplaceBinaryOperator_BitOr_"  # almost always in a type
    r"|ReplaceComparisonOperator_(Is_Eq|IsNot_NotEq|Eq_Is|NotEq_IsNot|Eq_IsNot|NotEq_Is)$)"  # almost always the same
)

SKIPPED_LINE: Final = re.compile(r"\s*@dataclass\(")  # nothing depends on `frozen` and `slots`


@dataclass(frozen=True)
class Change:
    """A change of the product, with what its tests said."""

    spec: MutationSpec
    result: WorkResult | None = None

    @property
    def outcome(self) -> str:
        """Whether a test noticed the change: killed, survived, slow (out of time), or untested (no test runs it)."""
        if self.result is None:
            return "untested"
        if self.result.output == "timeout":
            return "slow"
        return "killed" if self.result.is_killed else "survived"

    def __str__(self) -> str:
        lines = (self.result.diff or "").splitlines() if self.result else []
        changed = [line.rstrip() for line in lines if re.match(r"[+-](?![+-]{2} )", line)]
        return "\n".join([f"{self.spec.module_path}:{self.spec.start_pos[0]}", *changed])


class Coverage:
    """Which tests run which line of the product."""

    def __init__(self, data: CoverageData) -> None:
        self._tests: dict[str, dict[int, set[str]]] = {}
        for file in data.measured_files():
            lines = data.contexts_by_lineno(file)
            found = {line: {test.rpartition("|")[0] for test in tests if test} for line, tests in lines.items()}
            self._tests[file[file.index(PRODUCT) :]] = found

    def tests_of(self, spec: MutationSpec) -> list[list[str]]:
        """Return the tests that run a line, by folder; those of its whole file if the line runs at the import."""
        lines = self._tests.get(str(spec.module_path), {})
        tests = lines.get(spec.start_pos[0]) or set[str]().union(*lines.values())
        by_folder = [{test for test in tests if test.startswith(folder)} for folder in TESTS]
        return [
            sorted(each if len(each) < MANY else {test.partition("::")[0] for test in each})
            for each in by_folder
            if each
        ]


def main(arguments: Sequence[str]) -> None:
    """Test a random sample of changes until the time is over, and print those that no test noticed."""
    parser = argparse.ArgumentParser(prog="make mutants", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311 (a sample)
    parser.add_argument("files", nargs="*", default=TESTED)
    chosen = parser.parse_args(arguments)
    ends_at = time.monotonic() + MINUTES * 60
    print(f"SEED={chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [copied(Path(folder) / str(number)) for number in range(WORKERS)]
        coverage = measured(copies[0], ends_at)
        changes = list(sample(chosen.files, chosen.seed, Path(folder) / "changes"))
        print(f"{len(changes)} places to change; the tests start. This ends after {MINUTES} minutes.", flush=True)
        counted = Counter(shown(change) for change in outcomes(changes, coverage, copies, ends_at))
    print(f"\n{counted.total()} changes: {', '.join(f'{number} {kind}' for kind, number in counted.most_common())}")


def copied(copy: Path) -> Path:
    """Copy the files of the working tree that are not ignored."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


def measured(copy: Path, ends_at: float) -> Coverage:
    """Run all tests, which must pass, and record which lines each of them runs."""
    options = ["-n", str(WORKERS), "--dist", "loadfile", f"--cov={PRODUCT}", "--cov-context=test", "--cov-report="]
    command, left = [*PYTEST, *options, *TESTS], ends_at - time.monotonic()
    try:
        ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        sys.exit(f"The tests alone take longer than {MINUTES} minutes, so nothing was changed.")
    if ran.returncode:
        sys.exit(f"The tests fail before any change:\n{ran.stdout[-3_000:]}{ran.stderr[-1_000:]}")
    data = CoverageData(copy / ".coverage")
    data.read()
    return Coverage(data)


def sample(files: Sequence[str], seed: int, session: Path) -> Iterator[MutationSpec]:
    """Yield the places that Cosmic Ray can change, in random order, each with one of its changes."""
    modules = sorted({module for name in files for module in modules_of(Path(name))})
    if not modules:
        sys.exit(f"There are no modules of {PRODUCT} in: {' '.join(files)}")
    places: dict[tuple[Path, tuple[int, int]], list[MutationSpec]] = defaultdict(list)
    lines = {module: module.read_text(encoding="utf-8").splitlines() for module in modules}
    with use_db(session, WorkDB.Mode.create) as database:
        init(modules, database, {})
        for item in database.pending_work_items:
            [spec] = item.mutations
            line = lines[spec.module_path][spec.start_pos[0] - 1]
            if not NOT_CHANGED.match(spec.operator_name) and not SKIPPED_LINE.match(line):
                places[spec.module_path, tuple(spec.start_pos)].append(spec)
    chance = random.Random(seed)  # noqa: S311 (a sample)
    order = sorted(places)
    chance.shuffle(order)
    for place in order:
        yield chance.choice(sorted(places[place], key=lambda spec: (spec.operator_name, spec.occurrence)))


def modules_of(path: Path) -> list[Path]:
    """Return the modules of the product in a folder, or a module itself."""
    found = path.rglob("*.py") if path.is_dir() else [path]
    return [module for module in found if module.is_file() and module.is_relative_to(PRODUCT)]


def outcomes(
    changes: Sequence[MutationSpec], coverage: Coverage, copies: Sequence[Path], ends_at: float
) -> Iterator[Change]:
    """Test changes, one at a time in each copy, until the time is over."""
    free: SimpleQueue[Path] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def test(spec: MutationSpec) -> Change | None:
        left = ends_at - time.monotonic()
        if left <= 0:
            return None
        if not (tests := coverage.tests_of(spec)):
            return Change(spec)
        copy = free.get()
        try:
            return Change(spec, tested(spec, tests, copy, min(left, SLOW_SECONDS)))
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as threads:
        for change in threads.map(test, changes):
            if change and not (change.outcome == "slow" and time.monotonic() >= ends_at):
                yield change


def tested(spec: MutationSpec, tests: Sequence[Sequence[str]], copy: Path, seconds: float) -> WorkResult:
    """Make a change in a copy, run its tests until one fails, and undo the change."""
    steps = [f"cd {shlex.quote(str(copy))}"]
    for number, each in enumerate(tests):
        (copy / f"tests-{number}").write_text("\n".join(each), encoding="utf-8")
        steps.append(shlex.join([*PYTEST, "-x", "--tb=no", f"@tests-{number}"]))
    command = shlex.join(["sh", "-c", " && ".join(steps)])
    here = MutationSpec(
        module_path=copy / spec.module_path,
        operator_name=spec.operator_name,
        operator_args=spec.operator_args,
        occurrence=spec.occurrence,
        start_pos=spec.start_pos,
        end_pos=spec.end_pos,
    )
    result: WorkResult = mutate_and_test([here], command, seconds)
    return result


def shown(change: Change) -> str:
    """Print a change unless a test noticed it; return its outcome."""
    if change.outcome != "killed":
        print(f"\n{change.outcome.upper()} {change}", flush=True)
    return change.outcome


if __name__ == "__main__":
    main(sys.argv[1:])

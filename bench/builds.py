"""The builds to measure: the product, the baseline with and without bytecode, and Lambda's runtime packages."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / ".bench"
Command = list[str | Path]

RUNTIME: Final = "python3.13"
ARCHITECTURE: Final = "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"
"""Lambda's name for this machine's processor."""


class CannotMeasure(Exception):
    """This machine lacks something that a measurement needs; the message names it."""


@dataclass(frozen=True, slots=True)
class Builds:
    """The folders, and the two programs that run functions from them."""

    product: Path
    stock: Path
    compiled: Path
    floor: Path
    trip: Path
    runtime: Path
    python: Path
    emulator: Path


def builds() -> Builds:
    """Build what is missing; raises CannotMeasure. `make bench` has already built the product."""
    product = ROOT / ".aws-sam" / platform.machine().replace("aarch64", "arm64")
    if not (product / "template.yaml").is_file():
        raise CannotMeasure(f"There is no build in {product.relative_to(ROOT)}: run `make bench`, which makes one.")
    found = subprocess.run([ROOT / "deploy/find_python.sh", RUNTIME], capture_output=True, text=True, check=False)
    if found.returncode:
        raise CannotMeasure(found.stderr.strip())
    python = Path(found.stdout.strip()) / RUNTIME
    emulators = list(
        ROOT.glob(f".venv-sam/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{ARCHITECTURE}")
    )
    if not emulators:
        raise CannotMeasure("There is no Runtime Interface Emulator in .venv-sam, or none for this machine.")
    stock, compiled = FOLDER / "stock", FOLDER / "compiled"
    runtime = FOLDER / "runtime"
    _install(python, runtime, "runtime", compiled=True)  # as on Lambda, whose boto3 has bytecode
    for folder in (stock, compiled):
        _install(python, folder, "bench", compiled=folder == compiled)
        shutil.copy(ROOT / "bench/baseline/app.py", folder)
    _compile(python, compiled)
    bare = ROOT / "bench"
    return Builds(product, stock, compiled, bare / "floor", bare / "trip", runtime, python, emulators[0])


def _install(python: Path, folder: Path, lock: str, *, compiled: bool) -> None:
    """Install a lock file into a folder, unless it is already installed."""
    wanted = ROOT / f"requirements/{lock}.txt"
    mark = folder / "installed"
    if mark.is_file() and mark.read_bytes() == wanted.read_bytes():
        return
    shutil.rmtree(folder, ignore_errors=True)
    pip: Command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--root-user-action",
        "ignore",
    ]
    only_locked: Command = [
        "--require-hashes",
        "--no-deps",
        "--no-compile",
        "--only-binary",
        ":all:",
        "--requirement",
        wanted,
    ]
    subprocess.run([*pip, *only_locked, "--target", folder], check=True)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    if compiled:
        _compile(python, folder)
    shutil.copyfile(wanted, mark)


def _compile(python: Path, folder: Path) -> None:
    """Write bytecode as in the layer: with unchecked hashes, so that the dates in a zip do not invalidate it."""
    subprocess.run(
        [python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", folder],
        check=False,  # some packages have templates that are not valid Python
        capture_output=True,
    )

#!/usr/bin/env python3
"""Create virtual environments from lock files: `install.py .venv=requirements/dev.txt .venv-sam=requirements/sam.txt`.

Each is created in `.environments`, in a folder named after its Python and its lock file. Then `.venv` becomes a link to
it. So an interrupted installation leaves nothing that looks complete, and two commands at once wait for one
installation. An existing environment takes milliseconds.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".environments"
PIP = ROOT / "requirements/pip.txt"


def main() -> None:
    """Create what is missing, concurrently; exit with 1 and one sentence if this Python is too old."""
    if sys.version_info < (3, 11):
        sys.exit(f"Pi Voice needs Python 3.11 or later, and {sys.executable} is older: name another with PYTHON=...")
    wanted = [argument.partition("=")[::2] for argument in sys.argv[1:]]
    with ThreadPoolExecutor() as threads:
        for installing in [threads.submit(provide, ROOT / name, ROOT / lock) for name, lock in wanted]:
            installing.result()


def provide(link: Path, lock: Path) -> None:
    """Make a link lead to a complete environment with the packages of a lock file; raises CalledProcessError."""
    python = "{}.{}".format(*sys.version_info)
    # A moved project needs new environments, because the scripts in one name its folder.
    state = [lock.read_bytes(), PIP.read_bytes(), sys.version.encode(), os.fsencode(ROOT)]
    target = FOLDER / f"{link.name}-{python}-{hashlib.sha256(b' '.join(state)).hexdigest()[:12]}"
    if is_complete(target) and link.resolve() == target:
        return
    # Imported here, because an old Python cannot read the module.
    from locked import locked  # noqa: PLC0415

    with locked(FOLDER / f"{link.name}.lock"):
        if not is_complete(target):
            print(f"Setting up {link.name} with Python {python}, which takes about a minute ...", file=sys.stderr)
            install(target, lock)
        switch(link, target)
        for old in FOLDER.glob(f"{link.name}-{python}-*"):
            if old != target:
                shutil.rmtree(old)


def is_complete(target: Path) -> bool:
    """Return whether an environment was installed to its end, and its Python still exists."""
    return (target / "installed").is_file() and (target / "bin/python").exists()


def install(target: Path, lock: Path) -> None:
    """Create an environment; the file `installed` is its last."""
    python, quiet = target / "bin/python", ["--quiet", "--require-hashes"]
    subprocess.run([sys.executable, "-m", "venv", "--clear", target], check=True)
    subprocess.run([python, "-m", "pip", "install", *quiet, "-r", PIP], check=True)
    # The lock file names every package, so no resolution is needed. Compiling on all cores is faster than pip does it.
    subprocess.run([python, "-m", "pip", "install", *quiet, "--no-compile", "--no-deps", "-r", lock], check=True)
    # Some packages contain templates that are not valid Python.
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", target / "lib"], check=False)
    (target / "installed").touch()


def switch(link: Path, target: Path) -> None:
    """Replace a link, at once for everyone who follows it."""
    new = FOLDER / f"{link.name}.new"
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    if link.is_dir() and not link.is_symlink():  # an environment of an older version of this script
        shutil.rmtree(link)
    new.replace(link)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)

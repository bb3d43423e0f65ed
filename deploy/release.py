"""Release a version: `release.py 1.2.0` sets it in the reference, dates the changelog, commits and tags."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
VERSIONED: Final = ROOT / "docs/openapi.py"
CHANGELOG: Final = ROOT / "CHANGELOG.md"
UNRELEASED: Final = "## [Unreleased]\n"


def git(*arguments: str) -> str:
    """Run git in the project and return its output; raises CalledProcessError."""
    return subprocess.run(  # noqa: S603 (our own arguments)
        ["git", *arguments],  # noqa: S607 (the user's git)
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def refusal(version: str) -> str | None:
    """Return why a version cannot be released now, if so."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        return f"VERSION is {version!r}: it should be three numbers, such as 1.2.0."
    if git("status", "--porcelain"):
        return "There are uncommitted changes: commit or remove them first."
    if git("tag", "--list", f"v{version}"):
        return f"The tag v{version} exists."
    _, _, changes = CHANGELOG.read_text(encoding="utf-8").partition(UNRELEASED)
    if not re.split(r"^## ", changes, maxsplit=1, flags=re.MULTILINE)[0].strip():
        return f"{CHANGELOG.name} has no changes under [Unreleased]."
    return None


def main() -> str | None:
    """Release the version; return an error message, if any."""
    version = sys.argv[1]
    if reason := refusal(version):
        return reason
    text = VERSIONED.read_text(encoding="utf-8")
    VERSIONED.write_text(
        re.sub(r'(?m)^VERSION: Final = ".*"$', f'VERSION: Final = "{version}"', text), encoding="utf-8"
    )
    dated = f"{UNRELEASED}\n## [{version}] - {datetime.now(UTC):%Y-%m-%d}\n"
    CHANGELOG.write_text(CHANGELOG.read_text(encoding="utf-8").replace(UNRELEASED, dated, 1), encoding="utf-8")
    subprocess.run([sys.executable, VERSIONED], check=True)  # noqa: S603 (our own script)
    git("commit", "--all", "--message", f"Release {version}")
    git("tag", "--annotate", "--message", f"Version {version}", f"v{version}")
    print(f"Tagged v{version}. To publish it: git push --follow-tags")
    return None


if __name__ == "__main__":
    sys.exit(main())

"""`make release`, in a clone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.template import ROOT

VERSION = "7.8.9"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: S607


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the last commit, with the script and the changelog of the working tree."""
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--no-tags", str(ROOT), str(folder))
    git(folder, "config", "user.name", "tests")
    git(folder, "config", "user.email", "tests@example.com")
    for name in ("deploy/release.py", "docs/openapi.py"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A route.\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Prepare")
    return folder


def release(clone: Path, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, clone / "deploy/release.py", version],
        env={**os.environ, "PYTHONPATH": f"{clone}:{clone / 'layers/voice'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_release_is_a_commit_and_a_tag_with_its_version_in_the_reference_and_the_changelog(clone: Path) -> None:
    released = release(clone, VERSION)

    assert released.returncode == 0, released.stderr
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "describe", "--exact-match").strip() == f"v{VERSION}"
    assert json.loads((clone / "docs/openapi.json").read_text("utf-8"))["info"]["version"] == VERSION
    changelog = (clone / "CHANGELOG.md").read_text("utf-8")
    assert re.search(
        rf"## \[Unreleased\]\n\n## \[{VERSION}\] - \d{{4}}-\d\d-\d\d\n\n### Added\n\n- A route\.", changelog
    )


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3-rc1", "01.2.3"])
def test_a_version_is_three_numbers(clone: Path, version: str) -> None:
    refused = release(clone, version)

    assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, f"VERSION is {version!r}")


def test_nothing_is_released_twice_without_changes_or_with_uncommitted_ones(clone: Path) -> None:
    assert release(clone, VERSION).returncode == 0

    twice, empty = release(clone, VERSION), release(clone, "7.9.0")
    (clone / "README.md").write_text("changed")
    uncommitted = release(clone, "7.9.0")

    assert twice.stderr.startswith(f"The tag v{VERSION} exists.")
    assert "no changes" in empty.stderr
    assert uncommitted.stderr.startswith("There are uncommitted changes")
    assert git(clone, "tag").split() == [f"v{VERSION}"]

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.template import ROOT, environment

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "exclusiveMinimum": 0}}}


def check(path: Path | str, *options: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.check_schema", *options, str(path)],
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT / "layers" / "voice")},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("document", [SCHEMA, {"name": "Ana", "output_schema_strict": SCHEMA}], ids=["alone", "agent"])
def test_a_valid_schema_is_shown_with_its_warnings_as_it_is_sent(document: Any, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(document))

    checked = check(file)

    warnings, _, sent = checked.stdout.partition("Sent to Gemini:\n")
    assert checked.returncode == 0
    assert "output_schema_strict#/properties/age/exclusiveMinimum: " in warnings
    assert json.loads(sent)["properties"]["age"] == {"type": "integer", "description": "more than 0"}


def test_hints_are_checked_from_standard_input() -> None:
    checked = check("-", "--hints", given='{"mood": {"enum": ["calm", "upset"]}}')

    assert "No warnings." in checked.stdout
    assert '"calm"' in checked.stdout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('{"type": "array"}', "output_schema_strict#"),
        ("[]", "should be a JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_schema_that_the_api_would_refuse_is_an_error(given: str, words: str) -> None:
    checked = check("-", given=given)

    assert (checked.returncode, checked.stdout) == (1, "")
    assert words in checked.stderr


def test_a_file_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    assert "cannot be read" in check(tmp_path / "absent.json").stderr

"""The official test suite of JSON Schema, which lies in the source distribution of jsonschema."""

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from local.real import parts
from pi_voice.domain.schema_evaluation import Evaluation
from pi_voice.domain.schema_reader import read_schema
from pi_voice.domain.string_formats import CHECKS

pytestmark = pytest.mark.real

VERSION: Final = "4.26.0"
FOLDER: Final = parts.FOLDER / f"jsonschema-{VERSION}"
DIALECTS: Final = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
OUTSIDE: Final = {"refRemote.json", "definitions.json", "defs.json", "cross-draft.json"}
"""Files about references out of the document, which are refused (docs/schemas.md)."""

OTHERWISE: Final = {
    ("format.json", None),  # these tests want formats not to be held; those of optional/format want them held
    ("ref.json", "remote ref, containing refs itself"),
    ("dynamicRef.json", None),  # refused where a $dynamicRef depends on how it is reached
    ("recursiveRef.json", None),
    ("unevaluatedItems.json", "unevaluatedItems with $dynamicRef"),
    ("unevaluatedItems.json", "unevaluatedItems with $recursiveRef"),
    ("unevaluatedProperties.json", "unevaluatedProperties with $dynamicRef"),
    ("unevaluatedProperties.json", "unevaluatedProperties with $recursiveRef"),
    ("vocabulary.json", "schema that uses custom metaschema with with no validation vocabulary"),
}
"""Groups in which some answers differ, as docs/schemas.md says; None stands for all groups of a file."""


@pytest.fixture(scope="module")
def suite() -> Path:
    """The folder of the suite, downloaded once with pip."""
    if not FOLDER.exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "jsonschema"]
        parts.install("JSON Schema test suite", [*download, f"jsonschema=={VERSION}", "-d", str(parts.FOLDER)])
        with tarfile.open(parts.FOLDER / f"jsonschema-{VERSION}.tar.gz") as archive:
            archive.extractall(parts.FOLDER, filter="data")
    return FOLDER / "json/tests"


def groups(folder: Path, dialect: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield the groups of a folder: the file, the group and its schema, with the dialect."""
    for file in sorted(folder.glob("*.json")):
        for group in json.loads(file.read_text()):
            schema = group["schema"]
            declared = {"$schema": dialect}
            yield file.name, group, {**declared, **(schema if isinstance(schema, dict) else {"allOf": [schema]})}


@pytest.mark.parametrize("draft", DIALECTS)
def test_nothing_valid_is_refused_and_nothing_invalid_is_accepted(draft: str, suite: Path) -> None:
    wrong: list[str] = []
    count = 0
    for file, group, schema in groups(suite / draft, DIALECTS[draft]):
        if file in OUTSIDE or {(file, None), (file, group["description"])} & OTHERWISE:
            continue
        read = read_schema(schema)
        assert read.faults == [], (file, group["description"])
        for test in group["tests"]:
            count += 1
            if (Evaluation(read).faults(test["data"]) == ()) is not test["valid"]:
                wrong.append(f"{file}: {group['description']}: {test['description']}")

    assert wrong == []
    assert count > 500


@pytest.mark.parametrize("draft", DIALECTS)
def test_a_dynamic_reference_is_refused_rather_than_read_differently(draft: str, suite: Path) -> None:
    for file, group, schema in groups(suite / draft, DIALECTS[draft]):
        read = read_schema(schema)
        if file in ("dynamicRef.json", "recursiveRef.json") and not read.faults:
            found = [Evaluation(read).faults(test["data"]) == () for test in group["tests"]]
            assert found == [test["valid"] for test in group["tests"]], group["description"]


@pytest.mark.parametrize("draft", DIALECTS)
def test_formats_are_held(draft: str, suite: Path) -> None:
    for file, group, schema in groups(suite / draft / "optional/format", DIALECTS[draft]):
        if schema.get("format") in CHECKS:
            found = [Evaluation(read_schema(schema)).faults(test["data"]) == () for test in group["tests"]]
            assert found == [test["valid"] for test in group["tests"]], file

"""Check the facts of the documentation against the code."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from pi_voice.domain import errors
from tests.real import livekit_server
from tests.support.command_blocks import DOCUMENTS, name_of
from tests.support.template import ROOT, Node

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
OPERATIONS: Final = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
ERRORS: Final = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
SETTINGS: Final = "| parameter | variable | default | description |"
SOURCES: Final = sorted(
    path for folder in ("deploy", "functions", "layers/voice", "local") for path in (ROOT / folder).rglob("*.py")
)


def table(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the table whose first line is `heading`."""
    assert text.count(heading + "\n") == 1
    rows = text.partition(heading + "\n")[2].splitlines()[1:]
    ends = next((number for number, row in enumerate(rows) if not row.startswith("|")), len(rows))
    assert ends > 1, f"the table {heading} has no rows"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:ends]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_errors_page_lists_each_code_under_its_status() -> None:
    documented = set()
    status = 0
    for heading in re.findall(r"^#+ (.+)$", ERRORS, re.MULTILINE):
        if code := re.fullmatch(r"`(\w+)`", heading):
            documented.add((status, code[1]))
        else:
            status = int(heading[:3]) if re.match(r"\d{3}\b", heading) else 0

    def below(kind: type[errors.VoiceError]) -> set[tuple[int, str]]:
        own = {(kind.status, kind.code)} if hasattr(kind, "code") else set()
        return own.union(*map(below, kind.__subclasses__()))

    assert {(status, code) for status, code in documented if status} == below(errors.VoiceError)


def test_the_settings_table_lists_the_parameters_with_their_defaults(template: Node) -> None:
    documented = {quoted(parameter)[0]: default for parameter, _, default, _ in table(OPERATIONS, SETTINGS)}

    assert documented.keys() == template["Parameters"].keys()
    for name, default in documented.items():
        value = template["Parameters"][name].get("Default")
        in_words = {"none": None, "empty": "", "Google's": "https://generativelanguage.googleapis.com"}
        expected = in_words[default] if default in in_words else quoted(default)[0]
        assert (None if value is None else str(value)) == expected, name


def test_the_settings_table_names_the_variables_of_the_functions(template: Node) -> None:
    variables = template["Globals"]["Function"]["Environment"]["Variables"]

    documented = {
        name: {"Ref": quoted(parameter)[0]}
        for parameter, variable, _, _ in table(OPERATIONS, SETTINGS)
        for name in quoted(variable)
    }
    from_parameters = [{"Ref": parameter} for parameter in template["Parameters"]]
    assert documented == {name: value for name, value in variables.items() if value in from_parameters}


def test_make_run_reads_each_variable_that_operations_lists_for_it() -> None:
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "local").rglob("*.py"))]
    read = set(re.findall(r'"([A-Z][A-Z_]+)"', "\n".join(sources)))
    read |= set(re.findall(r"^([A-Z_]+) +\?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    documented = {name for names, _ in table(OPERATIONS, "| variable | description |") for name in quoted(names)}

    assert documented
    assert documented - read == set()


def pinned(lock: str, package: str) -> str:
    text = (ROOT / f"requirements/{lock}.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==(\S+)", text, re.MULTILINE)
    assert found
    return found[1]


def test_the_table_of_real_parts_has_the_versions_that_make_test_real_runs() -> None:
    pom = (ROOT / "local/real/dynamodb_local/pom.xml").read_text(encoding="utf-8")
    [engine] = re.findall(r"<dependency>.*?<version>(.+?)</version>", pom, re.DOTALL)
    npm = json.loads((ROOT / "tests/real/generated_clients/package.json").read_text(encoding="utf-8"))[
        "devDependencies"
    ]

    documented = [row[1] for row in table(CONTRIBUTING, "| part | version | what it tests |")]

    assert documented == [
        f"{livekit_server.VERSION}, {pinned('dev', 'livekit')}",
        engine,
        pinned("sam", "aws-sam-cli"),
        pinned("runtime", "awslambdaric"),
        pinned("emulator", "ministack"),
        ", ".join((pinned("clients", "openapi-python-client"), npm["openapi-typescript"], npm["@hey-api/openapi-ts"])),
        ", ".join(sorted(path.stem for path in (ROOT / "local/stand_ins/gemini_definitions").glob("*.json"))),
    ]


def test_the_code_logs_each_message_that_operations_explains() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    rows = table(OPERATIONS, "| message | level | what it means |")
    documented = [message for cell, _, _ in rows for message in quoted(cell)]

    assert documented
    assert [message for message in documented if f'{message}"' not in code] == []


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def links(document: Path) -> list[str]:
    """Return the links of a document to files and headings of the project."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith("https://")]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if links(document)], ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors(target), f"{link} has no such heading"


def test_decisions_that_the_code_names_have_a_page_and_the_index_lists_each_page() -> None:
    pages = {path.name[:4] for path in (ROOT / "docs/adr").glob("0*.md")}
    named = {
        number
        for path in (*SOURCES, ROOT / "template.yaml", ROOT / "Makefile", ROOT / "layers/voice/Makefile")
        for number in re.findall(r"docs/adr/(\d{4})", path.read_text(encoding="utf-8"))
    }
    index = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[(\d{4})\]", index, re.MULTILINE))

    assert named
    assert named - pages == set()
    assert listed == pages

"""What the documentation says of the code is so."""

import re
from pathlib import Path
from typing import Final

import pytest

from pi_voice import errors
from tests.readme.conftest import DOCUMENTS, name_of
from tests.real import livekit_server
from tests.template.conftest import ROOT, Node

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS: Final = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SOURCES: Final = sorted(
    path for folder in ("deploy", "functions", "layers/voice", "local") for path in (ROOT / folder).rglob("*.py")
)


def table(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the table whose first line is this heading."""
    rows = text.partition(heading + "\n")[2].splitlines()[1:]
    ends = next((number for number, row in enumerate(rows) if not row.startswith("|")), len(rows))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:ends]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_route_table_lists_the_routes_of_the_template(template: Node) -> None:
    told = [quoted(route)[0] for route, _ in table(README, "| route | what it does |")]

    events = [
        event["Properties"]
        for resource in template["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "HttpApi"
    ]
    routes = [f"{event['Method']} {event['Path'].removeprefix('/api/v1/voice')}" for event in events]
    assert sorted(told) == sorted(routes)


def test_the_error_table_lists_the_codes_of_the_routes() -> None:
    told = {(int(status), code) for status, codes in table(README, "| status | codes |") for code in quoted(codes)}

    def below(kind: type[errors.VoiceError]) -> set[tuple[int, str]]:
        own = {(kind.status, kind.code)} if hasattr(kind, "code") else set()
        return own.union(*map(below, kind.__subclasses__()))

    assert told == below(errors.VoiceError) - {(404, errors.ApiKeyNotFound.code)}  # which no route sends


def test_the_settings_table_lists_the_parameters_with_their_defaults(template: Node) -> None:
    rows = table(README, "| parameter | variable | default | what it is |")
    told = {quoted(parameter)[0]: default for parameter, _, default, _ in rows}

    assert told.keys() == template["Parameters"].keys()
    for name, default in told.items():
        value = template["Parameters"][name].get("Default")
        in_words = {"none": None, "empty": "", "Google's": "https://generativelanguage.googleapis.com"}
        expected = in_words[default] if default in in_words else quoted(default)[0]
        assert (None if value is None else str(value)) == expected, name


def test_the_settings_table_names_variables_that_the_functions_get(template: Node) -> None:
    rows = table(README, "| parameter | variable | default | what it is |")
    given = template["Globals"]["Function"]["Environment"]["Variables"]

    for parameter, variable, _, _ in rows:
        for name in quoted(variable):
            assert given[name] == {"Ref": quoted(parameter)[0]}


def pinned(lock: str, package: str) -> str:
    text = (ROOT / f"requirements/{lock}.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==(\S+)", text, re.MULTILINE)
    assert found
    return found[1]


def test_the_table_of_real_parts_has_the_versions_that_are_run() -> None:
    pom = (ROOT / "local/real/dynamodb_local/pom.xml").read_text(encoding="utf-8")
    [engine] = re.findall(r"<dependency>.*?<version>(.+?)</version>", pom, re.DOTALL)

    told = [row[1] for row in table(README, "| part | version | what is shown |")]

    assert told == [
        f"{livekit_server.VERSION}, {pinned('dev', 'livekit')}",
        engine,
        pinned("sam", "aws-sam-cli"),
        pinned("runtime", "awslambdaric"),
        pinned("emulator", "ministack"),
        ", ".join(sorted(path.stem for path in (ROOT / "local/stand_ins/gemini_definitions").glob("*.json"))),
    ]


def test_the_log_lines_that_operations_explains_are_written_somewhere() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    told = [line for cell, _, _ in table(OPERATIONS, "| message | level | what it means |") for line in quoted(cell)]

    assert told
    assert [line for line in told if f'"{line}"' not in code and f'{line}"' not in code] == []


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} has no such heading"


def test_decisions_that_the_code_names_have_a_page_and_each_page_is_listed() -> None:
    pages = {path.name[:4] for path in (ROOT / "docs/adr").glob("0*.md")}
    named = {
        number
        for path in (*SOURCES, ROOT / "template.yaml", ROOT / "Makefile", ROOT / "layers/voice/Makefile")
        for number in re.findall(r"docs/adr/(\d{4})", path.read_text(encoding="utf-8"))
    }
    index = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[(\d{4})\]", index, re.MULTILINE))

    assert named <= pages
    assert listed == pages

"""Check docs/webhooks.md against the receivers, the reference and the code."""

import re
from typing import Final, get_args

import pytest

from pi_voice.domain.webhook_deliveries import MAX_TRIES, PAUSES, RETENTION_SECONDS, SHORTEST_PAUSE, TRY_SECONDS
from pi_voice.domain.webhook_endpoint_api import MAX_URL_CHARACTERS
from pi_voice.domain.webhook_endpoints import MAX_ENDPOINTS
from pi_voice.domain.webhook_events import MAX_OWED_EVENTS, TEST, SessionEventType
from pi_voice.ports import SendError
from tests.support.command_blocks import BLOCKS
from tests.support.template import ROOT, Node

PAGE: Final = ROOT / "docs/webhooks.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")
MOST_LINES: Final = {"receiver.py": 36, "receiver.mjs": 36}


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table with a heading."""
    [found] = re.findall(rf"^{re.escape(heading)}\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines()]


@pytest.mark.parametrize(("language", "name"), [("python", "receiver.py"), ("js", "receiver.mjs")])
def test_the_page_has_the_lines_of_the_receiver(language: str, name: str) -> None:
    [shown] = [block for block in BLOCKS if block.document == PAGE and block.language == language]
    first, _, lines = (ROOT / "examples/webhooks" / name).read_text(encoding="utf-8").partition("\n\n")

    assert first.startswith(('"""A receiver of webhooks: ', "// A receiver of webhooks: "))
    assert shown.text.splitlines() == lines.splitlines()
    assert len([line for line in lines.splitlines() if line.strip()]) <= MOST_LINES[name]


def test_the_page_has_a_body_of_each_kind() -> None:
    kinds = {block.kind for block in BLOCKS if block.document == PAGE and block.language == "json"}

    assert kinds == {"output", "session.completed", TEST}


def test_the_page_lists_each_event() -> None:
    assert [row[0].strip("`") for row in rows("| type | when it is sent |")] == [
        *get_args(SessionEventType.__value__),
        TEST,
    ]


def test_the_page_lists_each_error_of_a_delivery() -> None:
    assert {row[0].strip("`") for row in rows("| `error` | meaning |")} == {
        *get_args(SendError),
        "refused",
        "invalid_response",
        "internal_error",
    }


def test_the_table_of_retries_has_the_pauses() -> None:
    seconds = {"at once": 0, "minute": 60, "minutes": 60, "hour": 3600, "hours": 3600}
    table = rows("| try | at the latest after the one before | hours since the first |")
    pauses = [int(number) * seconds[unit] for number, unit in (row[1].split() for row in table[1:])]

    assert [row[0] for row in table] == [str(number + 1) for number in range(MAX_TRIES)]
    assert pauses == list(PAUSES)
    assert [row[2] for row in table[1:]] == [f"{sum(pauses[: number + 1]) / 3600:.1f}" for number in range(len(pauses))]
    assert SHORTEST_PAUSE == 0.8  # "shortened by up to a fifth"


def test_the_table_of_limits_has_the_numbers_of_the_code(template: Node) -> None:
    limits = {what: re.sub(r"\D", "", limit.split()[0]) for what, limit in rows("| what | limit |")}

    assert int(limits["endpoints of a workspace"]) == MAX_ENDPOINTS
    assert int(limits["length of a URL"]) == MAX_URL_CHARACTERS
    assert int(limits["time for a response"]) == TRY_SECONDS
    assert int(limits["tries"]) == MAX_TRIES
    scaling = template["Resources"]["DeliveryMessages"]["Properties"]["ScalingConfig"]
    assert int(limits["requests of the deployment at a time"]) == scaling["MaximumConcurrency"]
    assert int(limits["log"]) * 86_400 == RETENTION_SECONDS
    assert int(limits["events of a session that were not sent yet"]) == MAX_OWED_EVENTS

"""The model of a session row (docs/model/session.pml), checked exhaustively by SPIN, one scenario at a time.

Each property is also violated by a rule that is broken on purpose: a model that cannot fail proves nothing.
"""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.template import ROOT

pytestmark = pytest.mark.model

MODEL: Final = ROOT / "docs/model/session.pml"
STORE: Final = ROOT / "layers/voice/pi_voice/adapters/dynamodb"

SECONDS: Final = 1_800
"""Bounds a hang; a run takes seconds."""

SCENARIOS: Final = {
    "turns are saved while the client completes": "SAVING COMPLETING FAULTS=1",
    "turns are saved while the call is renewed": "SAVING RENEWING FAULTS=1",
    "a tool is called while the client completes": "CALLING COMPLETING FAULTS=1",
    "a tool is called while the session is deleted": "CALLING COMPLETING DELETING FAULTS=1",
    "a tool runs on a server while the client completes": "RUNNING COMPLETING SAVED=0 FAULTS=1 MAX_TRIES=1",
    "a tool runs on a server while the session is deleted": "RUNNING COMPLETING DELETING SAVED=0 FAULTS=0 MAX_TRIES=1",
    "a tool runs on a server again and again": "RUNNING FAULTS=2",
    "usage is reported while the session is deleted": "REPORTING COMPLETING DELETING FAULTS=1",
    "the client completes while the call is renewed": "COMPLETING RENEWING FAULTS=1",
    "turns are saved while the call is renewed and completed": "SAVING COMPLETING RENEWING FAULTS=0",
    "results are extracted": "COMPLETING RESULTS FAULTS=1",
    "a call is stopped and its room reopened": "STOPPING ROOM JOINS=1 SAVED=0 FAULTS=0",
    "a call is completed and its room reopened": "COMPLETING ROOM JOINS=1 SAVED=0 FAULTS=0",
    "a call is completed and its room kept": "COMPLETING KEEPING ROOM JOINS=1 SAVED=0 FAULTS=0",
    "a call is hung up or completed with its room kept": "COMPLETING KEEPING STOPPING ROOM JOINS=0 SAVED=0 FAULTS=0",
    "a session is deleted while its room is kept": "COMPLETING KEEPING DELETING ROOM JOINS=0 SAVED=0 FAULTS=1",
    "two sweepers end a call": "SWEEPERS=2 FAULTS=2",
    "a session is deleted while the client completes": "COMPLETING DELETING FAULTS=1",
    "a session is deleted while turns are saved": "SAVING COMPLETING DELETING FAULTS=0",
    "a session is deleted while its room is reopened": "COMPLETING DELETING ROOM JOINS=1 SAVED=0 FAULTS=0",
    "a session is created, and perhaps deleted": "CREATING DELETING FAULTS=2",
    "another version cannot read the row": "COMPLETING UNREADABLE_ROW FAULTS=1",
    "the start of a call is sent": "EVENTS SAVING FAULTS=1",
    "a tool call and a turn start a call": "EVENTS CALLING SAVING FAULTS=0 MAX_TRIES=1",
    "a join starts a call": "EVENTS ROOM JOINS=1 SAVED=0 FAULTS=0 MAX_TRIES=1",
    "the end of a call is sent": "EVENTS COMPLETING FAULTS=1",
    "the failure of a session is sent": "EVENTS CREATING FAULTS=2",
    "events are sent while results are extracted": "EVENTS COMPLETING RESULTS SAVED=0 FAULTS=0 MAX_TRIES=1",
    "a session that owes events is deleted": "EVENTS COMPLETING DELETING SAVED=0 FAULTS=1 MAX_TRIES=1",
}
"""Which processes run, and how many writes may be lost or late, processes killed and services down, all together."""

BROKEN: Final = {
    "COMPLETE_WITHOUT_STATUS": ("COMPLETING FAULTS=0 BUG_DUTIES_UNCONDITIONAL", "ended"),
    "CALL_RECORDED_AFTER_END": ("CALLING COMPLETING FAULTS=0", "ended"),
    "ANSWER_OF_EARLIER_RUN": ("RUNNING FAULTS=0", "answer_acknowledged"),
    "COMPLETE_WITHOUT_TURNS": ("SAVING FAULTS=0", "acknowledged"),
    "COMPLETE_WITHOUT_EXPIRY": ("RENEWING FAULTS=0", "abandoned"),
    "EXPIRY_READ_AFTER_CLAIM": ("RENEWING FAULTS=0", "abandoned"),
    "FLIP_BEFORE_TRANSCRIPT": ("COMPLETING FAULTS=0", "acknowledged"),
    "EXPIRE_WHEN_REFUSED": ("COMPLETING FAULTS=0", "expiring"),
    "DUTIES_UNCONDITIONAL": ("COMPLETING ROOM JOINS=1 SAVED=0 FAULTS=0", "room_open"),
    "NO_CLAIM": ("POISON FAULTS=0", "performed"),
    "LOG_AFTER_GIVING_UP": ("POISON FAULTS=1", "logged"),
    "LOG_AFTER_PUTTING_OFF": ("UNREADABLE_ROW FAULTS=1", "logged_unreadable"),
    "EXTRACT_DONE_WHEN_QUEUED": ("COMPLETING RESULTS FAULTS=2", "extraction"),
    "ROOM_CLOSED_ONCE": ("COMPLETING ROOM JOINS=1 SAVED=0 FAULTS=0", "room_open"),
    "KEPT_ROOM_CLOSED": ("COMPLETING KEEPING ROOM JOINS=1 SAVED=0 FAULTS=0", "kept"),
    "CLOCK_READ_AFTER_CLOSE": ("COMPLETING ROOM JOINS=1 SAVED=0 FAULTS=0", "room_open"),
    "NO_DELETE_AGAIN": ("COMPLETING DELETING FAULTS=1", "deleted"),
    "USAGE_INTO_TOMBSTONE": ("REPORTING COMPLETING DELETING FAULTS=0", "content"),
    "MERGE_INTO_TOMBSTONE": ("DELETING ROOM JOINS=1 SAVED=0 FAULTS=0", "content"),
    "FORGET_SEPARATELY": ("DELETING FAULTS=1", "deleted"),
    "EVENT_WITHOUT_DUTY": ("EVENTS SAVING FAULTS=0", "dispatched"),
    "STARTED_BY_EVERY_SIGN": ("EVENTS SAVING FAULTS=0", "happened"),
    "CLEAR_ALL": ("EVENTS SAVING FAULTS=0", "dispatched"),
    "CLEAR_BEFORE_DISPATCH": ("EVENTS SAVING FAULTS=0", "dispatched"),
    "EVENTS_SENT_WHEN_QUEUED": ("EVENTS SAVING FAULTS=1", "owed"),
}
"""Rules that are broken on purpose, a scenario that notices, and a word of the property that it violates."""


def check(folder: Path, definitions: str) -> str:
    """Check a scenario, and return SPIN's report."""
    for command in (
        ["spin", *(f"-D{each}" for each in definitions.split()), "-a", str(MODEL)],
        # Without optimization: compiling takes longer than searching.
        ["gcc", "-O0", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=4000", "-DVECTORSZ=2048", "-o", "pan", "pan.c"],
        ["./pan", "-m1000000", "-w22"],
    ):
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_property_is_violated(name: str, tmp_path: Path) -> None:
    report = check(tmp_path, SCENARIOS[name])

    assert "errors: 0" in report, report
    assert "max search depth too small" not in report
    assert "Search not completed" not in report


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_noticed(rule: str, tmp_path: Path) -> None:
    definitions, word = BROKEN[rule]

    violated = re.findall(r"assertion violated (.*)", check(tmp_path, f"{definitions} BUG_{rule}"))
    assert violated, "no property is violated"
    assert word in violated[0] or violated[0].startswith("(0)")  # the property about every moment asserts false


def test_every_rule_that_the_model_can_break_is_broken() -> None:
    assert set(re.findall(r"BUG_([A-Z_]+[A-Z])", MODEL.read_text(encoding="utf-8"))) == set(BROKEN)


def test_each_conditional_write_of_the_code_is_a_transition_of_the_model() -> None:
    stores = (path for path in sorted(STORE.glob("*.py")) if path.stem != "webhook_deliveries")  # another table's rows
    code = "".join(path.read_text(encoding="utf-8") for path in stores)
    written = set(re.findall(r"Transition: `(\w+)`", code))
    modeled = set(re.findall(r"^/\* Transition `(\w+)`", MODEL.read_text(encoding="utf-8"), re.MULTILINE))

    assert modeled == written

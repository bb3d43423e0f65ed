"""The scheduler invokes functions as EventBridge does, and continues after a failed run."""

from typing import Any

import pytest

from local.errors import CannotStart
from local.scheduler import Scheduler, seconds_between
from local.stack import background_tasks
from local.template import Schedule
from local.workers import FunctionError
from tests.local.conftest import Background
from tests.local.processes import until

SCHEDULE = Schedule("SweepEveryMinute", minutes=1)


class Sweep:
    """A function that fails the first time."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def __call__(self, logical_id: str, event: dict[str, Any]) -> None:
        assert logical_id == "Sweep"
        self.events.append(event)
        if len(self.events) == 1:
            raise FunctionError({"errorType": "LookupError", "errorMessage": "no such luck"})


def test_a_schedule_continues_after_a_failed_run(background: Background, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep()
    with background.during(background_tasks([Scheduler(SCHEDULE, 0.01, "Sweep", sweep).run()])):
        until(lambda: len(sweep.events) >= 3)

    assert capfd.readouterr().err == "Sweep: scheduled run failed: LookupError: no such luck.\n"


def test_a_run_gets_eventbridges_event(background: Background) -> None:
    sweep = Sweep()
    with background.during(background_tasks([Scheduler(SCHEDULE, 0.01, "Sweep", sweep).run()])):
        until(lambda: len(sweep.events) >= 2)

    first, second = sweep.events[:2]
    assert first.pop("id") != second.pop("id")
    assert first.pop("time") <= second.pop("time")
    assert first == second
    assert first == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/pi-voice-local-SweepEveryMinute"],
        "detail": {},
    }


def test_a_canceled_scheduler_does_not_run_again(background: Background) -> None:
    sweep = Sweep()
    with background.during(background_tasks([Scheduler(SCHEDULE, 0.01, "Sweep", sweep).run()])):
        until(lambda: len(sweep.events) >= 1)
    runs = len(sweep.events)

    with background.during(background_tasks([Scheduler(SCHEDULE, 0.01, "Sweep", another := Sweep()).run()])):
        until(lambda: len(another.events) >= 3)

    assert len(sweep.events) == runs


def test_schedule_seconds_overrides_the_rate_of_all_schedules() -> None:
    assert seconds_between({"SCHEDULE_SECONDS": "0.5"}) == 0.5
    assert seconds_between({"SCHEDULE_SECONDS": ""}) is None
    assert seconds_between({}) is None


@pytest.mark.parametrize("wanted", ["often", "0", "-1", "nan", "inf"])
def test_an_invalid_number_of_seconds_is_refused_in_one_sentence(wanted: str) -> None:
    with pytest.raises(
        CannotStart, match=rf"^SCHEDULE_SECONDS is '{wanted}': give a number above 0 and up to 86400\.$"
    ):
        seconds_between({"SCHEDULE_SECONDS": wanted})

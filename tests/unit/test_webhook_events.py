import time

import pytest

from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.extractions import Extraction, ExtractionRun
from pi_voice.domain.webhook_events import (
    EndStatus,
    OwedEvent,
    event_of_end,
    event_of_extraction,
    event_of_first_sign,
)
from tests.unit.examples import NOW

SUCCEEDED = Extraction(status="succeeded", extracted_at=NOW + 3)
RUN = ExtractionRun(at=NOW, status="failed", agent_version=1, model=None, results=None, error=None)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_the_end_of_a_session_owes_an_event(status: EndStatus) -> None:
    event = event_of_end(status, NOW)

    assert (event.type, event.at) == (f"session.{status}", NOW)


def test_events_of_one_second_sort_by_the_millisecond() -> None:
    first, made_at = event_of_end("failed", NOW), time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= made_at:
        pass

    assert first.event_id < event_of_end("failed", NOW).event_id


def test_only_the_first_sign_of_life_owes_an_event() -> None:
    first = event_of_first_sign(None, NOW)

    assert first is not None
    assert (first.type, first.at) == ("session.started", NOW)
    assert event_of_first_sign(NOW, NOW + 1) is None


@pytest.mark.parametrize(
    ("before", "after", "event_type"),
    [
        (Extraction(status="pending"), SUCCEEDED, "extraction.succeeded"),
        (Extraction(status="pending"), SUCCEEDED.model_copy(update={"status": "failed"}), "extraction.failed"),
        (SUCCEEDED, SUCCEEDED.model_copy(update={"extracted_at": NOW + 4}), "extraction.succeeded"),
        (None, SUCCEEDED, "extraction.succeeded"),
    ],
)
def test_a_final_extraction_owes_an_event_at_its_end(
    before: Extraction | None, after: Extraction, event_type: str
) -> None:
    event = event_of_extraction(before, after)

    assert event is not None
    assert (event.type, event.at) == (event_type, after.extracted_at)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Extraction(status="pending"), Extraction(status="pending", attempts=3)),
        (Extraction(status="pending"), Extraction(status="skipped")),
        (SUCCEEDED, SUCCEEDED.model_copy(update={"runs": [RUN]})),
    ],
    ids=["still pending", "skipped", "a failed run that replaced nothing"],
)
def test_other_extractions_owe_none(before: Extraction, after: Extraction) -> None:
    assert event_of_extraction(before, after) is None


def test_an_event_sets_the_duty_to_send_it_with_all_its_tries() -> None:
    tried = Duties({"send_events": Duty(NOW, tries=4), "extract": Duty(NOW + 60)})

    assert OwedEvent.new("session.completed", NOW).duties_after(tried) == Duties(
        {"send_events": Duty(NOW + 10), "extract": Duty(NOW + 60)}
    )

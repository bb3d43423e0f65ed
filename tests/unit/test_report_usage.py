import asyncio
import json
from dataclasses import replace
from typing import Any, Literal

import pytest

from pi_voice.domain.base import parse_request
from pi_voice.domain.errors import InvalidApiKey, InvalidRequest, SessionNotFound
from pi_voice.domain.session_api import Usage
from pi_voice.domain.sessions import Session
from pi_voice.domain.usage import MAX_TOKENS
from pi_voice.domain.usage_api import ReportUsageRequest
from pi_voice.ports import SessionCaller
from pi_voice.use_cases.report_usage import ReportUsage
from tests.support.fakes import FakeCaller, FakeClient, FakeClock, FakeSessions, UnknownCaller
from tests.unit.examples import NOW, SESSION_ID, session

ACME = FakeCaller("acme")


def request(**fields: Any) -> ReportUsageRequest:
    """Parse a request to report usage."""
    return parse_request(lambda: ReportUsageRequest.model_validate_json(json.dumps(fields)))


class Setup:
    """A ReportUsage on fakes."""

    def __init__(self, stored: Session | None = None) -> None:
        self.sessions = FakeSessions(stored or session())
        self.clock = FakeClock(NOW + 60)
        self.report_usage = ReportUsage(self.sessions, self.clock)

    def report(self, caller: SessionCaller = ACME, **fields: Any) -> Usage:
        return asyncio.run(self.report_usage(SESSION_ID, request(**fields), caller))

    @property
    def session(self) -> Session:
        """The stored session."""
        return self.sessions.stored[SESSION_ID]


def test_a_report_is_stored_as_a_claim_of_the_client() -> None:
    setup = Setup()

    usage = setup.report(
        input_tokens={"text": 120, "audio": 3_400},
        output_tokens={"audio": 2_100},
        tool_use_tokens={"text": 40},
        cached_tokens={"text": 64},
        thinking_tokens=12,
    )

    assert usage.model_dump(mode="json") == {
        "input_tokens": {"text": 120, "audio": 3_400},
        "output_tokens": {"audio": 2_100},
        "tool_use_tokens": {"text": 40},
        "cached_tokens": {"text": 64},
        "thinking_tokens": 12,
        "reported_by": "client",
        "reported_at": NOW + 60,
    }
    assert setup.session.usage is not None
    assert Usage.of(setup.session.usage) == usage


def test_what_was_not_reported_is_unknown_and_not_zero() -> None:
    usage = Setup().report(output_tokens={"audio": 0})

    assert usage.model_dump(exclude={"reported_by", "reported_at"}) == {
        "input_tokens": {},
        "output_tokens": {"audio": 0},
        "tool_use_tokens": {},
        "cached_tokens": {},
        "thinking_tokens": None,
    }


def test_the_larger_of_each_number_counts() -> None:
    setup = Setup()
    setup.report(input_tokens={"text": 9, "audio": 100}, output_tokens={"audio": 50}, thinking_tokens=3)

    usage = setup.report(input_tokens={"text": 12, "audio": 80, "video": 7}, thinking_tokens=5)

    assert usage.input_tokens == {"text": 12, "audio": 100, "video": 7}
    assert (usage.output_tokens, usage.thinking_tokens) == ({"audio": 50}, 5)


def test_a_report_without_a_larger_number_writes_nothing() -> None:
    setup = Setup()
    first = setup.report(input_tokens={"audio": 100}, thinking_tokens=3)
    writes = setup.sessions.writes
    setup.clock.now += 30

    assert setup.report(input_tokens={"audio": 100}, thinking_tokens=3) == first
    assert setup.report(input_tokens={"audio": 40}) == first
    assert setup.report(thinking_tokens=2) == first
    assert setup.sessions.writes == writes


def test_a_number_that_was_unknown_is_stored_even_if_it_is_zero() -> None:
    setup = Setup()
    setup.report(input_tokens={"audio": 100})

    assert setup.report(thinking_tokens=0).thinking_tokens == 0
    assert setup.report(output_tokens={"text": 0}).output_tokens == {"text": 0}


def test_the_time_is_that_of_the_last_change_and_never_goes_back() -> None:
    setup = Setup()
    setup.report(input_tokens={"audio": 1})
    setup.clock.now = NOW + 90
    assert setup.report(input_tokens={"audio": 2}).reported_at == NOW + 90
    setup.clock.now = NOW + 80  # another container's clock

    assert setup.report(input_tokens={"audio": 3}).reported_at == NOW + 90


@pytest.mark.parametrize("status", ["active", "completed", "failed"])
def test_a_report_is_taken_whatever_the_status_and_changes_nothing_else(
    status: Literal["active", "completed", "failed"],
) -> None:
    stored = replace(session(), status=status, hung_up_at=NOW + 5, expires_at=NOW + 10)
    setup = Setup(stored)

    setup.report(input_tokens={"audio": 1})

    assert replace(setup.session, usage=None) == stored


def test_a_report_is_no_sign_of_life() -> None:
    before = replace(session(), max_duration_seconds=60)
    setup = Setup(before)

    setup.report(input_tokens={"audio": 1})

    assert setup.session.latest_expiry == before.latest_expiry == before.created_at + 75
    assert setup.session.duties == before.duties


def test_the_session_s_own_client_can_report_and_others_cannot() -> None:
    setup = Setup()

    assert setup.report(FakeClient(SESSION_ID), input_tokens={"audio": 1}).input_tokens == {"audio": 1}
    with pytest.raises(SessionNotFound):
        setup.report(FakeCaller("other"), input_tokens={"audio": 2})
    with pytest.raises(InvalidApiKey):
        setup.report(UnknownCaller(), input_tokens={"audio": 2})


def test_a_session_that_is_deleted_meanwhile_is_not_found() -> None:
    class DeletedMeanwhile(FakeSessions):
        async def get(self, session_id: Any) -> Session | None:
            return self.stored.pop(session_id)

    report_usage = ReportUsage(DeletedMeanwhile(session()))

    with pytest.raises(SessionNotFound):
        asyncio.run(report_usage(SESSION_ID, request(thinking_tokens=1), ACME))


def test_of_concurrent_reports_the_larger_of_each_number_is_kept() -> None:
    setup = Setup()

    async def all_at_once() -> list[Usage]:
        sent = [
            request(input_tokens={"audio": count, f"unknown{count}": 1}, output_tokens={"audio": 100 - count})
            for count in range(10)
        ]
        return list(await asyncio.gather(*(setup.report_usage(SESSION_ID, each, ACME) for each in sent)))

    answers = asyncio.run(all_at_once())

    assert len(answers) == 10
    usage = setup.session.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == ({"audio": 9, "other": 1}, {"audio": 100})


# ---- Modalities ------------------------------------------------------------------------------------


def test_each_modality_of_gemini_has_its_name_in_lower_case() -> None:
    sent = {"TEXT": 1, "IMAGE": 2, "VIDEO": 3, "AUDIO": 4, "DOCUMENT": 5}

    assert request(input_tokens=sent).input_tokens == {name.lower(): count for name, count in sent.items()}


def test_a_name_in_two_letter_cases_is_one_modality() -> None:
    assert request(input_tokens={"AUDIO": 3, "audio": 4}).input_tokens == {"audio": 7}


def test_modalities_of_a_newer_gemini_are_added_up_beside_the_known_ones() -> None:
    sent = {"AUDIO": 4, "SMELL": 20, "MODALITY_UNSPECIFIED": 3, "other": 1}

    assert request(output_tokens=sent).output_tokens == {"audio": 4, "other": 24}


# ---- Bounds ----------------------------------------------------------------------------------------


def test_the_largest_numbers_are_taken() -> None:
    largest = {f"m{number}": MAX_TOKENS // 16 for number in range(16)}

    taken = request(input_tokens=largest, output_tokens={"audio": MAX_TOKENS}, thinking_tokens=MAX_TOKENS)
    assert taken.input_tokens == {"other": MAX_TOKENS}


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({}, [""]),
        ({"input_tokens": {}, "thinking_tokens": None}, [""]),
        ({"input_tokens": {"audio": -1}}, ["input_tokens.audio"]),
        ({"input_tokens": {"audio": MAX_TOKENS + 1}}, ["input_tokens.audio"]),
        ({"input_tokens": {"audio": 1.5}}, ["input_tokens.audio"]),
        ({"input_tokens": {"audio": "1"}}, ["input_tokens.audio"]),
        ({"input_tokens": {"audio": True}}, ["input_tokens.audio"]),
        ({"input_tokens": {"audio": None}}, ["input_tokens.audio"]),
        ({"input_tokens": {"": 1}}, ["input_tokens."]),
        ({"input_tokens": {"x" * 41: 1}}, ["input_tokens." + "x" * 41]),
        ({"input_tokens": {f"m{number}": 1 for number in range(17)}}, ["input_tokens"]),
        ({"input_tokens": {"a": MAX_TOKENS, "b": 1}}, ["input_tokens"]),
        ({"input_tokens": {"audio": MAX_TOKENS, "AUDIO": 1}}, ["input_tokens"]),
        ({"output_tokens": [{"modality": "AUDIO", "tokenCount": 1}]}, ["output_tokens"]),
        ({"cached_tokens": 7}, ["cached_tokens"]),
        ({"thinking_tokens": MAX_TOKENS + 1}, ["thinking_tokens"]),
        ({"thinking_tokens": -1}, ["thinking_tokens"]),
        ({"promptTokensDetails": []}, ["promptTokensDetails"]),
        ({"thinking_tokens": 1, "reported_by": "server"}, ["reported_by"]),
    ],
    ids=str,
)
def test_what_no_client_can_have_counted_is_refused_by_its_field(fields: dict[str, Any], paths: list[str]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        request(**fields)

    assert [detail.path for detail in raised.value.details] == paths

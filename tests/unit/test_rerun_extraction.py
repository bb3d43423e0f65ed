import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.agents import Agent
from pi_voice.domain.errors import (
    GeminiUnavailable,
    InvalidApiKey,
    InvalidOutputSchema,
    InvalidRequest,
    RateLimited,
    SessionActive,
    SessionNotCompleted,
    SessionNotFound,
    StorageError,
    TranscriptTooLarge,
    VoiceError,
)
from pi_voice.domain.extractions import ErrorInfo, Evidence, Extraction, ExtractionRun
from pi_voice.domain.ids import TranscriptId
from pi_voice.domain.session_api import ExtractedResults, PreviewExtractionRequest, RerunExtractionRequest
from pi_voice.domain.sessions import Session
from pi_voice.ports import Caller, ModelRequest, ModelResponse
from pi_voice.use_cases.extractor import Extractor
from pi_voice.use_cases.rerun_extraction import RerunExtraction
from tests.fakes import (
    FakeAgents,
    FakeCaller,
    FakeClock,
    FakeExtractionModel,
    FakeRates,
    FakeSessions,
    FakeTranscripts,
    UnknownCaller,
    no_pause,
)
from tests.unit.examples import AGENT_ID, ANSWERED, NOW, SESSION_ID, TURNS, agent, an_extraction, session

ACME = FakeCaller()
STRANGER = FakeCaller("globex")
TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")
CITY = agent(output_schema={"city": "string"})
OSLO = '{"city": "Oslo"}'
BERGEN = '{"city": "Bergen"}'
FIRST = an_extraction(**ANSWERED, extracted_at=NOW + 90)
BUSY = ErrorInfo(code="gemini_unavailable", message="Gemini cannot be reached or is busy. Try again in a moment.")
STRICT: JsonValue = {"type": "object", "properties": {"mood": {"type": "string", "pattern": "^[a-z]+$"}}}


def completed(extraction: Extraction | None = FIRST, **changes: Any) -> Session:
    """Make a completed session that has its results, or as its extraction says."""
    ended = replace(
        session(),
        status="completed",
        completed_at=NOW + 85,
        duration_seconds=60,
        transcript_id=TRANSCRIPT_ID,
        turns=2,
        results={"city": "Trondheim"} if extraction and extraction.status == "succeeded" else None,
        extraction=extraction,
        due_at=None,
    )
    return replace(ended, **changes)


def order(**fields: JsonValue) -> RerunExtractionRequest:
    """Read an order for another extraction as a caller sends it."""
    return RerunExtractionRequest.model_validate_json(json.dumps(fields))


def pasted(**fields: JsonValue) -> PreviewExtractionRequest:
    """Read an order for a preview as a caller sends it."""
    turns: list[JsonValue] = [{**turn} for turn in TURNS]  # type: ignore[dict-item]
    wanted: dict[str, JsonValue] = {"transcript": turns, "output_schema": {"city": "string"}}
    return PreviewExtractionRequest.model_validate_json(json.dumps({**wanted, **fields}))


def run(at: int, city: str | None = None, **fields: Any) -> ExtractionRun:
    """Describe a run as the history has it."""
    what: dict[str, Any] = {
        "status": "succeeded" if city else "failed",
        "agent_version": 1,
        "model": "fake-model-001",
        "results": {"city": city} if city else None,
        "error": None,
    }
    return ExtractionRun(**{"at": at, **what, **fields})


class World:
    """All that extracting again needs, and what became of it."""

    def __init__(
        self,
        *answers: str | ModelResponse | Exception,
        of: Agent = CITY,
        sessions: FakeSessions | None = None,
        rates: FakeRates | None = None,
        model: FakeExtractionModel | None = None,
    ) -> None:
        self.agents = FakeAgents(of)
        self.sessions = sessions or FakeSessions(completed())
        self.transcripts = FakeTranscripts()
        self.transcripts.kept[TRANSCRIPT_ID] = TURNS
        self.rates = rates or FakeRates()
        self.model = model or FakeExtractionModel(*(answers or [OSLO]))
        self.clock = FakeClock(NOW + 1_000)

    @property
    def again(self) -> RerunExtraction:
        extractor = Extractor(self.model, clock=self.clock, sleep=no_pause)
        return RerunExtraction(self.agents, self.sessions, self.transcripts, extractor, self.rates, self.clock)

    def extract(self, wanted: RerunExtractionRequest | None = None, caller: Caller = ACME) -> ExtractedResults:
        self.clock.now += 1
        return asyncio.run(self.again.extract(SESSION_ID, wanted or order(), caller))

    def preview(self, wanted: PreviewExtractionRequest | None = None, caller: Caller = ACME) -> ExtractedResults:
        return asyncio.run(self.again.preview(wanted or pasted(), caller))

    @property
    def session(self) -> Session:
        return self.sessions.kept[SESSION_ID]

    @property
    def extraction(self) -> Extraction:
        assert self.session.extraction is not None
        return self.session.extraction


# ---- By hand --------------------------------------------------------------------------------------------


def test_results_that_are_extracted_again_become_the_session_s_results_and_a_run() -> None:
    world = World()

    told = world.extract()

    assert (told.session_id, told.results, told.warnings) == (SESSION_ID, {"city": "Oslo"}, [])
    assert told.extraction.runs == [run(NOW + 1_001, "Oslo"), run(NOW + 90, "Trondheim")]
    assert (told.extraction.status, told.extraction.extracted_at) == ("succeeded", NOW + 1_001)
    assert (world.session.results, world.extraction) == (told.results, told.extraction)
    assert world.session.due_at is None


def test_it_is_asked_as_after_the_call_within_its_own_time() -> None:
    world = World()

    told = world.extract()

    [asked] = world.model.asked
    assert asked.seconds == 20.0
    assert "The call began on Friday, 2027-01-15 08:00 UTC." in asked.text
    assert TURNS[1]["text"] in asked.text
    assert told.extraction.agent_version == 1


def test_the_agent_s_current_schema_is_used_not_the_one_of_the_call() -> None:
    world = World('{"mood": "calm"}')
    edited = agent(version=2, output_schema={"mood": "string"})
    asyncio.run(world.agents.save(session().workspace, edited))

    told = world.extract()

    assert told.results == {"mood": "calm"}
    assert told.extraction.agent_version == 2


def test_an_agent_that_was_deleted_wants_what_it_wanted_when_the_call_began() -> None:
    world = World()
    world.agents.heads.clear()

    told = world.extract()

    assert (told.results, told.extraction.agent_version) == ({"city": "Oslo"}, 1)


def test_a_schema_may_be_given_for_one_run_alone() -> None:
    world = World('{"mood": "calm"}')

    told = world.extract(order(output_schema_strict=STRICT, output_schema={"city": "string"}))

    assert told.results == {"mood": "calm"}
    assert (told.extraction.agent_version, told.extraction.runs[0].agent_version) == (None, None)
    assert [warning.path for warning in told.warnings] == ["output_schema_strict#/properties/mood/pattern"]
    assert world.agents.heads[AGENT_ID].agent == CITY


PROOF = '{"results": {"city": "Oslo"}, "evidence": [{"path": "city", "status": "found", "turn": 1, "quote": "Oslo"}]}'


@pytest.mark.parametrize(
    ("of_agent", "wanted", "is_told"),
    [(False, None, False), (True, None, True), (False, True, True), (True, False, False)],
)
@pytest.mark.parametrize("given", [{}, {"output_schema": {"city": "string"}}], ids=["agent's", "given"])
def test_evidence_is_told_as_the_agent_has_it_or_as_the_order_says(
    given: dict[str, JsonValue], *, of_agent: bool, wanted: bool | None, is_told: bool
) -> None:
    world = World(PROOF if is_told else OSLO, of=agent(output_schema={"city": "string"}, evidence=of_agent))

    told = world.extract(order(evidence=wanted, **given))

    proof = {"city": Evidence(status="found", turn=1, quote="Oslo")}
    assert told.extraction.fields == (proof if is_told else None)


def test_an_agent_without_a_schema_has_nothing_to_extract_and_its_session_stays_as_it_is() -> None:
    world = World(of=agent())

    told = world.extract()

    assert (told.results, told.extraction.status) == (None, "skipped")
    assert world.session == completed()
    assert world.model.asked == []


@pytest.mark.parametrize("said", ["nothing", "lost"])
def test_a_call_of_which_no_word_is_left_has_nothing_to_extract(said: str) -> None:
    world = World(sessions=FakeSessions(completed(turns=0 if said == "nothing" else 2)))
    world.transcripts.kept.clear()

    assert world.extract().extraction.status == "skipped"
    assert world.session.results == {"city": "Trondheim"}


def test_a_preview_shows_what_would_come_of_it_and_keeps_nothing() -> None:
    world = World()

    told = world.extract(order(preview=True))

    assert (told.results, told.extraction.runs) == ({"city": "Oslo"}, [])
    assert (told.session_id, told.extraction.extracted_at) == (SESSION_ID, NOW + 1_001)
    assert world.session == completed()
    assert world.rates.taken == ["acme"]


# ---- When it fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [("{}", "schema_violation"), (GeminiUnavailable(), "gemini_unavailable")],
    ids=["schema", "busy"],
)
def test_a_run_that_fails_is_told_and_takes_no_results_away(answer: str | Exception, code: str) -> None:
    world = World(answer)

    told = world.extract()

    assert (told.results, told.extraction.status) == (None, "failed")
    assert told.extraction.error is not None
    assert told.extraction.error.code == code
    assert world.session.results == {"city": "Trondheim"}
    assert world.extraction == FIRST.model_copy(update={"runs": told.extraction.runs})
    failed, first = told.extraction.runs
    assert (failed.at, failed.status, failed.results, failed.error) == (
        NOW + 1_001,
        "failed",
        None,
        told.extraction.error,
    )
    assert first == run(NOW + 90, "Trondheim")


def test_a_run_that_fails_where_there_were_no_results_tells_its_own_reason() -> None:
    before = an_extraction(status="failed", attempts=18, error=BUSY, extracted_at=NOW + 90)
    world = World("{}", sessions=FakeSessions(completed(before)))

    told = world.extract()

    assert world.extraction == told.extraction
    assert [each.error.code for each in told.extraction.runs if each.error] == [
        "schema_violation",
        "gemini_unavailable",
    ]


def test_a_run_that_succeeds_after_failures_brings_the_results() -> None:
    world = World("{}", "{}", OSLO)

    world.extract()
    world.extract()

    assert world.session.results == {"city": "Oslo"}
    assert [each.status for each in world.extraction.runs] == ["succeeded", "failed", "succeeded"]


@pytest.mark.parametrize(("answer", "status"), [(OSLO, "succeeded"), ("{}", "pending")], ids=["good", "bad"])
def test_results_that_are_still_being_waited_for_are_waited_for_unless_they_come_by_hand(
    answer: str, status: str
) -> None:
    pending = an_extraction(status="pending", attempts=3, error=BUSY)
    world = World(answer, sessions=FakeSessions(completed(pending, due_at=NOW + 3_600)))

    told = world.extract()

    assert world.extraction.status == status
    assert world.session.due_at == NOW + 3_600  # its room may still be open
    assert len(told.extraction.runs) == 1
    assert world.extraction.runs == told.extraction.runs


def test_what_came_from_the_queue_after_a_run_by_hand_is_in_the_history_too() -> None:
    by_hand = run(NOW + 100)
    from_queue = an_extraction(**ANSWERED, extracted_at=NOW + 500, runs=[by_hand])
    world = World(sessions=FakeSessions(completed(from_queue)))

    told = world.extract()

    assert [each.at for each in told.extraction.runs] == [NOW + 1_001, NOW + 500, NOW + 100]
    assert told.extraction.runs[1].results == {"city": "Trondheim"}


def test_a_session_of_old_that_does_not_tell_when_it_was_extracted_is_put_where_it_was_completed() -> None:
    world = World(sessions=FakeSessions(completed(Extraction(status="succeeded", model="old", attempts=1))))

    told = world.extract()

    assert told.extraction.runs[1] == run(NOW + 85, "Trondheim", agent_version=None, model="old")


@pytest.mark.parametrize("before", [None, Extraction(status="skipped")], ids=["none", "skipped"])
def test_what_was_never_extracted_has_no_first_run(before: Extraction | None) -> None:
    world = World(sessions=FakeSessions(completed(before)))

    assert [each.at for each in world.extract().extraction.runs] == [NOW + 1_001]


# ---- History --------------------------------------------------------------------------------------------


def test_runs_are_kept_newest_first_up_to_ten() -> None:
    world = World()

    for _ in range(12):
        world.extract()

    assert [each.at for each in world.extraction.runs] == [NOW + 1_012 - number for number in range(10)]


def test_ten_failures_in_a_row_leave_the_results_and_no_old_run_behind_them() -> None:
    world = World("{}")

    for _ in range(12):
        world.extract()

    assert world.session.results == {"city": "Trondheim"}
    assert [each.at for each in world.extraction.runs] == [NOW + 1_012 - number for number in range(10)]


def test_runs_are_kept_up_to_so_many_bytes_and_the_newest_always() -> None:
    world = World(json.dumps({"city": "x" * 60_000}))

    for number, runs in enumerate([2, 3, 2]):
        told = world.extract()
        assert len(told.extraction.runs) == runs, number
    world.model = FakeExtractionModel(json.dumps({"city": "é" * 70_000}))
    assert len(world.extract().extraction.runs) == 1
    assert world.extraction.runs[0].results == {"city": "é" * 70_000}


def test_of_two_at_once_both_are_kept() -> None:
    world = World(OSLO, BERGEN)

    async def race() -> list[ExtractedResults]:
        return await asyncio.gather(*(world.again.extract(SESSION_ID, order(), ACME) for _ in range(2)))

    told = asyncio.run(race())

    assert [each.results for each in told] == [{"city": "Oslo"}, {"city": "Bergen"}]
    kept = [each.results for each in world.extraction.runs]
    assert len(kept) == 3
    assert {"city": "Trondheim"} in kept
    assert kept[0] == world.session.results
    assert all(each.results in kept for each in told)


def test_results_that_are_always_overtaken_are_given_up() -> None:
    class Restless(FakeSessions):
        async def record(self, before: Session, *_: Any) -> Session:
            number = before.extraction.attempts if before.extraction else 0
            return completed(an_extraction(status="pending", attempts=number + 1))

    with pytest.raises(StorageError):
        World(sessions=Restless(completed())).extract()


def test_a_session_that_is_deleted_meanwhile_is_not_made_again() -> None:
    sessions = FakeSessions(completed())

    class Deleting(FakeExtractionModel):
        async def answer(self, question: ModelRequest, seconds: float) -> ModelResponse:
            await sessions.delete(SESSION_ID)
            return await super().answer(question, seconds)

    world = World(sessions=sessions, model=Deleting(OSLO))

    with pytest.raises(SessionNotFound):
        world.extract()
    assert sessions.kept == {}


# ---- Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "wanted", "caller", "refusal"),
    [
        (completed(), {}, STRANGER, SessionNotFound),
        (None, {}, ACME, SessionNotFound),
        (session(), {}, ACME, SessionActive),
        (replace(session(), status="failed"), {}, ACME, SessionNotCompleted),
        (completed(), {"output_schema": {"city": 1}}, ACME, InvalidOutputSchema),
        (completed(), {"output_schema_strict": {"type": "array"}}, ACME, InvalidOutputSchema),
        (completed(), {}, UnknownCaller(), InvalidApiKey),
    ],
)
def test_who_may_not_or_cannot_extract_hears_why_and_it_does_not_count(
    there: Session | None, wanted: dict[str, JsonValue], caller: Caller, refusal: type[VoiceError]
) -> None:
    world = World(sessions=FakeSessions(*([there] if there else [])))

    with pytest.raises(refusal):
        world.extract(order(**wanted), caller)

    assert (world.rates.taken, world.model.asked) == ([], [])
    assert world.sessions.kept == ({SESSION_ID: there} if there else {})


def test_a_call_that_goes_on_has_to_be_completed_first() -> None:
    with pytest.raises(SessionActive) as refusal:
        World(sessions=FakeSessions(session())).extract()

    assert refusal.value.message == "The session is still active. Complete it first, then extract its results."


@pytest.mark.parametrize("preview", [False, True])
def test_a_workspace_that_asks_too_often_is_told_when_to_come_back_and_nothing_is_asked(*, preview: bool) -> None:
    world = World(rates=FakeRates(limit=1))
    world.extract(order(preview=preview))
    before = world.session

    with pytest.raises(RateLimited) as refusal:
        world.extract(order(preview=preview))
    with pytest.raises(RateLimited):
        world.preview()

    assert refusal.value.retry_after_seconds == 41.5
    assert world.session == before
    assert len(world.model.asked) == 1


# ---- Preview of a pasted transcript ---------------------------------------------------------------------


def test_a_pasted_transcript_is_read_by_a_schema_and_nothing_is_kept() -> None:
    world = World()

    told = world.preview()

    assert (told.session_id, told.results, told.warnings) == (None, {"city": "Oslo"}, [])
    assert told.extraction == an_extraction(**{**ANSWERED, "agent_version": None}, extracted_at=NOW + 1_000)
    assert (world.session, world.rates.taken) == (completed(), ["acme"])


def test_a_strict_schema_wins_and_is_warned_of() -> None:
    world = World('{"mood": "calm"}')

    told = world.preview(pasted(output_schema_strict=STRICT))

    assert told.results == {"mood": "calm"}
    assert [warning.path for warning in told.warnings] == ["output_schema_strict#/properties/mood/pattern"]


def test_evidence_is_told_if_it_is_wanted() -> None:
    told = World(PROOF).preview(pasted(evidence=True))

    assert told.extraction.fields == {"city": Evidence(status="found", turn=1, quote="Oslo")}


@pytest.mark.parametrize(
    ("called_at", "began"),
    [(None, "Friday, 2027-01-15 08:16 UTC"), (0, "Thursday, 1970-01-01 00:00 UTC"), (NOW, "Friday, 2027-01-15 08:00")],
)
def test_a_call_without_a_time_began_now(called_at: int | None, began: str) -> None:
    world = World()

    world.preview(pasted(called_at=called_at))

    assert world.model.asked[0].text.startswith(f"The call began on {began}")
    assert world.model.asked[0].seconds == 20.0


def test_the_transcript_s_quality_is_told_with_the_duration_that_is_given() -> None:
    turns: JsonValue = [{"role": "user", "text": "Oslo.", "start_ms": 0, "end_ms": 5_000}]

    told = World().preview(pasted(transcript=turns, duration_seconds=20))

    assert told.extraction.transcript is not None
    assert (told.extraction.transcript.coverage, told.extraction.transcript.agent_turns) == (0.25, 0)


def test_a_preview_that_fails_says_why() -> None:
    told = World("{}").preview()

    assert (told.results, told.extraction.status) == (None, "failed")
    assert told.extraction.error is not None
    assert told.extraction.error.code == "schema_violation"


@pytest.mark.parametrize(
    ("fields", "refusal", "path"),
    [
        ({"output_schema": None}, InvalidRequest, "output_schema"),
        ({"output_schema": {}}, InvalidRequest, "output_schema"),
        ({"output_schema": {"a": 1}}, InvalidOutputSchema, "output_schema.a"),
        ({"output_schema_strict": {}}, InvalidOutputSchema, "output_schema_strict#"),
        ({"transcript": [{"role": "user", "text": "x" * 20_001}]}, TranscriptTooLarge, "transcript.0.text"),
        ({"transcript": [{"role": "user", "text": "x" * 19_999}] * 55}, TranscriptTooLarge, "transcript"),
    ],
)
def test_a_preview_that_makes_no_sense_is_refused_and_does_not_count(
    fields: dict[str, JsonValue], refusal: type[VoiceError], path: str
) -> None:
    world = World()

    with pytest.raises(refusal) as refused:
        world.preview(pasted(**fields))

    assert [fault.path for fault in refused.value.faults] == [path]
    assert (world.rates.taken, world.model.asked) == ([], [])


def test_who_may_not_call_previews_nothing() -> None:
    with pytest.raises(InvalidApiKey):
        World().preview(caller=UnknownCaller())

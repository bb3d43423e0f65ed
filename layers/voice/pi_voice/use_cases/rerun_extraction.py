"""Extract a completed session's results again, on request."""

import time
from dataclasses import replace
from typing import Final

from pydantic import JsonValue

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import (
    InvalidOutputSchema,
    RateLimited,
    SessionActive,
    SessionNotCompleted,
    SessionNotFound,
    StorageError,
)
from pi_voice.domain.extraction_api import ExtractedResults, RerunExtractionRequest
from pi_voice.domain.extractions import Extraction, ExtractionRun
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.output_schema import compile_output_schema
from pi_voice.domain.output_schema_validation import validate_output_schema
from pi_voice.domain.row_limits import fitting_runs
from pi_voice.domain.sessions import Session
from pi_voice.ports import Agents, Caller, RateLimiter, Sessions
from pi_voice.use_cases.authorization import authorized_session
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.extractor import (
    CallTranscript,
    ExtractionOutcome,
    ExtractionRequest,
    Extractor,
    seconds_for_extraction,
)

MAX_RUNS: Final = 10

_ATTEMPTS: Final = 5


class RerunExtraction:
    """Extracts results again, by the agent's current schema or by one in the request."""

    ERRORS = (SessionNotFound, SessionActive, SessionNotCompleted, InvalidOutputSchema, RateLimited)

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        content: CallContent,
        extractor: Extractor,
        rate_limiter: RateLimiter,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._content = content
        self._extractor = extractor
        self._rate_limiter = rate_limiter
        self._clock = clock

    async def __call__(
        self, session_id: SessionId, request: RerunExtractionRequest, caller: Caller
    ) -> ExtractedResults:
        """Extract again. Unless it is a preview, store the outcome as the session's results and as a run.

        A failed run never replaces results. Raises SessionNotFound, SessionActive, SessionNotCompleted,
        InvalidOutputSchema, RateLimited.
        """
        session = await authorized_session(caller, self._sessions, session_id)
        if session.status == "active":
            raise SessionActive("The session is still active. Complete it first, then extract its results.")
        if session.transcript_id is None:
            raise SessionNotCompleted
        warnings = validate_output_schema(request.output_schema, request.output_schema_strict)
        extraction_request = await self._extraction_request(session, request)
        await self._rate_limiter.acquire(session.workspace)
        turns, tool_calls = await self._content.both(session)
        call = CallTranscript(turns or [], session.created_at, session.duration_seconds, tool_calls, session.brought)
        outcome = await self._extractor.extract(extraction_request, call, seconds_for_extraction())
        extraction = outcome.extraction.model_copy(update={"extracted_at": int(self._clock())})
        if not request.preview and extraction.status != "skipped":
            runs = await self._store(session, replace(outcome, extraction=extraction))
            extraction = extraction.model_copy(update={"runs": runs})
        return ExtractedResults.model_construct(
            session_id=session_id, results=outcome.results, extraction=extraction, warnings=warnings
        )

    async def _extraction_request(self, session: Session, request: RerunExtractionRequest) -> ExtractionRequest:
        """Use the request's schema, or else the agent's current one; for a deleted agent, the session's version."""
        owned = await self._agents.current(session.agent_id)
        agent = owned.agent if owned else await self._agents.version(session.agent_id, session.agent_version)
        with_evidence = agent.evidence if request.evidence is None else request.evidence
        schema = compile_output_schema(request.output_schema, request.output_schema_strict)
        if schema is not None:
            return ExtractionRequest(schema, with_evidence)
        return replace(ExtractionRequest.of(agent), evidence=with_evidence)

    async def _store(self, session: Session, outcome: ExtractionOutcome) -> list[ExtractionRun]:
        """Add a run to the history, and replace the results unless this run failed.

        After a concurrent write, retry with the session as it was stored. Raises StorageError after five attempts.
        """
        for _ in range(_ATTEMPTS):
            before = session.extraction
            runs = _history(session, outcome)
            results, extraction = outcome.results, outcome.extraction
            if extraction.status == "failed" and before is not None and before.status in ("succeeded", "pending"):
                results, extraction = session.results, before
            extraction = extraction.model_copy(update={"runs": runs})
            is_pending = extraction.status == "pending"

            def duties(before: Duties, *, is_pending: bool = is_pending) -> Duties:
                return before if is_pending else before.without("extract")

            stored = await self._sessions.save_extraction(session, results, extraction, duties)
            if stored.extraction == extraction:
                return runs
            session = stored
        raise StorageError


def _history(session: Session, outcome: ExtractionOutcome) -> list[ExtractionRun]:
    """Prepend a run to the known ones. The automatic extraction becomes a run when it is first replaced."""
    before = session.extraction
    known = before.runs if before else []
    if before and before.status in ("succeeded", "failed"):
        last = _run(before, session.results, session.completed_at)
        if not known or (last.at or 0) > (known[0].at or 0):
            known = [last, *known]
    return fitting_runs([_run(outcome.extraction, outcome.results), *known][:MAX_RUNS])


def _run(extraction: Extraction, results: JsonValue, ended_at: int | None = None) -> ExtractionRun:
    return ExtractionRun.model_construct(
        at=extraction.extracted_at or ended_at,
        status="succeeded" if extraction.status == "succeeded" else "failed",
        agent_version=extraction.agent_version,
        model=extraction.model,
        results=results,
        error=extraction.error,
    )

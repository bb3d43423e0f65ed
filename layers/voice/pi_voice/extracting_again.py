"""Extracting again: by hand, from the transcript of a completed session or from a pasted one."""

import time
from dataclasses import replace
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from pi_voice import schema_check, transcript
from pi_voice.access import session_of
from pi_voice.documents import Detail
from pi_voice.errors import Fault, InvalidRequest, SessionActive, SessionNotCompleted, StorageError
from pi_voice.extraction import Call, Extracted, Extractor, Wanted
from pi_voice.ids import Clock, SessionId
from pi_voice.ports import Agents, Caller, Rates, Sessions, Transcripts
from pi_voice.schema import schema_of
from pi_voice.sessions import ExtractedResults, Extraction, ExtractionPreview, NewExtraction, Run, Session
from pi_voice.transcript import Turn

BUDGET_SECONDS: Final = 20.0
MAX_RUNS: Final = 10
MAX_RUN_BYTES: Final = 150_000
"""What the runs of a session may take as JSON: its row holds 400 KB, and the current results are in it too."""

_ATTEMPTS: Final = 5


class ExtractingAgain:
    """Extracts results when somebody asks for it."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        transcripts: Transcripts,
        extractor: Extractor,
        rates: Rates,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._transcripts = transcripts
        self._extractor = extractor
        self._rates = rates
        self._clock = clock

    async def extract(self, session_id: SessionId, order: NewExtraction, caller: Caller) -> ExtractedResults:
        """Extract a completed session's results by the agent's current schema, or by the one that is given.

        What comes of it becomes the session's results and a run in its history, unless it is a preview; a failed
        run never takes results away. Raises SessionNotFound, SessionActive, SessionNotCompleted,
        InvalidOutputSchema, RateLimited.
        """
        session = await session_of(caller, self._sessions, session_id)
        if session.status == "active":
            raise SessionActive("The session is still active. Complete it first, then extract its results.")
        if session.transcript_id is None:
            raise SessionNotCompleted
        warnings = schema_check.check(order.output_schema, order.output_schema_strict)
        wanted = await self._wanted(session, order)
        await self._rates.take(session.workspace)
        turns: list[Turn] = await self._transcripts.get(session.transcript_id) or [] if session.turns else []
        call = Call(turns, session.created_at, session.duration_seconds)
        extracted = self._stamped(await self._extractor.extract(wanted, call, BUDGET_SECONDS))
        extraction = extracted.extraction
        if not order.preview and extraction.status != "skipped":
            extraction = extraction.model_copy(update={"runs": await self._keep(session, extracted)})
        return _answer(session_id, replace(extracted, extraction=extraction), warnings)

    async def preview(self, order: ExtractionPreview, caller: Caller) -> ExtractedResults:
        """Extract results from a pasted transcript and keep nothing.

        Raises InvalidRequest, InvalidOutputSchema, TranscriptTooLarge, RateLimited.
        """
        workspace = await caller.workspace()
        warnings = schema_check.check(order.output_schema, order.output_schema_strict)
        schema = schema_of(order.output_schema, order.output_schema_strict)
        if schema is None:
            raise InvalidRequest(faults=[Fault("output_schema", "Is required, unless output_schema_strict is given.")])
        transcript.check_size(order.transcript)
        await self._rates.take(workspace)
        called_at = int(self._clock()) if order.called_at is None else order.called_at
        call = Call(order.transcript, called_at, order.duration_seconds)
        extracted = await self._extractor.extract(Wanted(schema, order.evidence), call, BUDGET_SECONDS)
        return _answer(None, self._stamped(extracted), warnings)

    async def _wanted(self, session: Session, order: NewExtraction) -> Wanted:
        """Return what is to be extracted; an agent that was deleted wants what it wanted when the call began."""
        owned = await self._agents.current(session.agent_id)
        agent = owned.agent if owned else await self._agents.version(session.agent_id, session.agent_version)
        wants_evidence = agent.evidence if order.evidence is None else order.evidence
        given = schema_of(order.output_schema, order.output_schema_strict)
        if given is not None:
            return Wanted(given, wants_evidence)
        return replace(Wanted.of(agent), evidence=wants_evidence)

    def _stamped(self, extracted: Extracted) -> Extracted:
        now = int(self._clock())
        return replace(extracted, extraction=extracted.extraction.model_copy(update={"extracted_at": now}))

    async def _keep(self, session: Session, extracted: Extracted) -> list[Run]:
        """Add a run to a session's history, and its results where it has some or there are none; raises StorageError.

        Somebody may keep another one at the same time: then this one comes after it.
        """
        for _ in range(_ATTEMPTS):
            before = session.extraction
            runs = _history(session, extracted)
            results, extraction = extracted.results, extracted.extraction
            if extraction.status == "failed" and before is not None and before.status in ("succeeded", "pending"):
                results, extraction = session.results, before
            extraction = extraction.model_copy(update={"runs": runs})
            kept = await self._sessions.record(session, results, extraction, session.due_at)
            if kept.extraction == extraction:
                return runs
            session = kept
        raise StorageError


def _history(session: Session, extracted: Extracted) -> list[Run]:
    """Put a run before those that are known, and before it the last one that nobody asked for by hand."""
    before = session.extraction
    known = before.runs if before else []
    if before and before.status in ("succeeded", "failed"):
        last = _run(before, session.results, session.completed_at)
        if not known or (last.at or 0) > (known[0].at or 0):
            known = [last, *known]
    runs = [_run(extracted.extraction, extracted.results), *known][:MAX_RUNS]
    while len(runs) > 1 and len(to_json([run.model_dump() for run in runs])) > MAX_RUN_BYTES:
        runs.pop()
    return runs


def _run(extraction: Extraction, results: JsonValue, ended_at: int | None = None) -> Run:
    return Run.model_construct(
        at=extraction.extracted_at or ended_at,
        status="succeeded" if extraction.status == "succeeded" else "failed",
        agent_version=extraction.agent_version,
        model=extraction.model,
        results=results,
        error=extraction.error,
    )


def _answer(session_id: SessionId | None, extracted: Extracted, warnings: list[Fault]) -> ExtractedResults:
    return ExtractedResults.model_construct(
        session_id=session_id,
        results=extracted.results,
        extraction=extracted.extraction,
        warnings=[Detail(path=warning.path, message=warning.message) for warning in warnings],
    )

"""`make extraction-report`: the outcome of each call of the corpus, on the stand-in, or on Gemini with an API key.

On the stand-in, which gives the answers planned in the corpus, each call must have its documented outcome. On Gemini
(GEMINI_API_KEY, GEMINI_EXTRACTION_MODEL) the model's answers are scored against the results of a careful reader.
"""

import asyncio
import os
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.gemini_answers import Answers
from pi_voice.adapters.gemini_extraction import GeminiExtractionModel
from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.evidence import leaves
from pi_voice.domain.output_schema import compile_output_schema
from pi_voice.logs import logger
from pi_voice.settings import GOOGLE, GeminiSettings, extraction_price
from pi_voice.use_cases.extractor import CallTranscript, ExtractionOutcome, ExtractionRequest, Extractor, TokenPrices
from tests.contracts.extraction.calls import CorpusCall, outcome_of

MODEL: Final = "gemini-3.5-flash-lite"
PRICES: Final = '{"gemini-3.5-flash-lite": {"input": 0.30, "output": 2.50}}'
SECONDS: Final = 60.0

Json = Any


@dataclass(frozen=True)
class Score:
    """One call with its extraction and its score."""

    call: CorpusCall
    extracted: ExtractionOutcome

    @property
    def is_as_documented(self) -> bool:
        """Whether it has the outcome that the corpus documents for the stand-in."""
        extraction = self.extracted.extraction.model_dump(mode="json")
        return outcome_of(self.extracted.results, extraction) == self.call.outcome

    @property
    def fields(self) -> tuple[int, int]:
        """The number of exactly correct values, and of all values."""
        right, given = dict(leaves(self.call.truth)), dict(leaves(self.extracted.results))
        return sum(path in given and _same(given[path], value) for path, value in right.items()), len(right)

    @property
    def false_claims(self) -> int:
        """The number of extracted values that do not occur in the call."""
        right, given = dict(leaves(self.call.truth)), dict(leaves(self.extracted.results))
        return sum(value not in (None, [], {}) and right.get(path) is None for path, value in given.items())


def _same(given: Json, right: Json) -> bool:
    return type(given) is type(right) and given == right


@asynccontextmanager
async def extracting(key: str | None) -> AsyncIterator[tuple[Extractor, Answers, str]]:
    """Yield an extractor on Gemini with the key, else on the stand-in, with its planned answers and its name."""
    name = os.environ.get("GEMINI_EXTRACTION_MODEL") or MODEL
    web, planned = HttpClient(), Answers()
    async with gemini_stand_in(answers=planned) as stand_in:
        base_url = os.environ.get("GOOGLE_GEMINI_BASE_URL") or GOOGLE if key else stand_in.base_url or ""
        settings = GeminiSettings(key or stand_in.api_key, "", name, "v1beta", base_url)
        price = extraction_price({"EXTRACTION_PRICES": PRICES, **os.environ, "GEMINI_EXTRACTION_MODEL": name})
        prices = TokenPrices(*price) if price else None
        try:
            yield (
                Extractor(GeminiExtractionModel(settings.extraction_model, lambda: settings, web), prices),
                planned,
                name if key else "stand-in",
            )
        finally:
            await web.close()


async def scores(key: str | None) -> tuple[list[Score], str]:
    """Extract the results of every call in sequence."""
    found = []
    async with extracting(key) as (extractor, planned, name):
        for call in CorpusCall.all():
            planned.plan(call.plan)
            schema = compile_output_schema(call.schemas.get("output_schema"), call.schemas.get("output_schema_strict"))
            transcript = CallTranscript(call.turns, call.document["called_at"], call.document["duration_seconds"])
            found.append(
                Score(call, await extractor.extract(ExtractionRequest(schema, call.has_evidence), transcript, SECONDS))
            )
    return found, name


def shown(found: list[Score], name: str, *, is_real: bool) -> None:
    """Print a row per call, and the sums."""
    console = Console(width=160)
    table = Table("call", "status", "asked", "right", "false claims", "unverified", "tokens in/out", "$", "ms")
    for score in found:
        extraction = score.extracted.extraction
        right, total = score.fields
        unverified = sum(field.status == "unverified" for field in (extraction.fields or {}).values())
        status = extraction.error.code if extraction.error else extraction.status
        wrong = "" if is_real or score.is_as_documented else "  NOT AS DOCUMENTED"
        table.add_row(
            score.call.name,
            status + wrong,
            str(extraction.attempts),
            f"{right}/{total}",
            str(score.false_claims or ""),
            str(unverified or ""),
            f"{extraction.input_tokens}/{extraction.output_tokens}",
            f"{extraction.cost_usd or 0:.5f}",
            str(extraction.milliseconds),
        )
    console.print(table)
    for line in _sums(found, name):
        console.print(line, highlight=False)


def _sums(found: list[Score], name: str) -> list[str]:
    asked = [score for score in found if score.extracted.extraction.attempts]
    rights = [score.fields for score in asked]
    right, total = sum(fields[0] for fields in rights), sum(fields[1] for fields in rights)
    invalid = [
        score
        for score in asked
        if (error := score.extracted.extraction.error) and error.code == "schema_violation"
    ]  # fmt: skip
    repaired = [score for score in asked if score.extracted.extraction.attempts > 1 and score not in invalid]
    times = sorted(score.extracted.extraction.milliseconds for score in asked)
    cost = sum(score.extracted.extraction.cost_usd or 0 for score in asked)
    return [
        f"{len(found)} calls on {name}",
        f"exact match   {right} of {total} fields ({right / total:.1%})",
        f"false claims  {sum(score.false_claims for score in asked)}",
        f"invalid       {len(invalid)} answers broke the schema twice, {len(repaired)} were asked for again",
        f"cost          ${cost:.4f} in all, ${cost / len(asked):.5f} a call",
        f"time          p50 {statistics.median(times):.0f} ms, p95 {times[int(len(times) * 0.95) - 1]} ms",
    ]


def main() -> int:
    """Print the report; return 1 if a call does not have its documented outcome on the stand-in."""
    key = os.environ.get("GEMINI_API_KEY")
    found, name = asyncio.run(scores(key))
    shown(found, name, is_real=key is not None)
    return int(key is None and not all(score.is_as_documented for score in found))


if __name__ == "__main__":
    logger.setLevel("ERROR")
    sys.exit(main())

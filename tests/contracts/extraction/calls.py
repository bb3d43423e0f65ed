"""The corpus: calls written by hand, each with a schema, the correct results, and the expected outcome."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from pi_voice.domain.evidence import leaves
from pi_voice.domain.transcripts import TranscriptTurn

CORPUS: Final = Path(__file__).parent / "corpus"

Json = Any


@dataclass(frozen=True)
class CorpusCall:
    """One call of the corpus; tests/contracts/extraction/README.md explains the keys of the document."""

    name: str
    document: dict[str, Json]

    @classmethod
    def all(cls) -> list[Self]:
        """Read the whole corpus."""
        paths = sorted(CORPUS.glob("*.json"))
        return [cls(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in paths]

    @property
    def turns(self) -> list[TranscriptTurn]:
        """The turns of the call."""
        turns: list[TranscriptTurn] = self.document["transcript"]
        return turns

    @property
    def schemas(self) -> dict[str, Json]:
        """The output schema, by its field of an agent."""
        names = ("output_schema", "output_schema_strict")
        return {name: self.document[name] for name in names if name in self.document}

    @property
    def has_evidence(self) -> bool:
        """Whether the agent asks for evidence."""
        return bool(self.document["evidence"])

    @property
    def truth(self) -> Json:
        """The results that a careful reader would give."""
        return self.document["truth"]["results"]

    @property
    def plan(self) -> list[Json]:
        """The stand-in's answers, one item per request."""
        well = {"results": self.truth, "fields": _claims(self.document["truth"].get("fields", {}))}
        return [well if answer == "well" else answer for answer in self.document["stand_in"]]

    @cached_property
    def outcome(self) -> dict[str, Json]:
        """The expected outcome on the stand-in: status, error code, results, and the status of each field."""
        expected = self.document["outcome"]
        outcome = {"status": expected["status"], "error": expected.get("error"), "results": None, "fields": None}
        if expected["status"] == "succeeded":
            outcome["results"] = expected.get("results", self.truth)
            if self.has_evidence:
                right = {path: field["status"] for path, field in self.document["truth"]["fields"].items()}
                there = [path for path, _ in leaves(outcome["results"])]
                outcome["fields"] = {path: (right | expected.get("fields", {})).get(path) for path in there}
        return outcome


def outcome_of(results: Json, extraction: dict[str, Json]) -> dict[str, Json]:
    """Return the outcome of an extraction, in the form of `CorpusCall.outcome`."""
    fields, error = extraction["fields"], extraction["error"]
    return {
        "status": extraction["status"],
        "error": error and error["code"],
        "results": results,
        "fields": fields and {path: field["status"] for path, field in fields.items()},
    }


def _claims(fields: dict[str, Json]) -> dict[str, Json]:
    return {path: {"turn": None, "quote": None, **field} for path, field in fields.items()}

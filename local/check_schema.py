"""`python -m local.check_schema FILE`: check an output schema as the API does, without starting anything."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from pi_voice.domain.errors import ErrorDetail, InvalidOutputSchema
from pi_voice.domain.gemini_schema import gemini_schema
from pi_voice.domain.output_schema import compile_output_schema
from pi_voice.domain.output_schema_validation import validate_output_schema

FIELDS = ("output_schema", "output_schema_strict")


def main() -> None:
    """Print the warnings and the schema that is sent to Gemini; exit with 1 if the API would refuse the schema."""
    parser = argparse.ArgumentParser(prog="python -m local.check_schema", description=main.__doc__)
    parser.add_argument("file", help="JSON Schema, or an agent with output_schema or output_schema_strict; - for stdin")
    parser.add_argument("--hints", action="store_true", help="read the file as hints instead of JSON Schema")
    arguments = parser.parse_args()
    hints, strict = _schemas(_document(arguments.file), are_hints=arguments.hints)
    try:
        warnings = validate_output_schema(hints, strict)
    except InvalidOutputSchema as error:
        sys.exit("\n".join(["The API would refuse this schema:", *_lines(error.details)]))
    sent = gemini_schema(compile_output_schema(hints, strict) or {})
    print("\n".join(_lines(warnings) or ["No warnings."]), end="\n\nSent to Gemini:\n")
    print(json.dumps(sent, indent=2, ensure_ascii=False))


def _document(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        document = from_json(text, allow_inf_nan=False)
    except (OSError, ValueError) as error:
        sys.exit(f"{name} cannot be read as JSON: {error}")
    if not isinstance(document, dict):
        sys.exit(f"{name} should be a JSON object.")
    return document


def _schemas(document: dict[str, Any], *, are_hints: bool) -> tuple[Any, Any]:
    """Return the hints and the strict schema of a document, which may be an agent."""
    if any(isinstance(document.get(field), dict) for field in FIELDS):
        return document.get("output_schema"), document.get("output_schema_strict")
    return (document, None) if are_hints else (None, document)


def _lines(details: Iterable[ErrorDetail]) -> list[str]:
    return [f"  {detail.path}: {detail.message}" for detail in details]


if __name__ == "__main__":
    main()

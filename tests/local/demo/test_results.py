"""Results are shown beside the output schema."""

from typing import Any

import pytest

from demo.results import Row, rows


def strict(schema: dict[str, Any], results: Any) -> list[Row]:
    return rows({"output_schema_strict": schema}, results)


def test_hints_are_paired_with_their_values() -> None:
    hints = {
        "name": "Full name",
        "visit": {"day": "string"},
        "wishes": ["string"],
        "guests": [{"age": "integer"}],
        "area": {"enum": ["inside", "terrace"]},
        "other": {"enum": ["string"]},
    }
    results = {
        "name": "Ana",
        "visit": {"day": "Friday"},
        "wishes": ["window", "quiet"],
        "guests": [{"age": 7}],
        "area": "terrace",
        "other": {"enum": ["car"]},
    }

    assert rows({"output_schema": hints}, results) == [
        Row("name", "Full name", "Ana"),
        Row("visit.day", "string", "Friday"),
        Row("wishes", "several: string", "window, quiet"),
        Row("guests", 'several: [{"age": "integer"}]', '[{"age": 7}]'),
        Row("area", "inside | terrace", "terrace"),
        Row("other.enum", "several: string", "car"),
    ]


@pytest.mark.parametrize("results", [None, {}, {"visit": None}, []])
def test_a_missing_result_is_empty(results: Any) -> None:
    assert rows({"output_schema": {"visit": {"day": "string"}}}, results) == [Row("visit.day", "string", "")]


def test_a_schema_is_described_in_a_few_words() -> None:
    properties = {
        "pain": {"type": "integer", "minimum": 0, "maximum": 10, "description": "How strong"},
        "when": {"type": "string", "format": "date"},
        "urgency": {"enum": ["urgent", "routine", None]},
        "note": {"type": ["string", "null"]},
        "any": {},
        "all": True,
    }
    found = strict({"properties": properties}, {"pain": 6, "when": "2026-11-23", "urgency": "routine", "all": True})

    assert found == [
        Row("pain", "How strong (integer 0 to 10)", "6"),
        Row("when", "date", "2026-11-23"),
        Row("urgency", "urgent | routine | ", "routine"),
        Row("note", "string or null", ""),
        Row("any", "anything", ""),
        Row("all", "anything", "true"),
    ]


def test_a_schema_without_properties_is_one_row() -> None:
    assert strict({"type": "array"}, [{"a": 1}]) == [Row("results", "array", '[{"a": 1}]')]


def test_an_agent_without_a_schema_has_no_rows() -> None:
    assert rows({}, None) == []

"""Bodies that are small to send and expensive to parse, validate or report."""

import json
from collections.abc import Iterable, Iterator, Mapping


def shapes(field: str, size: int, values: int) -> Iterator[tuple[str, str]]:
    """Yield bodies of up to `size` bytes with their names.

    `field` is a list of the route, and `values` the number of values that it accepts: some bodies stay just below.
    """
    few, size = values - 100, size - 200
    turn = '{"role":0,"text":0,"start_ms":"","end_ms":"","identity":0,"name":0}'
    yield "empty objects", _list(field, "{}", size // 3)
    yield "as many empty objects as accepted", _list(field, "{}", few // 2)
    yield "empty lists", _list(field, "[]", size // 3)
    yield "numbers", _list(field, "0", size // 2)
    yield "as many numbers as accepted", _list(field, "0", few)
    yield "as many nulls as accepted", _list(field, "null", few)
    yield "short texts", _list(field, '""', size // 3)
    yield "as many texts as accepted", _list(field, _quoted("t" * (size // few - 5)), few)
    yield "nested lists", f'{{"{field}":' + "[" * (size - 20)
    yield "nested objects", '{"a":' * (size // 5)
    yield "lists nested as deep as accepted", _list(field, "[" * 150 + "]" * 150, few // 151)
    yield "unknown fields", _object(size // 12)
    yield "as many unknown fields as accepted", _object(few)
    yield "one field again and again", _fields(["a"] * (size // 6))
    yield "one field as often as accepted", _fields(["a"] * few)
    yield "a long name", _fields(["k" * (size - 10)])
    yield "long names", _fields(f"{number}{'k' * (size // 60)}" for number in range(55))
    yield "a long number", _list(field, "9" * (size - 20), 1)
    yield "long numbers", _list(field, "9" * 4_300, size // 4_301)
    yield "numbers with long fractions", _list(field, "0." + "9" * 4_300, size // 4_303)
    yield "quotes", _text(field, '\\"' * (size // 2 - 20))
    yield "backslashes", _text(field, "\\\\" * (size // 2 - 20))
    yield "halves of surrogate pairs", _text(field, "\\ud800" * (size // 6 - 20))
    yield "halves of surrogate pairs between letters", _text(field, "\\udc00x" * (size // 7 - 20))
    yield "escapes that end in the middle", _text(field, "\\u0041" * (size // 6 - 20) + "\\ud8")
    yield "a long text", _text(field, "x" * (size - 20))
    yield "spaces", " " * size
    yield "metadata", f'{{"metadata":{_object(few)}}}'
    yield "variables", f'{{"variables":{_object(few)}}}'
    yield "objects with unknown fields", _list(field, _object(50), few // 51)
    yield "an object with unknown fields", _list(field, _object(few), 1)
    yield "objects with wrong types", _list(field, turn, min(few // 7, 5_000))


def schemas(valid: Mapping[str, object], size: int, values: int) -> Iterator[tuple[str, str]]:
    """Yield valid bodies with output schemas of up to `size` bytes that are too large."""
    valid = {name: value for name, value in valid.items() if name != "output_schema"}
    size = size - 4_096
    children = {f"p{number}": {"type": "strin"} for number in range(values // 4 - 100)}
    for name, schema in {
        "children": {"type": "object", "properties": children},
        "children that the meta-schema refuses": {
            "type": "object",
            "properties": {name: {"items": 1} for name in children},
        },
        "definitions": {"type": "object", "$defs": children},
        "required": {"type": "object", "required": [f"p{number}" for number in range(values - 300)]},
        "alternatives": {"type": "object", "anyOf": [{"type": 1}] * (values // 4 - 100)},
        "a pattern": {"type": "object", "properties": {"p": {"type": "string", "pattern": "(" * (size - 200)}}},
    }.items():
        yield f"a strict schema: {name}", json.dumps({**valid, "output_schema_strict": schema}, separators=(",", ":"))
    hints: object = "string"
    for _ in range(90):
        hints = {"k" * (size // 100): hints}
    yield "hints: long names in one another", json.dumps({**valid, "output_schema": hints})
    yield "hints: many", json.dumps({**valid, "output_schema": dict.fromkeys(children, "")})
    yield "hints: many lists", json.dumps({**valid, "output_schema": {name: [] for name in children}})


def _list(field: str, item: str, count: int) -> str:
    return f'{{"{field}":[{",".join([item] * count)}]}}'


def _object(count: int) -> str:
    return _fields(f"{number:07}" for number in range(count))


def _fields(names: Iterable[str]) -> str:
    return "{" + ",".join(f"{_quoted(name)}:0" for name in names) + "}"


def _text(field: str, text: str) -> str:
    return f'{{"{field}":{_quoted(text)}}}'


def _quoted(text: str) -> str:
    return f'"{text}"'

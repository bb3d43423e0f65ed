"""Windows: a call that is longer than the model reads at once is read in parts, and the parts become one.

Later parts win, because callers correct themselves: a value replaces an earlier one, unless it is null. Objects merge
key by key. Lists are joined, what is in both once. Two parts that found different values conflict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from pi_voice import transcript
from pi_voice.sessions import Evidence
from pi_voice.transcript import Turn

OVERLAP_TURNS: Final = 4
"""How many turns two neighbouring parts share, so that an answer does not lose its question."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some turns in a row, and which turn of the call the first one is."""

    first: int
    turns: Sequence[Turn]


def split(turns: Sequence[Turn], characters: int) -> list[Window]:
    """Cut a call into parts of at most so many characters as the model gets them; a longer turn is a part alone."""
    lengths = [len(line) for line in transcript.lines(turns)]
    windows: list[Window] = []
    first, size = 0, 0
    for number, length in enumerate(lengths):
        if number > first and size + length > characters:
            windows.append(Window(first, turns[first:number]))
            first = max(first + 1, number - OVERLAP_TURNS)
            while first < number and sum(lengths[first:number]) + length > characters:
                first += 1
            size = sum(lengths[first:number])
        size += length
    return [*windows, Window(first, turns[first:])]


@dataclass(frozen=True, slots=True)
class Part:
    """What one window gave: results, and the evidence for each of their values by its path."""

    results: JsonValue
    fields: dict[str, Evidence]


@dataclass(frozen=True, slots=True)
class _Leaf:
    value: JsonValue
    evidence: Evidence | None


_Tree = dict[str, "_Tree"] | list["_Tree"] | _Leaf


def merged(parts: Sequence[Part]) -> Part:
    """Make one of the parts of a call, given in the order in which they were spoken."""
    tree = _planted(parts[0])
    for part in parts[1:]:
        tree = _both(tree, _planted(part))
    fields: dict[str, Evidence] = {}
    return Part(_harvested(tree, "", fields), fields)


def _planted(part: Part) -> _Tree:
    def plant(value: JsonValue, path: str) -> _Tree:
        match value:
            case {} if value:
                return {name: plant(inner, f"{path}.{name}" if path else name) for name, inner in value.items()}
            case [_, *_]:
                return [plant(inner, f"{path}.{number}" if path else str(number)) for number, inner in enumerate(value)]
        return _Leaf(value, part.fields.get(path))

    return plant(part.results, "")


def _both(earlier: _Tree, later: _Tree) -> _Tree:
    if isinstance(earlier, dict) and isinstance(later, dict):
        names = dict.fromkeys((*earlier, *later))
        return {
            name: _both(earlier[name], later[name]) if name in earlier and name in later
            else later.get(name, earlier.get(name, _Leaf(None, None)))
            for name in names
        }  # fmt: skip
    if isinstance(earlier, list) and isinstance(later, list):
        there = {to_json(_harvested(item, "", {})) for item in earlier}
        return earlier + [item for item in later if to_json(_harvested(item, "", {})) not in there]
    if isinstance(later, _Leaf) and later.value in (None, [], {}):
        return earlier
    if isinstance(earlier, _Leaf) and isinstance(later, _Leaf) and later.evidence is not None:
        return replace(later, evidence=_settled(earlier, later))
    return later


def _settled(earlier: _Leaf, later: _Leaf) -> Evidence | None:
    """Tell what is known of a later value: that it conflicts, if earlier parts found another one or conflict."""
    if earlier.value is None or not earlier.evidence or not later.evidence or later.evidence.status != "found":
        return later.evidence
    was = earlier.evidence.status
    if was == "conflicting" or (was == "found" and earlier.value != later.value):
        return later.evidence.model_copy(update={"status": "conflicting"})
    return later.evidence


def _harvested(tree: _Tree, path: str, fields: dict[str, Evidence]) -> JsonValue:
    """Turn a tree back into results, and note the evidence for each value under the path that it has now."""
    match tree:
        case dict():
            return {name: _harvested(inner, f"{path}.{name}" if path else name, fields) for name, inner in tree.items()}
        case list():
            return [
                _harvested(inner, f"{path}.{number}" if path else str(number), fields)
                for number, inner in enumerate(tree)
            ]
    if tree.evidence is not None:
        fields[path] = tree.evidence
    return tree.value

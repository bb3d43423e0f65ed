"""Output schemas as hints, and a strategy that generates them."""

from typing import Any, Final

from hypothesis import strategies as st
from pydantic import JsonValue

from pi_voice.domain.base import JsonSchema
from pi_voice.domain.output_schema import compile_output_schema

_NAMES: Final = st.text(min_size=1).filter(str.strip)
_HINTS: Final = st.recursive(
    st.sampled_from(["string", "number", "integer", "boolean", "array", "object"]) | _NAMES,
    lambda inner: st.dictionaries(_NAMES, inner, min_size=1, max_size=4) | st.lists(inner, min_size=1, max_size=1),
    max_leaves=20,
)

HINTS: Final[st.SearchStrategy[dict[str, Any]]] = st.dictionaries(_NAMES, _HINTS, min_size=1, max_size=4)
"""Valid hints of up to four keys, with nested objects and arrays."""


def compile_hints(**hints: JsonValue) -> JsonSchema:
    """Compile hints to JSON Schema."""
    schema = compile_output_schema(hints, None)
    assert schema is not None
    return schema

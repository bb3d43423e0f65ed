"""JSON merge patches (RFC 7396)."""

from pydantic import JsonValue

MergePatch = dict[str, JsonValue]
"""Body of a PATCH: values replace, null removes. `Update...Request` in the reference."""


def merge(document: dict[str, JsonValue], patch: MergePatch) -> dict[str, JsonValue]:
    """Return the document with a JSON merge patch applied (RFC 7396, section 2)."""
    merged = dict(document)
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        elif isinstance(change, dict):
            target = merged.get(name)
            merged[name] = merge(target if isinstance(target, dict) else {}, change)
        else:
            merged[name] = change
    return merged

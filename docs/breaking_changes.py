"""List the changes since the last release that break clients.

    python docs/breaking_changes.py

The document of the last release is read from its git tag. Requests may accept more and responses may hold more; the
reverse breaks clients.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

_ROOT: Final = Path(__file__).parents[1]
_DOCUMENT: Final = "docs/openapi.json"
_UPPER_BOUNDS: Final = ("maximum", "maxLength", "maxItems", "maxProperties")
_LOWER_BOUNDS: Final = ("minimum", "minLength", "minItems", "minProperties")


def released(repository: Path = _ROOT) -> Json | None:
    """Return the document at the newest release tag before HEAD; None if there is no release yet."""
    tag = _git(repository, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    return dict(json.loads(_git(repository, "show", f"{tag.strip()}:{_DOCUMENT}"))) if tag else None


def _git(repository: Path, *arguments: str) -> str:
    command = ("git", "-C", str(repository), *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 (git itself)


def breaking_changes(before: Json, after: Json) -> Iterator[str]:
    """Yield a message for each change between two documents that breaks clients."""
    for path, methods in before["paths"].items():
        for method, old in methods.items():
            where = f"{method.upper()} {path}"
            new = after["paths"].get(path, {}).get(method)
            if new is None:
                yield f"{where} was removed"
                continue
            yield from _parameters(where, old, new)
            yield from _bodies(where, (before, old), (after, new))
            yield from _responses(where, (before, old), (after, new))


def _parameters(where: str, old: Json, new: Json) -> Iterator[str]:
    known = {parameter["name"]: parameter for parameter in old.get("parameters", [])}
    offered = {parameter["name"]: parameter for parameter in new.get("parameters", [])}
    yield from (f"{where}: the parameter {name} was removed" for name in known.keys() - offered.keys())
    for name, parameter in offered.items():
        if parameter["required"] and not known.get(name, {}).get("required"):
            yield f"{where}: the parameter {name} became required"
    if any(kind not in new["security"] for kind in old["security"]):
        yield f"{where}: a kind of credential was removed"


def _bodies(where: str, old: tuple[Json, Json], new: tuple[Json, Json]) -> Iterator[str]:
    was, now = old[1].get("requestBody", {}), new[1].get("requestBody", {})
    if now.get("required") and not was.get("required"):
        yield f"{where}: the body became required"
    offered = now.get("content", {})
    for media_type, content in was.get("content", {}).items():
        if media_type not in offered:
            yield f"{where}: the media type {media_type} was removed"
        else:
            yield from _schemas(
                f"{where}: request", (old[0], content["schema"]), (new[0], offered[media_type]["schema"]), sent=True
            )


def _responses(where: str, old: tuple[Json, Json], new: tuple[Json, Json]) -> Iterator[str]:
    for status, response in old[1]["responses"].items():
        if not status.startswith("2"):
            continue
        if status not in new[1]["responses"]:
            yield f"{where}: the status {status} was removed"
            continue
        for media_type, content in response.get("content", {}).items():
            schema = new[1]["responses"][status].get("content", {}).get(media_type, {"schema": {}})["schema"]
            yield from _schemas(f"{where}: response", (old[0], content["schema"]), (new[0], schema), sent=False)


def _schemas(where: str, old: tuple[Json, Json], new: tuple[Json, Json], *, sent: bool) -> Iterator[str]:
    """Compare a schema for clients that send such values, or that receive them."""
    one, other = _resolved(*old), _resolved(*new)
    if _types(one, old[0]) != _types(other, new[0]):
        yield f"{where} changed its type"
        return
    narrower = [
        *(bound for bound in _UPPER_BOUNDS if bound in other and other[bound] < one.get(bound, float("inf"))),
        *(bound for bound in _LOWER_BOUNDS if bound in other and other[bound] > one.get(bound, float("-inf"))),
        *(("enum",) if "enum" in other and any(v not in other["enum"] for v in one.get("enum", [None])) else ()),
    ]
    if sent and narrower:
        yield f"{where} is more restrictive: {', '.join(narrower)}"
    fields, offered = one.get("properties", {}), other.get("properties", {})
    yield from (f"{where}.{name} was removed" for name in fields.keys() - offered.keys())
    was, now = set(one.get("required", ())), set(other.get("required", ()))
    changed = now - was if sent else (was - now) & offered.keys()
    yield from (f"{where}.{name} became {'required' if sent else 'optional'}" for name in sorted(changed))
    for name in fields.keys() & offered.keys():
        yield from _schemas(f"{where}.{name}", (old[0], fields[name]), (new[0], offered[name]), sent=sent)
    if "items" in one and "items" in other:
        yield from _schemas(f"{where}[]", (old[0], one["items"]), (new[0], other["items"]), sent=sent)


def _resolved(document: Json, schema: Json) -> Json:
    """Follow a reference, and read a nullable schema as its schema without null."""
    if "$ref" in schema:
        return _resolved(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    return _resolved(document, kinds[0]) if len(kinds) == 1 else schema


def _types(schema: Json, document: Json) -> set[str]:
    if "anyOf" in schema:
        return {name for kind in schema["anyOf"] for name in _types(_resolved(document, kind), document)}
    return {schema["type"]} if isinstance(schema.get("type"), str) else set()


def main() -> None:
    """Print the breaking changes, and exit with 1 if there are any."""
    after = json.loads((_ROOT / _DOCUMENT).read_text())
    found = sorted(breaking_changes(released() or after, after))
    print("\n".join(found) or "No breaking changes.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

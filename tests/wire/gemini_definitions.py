"""Takes what a strict reader needs out of Google's machine-readable definition of the Gemini API.

    python tests/wire/gemini_definitions.py v1beta.openapi.json > tests/wire/gemini/v1beta.json

The definition is served by Google under `/$discovery/OPENAPI3_0?version=v1beta`. What is kept are the messages that the
requests for a token and for an extraction are made of: the names of their fields, types and values, without any prose.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

REQUESTS: Final = ("AuthToken", "GenerateContentRequest")

Node = Any


def definitions(document: Node) -> dict[str, Node]:
    """Return the messages that the requests are made of, each as a JSON Schema that allows nothing else."""
    schemas: dict[str, Node] = document["components"]["schemas"]
    kept: dict[str, Node] = {}
    waiting = list(REQUESTS)
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept[name] = _strict(schemas[name]) if name in schemas else {}  # named but left out: anything goes
            waiting.extend(_references(kept[name]))
    return dict(sorted(kept.items()))


def _strict(node: Node) -> Node:
    if "$ref" in node:
        return {"$ref": f"#/$defs/{node['$ref'].rpartition('/')[2]}"}
    match node.get("type"):
        case "object" if "properties" in node:
            fields = {name: _strict(field) for name, field in sorted(node["properties"].items())}
            return {"type": "object", "properties": fields, "additionalProperties": False}
        case "array":
            return {"type": "array", "items": _strict(node["items"])}
        case None:
            alternatives = node.get("allOf")
            return _strict(alternatives[0]) if alternatives else {}
    return {key: node[key] for key in ("type", "enum", "format") if key in node}


def _references(node: Node) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)


def main() -> None:
    """Print the definitions, one message a line."""
    messages = definitions(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    lines = [f"{json.dumps(name)}: {json.dumps(message)}" for name, message in messages.items()]
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

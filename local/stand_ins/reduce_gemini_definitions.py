"""Reduces Google's OpenAPI definition of the Gemini API to the messages that gemini_messages.py reads.

    python -m local.stand_ins.reduce_gemini_definitions v1beta.openapi.json > v1beta.json

Google serves the definition under `/$discovery/OPENAPI3_0?version=v1beta`. The output goes to gemini_definitions/: the
messages of requests for a token and for an extraction, with the names, types and values of their fields.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

REQUESTS: Final = ("AuthToken", "GenerateContentRequest")

Node = Any


def definitions(document: Node) -> dict[str, Node]:
    """Return every message that the requests contain, each as a JSON Schema that allows no other fields.

    A message that the document names but does not define is left out.
    """
    schemas: dict[str, Node] = document["components"]["schemas"]
    messages: dict[str, Node] = {}
    waiting = list(REQUESTS)
    while waiting:
        name = waiting.pop()
        if name in schemas and name not in messages:
            messages[name] = _strict(schemas[name])
            waiting.extend(_references(messages[name]))
    return dict(sorted(messages.items()))


def _strict(node: Node) -> Node:
    if "$ref" in node:
        return {"$ref": f"#/$defs/{node['$ref'].rpartition('/')[2]}"}
    match node.get("type"):
        case "object" if "properties" in node:
            # `_responseJsonSchema` is listed beside `responseJsonSchema`, which is the field to use.
            names = sorted(name for name in node["properties"] if not name.startswith("_"))
            fields = {name: _strict(node["properties"][name]) for name in names}
            return {"type": "object", "properties": fields, "additionalProperties": False}
        case "object":
            return {"type": "object", "additionalProperties": _strict(node["additionalProperties"])}
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

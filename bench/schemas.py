"""Output schemas: the processor time of checking one when an agent is saved, and of what is sent to Gemini."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from bench.report import Target, table
from bench.world import World

BYTES: Final = 4_096
"""Size of the measured schema."""

ROUNDS: Final = 40
_STEPS: Final = Path(__file__).with_name("schema_steps.py")

Json = Any


def measure(world: World) -> Json:
    """Time the steps in a process of their own, with the built layer; return the milliseconds of each round."""
    subject = world.subject("CreateAgent")
    steps = subprocess.run(
        [world.builds.python, "-S", "-s", "-B", _STEPS, str(ROUNDS)],
        env={"PYTHONPATH": os.pathsep.join(map(str, subject.path))},
        input=json.dumps(schema()),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(steps.stdout)


def tables(figures: Json) -> dict[str, str]:
    """Return the table of the steps."""
    rows = [[step, f"{times[0]:.1f}", f"{min(times):.1f}"] for step, times in figures.items()]
    return {"schemas": table(["step", "ms, first", "smallest"], rows), "schema_bytes": f"{len(json.dumps(schema())):,}"}


def targets(figures: Json) -> list[Target]:
    """Return the target: all steps together, the first time, which compiles the patterns."""
    first = sum(times[0] for times in figures.values())
    return [Target("processor time of all schema steps for a schema of 4 KB", 50, first, "ms")]


def schema() -> Json:
    """Return a strict schema of about BYTES, as pydantic writes it: definitions, enums, formats, patterns, lists."""
    address = {
        "type": "object",
        "description": "A postal address.",
        "properties": {
            "street": {"type": "string", "maxLength": 80},
            "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
            "country": {"enum": ["AT", "CH", "DE"], "type": "string"},
        },
        "required": ["street", "zip", "country"],
        "additionalProperties": False,
    }
    properties: dict[str, Json] = {
        "billing": {"$ref": "#/$defs/Address", "description": "Where the invoice goes."},
        "visits": {"type": "array", "maxItems": 5, "items": {"$ref": "#/$defs/Address"}},
        "born": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
    }
    whole: Json = {"type": "object", "properties": properties, "$defs": {"Address": address}}
    while len(json.dumps(whole)) < BYTES:
        number = len(properties)
        properties[f"answer_{number}"] = {
            "anyOf": [{"type": "integer", "minimum": 0, "maximum": number}, {"type": "null"}],
            "description": f"How often the caller named topic {number}.",
        }
    return whole

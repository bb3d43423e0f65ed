"""Time the steps of an output schema in one process: python3.13 -S -s -B schema_steps.py rounds < schema.json.

Prints the milliseconds of processor time of each round, for each step.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from pi_voice.domain.gemini_schema import gemini_schema
from pi_voice.domain.output_schema_validation import validate_output_schema


def main() -> None:
    """Read the schema, and print JSON."""
    schema = json.load(sys.stdin)
    steps: dict[str, Callable[[], Any]] = {
        "check, when an agent is saved": lambda: validate_output_schema(None, schema),
        "translate for Gemini": lambda: gemini_schema(schema),
    }
    took: dict[str, list[float]] = {step: [] for step in steps}
    for _ in range(int(sys.argv[1])):
        for step, run in steps.items():
            began = time.process_time()
            run()
            took[step].append((time.process_time() - began) * 1000)
    print(json.dumps(took))


main()

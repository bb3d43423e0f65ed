"""Run the functions of docs/migrating.md on records as the services write them."""

import re
from typing import Any, Final

import pytest

from pi_voice.domain.transcripts import TURNS
from tests.support.template import ROOT

PAGE: Final = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
SAID: Final = [{"role": "agent", "text": "Hello."}, {"role": "user", "text": "Hi."}]
RECORDS: Final[dict[str, Any]] = {
    "from_vapi": {
        "messages": [
            {"role": "system", "message": "Be kind.", "secondsFromStart": 0},
            {"role": "bot", "message": "Hello.", "secondsFromStart": 1.44, "time": 1764364968450, "duration": 900},
            {"role": "tool_calls", "toolCalls": [], "secondsFromStart": 2},
            {"role": "user", "message": "Hi.", "secondsFromStart": 3.02},
        ]
    },
    "from_retell": {
        "transcript_object": [
            {"role": "agent", "content": "Hello.", "words": [{"word": "Hello.", "start": 0.7, "end": 1.3}]},
            {"role": "user", "content": "Hi.", "words": []},
            {"role": "transfer_target", "content": "Who is it?", "words": []},
        ]
    },
    "from_elevenlabs": {
        "transcript": [
            {"role": "agent", "message": "Hello.", "time_in_call_secs": 0},
            {"role": "agent", "message": None, "tool_calls": [{}], "time_in_call_secs": 1},
            {"role": "user", "message": "Hi.", "time_in_call_secs": 2},
        ]
    },
    "from_openai": [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be kind."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "Hello."}]},
        {"type": "function_call", "name": "look_up", "arguments": "{}"},
        {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": "Hi."}]},
    ],
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_another_service_becomes_a_transcript(name: str) -> None:
    [source] = [block for block in re.findall("```python\n(.*?)```", PAGE, re.DOTALL) if f"def {name}(" in block]
    functions: dict[str, Any] = {}
    exec(source, functions)  # noqa: S102 (our own documentation)

    turns = functions[name](RECORDS[name])

    assert [{"role": turn["role"], "text": turn["text"]} for turn in turns] == SAID
    TURNS.validate_python(turns)
    assert len(source.splitlines()) <= 14

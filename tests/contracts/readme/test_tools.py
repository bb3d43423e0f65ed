"""Check docs/tools.md against the example's server, the reference and the code."""

import json
import re
from typing import Any, Final

from jsonschema import Draft202012Validator

from docs.clients import client
from pi_voice.domain.row_limits import MAX_RESULT_DEPTH
from pi_voice.domain.tool_calls import MAX_CALLS, MAX_RESPONSE_BYTES
from pi_voice.domain.tools import DEFAULT_TIMEOUT_SECONDS, ServerRun
from pi_voice.use_cases.run_server_tool import RECORD_SECONDS
from tests.support.command_blocks import BLOCKS, Block
from tests.support.template import ROOT

PAGE: Final = ROOT / "docs/tools.md"
TEXT: Final = " ".join(PAGE.read_text(encoding="utf-8").split())
REFERENCE: Final = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))


def block(language: str, kind: str = "") -> Block:
    [found] = [
        each for each in BLOCKS if each.document == PAGE and each.language == language and each.kind.startswith(kind)
    ]
    return found


def schema(name: str) -> Any:
    return {"$ref": f"#/components/schemas/{name}", "components": REFERENCE["components"]}


def test_the_page_has_lines_of_the_server_of_the_example() -> None:
    assert block("python").text in (ROOT / "examples/booking_server.py").read_text(encoding="utf-8")


def test_the_server_of_the_example_is_as_short_as_a_reader_wants_it() -> None:
    lines = (ROOT / "examples/booking_server.py").read_text(encoding="utf-8").splitlines()

    assert len([line for line in lines if line.strip()]) <= 75


def test_the_request_of_the_page_is_valid_by_the_reference() -> None:
    shown = json.loads(block("json", "tool.call").text)

    Draft202012Validator(schema("ToolCallEvent")).validate(shown)
    assert shown["data"].keys() == REFERENCE["components"]["schemas"]["ToolCallData"]["properties"].keys()


def test_the_relayed_calls_of_the_page_are_valid_by_the_reference() -> None:
    shown = [
        json.loads(each.text)
        for each in BLOCKS
        if each.document == PAGE and each.language == "json" and '"call_id"' in each.text and not each.kind
    ]

    assert len(shown) == 2
    for call in shown:
        Draft202012Validator(schema("CallToolRequest")).validate(call)


def test_the_page_has_the_limits_of_the_code() -> None:
    timeout = ServerRun.model_json_schema()["properties"]["timeout_seconds"]

    assert f"`timeout_seconds` is {timeout['minimum']} to {timeout['maximum']}, and {timeout['default']}" in TEXT
    assert timeout["default"] == DEFAULT_TIMEOUT_SECONDS
    assert f"up to {MAX_RESPONSE_BYTES // 1024} KB and {MAX_RESULT_DEPTH} levels deep" in TEXT
    assert f"A session takes {MAX_CALLS} tool calls" in TEXT
    assert f"up to {MAX_CALLS} times" in TEXT
    assert RECORD_SECONDS == 6  # "once the time limit and six seconds are over"
    assert f"Give up after {client.SERVER_TOOL_SECONDS:.0f} seconds" in TEXT
    assert f"wait {_in_words(client.RECORD_SECONDS)} seconds for running calls" in TEXT


def _in_words(number: float) -> str:
    return {3.0: "three", 5.0: "five"}[number]


def test_the_page_has_the_sentences_that_the_agent_gets() -> None:
    code = (ROOT / "layers/voice/pi_voice/use_cases/run_server_tool.py").read_text(encoding="utf-8")
    told = re.findall(r'\| `\{"error": "([^"]+)"\}` \|', PAGE.read_text(encoding="utf-8"))

    assert len(told) == 3
    assert [sentence for sentence in told if f'"{sentence}"' not in code] == []


def test_the_browser_client_has_the_time_limits_of_the_reference_client() -> None:
    source = (ROOT / "clients/js/packages/client/src/tools.ts").read_text(encoding="utf-8")

    assert float(re.findall(r"SERVER_SECONDS = (\d+);", source)[0]) == client.SERVER_TOOL_SECONDS

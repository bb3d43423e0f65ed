"""The OpenAPI document: what the functions say, valid, with examples that obey it, and no promise broken."""

import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from pi_voice.domain import errors

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = json.loads((ROOT / "docs" / "openapi.json").read_text())
RELEASED: Final = json.loads((ROOT / "docs" / "openapi-released.json").read_text())
API_KEY: Final[dict[str, list[str]]] = {"api_key": []}
CLIENT_TOKEN: Final[dict[str, list[str]]] = {"client_token": []}
OPERATIONS: Final = [
    pytest.param(operation, id=f"{method} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_is_what_the_functions_say() -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'voice'}"}

    check = subprocess.run(
        [sys.executable, ROOT / "docs" / "openapi.py", "--check"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (check.returncode, check.stderr) == (0, "")


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_every_route_of_the_template_is_documented() -> None:
    template = (ROOT / "template.yaml").read_text()

    assert all(f"{path}}}" in template or f'"{path}"' in template for path in DOCUMENT["paths"])
    assert sum(map(len, DOCUMENT["paths"].values())) == template.count("Type: HttpApi")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_route_is_described_with_its_errors_and_its_key(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["security"] in ([API_KEY], [API_KEY, CLIENT_TOKEN], [{"livekit_signature": []}])
    assert {"401", "500"} <= operation["responses"].keys()
    assert all(answer["headers"]["X-Request-Id"] for answer in operation["responses"].values())


def those_with(fact: Callable[[dict[str, Any]], object]) -> set[str]:
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    return {operation["operationId"] for operation in operations if fact(operation)}


def test_a_client_token_opens_what_a_sessions_own_client_needs_and_an_api_key_all_but_the_webhook() -> None:
    everything = those_with(lambda _: True)

    assert those_with(lambda operation: CLIENT_TOKEN in operation["security"]) == {
        "get_session",
        "complete_session",
        "save_transcript",
        "renew_session",
        "stop_session",
    }
    assert those_with(lambda operation: API_KEY in operation["security"]) == everything - {"receive_livekit_webhook"}
    assert DOCUMENT["components"]["securitySchemes"].keys() == {"api_key", "client_token", "livekit_signature"}


def test_what_heeds_an_idempotency_key_says_so_by_its_header_its_answers_and_its_errors() -> None:
    def parameters(operation: dict[str, Any]) -> list[str]:
        return [each["name"] for each in operation.get("parameters", []) if each["in"] == "header"]

    def tells_of_a_replay(operation: dict[str, Any]) -> bool:
        answers = operation["responses"].items()
        return any("Idempotent-Replayed" in answer["headers"] for status, answer in answers if status < "300")

    def codes(operation: dict[str, Any], status: str) -> set[str]:
        return error_codes(operation["responses"][status]) if status in operation["responses"] else set()

    heeding = {"create_agent", "create_session", "add_participant", "complete_session"}

    assert those_with(lambda operation: parameters(operation) == ["Idempotency-Key"]) == heeding
    assert those_with(parameters) == heeding
    assert those_with(tells_of_a_replay) == heeding
    assert those_with(lambda operation: "idempotency_in_progress" in codes(operation, "409")) == heeding
    assert those_with(lambda operation: codes(operation, "422") == {"idempotency_key_reused"}) == heeding


@pytest.mark.parametrize(
    ("key", "fits"),
    [("9f1c2d", True), ("~!", True), ("k" * 255, True), ("", False), ("k" * 256, False), ("a b", False), ("ä", False)],
)
def test_an_idempotency_key_is_described_as_it_is_taken(key: str, *, fits: bool) -> None:
    operation = DOCUMENT["paths"]["/api/v1/voice/agents"]["post"]
    [parameter] = operation["parameters"]

    assert Draft202012Validator(parameter["schema"]).is_valid(key) is fits


def test_a_body_may_be_left_out_where_nothing_in_it_is_required() -> None:
    assert those_with(lambda operation: not operation.get("requestBody", {"required": True})["required"]) == {
        "update_agent",
        "complete_session",
        "renew_session",
        "rerun_extraction",
    }


def test_an_error_tells_which_turn_is_next_where_that_helps() -> None:
    [error] = DOCUMENT["components"]["schemas"]["Error"]["properties"].values()

    assert error["properties"]["next"]["type"] == "integer"
    assert "next" not in error["required"]


def test_a_field_is_described_by_its_name_in_json() -> None:
    assert DOCUMENT["components"]["schemas"]["Checkpoint"]["properties"]["from"]["description"].startswith("Which turn")


def error_codes(answer: dict[str, Any]) -> set[str]:
    [_, narrowed] = answer["content"]["application/json"]["schema"]["allOf"]
    return set(narrowed["properties"]["error"]["properties"]["code"]["enum"])


def examples(operation: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    contents = list(operation.get("requestBody", {}).get("content", {}).values())
    contents += [
        content for answer in operation["responses"].values() for content in answer.get("content", {}).values()
    ]
    return ((content["schema"], content["example"]) for content in contents if "example" in content)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_examples_obey_their_schemas(operation: dict[str, Any]) -> None:
    shown = list(examples(operation))

    assert shown or "204" in operation["responses"]
    for schema, example in shown:
        Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(example)


def test_every_error_code_that_is_sent_is_documented_by_some_route_and_in_the_guide() -> None:
    documented = set()
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if not status.startswith("2"):
                    documented |= error_codes(answer)
    sent = {error.code for error in subclasses(errors.VoiceError) if hasattr(error, "code")}
    guide = (ROOT / "docs" / "errors.md").read_text()

    assert documented == sent - {"api_key_not_found"}
    assert [code for code in sorted(sent) if f"\n## `{code}`\n" not in guide] == []


def subclasses(cls: type[errors.VoiceError]) -> Iterator[type[errors.VoiceError]]:
    for inner in cls.__subclasses__():
        yield inner
        yield from subclasses(inner)


def test_what_is_absent_and_what_is_null_are_told_apart() -> None:
    assert "default" not in DOCUMENT["components"]["schemas"]["NewSession"]["properties"]["max_duration_seconds"]


def test_what_callers_send_is_closed_and_what_they_get_may_grow() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    assert schemas["NewSession"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["SessionState"]


def test_no_promise_of_the_last_release_is_broken() -> None:
    assert list(script("breaking_changes").breaking_changes(RELEASED, DOCUMENT)) == []


BREAKING: Final[list[tuple[str, str]]] = [
    ('del d["paths"]["/api/v1/voice/voices"]', "GET /api/v1/voice/voices is gone"),
    ('s["AgentSpec"]["required"].append("purpose")', "POST /api/v1/voice/agents: request.purpose is required now"),
    ('del s["NewSession"]["properties"]["media"]', "POST /api/v1/voice/sessions: request.media is gone"),
    ('s["NewSession"]["properties"]["ttl_seconds"]["maximum"] = 60', "request.ttl_seconds takes less: maximum"),
    ('s["Behaviors"]["properties"]["speaking_pace"]["enum"].pop()', "request.behaviors.speaking_pace takes less: enum"),
    ('del s["Connection"]["properties"]["livekit"]', "answer.data.connection.livekit is gone"),
    ('s["SessionState"]["required"].remove("results")', "answer.results is no longer always there"),
    ('s["Voice"]["properties"]["style"]["type"] = "integer"', "answer.data[].style is of another type"),
    ('d["paths"]["/api/v1/voice/agents"]["get"]["parameters"].pop()', "the parameter cursor is gone"),
    ('d["paths"]["/api/v1/voice/voices"]["get"]["security"] = []', "another kind of key is wanted"),
    (
        'd["paths"]["/api/v1/voice/sessions/{session_id}/stop"]["post"]["security"].pop()',
        "another kind of key is wanted",
    ),
    (
        'd["paths"]["/api/v1/voice/sessions/{session_id}/renew"]["post"]["requestBody"]["required"] = True',
        "a body is required now",
    ),
    (
        'd["paths"]["/api/v1/voice/sessions"]["post"]["parameters"][0]["required"] = True',
        "the parameter Idempotency-Key is required now",
    ),
]


@pytest.mark.parametrize(("change", "found"), BREAKING)
def test_a_broken_promise_is_noticed(change: str, found: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    exec(change, {"d": document, "s": document["components"]["schemas"]})  # noqa: S102 (the cases above)

    changes = list(script("breaking_changes").breaking_changes(DOCUMENT, document))

    assert any(sentence.endswith(found) for sentence in changes), changes


@pytest.mark.parametrize(
    "change",
    [
        's["AgentSpec"]["properties"]["mood"] = {"type": "string"}',
        's["SessionState"]["properties"]["mood"] = {"type": "string"}',
        's["NewSession"]["properties"]["ttl_seconds"]["maximum"] = 7200',
        'd["paths"]["/api/v1/voice/moods"] = {}',
        'd["paths"]["/api/v1/voice/voices"]["get"]["security"].append({"client_token": []})',
        'd["paths"]["/api/v1/voice/agents"]["post"]["requestBody"]["required"] = False',
    ],
)
def test_growth_breaks_nothing(change: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    exec(change, {"d": document, "s": document["components"]["schemas"]})  # noqa: S102 (the cases above)

    assert list(script("breaking_changes").breaking_changes(DOCUMENT, document)) == []

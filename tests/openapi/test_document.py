"""The OpenAPI document: what the functions say, valid, with examples that obey it, and no promise broken."""

import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from pi_voice import errors

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = json.loads((ROOT / "docs" / "openapi.json").read_text())
RELEASED: Final = json.loads((ROOT / "docs" / "openapi-released.json").read_text())
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
    assert operation["security"] in ([{"api_key": []}], [{"livekit_signature": []}])
    assert {"401", "500"} <= operation["responses"].keys()
    assert all(answer["headers"]["X-Request-Id"] for answer in operation["responses"].values())


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
                    [_, narrowed] = answer["content"]["application/json"]["schema"]["allOf"]
                    documented |= set(narrowed["properties"]["error"]["properties"]["code"]["enum"])
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
    ],
)
def test_growth_breaks_nothing(change: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    exec(change, {"d": document, "s": document["components"]["schemas"]})  # noqa: S102 (the cases above)

    assert list(script("breaking_changes").breaking_changes(DOCUMENT, document)) == []

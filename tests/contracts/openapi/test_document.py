"""The OpenAPI document: generated from the functions, valid, with valid examples and no breaking change."""

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from pi_voice.domain import errors
from pi_voice.domain.webhook_events import TEST, TOOL_CALL, SessionEventType
from tests.support.template import ROOT

DOCUMENT: Final = json.loads((ROOT / "docs" / "openapi.json").read_text())
SCHEMAS: Final = DOCUMENT["components"]["schemas"]
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


@pytest.mark.parametrize("name", ["responses.py", "openapi.py"])
def test_the_document_and_its_examples_are_generated_from_the_functions(name: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'voice'}"}

    check = subprocess.run(
        [sys.executable, ROOT / "docs" / name, "--check"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert check.returncode == 0, check.stderr


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_an_operation_is_named_after_its_function() -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    names = {folder.replace("_", ""): folder for folder in folders}

    operations = those_with(lambda _: True)
    assert operations
    for operation_id in operations:
        assert names[operation_id.lower()] == re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", operation_id)


def test_every_route_of_the_template_is_documented() -> None:
    template = (ROOT / "template.yaml").read_text()

    assert [path for path in DOCUMENT["paths"] if f"{path}}}" not in template and f'"{path}"' not in template] == []
    assert sum(map(len, DOCUMENT["paths"].values())) == template.count("Type: HttpApi")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_route_is_described_with_its_errors_and_its_key(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["security"] in ([API_KEY], [API_KEY, CLIENT_TOKEN], [{"livekit_signature": []}])
    assert {"401", "500"} <= operation["responses"].keys()
    assert all(response["headers"]["X-Request-Id"] for response in operation["responses"].values())


def those_with(fact: Callable[[dict[str, Any]], object]) -> set[str]:
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    return {operation["operationId"] for operation in operations if fact(operation)}


def test_a_client_token_opens_the_routes_of_its_session_and_an_api_key_all_but_the_webhook() -> None:
    everything = those_with(lambda _: True)

    assert those_with(lambda operation: CLIENT_TOKEN in operation["security"]) == {
        "getSession",
        "callTool",
        "reportUsage",
        "completeSession",
        "saveTranscript",
        "renewSession",
        "stopSession",
    }
    assert those_with(lambda operation: API_KEY in operation["security"]) == everything - {"receiveLivekitWebhook"}
    assert DOCUMENT["components"]["securitySchemes"].keys() == {"api_key", "client_token", "livekit_signature"}


def test_each_request_to_a_webhook_endpoint_is_a_webhook_with_a_valid_example() -> None:
    events = {*get_args(SessionEventType.__value__), TEST, TOOL_CALL}

    assert DOCUMENT["webhooks"].keys() == events
    for name, path in DOCUMENT["webhooks"].items():
        content = path["post"]["requestBody"]["content"]["application/json"]
        Draft202012Validator(content["schema"] | {"components": {"schemas": SCHEMAS}}).validate(content["example"])
        assert content["example"]["type"] == name
        assert parameters(path["post"]) == ["webhook-id", "webhook-timestamp", "webhook-signature"]


def test_an_event_has_the_parts_of_a_session_that_its_endpoint_includes() -> None:
    session, event = SCHEMAS["Session"], SCHEMAS["EventSession"]

    assert event["properties"].keys() == session["properties"].keys()
    optional = event["properties"].keys() - set(event["required"])
    assert optional == {"transcript", "tool_calls", "results"}


def parameters(operation: dict[str, Any]) -> list[str]:
    return [each["name"] for each in operation.get("parameters", []) if each["in"] == "header"]


def codes(operation: dict[str, Any], status: str) -> set[str]:
    return error_codes(operation["responses"][status]) if status in operation["responses"] else set()


def test_a_route_that_changes_a_version_documents_its_precondition_and_its_conflict() -> None:
    conditional = {"updateAgent", "restoreAgentVersion"}

    assert those_with(lambda operation: "If-Match" in parameters(operation)) == conditional
    assert those_with(lambda operation: "agent_version_conflict" in codes(operation, "409")) == conditional


def test_an_idempotent_route_documents_its_header_its_replays_and_its_errors() -> None:
    def documents_replays(operation: dict[str, Any]) -> bool:
        responses = operation["responses"].items()
        return any("Idempotent-Replayed" in response["headers"] for status, response in responses if status < "300")

    idempotent = {
        *("createAgent", "restoreAgentVersion", "createSession", "addParticipant", "completeSession"),
        *("createWebhookEndpoint", "rotateWebhookSecret", "testWebhookEndpoint"),
    }

    assert those_with(lambda operation: "Idempotency-Key" in parameters(operation)) == idempotent
    assert those_with(documents_replays) == idempotent
    assert those_with(lambda operation: "idempotency_in_progress" in codes(operation, "409")) == idempotent
    assert those_with(lambda operation: codes(operation, "422") == {"idempotency_key_reused"}) == idempotent


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
        "updateAgent",
        "updateWebhookEndpoint",
        "completeSession",
        "renewSession",
        "rerunExtraction",
    }


def test_an_error_may_hold_the_next_turn_and_its_details() -> None:
    error = SCHEMAS["Error"]

    assert error["properties"]["next"]["type"] == "integer"
    assert error["properties"].keys() - set(error["required"]) == {"next", "details"}


def test_a_field_is_described_by_its_docstring_under_its_name_in_json() -> None:
    assert all(SCHEMAS["SaveTranscriptRequest"]["properties"][name]["description"] for name in ("from", "turns"))


def error_codes(response: dict[str, Any]) -> set[str]:
    schema = response["content"]["application/json"]["schema"]
    assert schema["$ref"] == "#/components/schemas/ErrorResponse"
    return set(schema["properties"]["error"]["properties"]["code"]["enum"])


def examples(operation: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    contents = list(operation.get("requestBody", {}).get("content", {}).values())
    contents += [
        content for response in operation["responses"].values() for content in response.get("content", {}).values()
    ]
    return ((content["schema"], content["example"]) for content in contents if "example" in content)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_examples_are_valid(operation: dict[str, Any]) -> None:
    shown = list(examples(operation))

    assert shown or "204" in operation["responses"]
    for schema, example in shown:
        Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(example)


def test_every_error_code_that_is_sent_is_documented_by_some_route_and_in_the_guide() -> None:
    documented = set()
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if not status.startswith("2"):
                    documented |= error_codes(response)
    sent = {error.code for error in subclasses(errors.VoiceError) if hasattr(error, "code")}
    guide = (ROOT / "docs" / "errors.md").read_text()

    assert documented == sent - {"api_key_not_found"}
    assert [code for code in sorted(sent) if f"\n### `{code}`\n" not in guide] == []


def subclasses(cls: type[errors.VoiceError]) -> Iterator[type[errors.VoiceError]]:
    for inner in cls.__subclasses__():
        yield inner
        yield from subclasses(inner)


def test_a_field_with_a_default_is_optional_in_requests_and_always_in_responses() -> None:
    assert SCHEMAS["CreateAgentRequest"]["required"] == ["name", "instructions"]
    assert SCHEMAS["Agent"]["required"] == list(SCHEMAS["Agent"]["properties"])


def test_a_session_holds_every_field_but_those_that_a_client_token_does_not_see() -> None:
    session, summary = SCHEMAS["Session"], SCHEMAS["SessionSummary"]

    assert session["properties"].keys() - set(session["required"]) == {"metadata", "overrides", "variables"}
    assert summary["properties"].keys() == set(summary["required"])


def test_no_field_has_a_default_because_openapi_typescript_would_require_it_in_requests() -> None:
    fields = [field for schema in SCHEMAS.values() for field in schema.get("properties", {}).values()]

    assert [field for field in fields if "default" in field] == []
    assert SCHEMAS["CreateAgentRequest"]["properties"]["language"]["description"].endswith(' Default: "en-US".')


def test_requests_are_closed_and_responses_may_get_more_fields() -> None:
    assert SCHEMAS["CreateSessionRequest"]["additionalProperties"] is False
    assert not {"Session", "Error", "ErrorResponse"} & {
        name for name, schema in SCHEMAS.items() if "additionalProperties" in schema
    }


PATCHES: Final[list[tuple[dict[str, object], bool]]] = [
    ({}, True),
    ({"language": None}, True),
    ({"name": None}, False),
    ({"questions": [], "voice": {"name": None, "language_code": "de"}, "metadata": {"note": None}}, True),
    ({"behaviors": {"speaking_pace": None}}, True),
    ({"behaviors": {"speaking_pace": "hasty"}}, False),
    ({"voice": {"mood": None}}, False),
    ({"metadata": {"note": 1}}, False),
    ({"variables": None}, True),
    ({"variables": {"guest": None, "room": {"type": "number"}, "city": {"default": None}}}, True),
    ({"variables": {"guest": {"type": None}}}, False),
    ({"variables": {"guest": {"mood": None}}}, False),
    ({"mood": None}, False),
]


@pytest.mark.parametrize(("patch", "valid"), PATCHES)
def test_a_merge_patch_takes_any_field_of_an_agent_and_null_for_optional_ones(
    patch: dict[str, object], *, valid: bool
) -> None:
    schema = {"$ref": "#/components/schemas/UpdateAgentRequest", "components": DOCUMENT["components"]}

    assert Draft202012Validator(schema).is_valid(patch) is valid


@pytest.mark.parametrize(
    ("media", "valid"),
    [
        (["microphone"], True),
        (["camera", "microphone"], True),
        (["camera"], False),
        ([], False),
        (["microphone", "microphone"], False),
        (["screen", "microphone"], False),
    ],
)
def test_media_are_the_microphone_with_or_without_the_camera(media: list[str], *, valid: bool) -> None:
    schema = {**SCHEMAS["CreateSessionRequest"]["properties"]["media"], "components": DOCUMENT["components"]}

    assert Draft202012Validator(schema).is_valid(media) is valid


def test_the_baseline_is_the_document_at_the_newest_release_tag(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        author = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
        command = ["git", "-C", str(tmp_path), *author, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    released = script("breaking_changes").released
    (tmp_path / "docs").mkdir()
    git("init")
    for version in ("0.1.0", "0.2.0", "unreleased"):
        (tmp_path / "docs" / "openapi.json").write_text(json.dumps({"version": version}))
        git("add", ".")
        git("commit", "--message", version)
        if version != "unreleased":
            assert released(tmp_path) != {"version": version}
            git("tag", f"v{version}")

    assert released(tmp_path) == {"version": "0.2.0"}


def test_nothing_that_was_released_is_broken() -> None:
    breaking = script("breaking_changes")
    released = breaking.released()
    if released is None:
        pytest.skip("this clone has no release tag to compare with")

    assert list(breaking.breaking_changes(released, DOCUMENT)) == []


BREAKING: Final[list[tuple[str, str]]] = [
    ('del d["paths"]["/api/v1/voice/voices"]', "GET /api/v1/voice/voices was removed"),
    (
        's["CreateAgentRequest"]["required"].append("purpose")',
        "POST /api/v1/voice/agents: request.purpose became required",
    ),
    ('del s["CreateSessionRequest"]["properties"]["media"]', "POST /api/v1/voice/sessions: request.media was removed"),
    (
        's["CreateSessionRequest"]["properties"]["ttl_seconds"]["maximum"] = 60',
        "request.ttl_seconds is more restrictive: maximum",
    ),
    ('s["SpeakingPace"]["enum"].pop()', "request.behaviors.speaking_pace is more restrictive: enum"),
    ('del s["Connection"]["properties"]["livekit"]', "response.data.connection.livekit was removed"),
    ('s["Session"]["required"].remove("results")', "response.results became optional"),
    ('s["Voice"]["properties"]["style"]["type"] = "integer"', "response.data[].style changed its type"),
    ('d["paths"]["/api/v1/voice/agents"]["get"]["parameters"].pop()', "the parameter cursor was removed"),
    ('d["paths"]["/api/v1/voice/voices"]["get"]["security"] = []', "a kind of credential was removed"),
    (
        'd["paths"]["/api/v1/voice/sessions/{session_id}/stop"]["post"]["security"].pop()',
        "a kind of credential was removed",
    ),
    (
        'd["paths"]["/api/v1/voice/sessions/{session_id}/renew"]["post"]["requestBody"]["required"] = True',
        "the body became required",
    ),
    (
        'd["paths"]["/api/v1/voice/sessions"]["post"]["parameters"][0]["required"] = True',
        "the parameter Idempotency-Key became required",
    ),
]


@pytest.mark.parametrize(("change", "found"), BREAKING)
def test_a_breaking_change_is_found(change: str, found: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    exec(change, {"d": document, "s": document["components"]["schemas"]})  # noqa: S102 (the cases above)

    changes = list(script("breaking_changes").breaking_changes(DOCUMENT, document))

    assert any(sentence.endswith(found) for sentence in changes), changes


@pytest.mark.parametrize(
    "change",
    [
        's["CreateAgentRequest"]["properties"]["mood"] = {"type": "string"}',
        's["Session"]["properties"]["mood"] = {"type": "string"}',
        's["CreateSessionRequest"]["properties"]["ttl_seconds"]["maximum"] = 7200',
        'd["paths"]["/api/v1/voice/moods"] = {}',
        'd["paths"]["/api/v1/voice/voices"]["get"]["security"].append({"client_token": []})',
        'd["paths"]["/api/v1/voice/agents"]["post"]["requestBody"]["required"] = False',
    ],
)
def test_an_addition_is_no_breaking_change(change: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    exec(change, {"d": document, "s": document["components"]["schemas"]})  # noqa: S102 (the cases above)

    assert list(script("breaking_changes").breaking_changes(DOCUMENT, document)) == []

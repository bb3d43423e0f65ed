"""The routes of agents."""

from typing import Any

import pytest

from tests.functions.api import Api
from tests.support.bad_values import each, set_at

FULL = {
    "name": "Ana",
    "instructions": "You take bookings for a small restaurant.",
    "language": "pt-BR",
    "purpose": "Take a booking",
    "questions": ["For how many?", "At what time?"],
    "behaviors": {
        "max_duration_seconds": 300,
        "speaking_pace": "slow",
        "response_length": "brief",
        "greeting": "Olá!",
        "closing_message": "Até logo!",
        "may_hang_up": True,
    },
    "output_schema": {"guests": "integer", "time": "string"},
    "output_schema_strict": {"type": "object", "properties": {"guests": {"type": "integer"}}},
    "evidence": True,
    "voice": {"name": "Kore", "language_code": "pt-PT"},
    "tools": [
        {
            "name": "show_menu",
            "description": "Show the menu.",
            "parameters": {"type": "object", "properties": {"page": {"type": "integer"}}},
            "run": {"where": "client"},
            "speaks": "when_idle",
        }
    ],
    "metadata": {"crm": "42"},
}


def test_an_agent_is_stored_as_it_was_sent(api: Api) -> None:
    created = api.post("/agents", FULL)

    agent = created.data
    assert created.status == 201
    assert {name: agent[name] for name in FULL} == FULL
    assert agent["version"] == 1
    assert agent.pop("warnings") == []
    assert api.get(f"/agents/{agent['agent_id']}").data == agent


def test_omitted_fields_have_their_documented_defaults(api: Api) -> None:
    agent = api.post("/agents", name="Ana", instructions="Take the call.").data

    assert agent["language"] == "en-US"
    assert agent["purpose"] is None
    assert agent["questions"] == []
    assert agent["behaviors"]["max_duration_seconds"] is None
    assert agent["voice"] == {"name": "Puck", "language_code": None}
    assert agent["output_schema"] is None
    assert agent["evidence"] is False
    assert agent["metadata"] == {}


BAD: list[tuple[str, object]] = [
    *each("name", None, "", "  ", 1, True, ["x"], {}),
    *each("instructions", None, "", "  ", 1, True, ["x"], {}),
    ("name", "x" * 121),
    ("instructions", "x" * 20_001),
    *each("language", "", "e", "english!", "en_US", "-", "en-", 1, None, "x" * 36),
    *each("purpose", "x" * 201, 1, []),
    *each("questions", None, "x", {}, ["x"] * 51),
    *each("behaviors", None, [], "slow"),
    *each("behaviors.max_duration_seconds", 59, 1801, "300", 300.5, True, []),
    *each("behaviors.speaking_pace", "Slow", "", 1, None),
    *each("behaviors.response_length", "long", "", 1, None),
    *each("behaviors.greeting", "x" * 1001, 1),
    *each("behaviors.closing_message", "x" * 1001, 1),
    ("behaviors.unknown", 1),
    *each("output_schema", [], "string", 1),
    *each("output_schema_strict", [], "object", 1),
    *each("evidence", None, "yes", 1, []),
    *each("voice", None, "Puck", []),
    *each("voice.name", "puck", "", 1, None),
    *each("voice.language_code", "", "en_US", 1),
    ("voice.unknown", 1),
    *each("metadata", None, [], "x", {str(n): "x" for n in range(17)}),
    *each("metadata.key", 1, None, "x" * 501, {}),
    ("unknown", 1),
    ("agent_id", "x"),
    ("version", 2),
    ("warnings", []),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_bad_field_is_refused_by_its_path_on_create_and_on_update(api: Api, path: str, value: object) -> None:
    error = api.post("/agents", set_at(FULL, path, value)).error("invalid_request", 400)

    assert error.paths == [path]
    if value is not None:  # in a merge patch null resets a field
        agent = api.agent()
        patched = api.patch(f"/agents/{agent}", set_at({}, path, value)).error("invalid_request", 400)
        assert patched.paths == [path]


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("questions", ["fine", ""], "questions.1"),
        ("questions", ["x" * 501], "questions.0"),
        ("questions", [1], "questions.0"),
        ("metadata", {"x" * 41: "y"}, f"metadata.{'x' * 41}"),
        ("metadata", {"": "y"}, "metadata."),
    ],
)
def test_an_error_inside_a_list_or_a_map_has_its_exact_path(api: Api, field: str, value: object, path: str) -> None:
    assert api.post("/agents", {**FULL, field: value}).error("invalid_request", 400).paths == [path]


def test_all_errors_are_reported_at_once(api: Api) -> None:
    error = api.post("/agents", nam="Ana", language="?").error("invalid_request", 400)

    assert sorted(error.paths) == ["instructions", "language", "nam", "name"]


@pytest.mark.parametrize(
    ("field", "schema", "path"),
    [
        ("output_schema", {"urgency": 1}, "output_schema.urgency"),
        ("output_schema", {"caller": {"age": ["integer", "string"]}}, "output_schema.caller.age"),
        ("output_schema_strict", {"type": "array"}, "output_schema_strict#"),
        (
            "output_schema_strict",
            {"type": "object", "properties": {"a/b": {"type": "string", "pattern": 1}}},
            "output_schema_strict#/properties/a~1b/pattern",
        ),
    ],
)
def test_an_unusable_schema_is_refused_on_create_and_on_update(api: Api, field: str, schema: object, path: str) -> None:
    agent = api.agent()

    for answer in (api.post("/agents", {**FULL, field: schema}), api.patch(f"/agents/{agent}", {field: schema})):
        assert path in answer.error("invalid_output_schema", 400).paths
    assert api.get(f"/agents/{agent}").data["version"] == 1


BOUND = {"type": "object", "properties": {"a/b": {"type": "string", "pattern": "^[A-Z]+$"}, "c": {"oneOf": [{}]}}}


def test_schema_keywords_that_gemini_does_not_see_are_warned_of_on_every_save(api: Api) -> None:
    places = ["output_schema_strict#/properties/a~1b/pattern", "output_schema_strict#/properties/c/oneOf"]

    made = api.post("/agents", {**FULL, "output_schema_strict": BOUND}).data
    changed = api.patch(f"/agents/{made['agent_id']}", {"name": "Bea"}).data

    for agent in (made, changed):
        assert [warning["path"] for warning in agent["warnings"]] == places
        assert all(warning["message"].endswith(".") for warning in agent["warnings"])
    assert "warnings" not in api.get(f"/agents/{made['agent_id']}").data
    [listed] = api.get("/agents").json["data"]
    assert "warnings" not in listed
    plain = api.patch(f"/agents/{made['agent_id']}", {"output_schema_strict": None}).data
    assert plain["warnings"] == []


def test_an_update_creates_the_next_version_only_if_a_field_changes(api: Api) -> None:
    agent = api.post("/agents", FULL).data
    path = f"/agents/{agent['agent_id']}"

    changed = api.patch(path, {"behaviors": {"speaking_pace": "fast", "greeting": None}}).data
    same = api.patch(path, {"behaviors": {"speaking_pace": "fast"}}).data

    assert changed["version"] == same["version"] == 2
    assert changed["behaviors"] == {**FULL["behaviors"], "speaking_pace": "fast", "greeting": None}  # type: ignore[dict-item]
    assert changed["created_at"] == agent["created_at"]
    assert {**api.get(path).data, "warnings": []} == changed


def test_null_in_a_patch_resets_optional_fields_and_not_the_name(api: Api) -> None:
    path = f"/agents/{api.post('/agents', FULL).data['agent_id']}"

    assert api.patch(path, {"output_schema_strict": None}).data["output_schema_strict"] is None
    assert api.patch(path, {"voice": {"name": None}}).data["voice"] == {"name": "Puck", "language_code": "pt-PT"}
    assert api.patch(path, {"name": None}).error("invalid_request", 400).paths == ["name"]


@pytest.mark.parametrize(
    ("patch", "path"),
    [({"foo": None}, "foo"), ({"behaviors": {"foo": None}}, "behaviors.foo"), ({"voice": {"foo": None}}, "voice.foo")],
)
def test_null_for_an_unknown_field_is_refused(api: Api, patch: dict[str, Any], path: str) -> None:
    assert api.patch(f"/agents/{api.agent()}", patch).error("invalid_request", 400).paths == [path]


def test_a_deleted_agent_is_gone(api: Api) -> None:
    path = f"/agents/{api.agent()}"

    deleted = api.delete(path)

    assert (deleted.status, deleted.text) == (204, "")
    for answer in (api.get(path), api.patch(path, {"name": "x"}), api.delete(path)):
        answer.error("voice_agent_not_found", 404)
    assert api.get("/agents").json["data"] == []


@pytest.mark.parametrize("agent_id", ["x", "0199a0f0-0000-7000-8000-000000000000", "%20", "x" * 3000, "é"])
def test_an_unknown_agent_is_not_found(api: Api, agent_id: str) -> None:
    api.get(f"/agents/{agent_id}").error("voice_agent_not_found", 404)


def test_another_workspaces_agent_is_not_found(api: Api, stranger: Api) -> None:
    agent = api.agent()
    unknown = stranger.get("/agents/0199a0f0-0000-7000-8000-000000000000").error("voice_agent_not_found", 404)

    for answer in (
        stranger.get(f"/agents/{agent}"),
        stranger.patch(f"/agents/{agent}", {"name": "Mine"}),
        stranger.delete(f"/agents/{agent}"),
    ):
        assert answer.error("voice_agent_not_found", 404).message == unknown.message
    assert api.get(f"/agents/{agent}").data["name"] == "Ana"
    assert stranger.get("/agents").json["data"] == []


def test_the_list_is_newest_first_and_comes_in_pages(api: Api) -> None:
    made = [api.agent(name=f"Agent {number}") for number in range(5)]

    pages = [api.get("/agents", limit="2").json]
    while cursor := pages[-1]["next_cursor"]:
        pages.append(api.get("/agents", limit="2", cursor=cursor).json)

    assert [len(page["data"]) for page in pages] == [2, 2, 1]
    listed = [agent["agent_id"] for page in pages for agent in page["data"]]
    assert set(listed) == set(made)
    assert listed == sorted(listed, reverse=True)  # an id begins with the time of its creation


@pytest.mark.parametrize("path", ["/agents", "/sessions"])
@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"limit": "0"}, ["limit"]),
        ({"limit": "101"}, ["limit"]),
        ({"limit": "ten"}, ["limit"]),
        ({"limit": "1,2"}, ["limit"]),
        ({"limit": ""}, ["limit"]),
        ({"limit": " 5"}, ["limit"]),
        ({"limit": "5.0"}, ["limit"]),
        ({"limit": "1_0"}, ["limit"]),
        ({"page": "2"}, ["page"]),
    ],
)
def test_a_bad_query_parameter_is_refused_by_its_name(
    api: Api, path: str, query: dict[str, str], paths: list[str]
) -> None:
    assert api.get(path, **query).error("invalid_request", 400).paths == paths


@pytest.mark.parametrize("path", ["/agents", "/sessions"])
@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "AZmg8AAAcACAAAAAAAAAAA==", "0199a0f0-0000-7000-8000-000000000000", "é"]
)
def test_a_cursor_that_no_list_returned_is_refused(api: Api, path: str, cursor: str) -> None:
    api.get(path, cursor=cursor).error("invalid_cursor", 400)

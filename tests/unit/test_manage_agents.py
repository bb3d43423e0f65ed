import asyncio
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.agents import (
    MAX_AGENT_BYTES,
    Agent,
    Behaviors,
    ListAgentsQuery,
    ListAgentVersionsQuery,
    SavedAgent,
    VersionNumber,
)
from pi_voice.domain.errors import (
    AgentNotFound,
    AgentVersionConflict,
    AgentVersionNotFound,
    AlreadyProcessed,
    InvalidApiKey,
    InvalidOutputSchema,
    InvalidRequest,
    InvalidVariables,
    StorageError,
)
from pi_voice.domain.ids import AgentId, is_uuid
from pi_voice.use_cases.manage_agents import ManageAgents
from tests.support.fakes import (
    AgentsThatNeverSave,
    FakeAgents,
    FakeCaller,
    FakeClock,
    FakeWebhookEndpoints,
    UnknownCaller,
)
from tests.unit.examples import AGENT_ID, ENDPOINT_ID, NOW, agent, create_agent_request, webhook_endpoint

ACME = FakeCaller("acme")
INVALID_SCHEMA: JsonValue = {"city": 1}
GLOBEX = FakeCaller("globex")
OTHER_ID = "019a0000-0000-7000-8000-0000000000e2"


def manage(agents: FakeAgents, clock: FakeClock | None = None) -> ManageAgents:
    """Return a ManageAgents on fakes, of workspaces with one webhook endpoint."""
    return ManageAgents(agents, FakeWebhookEndpoints(webhook_endpoint()), clock or FakeClock())


def update(
    agents: FakeAgents, patch: dict[str, JsonValue], clock: FakeClock | None = None, if_match: str | None = None
) -> SavedAgent:
    """Patch the only agent."""
    return asyncio.run(manage(agents, clock).update_agent(AGENT_ID, patch, ACME, if_match))


def restore(
    agents: FakeAgents, version: str, if_match: str | None = None, request_hash: str | None = None
) -> SavedAgent:
    """Restore a version of the only agent, a minute after it was created."""
    manage_agents = manage(agents, FakeClock(NOW + 60))
    number = VersionNumber(version)
    return asyncio.run(manage_agents.restore_agent_version(AGENT_ID, number, ACME, if_match, request_hash))


def agents_with_versions(*names: str) -> FakeAgents:
    """Return an agent with a version of each name."""
    agents = FakeAgents(agent(name=names[0]))
    for name in names[1:]:
        update(agents, {"name": name})
    return agents


def without_warnings(saved: SavedAgent) -> Agent:
    """Return the stored part of a response."""
    return Agent.model_construct(**{name: value for name, value in saved if name != "warnings"})


# ---- Create, get, list ----------------------------------------------------------------------------------


def test_a_created_agent_is_version_1_in_the_caller_s_workspace() -> None:
    agents = FakeAgents()

    created = asyncio.run(
        manage(agents, FakeClock()).create_agent(create_agent_request(name="Ana", purpose="Help"), ACME)
    )

    assert is_uuid(created.agent_id)
    assert (created.name, created.purpose) == ("Ana", "Help")
    assert (created.version, created.created_at, created.updated_at) == (1, 1_800_000_000, 1_800_000_000)
    assert agents.heads[created.agent_id].workspace == "acme"
    assert agents.versions[created.agent_id, 1] == without_warnings(created)
    assert created.warnings == []


def test_a_repeated_create_request_returns_version_1_while_the_agent_exists() -> None:
    agents = FakeAgents()
    created = asyncio.run(manage(agents, FakeClock()).create_agent(create_agent_request(name="Ana"), ACME))
    asyncio.run(manage(agents, FakeClock()).update_agent(created.agent_id, {"name": "Bea"}, ACME))
    assert agents.heads[created.agent_id].agent.name == "Bea"

    assert asyncio.run(manage(agents).repeat_create_agent(created.agent_id, ACME)) == created
    with pytest.raises(AgentNotFound):
        asyncio.run(manage(agents).repeat_create_agent(created.agent_id, GLOBEX))
    asyncio.run(manage(agents).delete_agent(created.agent_id, ACME))
    with pytest.raises(AgentNotFound):
        asyncio.run(manage(agents).repeat_create_agent(created.agent_id, ACME))


@pytest.mark.parametrize("field", ["output_schema", "output_schema_strict"])
def test_an_agent_with_an_invalid_schema_is_not_created(field: str) -> None:
    agents = FakeAgents()

    with pytest.raises(InvalidOutputSchema):
        asyncio.run(manage(agents).create_agent(create_agent_request(**{field: INVALID_SCHEMA}), ACME))

    assert agents.heads == {}


def test_creating_an_agent_that_cannot_be_saved_raises_a_storage_error() -> None:
    with pytest.raises(StorageError):
        asyncio.run(manage(AgentsThatNeverSave()).create_agent(create_agent_request(), ACME))


def test_an_agent_is_returned_to_its_workspace() -> None:
    assert asyncio.run(manage(FakeAgents(agent())).get_agent(AGENT_ID, ACME)) == agent()


def test_only_the_workspace_s_agents_are_listed() -> None:
    ours, theirs = agent(), agent(agent_id="019a0000-0000-7000-8000-00000000000f")
    agents = FakeAgents(ours)
    agents.heads |= FakeAgents(theirs, workspace="globex").heads

    assert asyncio.run(manage(agents).list_agents(ListAgentsQuery(), ACME)).data == [ours]


# ---- Update ---------------------------------------------------------------------------------------------


def test_an_update_creates_the_next_version_and_does_not_change_the_previous_one() -> None:
    agents = FakeAgents(agent(version=3, purpose="Sell", language="de"))
    clock = FakeClock(NOW + 60)

    updated = update(agents, {"purpose": "Help", "behaviors": {"greeting": "Hi"}}, clock)

    assert (updated.version, updated.created_at, updated.updated_at) == (4, 1_800_000_000, 1_800_000_060)
    assert (updated.purpose, updated.language, updated.behaviors.greeting) == ("Help", "de", "Hi")
    assert agents.heads[AGENT_ID].agent == without_warnings(updated)
    assert agents.versions[AGENT_ID, 3].purpose == "Sell"


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"name": "Ana"},
        {"purpose": None},
        {"behaviors": {}},
        {"behaviors": {"speaking_pace": "normal"}},
        {"behaviors": {"greeting": None}},
        {"voice": {"name": "Puck"}},
        {"metadata": {"absent": None}},
    ],
    ids=str,
)
def test_a_patch_that_changes_nothing_creates_no_version(patch: dict[str, JsonValue]) -> None:
    agents = FakeAgents(agent())

    assert without_warnings(update(agents, patch, FakeClock(NOW + 60))) == agent()
    assert list(agents.versions) == [(AGENT_ID, 1)]


def test_a_patch_from_1_to_true_creates_a_version() -> None:
    agents = FakeAgents(agent(output_schema_strict={"type": "object", "properties": {"a": {"default": 1}}}))

    updated = update(agents, {"output_schema_strict": {"properties": {"a": {"default": True}}}})

    assert updated.version == 2


@pytest.mark.parametrize(
    ("patch", "field", "value"),
    [
        ({"language": None}, "language", "en-US"),
        ({"purpose": None}, "purpose", None),
        ({"questions": None}, "questions", []),
        ({"output_schema": None}, "output_schema", None),
        ({"output_schema": {"city": None}}, "output_schema", {"zip": "string"}),
        ({"output_schema": {"age": "integer"}}, "output_schema", {"city": "string", "zip": "string", "age": "integer"}),
        ({"metadata": None}, "metadata", {}),
        ({"voice": None}, "voice", {"name": "Puck", "language_code": None}),
        ({"voice": {"language_code": None}}, "voice", {"name": "Kore", "language_code": None}),
        ({"questions": ["B?"]}, "questions", ["B?"]),
    ],
    ids=str,
)
def test_a_patched_field_has_the_new_value_or_its_default_for_null(
    patch: dict[str, JsonValue], field: str, value: JsonValue
) -> None:
    full = agent(
        language="de",
        purpose="Help",
        questions=["A?"],
        output_schema={"city": "string", "zip": "string"},
        metadata={"k": "v"},
        voice={"name": "Kore", "language_code": "de-AT"},
    )

    updated = update(FakeAgents(full), patch)

    assert updated.model_dump(mode="json")[field] == value
    assert updated.version == 2


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"instructions": None}, "instructions"),
        ({"behaviors": {"max_duration_seconds": "600"}}, "behaviors.max_duration_seconds"),
        ({"behaviors": 1}, "behaviors"),
        ({"nmae": "typo"}, "nmae"),
        ({"version": 7}, "version"),
        ({"agent_id": "another"}, "agent_id"),
        ({"metadata": {"k": 1}}, "metadata.k"),
    ],
    ids=str,
)
def test_a_patch_with_an_invalid_result_is_rejected(patch: dict[str, JsonValue], path: str) -> None:
    agents = FakeAgents(agent())

    with pytest.raises(InvalidRequest) as raised:
        update(agents, patch)

    assert [detail.path for detail in raised.value.details] == [path]
    assert agents.heads[AGENT_ID].agent == agent()


def test_a_patch_with_an_invalid_schema_is_rejected() -> None:
    agents = FakeAgents(agent(output_schema={"city": "string"}))

    with pytest.raises(InvalidOutputSchema):
        update(agents, {"output_schema": {"city": 1}})

    assert agents.heads[AGENT_ID].agent.version == 1


def agent_of_newer_version() -> Agent:
    newer: dict[str, Any] = {"speaking_pace": "whispered"}
    return agent().model_copy(update={"behaviors": Behaviors.model_construct(**newer)})


def test_a_patch_of_an_agent_with_a_value_of_a_newer_version_names_that_value() -> None:
    agents = FakeAgents(agent_of_newer_version())

    with pytest.raises(InvalidRequest) as raised:
        update(agents, {"name": "New"})

    assert [detail.path for detail in raised.value.details] == ["behaviors.speaking_pace"]


def test_a_patch_may_replace_a_value_of_a_newer_version() -> None:
    agents = FakeAgents(agent_of_newer_version())

    assert update(agents, {"behaviors": {"speaking_pace": "slow"}}).behaviors.speaking_pace == "slow"


def test_two_concurrent_updates_are_both_applied() -> None:
    agents = FakeAgents(agent())
    manage_agents = manage(agents, FakeClock())

    async def race() -> tuple[Agent, Agent]:
        return await asyncio.gather(
            manage_agents.update_agent(AGENT_ID, {"purpose": "Help"}, ACME),
            manage_agents.update_agent(AGENT_ID, {"language": "de"}, ACME),
        )

    versions = [updated.version for updated in asyncio.run(race())]

    assert sorted(versions) == [2, 3]
    assert (agents.heads[AGENT_ID].agent.purpose, agents.heads[AGENT_ID].agent.language) == ("Help", "de")


def test_an_update_that_always_loses_the_race_raises_a_storage_error() -> None:
    with pytest.raises(StorageError):
        update(AgentsThatNeverSave(agent()), {"purpose": "Help"})


def test_an_agent_that_is_deleted_while_it_is_changed_stays_deleted() -> None:
    agents = FakeAgents(agent())
    manage_agents = manage(agents, FakeClock())

    async def race() -> tuple[object, object]:
        return await asyncio.gather(
            manage_agents.update_agent(AGENT_ID, {"purpose": "Help"}, ACME),
            agents.delete((await ACME.workspace()), AGENT_ID),
            return_exceptions=True,
        )

    updated, _ = asyncio.run(race())

    assert isinstance(updated, AgentNotFound)
    assert agents.heads == {}


def test_an_update_with_the_current_version_is_applied_and_with_another_one_refused() -> None:
    agents = agents_with_versions("Ana", "Bea")

    assert update(agents, {"name": "Cleo"}, if_match='"2"').version == 3
    with pytest.raises(AgentVersionConflict):
        update(agents, {"name": "Dora"}, if_match='"2"')

    assert agents.heads[AGENT_ID].agent.name == "Cleo"


def test_an_update_that_changes_nothing_is_refused_if_its_version_is_stale() -> None:
    with pytest.raises(AgentVersionConflict):
        update(agents_with_versions("Ana", "Bea"), {"name": "Bea"}, if_match='"1"')


def test_of_two_concurrent_updates_of_one_version_one_is_refused() -> None:
    agents = FakeAgents(agent())
    manage_agents = manage(agents, FakeClock())

    async def race() -> list[object]:
        updates = (manage_agents.update_agent(AGENT_ID, {"name": name}, ACME, '"1"') for name in ("Bea", "Cleo"))
        return list(await asyncio.gather(*updates, return_exceptions=True))

    assert sorted(type(answer).__name__ for answer in asyncio.run(race())) == ["AgentVersionConflict", "SavedAgent"]
    assert agents.heads[AGENT_ID].agent.version == 2


def test_a_malformed_precondition_is_refused_and_changes_nothing() -> None:
    agents = FakeAgents(agent())

    with pytest.raises(InvalidRequest):
        update(agents, {"name": "Bea"}, if_match="1")

    assert agents.heads[AGENT_ID].agent.version == 1


# ---- Versions -------------------------------------------------------------------------------------------


def test_a_version_is_returned_whether_it_is_the_current_one_or_not() -> None:
    manage_agents = manage(agents_with_versions("Ana", "Bea"))

    names = [asyncio.run(manage_agents.get_agent_version(AGENT_ID, VersionNumber(n), ACME)).name for n in "12"]

    assert names == ["Ana", "Bea"]


@pytest.mark.parametrize("version", ["0", "3", "-1", "01", "1.0", "", "one", "\u0661", "9" * 9, "9" * 5_000])
def test_a_version_that_the_agent_does_not_have_is_not_found(version: str) -> None:
    agents = agents_with_versions("Ana", "Bea")

    with pytest.raises(AgentVersionNotFound):
        asyncio.run(manage(agents).get_agent_version(AGENT_ID, VersionNumber(version), ACME))
    with pytest.raises(AgentVersionNotFound):
        restore(agents, version)


def test_the_versions_of_an_agent_are_listed_newest_first() -> None:
    agents = agents_with_versions("Ana", "Bea", "Cleo")

    page = asyncio.run(manage(agents).list_agent_versions(AGENT_ID, ListAgentVersionsQuery(), ACME))

    assert [(version.version, version.name) for version in page.data] == [(3, "Cleo"), (2, "Bea"), (1, "Ana")]


def test_a_restored_version_is_a_new_one_equal_to_the_earlier_one() -> None:
    agents = agents_with_versions("Ana", "Bea")

    restored = restore(agents, "1")

    assert (restored.version, restored.name, restored.updated_at) == (3, "Ana", NOW + 60)
    assert agents.heads[AGENT_ID].agent == without_warnings(restored)
    assert [agents.versions[AGENT_ID, number].name for number in (1, 2, 3)] == ["Ana", "Bea", "Ana"]


@pytest.mark.parametrize("version", ["1", "3"])
def test_restoring_what_the_agent_is_already_makes_no_version(version: str) -> None:
    agents = agents_with_versions("Ana", "Bea", "Ana")

    assert restore(agents, version).version == 3
    assert len(agents.versions) == 3


def test_a_restore_with_the_current_version_is_applied_and_with_another_one_refused() -> None:
    agents = agents_with_versions("Ana", "Bea")

    with pytest.raises(AgentVersionConflict):
        restore(agents, "1", if_match='"1"')
    assert restore(agents, "1", if_match='"2"').version == 3
    with pytest.raises(AgentVersionConflict):
        restore(agents, "1", if_match='"2"')


def test_a_restored_version_has_warnings_about_its_schema_and_its_texts() -> None:
    agents = FakeAgents(agent(output_schema_strict=STRICT_SCHEMA, instructions="Say {{this}}."))
    update(agents, {"output_schema_strict": None, "instructions": "Say that."})

    assert [warning.path for warning in restore(agents, "1").warnings] == [WARNING_PATH, "instructions"]


def test_a_version_that_is_not_valid_any_more_is_not_restored() -> None:
    agents = agents_with_versions("Ana", "Bea")
    agents.versions[AGENT_ID, 1] = agent_of_newer_version()

    with pytest.raises(InvalidRequest) as raised:
        restore(agents, "1")

    assert [detail.path for detail in raised.value.details] == ["behaviors.speaking_pace"]
    assert agents.heads[AGENT_ID].agent.version == 2


def test_a_repeated_restore_returns_the_version_that_it_made_although_there_is_a_newer_one() -> None:
    agents = agents_with_versions("Ana", "Bea")
    restored = restore(agents, "1", request_hash="hash")
    update(agents, {"name": "Cleo"})

    assert asyncio.run(manage(agents).repeat_restore_agent_version(restored.version_id, ACME)) == restored
    with pytest.raises(AgentNotFound):
        asyncio.run(manage(agents).repeat_restore_agent_version(restored.version_id, GLOBEX))


def test_a_restore_that_was_made_but_not_recorded_is_recognized_whatever_its_precondition() -> None:
    agents = agents_with_versions("Ana", "Bea")
    restored = restore(agents, "1", '"2"', "hash")

    with pytest.raises(AlreadyProcessed) as raised:
        restore(agents, "1", '"2"', "hash")
    with pytest.raises(AgentVersionConflict):
        restore(agents, "1", '"2"', "another")

    assert raised.value.resource_id == restored.version_id == f"{AGENT_ID}/3"
    assert len(agents.versions) == 3


def test_of_concurrent_restores_with_one_precondition_one_is_applied() -> None:
    agents = agents_with_versions("Ana", "Bea", "Cleo")
    manage_agents = manage(agents)

    async def race() -> list[object]:
        restores = (manage_agents.restore_agent_version(AGENT_ID, VersionNumber(n), ACME, '"3"') for n in "12")
        return list(await asyncio.gather(*restores, return_exceptions=True))

    assert sorted(type(answer).__name__ for answer in asyncio.run(race())) == ["AgentVersionConflict", "SavedAgent"]
    assert agents.heads[AGENT_ID].agent.version == 4


def test_a_restore_that_always_loses_the_race_raises_a_storage_error() -> None:
    agents = AgentsThatNeverSave(agent(version=2, name="Bea"))
    agents.versions[AGENT_ID, 1] = agent()

    with pytest.raises(StorageError):
        restore(agents, "1")


def test_the_versions_of_a_deleted_agent_are_gone() -> None:
    agents = agents_with_versions("Ana", "Bea")
    manage_agents, version = manage(agents), VersionNumber("1")
    asyncio.run(manage_agents.delete_agent(AGENT_ID, ACME))

    for call in (
        manage_agents.list_agent_versions(AGENT_ID, ListAgentVersionsQuery(), ACME),
        manage_agents.get_agent_version(AGENT_ID, version, ACME),
        manage_agents.restore_agent_version(AGENT_ID, version, ACME),
    ):
        with pytest.raises(AgentNotFound):
            asyncio.run(call)


# ---- Variables and size ---------------------------------------------------------------------------------


def test_an_agent_whose_texts_name_an_unknown_variable_is_not_saved() -> None:
    agents = FakeAgents(agent(variables={"guest": {"type": "string"}}, instructions="Greet {{guest}}."))

    with pytest.raises(InvalidVariables):
        asyncio.run(manage(agents).create_agent(create_agent_request(instructions="{{guest}}", variables={}), ACME))
    with pytest.raises(InvalidVariables):
        update(agents, {"variables": {"guest": None}})

    assert list(agents.versions) == [(AGENT_ID, 1)]


def test_a_patch_changes_one_field_of_one_variable() -> None:
    variables: JsonValue = {"guest": {"type": "string", "default": "Ada", "max_length": 9}, "room": {"type": "number"}}
    agents = FakeAgents(agent(variables=variables))

    updated = update(agents, {"variables": {"guest": {"default": None}, "room": None}})

    assert updated.model_dump(mode="json")["variables"] == {
        "guest": {"type": "string", "description": None, "max_length": 9, "default": None}
    }
    assert update(agents, {"variables": None}).variables is None


@pytest.mark.parametrize(
    ("patch", "paths"),
    [
        ({"variables": {"guest": {"mood": None}}}, ["variables.guest.mood"]),
        ({"variables": {"guest": {"type": "text"}}}, ["variables.guest.type"]),
        ({"variables": {"guest": "Ada"}}, ["variables.guest"]),
        ({"variables": []}, ["variables"]),
        ({"variables": {"date": {"type": "string"}}}, ["variables.date"]),
    ],
)
def test_a_patch_of_variables_is_refused_by_its_path(patch: dict[str, JsonValue], paths: list[str]) -> None:
    agents = FakeAgents(agent(variables={"guest": {"type": "string"}}))

    with pytest.raises(InvalidRequest) as raised:
        update(agents, patch)

    assert [detail.path for detail in raised.value.details] == paths


def test_a_text_with_braces_of_an_agent_without_variables_is_saved_with_a_warning() -> None:
    agents = FakeAgents()

    created = asyncio.run(
        manage(agents, FakeClock()).create_agent(create_agent_request(instructions="Say {{hello}}."), ACME)
    )

    assert [warning.path for warning in created.warnings] == ["instructions"]
    assert agents.heads[created.agent_id].agent.instructions == "Say {{hello}}."


def test_an_agent_that_is_larger_than_its_row_may_be_is_not_saved() -> None:
    longest = "\x01"  # takes six bytes as JSON
    values: JsonValue = {f"v{number}": {"type": "string", "default": longest * 60} for number in range(50)}
    fields: dict[str, JsonValue] = {
        "instructions": "i" + longest * 19_999,
        "questions": ["q" + longest * 499] * 50,
        "metadata": {f"{number:02}" + longest * 38: longest * 500 for number in range(16)},
        "output_schema": {"k": longest * 5_400},
        "output_schema_strict": {"type": "object", "title": longest * 5_400},
    }

    with pytest.raises(InvalidRequest) as raised:
        asyncio.run(manage(FakeAgents()).create_agent(create_agent_request(**fields, variables=values), ACME))

    assert f"{MAX_AGENT_BYTES:,}" in raised.value.details[0].message
    del fields["metadata"]
    created = asyncio.run(manage(FakeAgents()).create_agent(create_agent_request(**fields, variables=values), ACME))
    assert created.version == 1


# ---- Warnings -------------------------------------------------------------------------------------------

STRICT_SCHEMA: JsonValue = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]{3}$"}}}
WARNING_PATH = "output_schema_strict#/properties/code/pattern"


def test_a_created_agent_has_warnings_about_its_schema_that_are_not_stored() -> None:
    agents = FakeAgents()

    created = asyncio.run(manage(agents).create_agent(create_agent_request(output_schema_strict=STRICT_SCHEMA), ACME))

    assert [warning.path for warning in created.warnings] == [WARNING_PATH]
    assert created.warnings[0].message
    assert "warnings" not in agents.heads[created.agent_id].agent.model_dump()


def test_a_repeated_create_request_returns_the_same_warnings() -> None:
    agents = FakeAgents()
    created = asyncio.run(
        manage(agents, FakeClock()).create_agent(create_agent_request(output_schema_strict=STRICT_SCHEMA), ACME)
    )

    assert asyncio.run(manage(agents).repeat_create_agent(created.agent_id, ACME)) == created


@pytest.mark.parametrize("patch", [{"name": "Bea"}, {"name": "Ana"}], ids=["a change", "no change"])
def test_every_update_has_warnings_about_the_current_schema(patch: dict[str, JsonValue]) -> None:
    updated = update(FakeAgents(agent(output_schema_strict=STRICT_SCHEMA)), patch)

    assert [warning.path for warning in updated.warnings] == [WARNING_PATH]


def test_an_update_has_warnings_about_a_new_schema() -> None:
    assert [
        warning.path for warning in update(FakeAgents(agent()), {"output_schema_strict": STRICT_SCHEMA}).warnings
    ] == [WARNING_PATH]


def test_hints_and_supported_schemas_have_no_warnings() -> None:
    plain: JsonValue = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}}

    for fields in ({}, {"output_schema": {"city": "string"}}, {"output_schema_strict": plain}):
        assert asyncio.run(manage(FakeAgents()).create_agent(create_agent_request(**fields), ACME)).warnings == []


# ---- Delete ---------------------------------------------------------------------------------------------


def test_a_deleted_agent_is_not_found_but_its_versions_remain() -> None:
    agents = FakeAgents(agent())
    manage_agents = manage(agents)

    asyncio.run(manage_agents.delete_agent(AGENT_ID, ACME))

    with pytest.raises(AgentNotFound):
        asyncio.run(manage_agents.get_agent(AGENT_ID, ACME))
    assert asyncio.run(agents.version(AGENT_ID, 1)) == agent()


# ---- Authorization --------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_id", [AGENT_ID, "019a0000-0000-7000-8000-00000000000f", "no-id"])
def test_another_workspace_s_agent_gives_the_same_error_as_an_unknown_agent(agent_id: AgentId) -> None:
    agents = FakeAgents(agent())
    manage_agents = manage(agents)

    for call in (
        manage_agents.get_agent(agent_id, GLOBEX),
        manage_agents.update_agent(agent_id, {"name": "Mine"}, GLOBEX),
        manage_agents.list_agent_versions(agent_id, ListAgentVersionsQuery(), GLOBEX),
        manage_agents.get_agent_version(agent_id, VersionNumber("1"), GLOBEX),
        manage_agents.restore_agent_version(agent_id, VersionNumber("1"), GLOBEX),
        manage_agents.delete_agent(agent_id, GLOBEX),
    ):
        with pytest.raises(AgentNotFound):
            asyncio.run(call)

    assert agents.heads[AGENT_ID].agent == agent()


def test_an_unknown_key_is_reported_before_an_unknown_agent() -> None:
    manage_agents = manage(FakeAgents())

    for call in (
        manage_agents.get_agent(AGENT_ID, UnknownCaller()),
        manage_agents.update_agent(AGENT_ID, {}, UnknownCaller(), "malformed"),
        manage_agents.list_agent_versions(AGENT_ID, ListAgentVersionsQuery(), UnknownCaller()),
        manage_agents.get_agent_version(AGENT_ID, VersionNumber("0"), UnknownCaller()),
        manage_agents.restore_agent_version(AGENT_ID, VersionNumber("0"), UnknownCaller(), "malformed"),
        manage_agents.delete_agent(AGENT_ID, UnknownCaller()),
        manage_agents.create_agent(create_agent_request(), UnknownCaller()),
        manage_agents.list_agents(ListAgentsQuery(), UnknownCaller()),
    ):
        with pytest.raises(InvalidApiKey):
            asyncio.run(call)


def server_tool(name: str, endpoint_id: str) -> JsonValue:
    """Return a tool that runs on a server."""
    run: JsonValue = {"where": "server", "endpoint_id": endpoint_id}
    return {"name": name, "description": "Find a table.", "run": run}


def test_a_tool_on_a_server_needs_a_webhook_endpoint_of_the_workspace() -> None:
    agents = FakeAgents()
    tools: JsonValue = [server_tool("find", ENDPOINT_ID), server_tool("book", OTHER_ID), server_tool("ask", OTHER_ID)]

    with pytest.raises(InvalidRequest) as raised:
        asyncio.run(manage(agents).create_agent(create_agent_request(tools=tools), ACME))
    assert [each.path for each in raised.value.details] == ["tools.1.run.endpoint_id", "tools.2.run.endpoint_id"]
    assert agents.heads == {}

    with pytest.raises(InvalidRequest) as raised:
        asyncio.run(manage(agents).create_agent(create_agent_request(tools=[server_tool("find", ENDPOINT_ID)]), GLOBEX))
    assert [each.path for each in raised.value.details] == ["tools.0.run.endpoint_id"]


def test_an_agent_with_a_tool_on_a_server_is_saved_with_its_time_limit() -> None:
    agents = FakeAgents(agent())

    saved = update(agents, {"tools": [server_tool("find", ENDPOINT_ID)]})

    assert saved.tools[0].run.model_dump() == {"where": "server", "endpoint_id": ENDPOINT_ID, "timeout_seconds": 10}
    with pytest.raises(InvalidRequest):
        update(agents, {"tools": [server_tool("find", OTHER_ID)]})
    assert agents.heads[AGENT_ID].agent.version == 2


def test_a_version_whose_endpoint_is_gone_is_not_restored() -> None:
    agents = FakeAgents(agent(tools=[server_tool("find", OTHER_ID)]))
    update(agents, {"tools": []})

    with pytest.raises(InvalidRequest) as raised:
        restore(agents, "1")
    assert [each.path for each in raised.value.details] == ["tools.0.run.endpoint_id"]


@pytest.mark.parametrize(
    "run",
    [
        {"where": "server"},
        {"where": "server", "endpoint_id": ENDPOINT_ID, "timeout_seconds": 0},
        {"where": "server", "endpoint_id": ENDPOINT_ID, "timeout_seconds": 16},
        {"where": "client", "endpoint_id": ENDPOINT_ID},
        {"where": "moon"},
        {},
    ],
)
def test_where_a_tool_runs_is_checked(run: JsonValue) -> None:
    agents = FakeAgents(agent())

    with pytest.raises(InvalidRequest) as raised:
        update(agents, {"tools": [{"name": "find", "description": "Find a table.", "run": run}]})
    [detail] = raised.value.details
    assert detail.path.startswith("tools.0.run")

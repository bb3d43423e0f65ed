import asyncio
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.agents import Agent, Behaviors, ListAgentsQuery, SavedAgent
from pi_voice.domain.errors import AgentNotFound, InvalidApiKey, InvalidOutputSchema, InvalidRequest, StorageError
from pi_voice.domain.ids import AgentId, is_uuid
from pi_voice.use_cases.manage_agents import ManageAgents
from tests.support.fakes import AgentsThatNeverSave, FakeAgents, FakeCaller, FakeClock, UnknownCaller
from tests.unit.examples import AGENT_ID, NOW, agent, create_agent_request

ACME = FakeCaller("acme")
INVALID_SCHEMA: JsonValue = {"city": 1}
GLOBEX = FakeCaller("globex")


def update(agents: FakeAgents, patch: dict[str, JsonValue], clock: FakeClock | None = None) -> SavedAgent:
    """Patch the only agent."""
    return asyncio.run(ManageAgents(agents, clock or FakeClock()).update_agent(AGENT_ID, patch, ACME))


def without_warnings(saved: SavedAgent) -> Agent:
    """Return the stored part of a response."""
    return Agent.model_construct(**{name: value for name, value in saved if name != "warnings"})


# ---- Create, get, list ----------------------------------------------------------------------------------


def test_a_created_agent_is_version_1_in_the_caller_s_workspace() -> None:
    agents = FakeAgents()

    created = asyncio.run(
        ManageAgents(agents, FakeClock()).create_agent(create_agent_request(name="Ana", purpose="Help"), ACME)
    )

    assert is_uuid(created.agent_id)
    assert (created.name, created.purpose) == ("Ana", "Help")
    assert (created.version, created.created_at, created.updated_at) == (1, 1_800_000_000, 1_800_000_000)
    assert agents.heads[created.agent_id].workspace == "acme"
    assert agents.versions[created.agent_id, 1] == without_warnings(created)
    assert created.warnings == []


def test_a_repeated_create_request_returns_version_1_while_the_agent_exists() -> None:
    agents = FakeAgents()
    created = asyncio.run(ManageAgents(agents, FakeClock()).create_agent(create_agent_request(name="Ana"), ACME))
    asyncio.run(ManageAgents(agents, FakeClock()).update_agent(created.agent_id, {"name": "Bea"}, ACME))
    assert agents.heads[created.agent_id].agent.name == "Bea"

    assert asyncio.run(ManageAgents(agents).repeat_create_agent(created.agent_id, ACME)) == created
    with pytest.raises(AgentNotFound):
        asyncio.run(ManageAgents(agents).repeat_create_agent(created.agent_id, GLOBEX))
    asyncio.run(ManageAgents(agents).delete_agent(created.agent_id, ACME))
    with pytest.raises(AgentNotFound):
        asyncio.run(ManageAgents(agents).repeat_create_agent(created.agent_id, ACME))


@pytest.mark.parametrize("field", ["output_schema", "output_schema_strict"])
def test_an_agent_with_an_invalid_schema_is_not_created(field: str) -> None:
    agents = FakeAgents()

    with pytest.raises(InvalidOutputSchema):
        asyncio.run(ManageAgents(agents).create_agent(create_agent_request(**{field: INVALID_SCHEMA}), ACME))

    assert agents.heads == {}


def test_creating_an_agent_that_cannot_be_saved_raises_a_storage_error() -> None:
    with pytest.raises(StorageError):
        asyncio.run(ManageAgents(AgentsThatNeverSave()).create_agent(create_agent_request(), ACME))


def test_an_agent_is_returned_to_its_workspace() -> None:
    assert asyncio.run(ManageAgents(FakeAgents(agent())).get_agent(AGENT_ID, ACME)) == agent()


def test_only_the_workspace_s_agents_are_listed() -> None:
    ours, theirs = agent(), agent(agent_id="019a0000-0000-7000-8000-00000000000f")
    agents = FakeAgents(ours)
    agents.heads |= FakeAgents(theirs, workspace="globex").heads

    assert asyncio.run(ManageAgents(agents).list_agents(ListAgentsQuery(), ACME)).data == [ours]


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
    manage_agents = ManageAgents(agents, FakeClock())

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
    manage_agents = ManageAgents(agents, FakeClock())

    async def race() -> tuple[object, object]:
        return await asyncio.gather(
            manage_agents.update_agent(AGENT_ID, {"purpose": "Help"}, ACME),
            agents.delete((await ACME.workspace()), AGENT_ID),
            return_exceptions=True,
        )

    updated, _ = asyncio.run(race())

    assert isinstance(updated, AgentNotFound)
    assert agents.heads == {}


# ---- Warnings -------------------------------------------------------------------------------------------

STRICT_SCHEMA: JsonValue = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]{3}$"}}}
WARNING_PATH = "output_schema_strict#/properties/code/pattern"


def test_a_created_agent_has_warnings_about_its_schema_that_are_not_stored() -> None:
    agents = FakeAgents()

    created = asyncio.run(
        ManageAgents(agents).create_agent(create_agent_request(output_schema_strict=STRICT_SCHEMA), ACME)
    )

    assert [warning.path for warning in created.warnings] == [WARNING_PATH]
    assert created.warnings[0].message
    assert "warnings" not in agents.heads[created.agent_id].agent.model_dump()


def test_a_repeated_create_request_returns_the_same_warnings() -> None:
    agents = FakeAgents()
    created = asyncio.run(
        ManageAgents(agents, FakeClock()).create_agent(create_agent_request(output_schema_strict=STRICT_SCHEMA), ACME)
    )

    assert asyncio.run(ManageAgents(agents).repeat_create_agent(created.agent_id, ACME)) == created


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
        assert asyncio.run(ManageAgents(FakeAgents()).create_agent(create_agent_request(**fields), ACME)).warnings == []


# ---- Delete ---------------------------------------------------------------------------------------------


def test_a_deleted_agent_is_not_found_but_its_versions_remain() -> None:
    agents = FakeAgents(agent())
    manage_agents = ManageAgents(agents)

    asyncio.run(manage_agents.delete_agent(AGENT_ID, ACME))

    with pytest.raises(AgentNotFound):
        asyncio.run(manage_agents.get_agent(AGENT_ID, ACME))
    assert asyncio.run(agents.version(AGENT_ID, 1)) == agent()


# ---- Authorization --------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_id", [AGENT_ID, "019a0000-0000-7000-8000-00000000000f", "no-id"])
def test_another_workspace_s_agent_gives_the_same_error_as_an_unknown_agent(agent_id: AgentId) -> None:
    agents = FakeAgents(agent())
    manage_agents = ManageAgents(agents)

    for call in (
        manage_agents.get_agent(agent_id, GLOBEX),
        manage_agents.update_agent(agent_id, {"name": "Mine"}, GLOBEX),
        manage_agents.delete_agent(agent_id, GLOBEX),
    ):
        with pytest.raises(AgentNotFound):
            asyncio.run(call)

    assert agents.heads[AGENT_ID].agent == agent()


def test_an_unknown_key_is_reported_before_an_unknown_agent() -> None:
    manage_agents = ManageAgents(FakeAgents())

    for call in (
        manage_agents.get_agent(AGENT_ID, UnknownCaller()),
        manage_agents.update_agent(AGENT_ID, {}, UnknownCaller()),
        manage_agents.delete_agent(AGENT_ID, UnknownCaller()),
        manage_agents.create_agent(create_agent_request(), UnknownCaller()),
        manage_agents.list_agents(ListAgentsQuery(), UnknownCaller()),
    ):
        with pytest.raises(InvalidApiKey):
            asyncio.run(call)

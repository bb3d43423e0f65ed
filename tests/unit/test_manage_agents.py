import asyncio

import pytest
from pydantic import JsonValue

from pi_voice.domain.agents import Agent, ListAgentsQuery, SavedAgent
from pi_voice.domain.errors import AgentNotFound, InvalidApiKey, InvalidOutputSchema, InvalidRequest, StorageError
from pi_voice.domain.ids import AgentId, is_uuid
from pi_voice.use_cases.manage_agents import ManageAgents
from tests.fakes import AgentsThatNeverSave, FakeAgents, FakeCaller, FakeClock, UnknownCaller
from tests.unit.examples import AGENT_ID, NOW, agent, spec

ACME = FakeCaller("acme")
NO_GOOD: JsonValue = {"city": 1}
STRANGER = FakeCaller("globex")


def update(agents: FakeAgents, patch: dict[str, JsonValue], clock: FakeClock | None = None) -> SavedAgent:
    """Patch the one agent there is."""
    return asyncio.run(ManageAgents(agents, clock or FakeClock()).update_agent(AGENT_ID, patch, ACME))


def as_kept(saved: SavedAgent) -> Agent:
    """Return an agent as it was saved, without what was said about it."""
    return Agent.model_construct(**{name: value for name, value in saved if name != "warnings"})


# ---- Create, get, list ----------------------------------------------------------------------------------


def test_a_new_agent_is_version_1_and_its_workspace_s() -> None:
    agents = FakeAgents()

    made = asyncio.run(ManageAgents(agents, FakeClock()).create_agent(spec(name="Ana", purpose="Help"), ACME))

    assert is_uuid(made.agent_id)
    assert (made.name, made.purpose) == ("Ana", "Help")
    assert (made.version, made.created_at, made.updated_at) == (1, 1_800_000_000, 1_800_000_000)
    assert agents.heads[made.agent_id].workspace == "acme"
    assert agents.versions[made.agent_id, 1] == as_kept(made)
    assert made.warnings == []


def test_the_request_that_made_an_agent_is_answered_again_with_what_was_made() -> None:
    agents = FakeAgents()
    made = asyncio.run(ManageAgents(agents, FakeClock()).create_agent(spec(name="Ana"), ACME))
    asyncio.run(ManageAgents(agents, FakeClock()).update_agent(made.agent_id, {"name": "Bea"}, ACME))

    assert asyncio.run(ManageAgents(agents).repeat_create_agent(made.agent_id, ACME)) == made
    with pytest.raises(AgentNotFound):
        asyncio.run(ManageAgents(agents).repeat_create_agent(made.agent_id, STRANGER))
    asyncio.run(ManageAgents(agents).delete_agent(made.agent_id, ACME))
    with pytest.raises(AgentNotFound):
        asyncio.run(ManageAgents(agents).repeat_create_agent(made.agent_id, ACME))


@pytest.mark.parametrize("field", ["output_schema", "output_schema_strict"])
def test_an_agent_whose_schema_is_no_good_is_not_made(field: str) -> None:
    agents = FakeAgents()

    with pytest.raises(InvalidOutputSchema):
        asyncio.run(ManageAgents(agents).create_agent(spec(**{field: NO_GOOD}), ACME))

    assert agents.heads == {}


def test_an_agent_that_could_not_be_kept_was_not_made() -> None:
    with pytest.raises(StorageError):
        asyncio.run(ManageAgents(AgentsThatNeverSave()).create_agent(spec(), ACME))


def test_an_agent_is_shown_to_its_workspace() -> None:
    assert asyncio.run(ManageAgents(FakeAgents(agent())).get_agent(AGENT_ID, ACME)) == agent()


def test_a_workspace_s_agents_are_listed() -> None:
    ours, theirs = agent(), agent(agent_id="019a0000-0000-7000-8000-00000000000f")
    agents = FakeAgents(ours)
    agents.heads |= FakeAgents(theirs, workspace="globex").heads

    assert asyncio.run(ManageAgents(agents).list_agents(ListAgentsQuery(), ACME)).data == [ours]


# ---- Update ---------------------------------------------------------------------------------------------


def test_a_change_makes_the_next_version_and_leaves_the_one_before_as_it_was() -> None:
    agents = FakeAgents(agent(version=3, purpose="Sell", language="de"))
    clock = FakeClock(NOW + 60)

    changed = update(agents, {"purpose": "Help", "behaviors": {"greeting": "Hi"}}, clock)

    assert (changed.version, changed.created_at, changed.updated_at) == (4, 1_800_000_000, 1_800_000_060)
    assert (changed.purpose, changed.language, changed.behaviors.greeting) == ("Help", "de", "Hi")
    assert agents.heads[AGENT_ID].agent == as_kept(changed)
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
def test_a_patch_that_changes_nothing_makes_no_version(patch: dict[str, JsonValue]) -> None:
    agents = FakeAgents(agent())

    assert as_kept(update(agents, patch, FakeClock(NOW + 60))) == agent()
    assert list(agents.versions) == [(AGENT_ID, 1)]


def test_true_and_1_are_not_the_same_to_a_patch() -> None:
    agents = FakeAgents(agent(output_schema_strict={"type": "object", "properties": {"a": {"default": 1}}}))

    changed = update(agents, {"output_schema_strict": {"properties": {"a": {"default": True}}}})

    assert changed.version == 2


@pytest.mark.parametrize(
    ("patch", "field", "left"),
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
def test_null_removes_and_what_is_removed_is_what_it_is_by_default(
    patch: dict[str, JsonValue], field: str, left: JsonValue
) -> None:
    full = agent(
        language="de",
        purpose="Help",
        questions=["A?"],
        output_schema={"city": "string", "zip": "string"},
        metadata={"k": "v"},
        voice={"name": "Kore", "language_code": "de-AT"},
    )

    changed = update(FakeAgents(full), patch)

    assert changed.model_dump(mode="json")[field] == left
    assert changed.version == 2


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
def test_a_patch_whose_result_is_no_agent_is_refused(patch: dict[str, JsonValue], path: str) -> None:
    agents = FakeAgents(agent())

    with pytest.raises(InvalidRequest) as refusal:
        update(agents, patch)

    assert [detail.path for detail in refusal.value.details] == [path]
    assert agents.heads[AGENT_ID].agent == agent()


def test_a_patch_whose_schema_is_no_good_is_refused() -> None:
    agents = FakeAgents(agent(output_schema={"city": "string"}))

    with pytest.raises(InvalidOutputSchema):
        update(agents, {"output_schema": {"city": 1}})

    assert agents.heads[AGENT_ID].agent.version == 1


def test_of_two_changes_at_once_both_count() -> None:
    agents = FakeAgents(agent())
    catalog = ManageAgents(agents, FakeClock())

    async def race() -> tuple[Agent, Agent]:
        return await asyncio.gather(
            catalog.update_agent(AGENT_ID, {"purpose": "Help"}, ACME),
            catalog.update_agent(AGENT_ID, {"language": "de"}, ACME),
        )

    versions = [changed.version for changed in asyncio.run(race())]

    assert sorted(versions) == [2, 3]
    assert (agents.heads[AGENT_ID].agent.purpose, agents.heads[AGENT_ID].agent.language) == ("Help", "de")


def test_a_change_that_always_comes_too_late_gives_up() -> None:
    with pytest.raises(StorageError):
        update(AgentsThatNeverSave(agent()), {"purpose": "Help"})


def test_an_agent_that_is_deleted_while_it_is_changed_stays_deleted() -> None:
    agents = FakeAgents(agent())
    catalog = ManageAgents(agents, FakeClock())

    async def race() -> tuple[object, object]:
        return await asyncio.gather(
            catalog.update_agent(AGENT_ID, {"purpose": "Help"}, ACME),
            agents.delete((await ACME.workspace()), AGENT_ID),
            return_exceptions=True,
        )

    changed, _ = asyncio.run(race())

    assert isinstance(changed, AgentNotFound)
    assert agents.heads == {}


# ---- Warnings -------------------------------------------------------------------------------------------

BOUND: JsonValue = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]{3}$"}}}
PLACE = "output_schema_strict#/properties/code/pattern"


def test_what_gemini_will_not_see_of_a_new_agent_s_schema_is_told_and_not_kept() -> None:
    agents = FakeAgents()

    made = asyncio.run(ManageAgents(agents).create_agent(spec(output_schema_strict=BOUND), ACME))

    assert [warning.path for warning in made.warnings] == [PLACE]
    assert "results are held to it" in made.warnings[0].message
    assert "warnings" not in agents.heads[made.agent_id].agent.model_dump()


def test_who_asks_for_the_same_agent_again_is_told_the_same() -> None:
    agents = FakeAgents()
    made = asyncio.run(ManageAgents(agents, FakeClock()).create_agent(spec(output_schema_strict=BOUND), ACME))

    assert asyncio.run(ManageAgents(agents).repeat_create_agent(made.agent_id, ACME)) == made


@pytest.mark.parametrize("patch", [{"name": "Bea"}, {"name": "Ana"}], ids=["a change", "no change"])
def test_every_change_tells_of_the_schema_there_is(patch: dict[str, JsonValue]) -> None:
    changed = update(FakeAgents(agent(output_schema_strict=BOUND)), patch)

    assert [warning.path for warning in changed.warnings] == [PLACE]


def test_a_schema_that_is_new_in_a_patch_is_told_of() -> None:
    assert [warning.path for warning in update(FakeAgents(agent()), {"output_schema_strict": BOUND}).warnings] == [
        PLACE
    ]


def test_about_hints_and_plain_schemas_there_is_nothing_to_say() -> None:
    plain: JsonValue = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}}

    for fields in ({}, {"output_schema": {"city": "string"}}, {"output_schema_strict": plain}):
        assert asyncio.run(ManageAgents(FakeAgents()).create_agent(spec(**fields), ACME)).warnings == []


# ---- Delete ---------------------------------------------------------------------------------------------


def test_a_deleted_agent_is_gone_but_its_versions_stay_for_the_calls_in_progress() -> None:
    agents = FakeAgents(agent())
    catalog = ManageAgents(agents)

    asyncio.run(catalog.delete_agent(AGENT_ID, ACME))

    with pytest.raises(AgentNotFound):
        asyncio.run(catalog.get_agent(AGENT_ID, ACME))
    assert asyncio.run(agents.version(AGENT_ID, 1)) == agent()


# ---- Whose agents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_id", [AGENT_ID, "019a0000-0000-7000-8000-00000000000f", "no-id"])
def test_another_workspace_s_agent_is_as_unknown_as_one_that_never_was(agent_id: AgentId) -> None:
    agents = FakeAgents(agent())
    catalog = ManageAgents(agents)

    for attempt in (
        catalog.get_agent(agent_id, STRANGER),
        catalog.update_agent(agent_id, {"name": "Mine"}, STRANGER),
        catalog.delete_agent(agent_id, STRANGER),
    ):
        with pytest.raises(AgentNotFound):
            asyncio.run(attempt)

    assert agents.heads[AGENT_ID].agent == agent()


def test_who_may_not_call_learns_nothing_of_agents() -> None:
    catalog = ManageAgents(FakeAgents())

    for attempt in (
        catalog.get_agent(AGENT_ID, UnknownCaller()),
        catalog.update_agent(AGENT_ID, {}, UnknownCaller()),
        catalog.delete_agent(AGENT_ID, UnknownCaller()),
        catalog.create_agent(spec(), UnknownCaller()),
        catalog.list_agents(ListAgentsQuery(), UnknownCaller()),
    ):
        with pytest.raises(InvalidApiKey):
            asyncio.run(attempt)

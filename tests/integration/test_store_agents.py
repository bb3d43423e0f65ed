"""Agents in DynamoDB: immutable versions, and a head for the current one."""

import asyncio
import io
import json
import uuid
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain import pagination
from pi_voice.domain.agents import Agent, Behaviors, ListAgentsQuery, ListAgentVersionsQuery, OwnedAgent
from pi_voice.domain.errors import AgentNotFound, InvalidCursor, StorageError, UnreadableRow
from pi_voice.domain.ids import AgentId, WorkspaceId, uuid7
from pi_voice.domain.variables import Variable
from tests.integration.samples import ACME, GLOBEX, NOW, an_agent, id_made_at
from tests.integration.store import CONFLICTS, Store, cancelling, never_sent

run = asyncio.run


def saved(store: Store, agent: Agent, workspace: WorkspaceId = ACME) -> Agent:
    assert run(store.agents.save(workspace, agent))
    return agent


def changed(agent: Agent, name: str = "Changed") -> Agent:
    return agent.model_copy(update={"version": agent.version + 1, "name": name, "updated_at": NOW + 60})


def newest_first(store: Store, count: int, workspace: WorkspaceId = ACME) -> list[Agent]:
    made = [
        saved(store, an_agent(agent_id=AgentId(id_made_at(NOW + second)), name=f"Agent {second}"), workspace)
        for second in range(count)
    ]
    return made[::-1]


def pages(store: Store, limit: int, workspace: WorkspaceId = ACME) -> Iterator[list[Agent]]:
    cursor = None
    while True:
        page = run(store.agents.page(workspace, ListAgentsQuery(limit=limit, cursor=cursor)))
        yield page.data
        if (cursor := page.next_cursor) is None:
            return


# ---- Versions and the head --------------------------------------------------------------------------


def test_a_saved_agent_is_the_head_and_version_1_with_all_fields(store: Store) -> None:
    agent = saved(store, an_agent())

    assert run(store.agents.current(agent.agent_id)) == OwnedAgent(ACME, agent)
    assert run(store.agents.version(agent.agent_id, 1)) == agent


def test_an_update_makes_a_new_head_and_keeps_the_previous_version(store: Store) -> None:
    first = saved(store, an_agent())
    second = saved(store, changed(first))

    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, second)
    assert run(store.agents.version(first.agent_id, 1)) == first
    assert run(store.agents.version(first.agent_id, 2)) == second


def test_an_unknown_agent_is_none_and_an_unknown_version_is_not_found(store: Store) -> None:
    agent = saved(store, an_agent())

    assert run(store.agents.current(AgentId(uuid7()))) is None
    with pytest.raises(AgentNotFound):
        run(store.agents.version(agent.agent_id, 2))


@pytest.mark.parametrize("agent_id", ["", "agent", "A" * 36, "../../etc"])
def test_an_invalid_agent_id_sends_no_request(store: Store, agent_id: str) -> None:
    assert run(store.through(get_item=never_sent).agents.current(AgentId(agent_id))) is None


def test_an_update_of_an_outdated_version_is_refused_and_changes_nothing(store: Store) -> None:
    first = saved(store, an_agent())
    second = saved(store, changed(first))

    assert not run(store.agents.save(ACME, changed(first, "Too late")))
    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, second)
    assert run(store.agents.version(first.agent_id, 2)) == second


def test_a_version_cannot_be_skipped(store: Store) -> None:
    first = saved(store, an_agent())

    assert not run(store.agents.save(ACME, changed(changed(first))))
    with pytest.raises(AgentNotFound):
        run(store.agents.version(first.agent_id, 3))


def test_version_1_is_created_once(store: Store) -> None:
    first = saved(store, an_agent())

    assert not run(store.agents.save(GLOBEX, first.model_copy(update={"name": "Mine now"})))
    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, first)


def test_exactly_one_of_concurrent_updates_becomes_the_next_version(store: Store) -> None:
    first = saved(store, an_agent())
    rivals = [changed(first, f"Rival {number}") for number in range(8)]

    async def race() -> list[bool]:
        return await asyncio.gather(*(store.agents.save(ACME, rival) for rival in rivals))

    won = [rival for rival, has_won in zip(rivals, run(race()), strict=True) if has_won]

    assert len(won) == 1
    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, won[0])
    assert run(store.agents.version(first.agent_id, 2)) == won[0]
    assert run(store.agents.version(first.agent_id, 1)) == first


@pytest.mark.parametrize("reasons", CONFLICTS, ids=" ".join)
def test_an_update_canceled_by_a_conflict_or_throttling_is_retried(store: Store, reasons: tuple[str, str]) -> None:
    first = saved(store, an_agent())
    second = changed(first)

    assert run(store.through(transact_write_items=cancelling(2, *reasons)).agents.save(ACME, second))

    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, second)


def test_an_update_that_is_always_canceled_is_a_storage_error(store: Store) -> None:
    busy = store.through(transact_write_items=cancelling(99, "ThrottlingError", "None"))

    with pytest.raises(StorageError):
        run(busy.agents.save(ACME, an_agent()))


def test_the_head_has_the_hash_of_its_request_until_the_next_change(store: Store) -> None:
    first = saved(store, an_agent())
    second = changed(first)

    assert run(store.agents.save(ACME, second, "hash"))
    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, second, "hash")
    third = saved(store, changed(second))

    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, third)


# ---- Versions ---------------------------------------------------------------------------------------


def with_versions(store: Store, count: int, **fields: Any) -> list[Agent]:
    """Save an agent with a number of versions, and return them, newest first."""
    versions = [saved(store, an_agent(**fields))]
    for number in range(2, count + 1):
        versions.append(saved(store, changed(versions[-1], f"Version {number}")))
    return versions[::-1]


def version_pages(store: Store, agent_id: AgentId, limit: int) -> Iterator[list[Agent]]:
    cursor = None
    while True:
        page = run(store.agents.version_page(agent_id, ListAgentVersionsQuery(limit=limit, cursor=cursor)))
        yield page.data
        if (cursor := page.next_cursor) is None:
            return


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (2, 1), (4, 2), (5, 2), (5, 5), (5, 100), (11, 3)])
def test_the_pages_hold_all_versions_newest_first_without_the_head(store: Store, count: int, limit: int) -> None:
    with_versions(store, 2)
    versions = with_versions(store, count)

    read = list(version_pages(store, versions[0].agent_id, limit))

    assert [version for page in read for version in page] == versions
    assert len(read) == -(-count // limit)


def test_versions_over_a_megabyte_are_split_into_pages_without_omissions(store: Store) -> None:
    schema: JsonValue = {"type": "object", "description": "x" * 32_000}
    large: dict[str, Any] = {"instructions": "東京é🏥" * 5_000, "output_schema": schema, "output_schema_strict": schema}
    versions = with_versions(store, 14, **large)

    read = list(version_pages(store, versions[0].agent_id, 14))

    assert [version for page in read for version in page] == versions
    assert len(read) > 1


def test_versions_made_while_paging_do_not_shift_the_pages(store: Store) -> None:
    versions = with_versions(store, 4)
    agent_id = versions[0].agent_id
    first = run(store.agents.version_page(agent_id, ListAgentVersionsQuery(limit=2)))
    saved(store, changed(versions[0]))

    second = run(store.agents.version_page(agent_id, ListAgentVersionsQuery(limit=2, cursor=first.next_cursor)))

    assert first.data + second.data == versions
    assert second.next_cursor is None


def test_an_unknown_agent_has_no_versions(store: Store) -> None:
    assert list(version_pages(store, AgentId(uuid7()), 20)) == [[]]


@pytest.mark.parametrize("number", [0, 1_000_000_000, 2**64, 1_800_000_000_000 << 80, 2**128 - 1])
def test_a_cursor_that_no_list_of_versions_returned_is_refused(store: Store, number: int) -> None:
    cursor = pagination.encode_cursor(str(uuid.UUID(int=number)))

    with pytest.raises(InvalidCursor):
        run(store.agents.version_page(AGENT_ID, ListAgentVersionsQuery(cursor=cursor)))


def test_after_the_first_version_there_is_nothing_and_no_request(store: Store) -> None:
    cursor = pagination.encode_cursor(str(uuid.UUID(int=1)))

    page = run(store.through(query=never_sent).agents.version_page(AGENT_ID, ListAgentVersionsQuery(cursor=cursor)))

    assert (page.data, page.next_cursor) == ([], None)


# ---- Deleting ---------------------------------------------------------------------------------------


def test_a_deleted_agent_is_gone_but_its_versions_remain_for_their_sessions(store: Store) -> None:
    first = saved(store, an_agent())
    second = saved(store, changed(first))

    run(store.agents.delete(ACME, first.agent_id))

    assert run(store.agents.current(first.agent_id)) is None
    assert run(store.agents.version(first.agent_id, 1)) == first
    assert run(store.agents.version(first.agent_id, 2)) == second
    assert list(pages(store, 20)) == [[]]


def test_another_workspace_deletes_nothing(store: Store) -> None:
    agent = saved(store, an_agent())

    run(store.agents.delete(GLOBEX, agent.agent_id))

    assert run(store.agents.current(agent.agent_id)) == OwnedAgent(ACME, agent)


def test_deleting_twice_succeeds(store: Store) -> None:
    agent = saved(store, an_agent())

    run(store.agents.delete(ACME, agent.agent_id))
    run(store.agents.delete(ACME, agent.agent_id))

    assert run(store.agents.current(agent.agent_id)) is None


def test_an_update_after_the_deletion_does_not_restore_the_agent(store: Store) -> None:
    agent = saved(store, an_agent())
    run(store.agents.delete(ACME, agent.agent_id))

    assert not run(store.agents.save(ACME, changed(agent)))
    assert run(store.agents.current(agent.agent_id)) is None


# ---- Lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "limit"), [(0, 1), (1, 1), (2, 1), (4, 2), (5, 2), (5, 4), (5, 5), (5, 100)])
def test_the_pages_hold_all_agents_newest_first_and_only_the_last_has_no_cursor(
    store: Store, count: int, limit: int
) -> None:
    agents = newest_first(store, count)
    newest_first(store, 3, GLOBEX)

    read = list(pages(store, limit))

    assert [agent for page in read for agent in page] == agents
    assert len(read) == max(1, -(-count // limit))


def test_a_list_has_each_agent_once_in_its_current_version(store: Store) -> None:
    older, newer = newest_first(store, 2)[::-1]
    older = saved(store, changed(older))

    assert list(pages(store, 20)) == [[newer, older]]


def test_agents_over_a_megabyte_are_split_into_pages_without_omissions(store: Store) -> None:
    long = {"type": "object", "description": "x" * 32_000}
    agents = [
        saved(
            store,
            an_agent(
                agent_id=AgentId(id_made_at(NOW + second)),
                instructions="東京é🏥" * 5_000,
                output_schema=long,
                output_schema_strict=long,
            ),
        )
        for second in range(14)
    ][::-1]

    read = list(pages(store, 14))

    assert [agent for page in read for agent in page] == agents
    assert len(read) > 1


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "AAAA", "é", "A" * 22 + "==", "A" * 400])
def test_a_cursor_that_no_list_returned_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        run(store.agents.page(ACME, ListAgentsQuery(cursor=cursor)))


def test_a_cursor_of_another_workspace_shows_none_of_its_rows(store: Store) -> None:
    foreign = newest_first(store, 3, GLOBEX)
    own = newest_first(store, 3)
    cursor = run(store.agents.page(GLOBEX, ListAgentsQuery(limit=1))).next_cursor

    shown = run(store.agents.page(ACME, ListAgentsQuery(cursor=cursor))).data

    assert foreign
    assert shown in (own, own[1:])  # the cursor's place may be before or after the newest one


def test_a_cursor_of_a_deleted_agent_continues_at_its_place(store: Store) -> None:
    agents = newest_first(store, 4)
    run(store.agents.delete(ACME, agents[1].agent_id))

    page = run(store.agents.page(ACME, ListAgentsQuery(cursor=pagination.encode_cursor(agents[1].agent_id))))

    assert page.data == agents[2:]
    assert page.next_cursor is None


def test_agents_created_while_paging_do_not_shift_the_pages(store: Store) -> None:
    agents = newest_first(store, 4)
    first = run(store.agents.page(ACME, ListAgentsQuery(limit=2)))
    saved(store, an_agent(agent_id=AgentId(id_made_at(NOW + 100))))

    second = run(store.agents.page(ACME, ListAgentsQuery(limit=2, cursor=first.next_cursor)))

    assert first.data + second.data == agents
    assert second.next_cursor is None
    assert all(newer.agent_id > older.agent_id for newer, older in pairwise(first.data + second.data))


# ---- Rows of other versions -------------------------------------------------------------------------

AGENT_ID = AgentId(id_made_at(NOW))
LEAST = {
    "agent_id": AGENT_ID,
    "version": 1,
    "created_at": NOW,
    "updated_at": NOW,
    "name": "Ana",
    "instructions": "Greet.",
}
"""A document with the fields that have no default."""


def stored(store: Store, document: dict[str, Any] | str | None) -> None:
    """Write the head and version 1 as another version of the code might; None writes no document."""
    row: dict[str, Any] = {"agent_id": {"S": AGENT_ID}, "region": {"S": "eu"}}
    if document is not None:
        row["document"] = {"S": document if isinstance(document, str) else json.dumps(document)}
    head = {**row, "version": {"N": "0"}, "workspace": {"S": ACME}, "current": {"N": "1"}}
    for item in ({**row, "version": {"N": "1"}}, head):
        store.dynamodb.put_item(TableName=store.names.agents, Item=item)


def read_everywhere(store: Store) -> Agent:
    """Read the agent as head, as version and in a list."""
    owned = run(store.agents.current(AGENT_ID))
    assert owned == OwnedAgent(ACME, run(store.agents.version(AGENT_ID, 1)))
    assert list(pages(store, 20)) == [[owned.agent]]
    return owned.agent


def test_a_document_with_fewer_fields_has_their_defaults(store: Store) -> None:
    stored(store, LEAST)

    assert read_everywhere(store) == Agent.model_validate(LEAST)


def test_unknown_fields_are_ignored(store: Store) -> None:
    stored(store, {**LEAST, "abilities": [{"name": "x"}], "behaviors": {"mood": "calm", "speaking_pace": "slow"}})

    agent = read_everywhere(store)

    assert agent.behaviors == Behaviors(speaking_pace="slow")
    assert "abilities" not in agent.model_dump()


def test_enum_members_that_only_a_newer_version_knows_are_kept(store: Store) -> None:
    newer = {"speaking_pace": "whispered", "response_length": "endless", "mood": "calm"}
    stored(store, {**LEAST, "behaviors": newer, "voice": {"name": "Tomorrow"}, "questions": ["How old are you?"]})

    agent = read_everywhere(store)

    shown = json.loads(agent.model_dump_json())
    assert shown["behaviors"]["speaking_pace"] == "whispered"
    assert shown["behaviors"]["response_length"] == "endless"
    assert shown["behaviors"]["greeting"] is None
    assert shown["voice"] == {"name": "Tomorrow", "language_code": None}
    assert agent.questions == ("How old are you?",)


def test_values_over_the_limits_of_this_version_are_kept(store: Store) -> None:
    stored(store, {**LEAST, "name": "x" * 200, "behaviors": {"max_duration_seconds": 7_200}, "questions": ["?"] * 60})

    agent = read_everywhere(store)

    assert (len(agent.name), agent.behaviors.max_duration_seconds, len(agent.questions)) == (200, 7_200, 60)


def test_variables_with_values_over_the_limits_of_this_version_are_kept(store: Store) -> None:
    newer = {"guest": {"type": "date", "max_length": 20_000, "mood": "calm"}, "room": {"type": "number", "default": 7}}
    stored(store, {**LEAST, "variables": newer})

    variables = read_everywhere(store).variables

    assert variables is not None
    assert {name: type(variable) for name, variable in variables.items()} == {"guest": Variable, "room": Variable}
    assert (variables["guest"].type, variables["guest"].max_length, variables["room"].default) == ("date", 20_000, 7)


BROKEN = {
    "no document": None,
    "no JSON": "{secret",
    "another type": json.dumps(["secret"]),
    "a wrong type": json.dumps({**LEAST, "instructions": ["secret"]}),
    "a wrong type of an enum": json.dumps({**LEAST, "behaviors": {"speaking_pace": 5}}),
    "a missing field": json.dumps({**LEAST, "instructions": "secret", "name": None}),
}


@pytest.mark.parametrize("document", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_row_is_missing_from_lists_and_a_storage_error_alone(
    store: Store, logged: io.StringIO, document: str | None
) -> None:
    newer = saved(store, an_agent(agent_id=AgentId(id_made_at(NOW + 1))))
    older = saved(store, an_agent(agent_id=AgentId(id_made_at(NOW - 1))))
    stored(store, document)

    assert list(pages(store, 1)) == [[newer], [], [older]]
    with pytest.raises(UnreadableRow):
        run(store.agents.current(AGENT_ID))
    with pytest.raises(UnreadableRow):
        run(store.agents.version(AGENT_ID, 1))

    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    keys = [line["key"] for line in lines if line["message"] == "row_unreadable"]
    assert keys == [{"agent_id": AGENT_ID, "version": version} for version in (0, 0, 1)]
    assert "secret" not in logged.getvalue()

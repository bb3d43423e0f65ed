"""Agents in DynamoDB: immutable versions, and a head that says which one counts."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from pi_voice.domain import pagination
from pi_voice.domain.agents import Agent, ListAgentsQuery, OwnedAgent
from pi_voice.domain.errors import AgentNotFound, InvalidCursor, StorageError
from pi_voice.domain.ids import AgentId, WorkspaceId, uuid7
from tests.integration.samples import ACME, GLOBEX, NOW, an_agent, id_made_at
from tests.integration.store import CONFLICTS, Store, cancelling, never_asked

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


def test_a_saved_agent_is_the_head_and_version_1_with_every_field(store: Store) -> None:
    agent = saved(store, an_agent())

    assert run(store.agents.current(agent.agent_id)) == OwnedAgent(ACME, agent)
    assert run(store.agents.version(agent.agent_id, 1)) == agent


def test_a_change_makes_a_new_head_and_leaves_the_version_before_as_it_was(store: Store) -> None:
    first = saved(store, an_agent())
    second = saved(store, changed(first))

    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, second)
    assert run(store.agents.version(first.agent_id, 1)) == first
    assert run(store.agents.version(first.agent_id, 2)) == second


def test_an_agent_that_is_not_there_is_none_and_its_version_not_found(store: Store) -> None:
    agent = saved(store, an_agent())

    assert run(store.agents.current(AgentId(uuid7()))) is None
    with pytest.raises(AgentNotFound):
        run(store.agents.version(agent.agent_id, 2))


@pytest.mark.parametrize("agent_id", ["", "agent", "A" * 36, "../../etc"])
def test_what_is_no_agent_id_is_not_asked_for(store: Store, agent_id: str) -> None:
    assert run(store.through(get_item=never_asked).agents.current(AgentId(agent_id))) is None


def test_a_change_of_a_version_that_is_not_the_head_any_more_is_refused_and_changes_nothing(store: Store) -> None:
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


def test_version_1_is_made_once(store: Store) -> None:
    first = saved(store, an_agent())

    assert not run(store.agents.save(GLOBEX, first.model_copy(update={"name": "Mine now"})))
    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, first)


def test_of_changes_that_race_exactly_one_becomes_the_next_version(store: Store) -> None:
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
def test_a_change_that_was_cancelled_for_no_fault_of_its_own_is_repeated(
    store: Store, reasons: tuple[str, str]
) -> None:
    first = saved(store, an_agent())
    second = changed(first)

    assert run(store.through(transact_write_items=cancelling(2, *reasons)).agents.save(ACME, second))

    assert run(store.agents.current(first.agent_id)) == OwnedAgent(ACME, second)


def test_a_change_that_is_cancelled_again_and_again_is_a_storage_error(store: Store) -> None:
    busy = store.through(transact_write_items=cancelling(99, "ThrottlingError", "None"))

    with pytest.raises(StorageError):
        run(busy.agents.save(ACME, an_agent()))


# ---- Deleting ---------------------------------------------------------------------------------------


def test_a_deleted_agent_is_gone_but_its_versions_stay_for_their_sessions(store: Store) -> None:
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


def test_deleting_twice_is_deleting_once(store: Store) -> None:
    agent = saved(store, an_agent())

    run(store.agents.delete(ACME, agent.agent_id))
    run(store.agents.delete(ACME, agent.agent_id))

    assert run(store.agents.current(agent.agent_id)) is None


def test_a_change_that_comes_after_the_deletion_does_not_bring_the_agent_back(store: Store) -> None:
    agent = saved(store, an_agent())
    run(store.agents.delete(ACME, agent.agent_id))

    assert not run(store.agents.save(ACME, changed(agent)))
    assert run(store.agents.current(agent.agent_id)) is None


# ---- Lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "limit"), [(0, 1), (1, 1), (2, 1), (4, 2), (5, 2), (5, 4), (5, 5), (5, 100)])
def test_all_pages_together_are_all_agents_newest_first_and_the_last_one_says_so(
    store: Store, count: int, limit: int
) -> None:
    agents = newest_first(store, count)
    newest_first(store, 3, GLOBEX)

    read = list(pages(store, limit))

    assert [agent for page in read for agent in page] == agents
    assert len(read) == max(1, -(-count // limit))


def test_a_list_shows_each_agent_once_as_it_is_now(store: Store) -> None:
    older, newer = newest_first(store, 2)[::-1]
    older = saved(store, changed(older))

    assert list(pages(store, 20)) == [[newer, older]]


def test_agents_that_fill_more_than_a_megabyte_come_in_more_pages_and_none_is_left_out(store: Store) -> None:
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
def test_a_cursor_that_no_list_handed_out_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        run(store.agents.page(ACME, ListAgentsQuery(cursor=cursor)))


def test_a_cursor_of_another_workspace_shows_nothing_of_it(store: Store) -> None:
    foreign = newest_first(store, 3, GLOBEX)
    own = newest_first(store, 3)
    cursor = run(store.agents.page(GLOBEX, ListAgentsQuery(limit=1))).next_cursor

    shown = run(store.agents.page(ACME, ListAgentsQuery(cursor=cursor))).data

    assert all(agent in own and agent not in foreign for agent in shown)


def test_a_cursor_goes_on_where_an_agent_was_that_is_deleted_by_now(store: Store) -> None:
    agents = newest_first(store, 4)
    run(store.agents.delete(ACME, agents[1].agent_id))

    page = run(store.agents.page(ACME, ListAgentsQuery(cursor=pagination.encode_cursor(agents[1].agent_id))))

    assert page.data == agents[2:]
    assert page.next_cursor is None


def test_agents_that_are_made_while_one_pages_shift_nothing(store: Store) -> None:
    agents = newest_first(store, 4)
    first = run(store.agents.page(ACME, ListAgentsQuery(limit=2)))
    saved(store, an_agent(agent_id=AgentId(id_made_at(NOW + 100))))

    second = run(store.agents.page(ACME, ListAgentsQuery(limit=2, cursor=first.next_cursor)))

    assert first.data + second.data == agents
    assert second.next_cursor is None
    assert all(newer.agent_id > older.agent_id for newer, older in pairwise(first.data + second.data))

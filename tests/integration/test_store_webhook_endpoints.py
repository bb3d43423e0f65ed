"""Webhook endpoints in DynamoDB."""

import asyncio
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.adapters.dynamodb.attributes import to_item
from pi_voice.domain.errors import InvalidCursor, UnreadableRow
from pi_voice.domain.ids import EndpointId, WorkspaceId
from pi_voice.domain.webhook_endpoint_api import ListWebhookEndpointsQuery
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets
from tests.integration.samples import ACME, GLOBEX, NOW, a_new_endpoint, a_webhook_endpoint, id_made_at
from tests.integration.store import Store, never_sent

run = asyncio.run


def added(store: Store, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    run(store.webhook_endpoints.add(endpoint))
    return endpoint


def found(store: Store, endpoint: WebhookEndpoint) -> WebhookEndpoint | None:
    return run(store.webhook_endpoints.find(endpoint.workspace, endpoint.endpoint_id))


def newest_first(store: Store, count: int, workspace: WorkspaceId = ACME) -> list[WebhookEndpoint]:
    ids = [EndpointId(id_made_at(NOW + second)) for second in range(count)]
    return [added(store, a_new_endpoint(endpoint_id=each, workspace=workspace)) for each in ids][::-1]


def pages(store: Store, limit: int) -> Iterator[list[WebhookEndpoint]]:
    cursor = None
    while True:
        page = run(store.webhook_endpoints.page(ACME, ListWebhookEndpointsQuery(limit=limit, cursor=cursor)))
        yield page.data
        if (cursor := page.next_cursor) is None:
            return


def change_row(store: Store, endpoint: WebhookEndpoint, **attributes: Any) -> None:
    """Write attributes of a row as another version of the code does; None removes one."""
    [row] = [
        each for each in store.rows(store.names.webhook_endpoints) if each["endpoint_id"]["S"] == endpoint.endpoint_id
    ]
    row |= to_item({name: value for name, value in attributes.items() if value is not None})
    kept = {name: value for name, value in row.items() if attributes.get(name, "") is not None}
    store.dynamodb.put_item(TableName=store.names.webhook_endpoints, Item=kept)


# ---- Find, list and delete --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [a_webhook_endpoint, a_new_endpoint])
def test_an_added_endpoint_is_found_with_all_fields(store: Store, make: Any) -> None:
    endpoint = added(store, make())

    assert found(store, endpoint) == endpoint


def test_an_endpoint_of_another_workspace_or_an_unknown_one_is_none(store: Store) -> None:
    endpoint = added(store, a_new_endpoint())

    assert found(store, replace(endpoint, workspace=GLOBEX)) is None
    assert found(store, a_new_endpoint()) is None


@pytest.mark.parametrize("endpoint_id", ["", "endpoint", "A" * 36, "../../etc"])
def test_an_invalid_id_sends_no_request(store: Store, endpoint_id: str) -> None:
    endpoints = store.through(get_item=never_sent, delete_item=never_sent).webhook_endpoints

    assert run(endpoints.find(ACME, EndpointId(endpoint_id))) is None
    assert not run(endpoints.delete(ACME, EndpointId(endpoint_id)))


def test_endpoints_of_a_workspace_are_listed_newest_first(store: Store) -> None:
    expected = newest_first(store, 5)
    newest_first(store, 2, GLOBEX)

    assert run(store.webhook_endpoints.in_workspace(ACME)) == expected
    assert list(pages(store, 100)) == [expected]
    assert list(pages(store, 2)) == [expected[:2], expected[2:4], expected[4:]]
    assert list(pages(store, 5)) == [expected]


def test_a_workspace_without_endpoints_has_one_empty_page(store: Store) -> None:
    assert run(store.webhook_endpoints.in_workspace(ACME)) == []
    assert list(pages(store, 2)) == [[]]


def test_a_cursor_of_something_else_is_refused(store: Store) -> None:
    with pytest.raises(InvalidCursor):
        run(store.webhook_endpoints.page(ACME, ListWebhookEndpointsQuery(cursor="anything")))


def test_a_deleted_endpoint_is_gone_and_was_there_once(store: Store) -> None:
    endpoint = added(store, a_new_endpoint())

    assert not run(store.webhook_endpoints.delete(GLOBEX, endpoint.endpoint_id))
    assert run(store.webhook_endpoints.delete(ACME, endpoint.endpoint_id))
    assert not run(store.webhook_endpoints.delete(ACME, endpoint.endpoint_id))
    assert found(store, endpoint) is None


# ---- The owner's changes ----------------------------------------------------------------------------


def test_an_update_writes_what_differs_and_counts_the_revision(store: Store) -> None:
    before = added(store, a_webhook_endpoint())
    after = replace(
        before,
        url="https://other.example.com/",
        events=(),
        agent_id=None,
        active=True,
        failing_since=None,
        disabled_at=None,
        disabled_reason=None,
        updated_at=NOW + 60,
    )

    updated = run(store.webhook_endpoints.update(before, after))

    assert updated == replace(after, revision=5)
    assert found(store, before) == updated


def test_an_update_of_an_outdated_or_a_deleted_endpoint_is_refused(store: Store) -> None:
    before = added(store, a_new_endpoint())
    first = run(store.webhook_endpoints.update(before, replace(before, description="first")))

    assert run(store.webhook_endpoints.update(before, replace(before, description="second"))) is None
    assert found(store, before) == first
    unknown = a_new_endpoint()
    assert run(store.webhook_endpoints.update(unknown, replace(unknown, description="x"))) is None
    assert found(store, unknown) is None


def test_exactly_one_of_concurrent_updates_of_the_same_revision_is_made(store: Store) -> None:
    before = added(store, a_new_endpoint())

    async def race() -> list[WebhookEndpoint | None]:
        rivals = [replace(before, description=f"Rival {number}") for number in range(8)]
        return await asyncio.gather(*(store.webhook_endpoints.update(before, rival) for rival in rivals))

    [won] = [outcome for outcome in run(race()) if outcome is not None]

    assert won.revision == 2
    assert found(store, before) == won


def test_an_update_keeps_what_deliveries_and_a_rotation_changed_since_the_read(store: Store) -> None:
    before = added(store, a_new_endpoint())
    failing = run(store.webhook_endpoints.note_failure(before, NOW + 5))
    assert failing
    run(store.webhook_endpoints.disable(failing, "failing", NOW + 6))
    rotated = replace(before, secret=SecretVersion("b2", 2), previous_secret=before.secret)
    run(store.webhook_endpoints.rotate(before, rotated))

    updated = run(store.webhook_endpoints.update(before, replace(before, description="Mine")))

    assert updated == replace(
        rotated,
        description="Mine",
        revision=2,
        failing_since=NOW + 5,
        disabled_at=NOW + 6,
        disabled_reason="failing",
    )


def test_a_rotation_stores_both_secrets_versions(store: Store) -> None:
    before = added(store, a_new_endpoint())
    after = replace(
        before,
        secret=SecretVersion("b2", 2),
        previous_secret=before.secret,
        previous_secret_ends_at=NOW + 86_400,
        secret_made_by="hash",
        updated_at=NOW + 60,
    )

    rotated = run(store.webhook_endpoints.rotate(before, after))

    assert rotated == after == found(store, before)


def test_a_rotation_of_an_outdated_or_a_deleted_endpoint_is_refused(store: Store) -> None:
    before = added(store, a_new_endpoint())
    after = replace(before, secret=SecretVersion("a1", 2), previous_secret=before.secret)
    assert run(store.webhook_endpoints.rotate(before, after))

    assert run(store.webhook_endpoints.rotate(before, replace(after, secret=SecretVersion("b2", 2)))) is None
    assert found(store, before) == after
    unknown = a_new_endpoint()
    assert run(store.webhook_endpoints.rotate(unknown, replace(unknown, secret=SecretVersion("a1", 2)))) is None
    assert found(store, unknown) is None


def test_no_secret_is_stored(store: Store) -> None:
    secrets = WebhookSecrets(lambda: Masters("a1", {"a1": "m" * 32, "b2": "n" * 32}))
    endpoint = added(store, a_webhook_endpoint())

    stored = store.words()

    assert endpoint.endpoint_id in stored
    for version in endpoint.secrets_at(NOW):
        secret = secrets.reveal(endpoint.endpoint_id, version)
        assert secret not in stored
        assert secret.removeprefix("whsec_") not in stored
    assert "m" * 32 not in stored


# ---- Consequences of deliveries ---------------------------------------------------------------------


def test_the_first_failure_counts_until_a_success(store: Store) -> None:
    endpoint = added(store, a_new_endpoint())

    first = run(store.webhook_endpoints.note_failure(endpoint, NOW + 5))
    again = run(store.webhook_endpoints.note_failure(endpoint, NOW + 60))

    failing = replace(endpoint, failing_since=NOW + 5)
    assert first == again == failing
    run(store.webhook_endpoints.note_success(failing))
    assert found(store, endpoint) == endpoint
    run(store.webhook_endpoints.note_success(failing))
    assert found(store, endpoint) == endpoint


def test_timeouts_are_counted_until_an_endpoint_responds(store: Store) -> None:
    endpoint = added(store, a_new_endpoint())

    once = run(store.webhook_endpoints.note_failure(endpoint, NOW, timed_out=True))
    assert once == replace(endpoint, failing_since=NOW, timeouts=1)
    assert once is not None
    twice = run(store.webhook_endpoints.note_failure(once, NOW + 9, timed_out=True))
    assert twice == replace(once, timeouts=2, resting_until=NOW + 69)
    assert twice is not None
    assert found(store, endpoint) == twice
    responded = run(store.webhook_endpoints.note_failure(twice, NOW + 70))
    assert responded == replace(once, timeouts=0)
    run(store.webhook_endpoints.note_failure(twice, NOW + 80, timed_out=True))
    run(store.webhook_endpoints.note_success(twice))
    assert found(store, endpoint) == endpoint


def test_an_endpoint_in_the_same_state_needs_no_request(store: Store) -> None:
    idle = store.through(update_item=never_sent).webhook_endpoints
    failing = a_new_endpoint(failing_since=NOW)

    assert run(idle.note_failure(failing, NOW + 60)) == failing
    run(idle.note_success(a_new_endpoint()))


def test_a_success_of_an_earlier_failure_does_not_clear_a_later_one(store: Store) -> None:
    endpoint = added(store, a_new_endpoint(failing_since=NOW + 9))

    run(store.webhook_endpoints.note_success(replace(endpoint, failing_since=NOW)))

    assert found(store, endpoint) == endpoint


def test_a_deleted_endpoint_does_not_come_back_by_a_delivery(store: Store) -> None:
    gone = a_new_endpoint()

    assert run(store.webhook_endpoints.note_failure(gone, NOW)) is None
    assert run(store.webhook_endpoints.note_failure(gone, NOW, timed_out=True)) is None
    run(store.webhook_endpoints.note_success(replace(gone, failing_since=NOW)))
    assert run(store.webhook_endpoints.disable(gone, "gone", NOW)) is None
    assert store.rows(store.names.webhook_endpoints) == []


def test_a_delivery_to_an_earlier_url_has_no_consequences(store: Store) -> None:
    before = added(store, a_new_endpoint())
    moved = run(store.webhook_endpoints.update(before, replace(before, url="https://other.example.com/")))

    assert run(store.webhook_endpoints.note_failure(before, NOW)) is None
    assert run(store.webhook_endpoints.disable(before, "gone", NOW)) is None
    assert found(store, before) == moved


def test_an_endpoint_is_disabled_once(store: Store) -> None:
    endpoint = added(store, a_new_endpoint())

    disabled = run(store.webhook_endpoints.disable(endpoint, "gone", NOW))

    assert disabled == replace(endpoint, disabled_at=NOW, disabled_reason="gone")
    assert run(store.webhook_endpoints.disable(endpoint, "gone", NOW + 1)) is None
    assert run(store.webhook_endpoints.disable(endpoint, "failing", NOW)) is None
    assert found(store, endpoint) == disabled


@pytest.mark.parametrize("since", [None, NOW + 9])
def test_a_failing_endpoint_that_has_worked_since_is_not_disabled(store: Store, since: int | None) -> None:
    current = added(store, a_new_endpoint(failing_since=since))

    assert run(store.webhook_endpoints.disable(replace(current, failing_since=NOW), "failing", NOW + 10)) is None
    assert found(store, current) == current


def test_an_endpoint_that_is_still_failing_is_disabled(store: Store) -> None:
    failing = added(store, a_new_endpoint(failing_since=NOW))

    disabled = run(store.webhook_endpoints.disable(failing, "failing", NOW + 10))

    assert disabled == replace(failing, disabled_at=NOW + 10, disabled_reason="failing")


# ---- Rows of other versions -------------------------------------------------------------------------


def test_a_row_of_another_version_is_read(store: Store) -> None:
    endpoint = added(store, a_webhook_endpoint())
    change_row(
        store,
        endpoint,
        colour="blue",
        events=["session.paused"],
        disabled_reason="slow",
        include=None,
        revision=None,
        description=None,
    )

    assert found(store, endpoint) == replace(
        endpoint, events=("session.paused",), disabled_reason="slow", include=(), revision=1, description=""
    )


def test_an_update_keeps_attributes_of_another_version(store: Store) -> None:
    endpoint = added(store, a_new_endpoint())
    change_row(store, endpoint, colour="blue")

    assert run(store.webhook_endpoints.update(endpoint, replace(endpoint, description="Mine")))

    [row] = store.rows(store.names.webhook_endpoints)
    assert row["colour"] == {"S": "blue"}


@pytest.mark.parametrize(
    "broken", [{"url": None}, {"secret_master": None}, {"secret_generation": "x"}, {"events": 5}], ids=str
)
def test_a_broken_row_is_left_out_of_lists_and_logged_without_its_content(
    store: Store, logged: io.StringIO, broken: dict[str, Any]
) -> None:
    good = added(store, a_new_endpoint())
    bad = added(store, a_new_endpoint(description="do not tell"))
    change_row(store, bad, **broken)

    assert run(store.webhook_endpoints.in_workspace(ACME)) == [good]
    assert list(pages(store, 100)) == [[good]]
    with pytest.raises(UnreadableRow):
        found(store, bad)
    assert '"row_unreadable"' in logged.getvalue()
    assert "do not tell" not in logged.getvalue()
    assert run(store.webhook_endpoints.delete(ACME, bad.endpoint_id))

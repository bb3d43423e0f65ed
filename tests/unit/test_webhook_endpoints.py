import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from pi_voice.domain.errors import (
    AlreadyProcessed,
    InvalidApiKey,
    InvalidRequest,
    SettingsError,
    StorageError,
    WebhookEndpointNotFound,
)
from pi_voice.domain.ids import AgentId, EndpointId, is_uuid
from pi_voice.domain.webhook_endpoint_api import (
    CreateWebhookEndpointRequest,
    ListWebhookEndpointsQuery,
    WebhookEndpoint,
    WebhookEndpointWithSecret,
)
from pi_voice.domain.webhook_endpoints import MAX_ENDPOINTS, SecretVersion
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets
from pi_voice.use_cases.create_webhook_endpoint import CreateWebhookEndpoint
from pi_voice.use_cases.manage_webhook_endpoints import ManageWebhookEndpoints
from pi_voice.use_cases.rotate_webhook_secret import RotateWebhookSecret
from pi_voice.use_cases.update_webhook_endpoint import UpdateWebhookEndpoint
from tests.support.fakes import (
    FakeAgents,
    FakeCaller,
    FakeClock,
    FakeWebhookEndpoints,
    FakeWebhookTargets,
    UnknownCaller,
)
from tests.unit.examples import AGENT_ID, ENDPOINT_ID, NOW, WEBHOOK_SECRETS, agent, webhook_endpoint

ACME, GLOBEX = FakeCaller("acme"), FakeCaller("globex")
URL = "https://hooks.example.com/old"
OTHER_URL = "https://hooks.example.com/new"
DAY = 86_400
FIRST, SECOND = SecretVersion("a1", 1), SecretVersion("a1", 2)
ROTATED_MASTER = WebhookSecrets(lambda: Masters("b2", {"a1": "m" * 32, "b2": "n" * 32}))


def request(**fields: JsonValue) -> CreateWebhookEndpointRequest:
    return CreateWebhookEndpointRequest.model_validate_json(json.dumps({"url": URL, **fields}))


def create(
    endpoints: FakeWebhookEndpoints,
    *,
    targets: FakeWebhookTargets | None = None,
    secrets: WebhookSecrets = WEBHOOK_SECRETS,
    request_hash: str | None = None,
    caller: FakeCaller | UnknownCaller = ACME,
    **fields: JsonValue,
) -> WebhookEndpointWithSecret:
    """Create an endpoint of `acme`, which has one agent."""
    create_webhook_endpoint = CreateWebhookEndpoint(
        endpoints, FakeAgents(agent()), targets or FakeWebhookTargets(), secrets, FakeClock(NOW)
    )
    return asyncio.run(create_webhook_endpoint(request(**fields), caller, request_hash))


def update(
    endpoints: FakeWebhookEndpoints,
    patch: dict[str, JsonValue],
    *,
    targets: FakeWebhookTargets | None = None,
    caller: FakeCaller | UnknownCaller = ACME,
) -> WebhookEndpoint:
    """Patch the only endpoint, a minute after it was created."""
    update_webhook_endpoint = UpdateWebhookEndpoint(
        endpoints, FakeAgents(agent()), targets or FakeWebhookTargets(), FakeClock(NOW + 60)
    )
    return asyncio.run(update_webhook_endpoint(ENDPOINT_ID, patch, caller))


def rotate(
    endpoints: FakeWebhookEndpoints,
    *,
    at: int = NOW + 60,
    secrets: WebhookSecrets = WEBHOOK_SECRETS,
    request_hash: str | None = None,
    caller: FakeCaller | UnknownCaller = ACME,
) -> WebhookEndpointWithSecret:
    rotate_webhook_secret = RotateWebhookSecret(endpoints, secrets, FakeClock(at))
    return asyncio.run(rotate_webhook_secret(ENDPOINT_ID, caller, request_hash))


def get(endpoints: FakeWebhookEndpoints, at: int = NOW + 60) -> WebhookEndpoint:
    return asyncio.run(ManageWebhookEndpoints(endpoints, FakeClock(at)).get_webhook_endpoint(ENDPOINT_ID, ACME))


def paths(error: InvalidRequest) -> list[str]:
    return [detail.path for detail in error.details]


# ---- Create -----------------------------------------------------------------------------------------


def test_a_created_endpoint_has_the_defaults_and_its_first_secret() -> None:
    endpoints = FakeWebhookEndpoints()

    created = create(endpoints)

    assert is_uuid(created.endpoint_id)
    assert created.model_dump(mode="json") == {
        "endpoint_id": created.endpoint_id,
        "url": URL,
        "events": [],
        "include": [],
        "agent_id": None,
        "description": "",
        "active": True,
        "created_at": NOW,
        "updated_at": NOW,
        "failing_since": None,
        "resting_until": None,
        "disabled_at": None,
        "disabled_reason": None,
        "previous_secret_ends_at": None,
        "secret": WEBHOOK_SECRETS.reveal(created.endpoint_id, FIRST),
    }


def test_a_created_endpoint_is_stored_without_its_secret() -> None:
    endpoints = FakeWebhookEndpoints()

    created = create(endpoints, events=["session.completed"], include=["results"], agent_id=AGENT_ID, active=False)

    [stored] = endpoints.stored.values()
    assert stored == webhook_endpoint(
        endpoint_id=created.endpoint_id,
        events=("session.completed",),
        include=("results",),
        agent_id=AGENT_ID,
        active=False,
    )
    assert created.secret not in repr(stored)


def test_a_new_secret_has_the_current_master() -> None:
    endpoints = FakeWebhookEndpoints()

    created = create(endpoints, secrets=ROTATED_MASTER)

    [stored] = endpoints.stored.values()
    assert stored.secret == SecretVersion("b2", 1)
    assert created.secret == ROTATED_MASTER.reveal(created.endpoint_id, SecretVersion("b2", 1))


def test_a_refused_url_stores_nothing() -> None:
    endpoints, targets = FakeWebhookEndpoints(), FakeWebhookTargets(URL)

    with pytest.raises(InvalidRequest) as raised:
        create(endpoints, targets=targets)

    assert paths(raised.value) == ["url"]
    assert (endpoints.stored, targets.checked) == ({}, [URL])


@pytest.mark.parametrize(
    ("caller", "agent_id"),
    [(ACME, "019a0000-0000-7000-8000-00000000000a"), (ACME, ""), (ACME, "x"), (GLOBEX, AGENT_ID)],
)
def test_an_endpoint_s_agent_is_one_of_the_workspace(caller: FakeCaller, agent_id: str) -> None:
    endpoints, targets = FakeWebhookEndpoints(), FakeWebhookTargets()

    with pytest.raises(InvalidRequest) as raised:
        create(endpoints, targets=targets, agent_id=agent_id, caller=caller)

    assert paths(raised.value) == ["agent_id"]
    assert (endpoints.stored, targets.checked) == ({}, [])


def test_an_unknown_caller_makes_no_host_looked_up() -> None:
    targets = FakeWebhookTargets()

    with pytest.raises(InvalidApiKey):
        create(FakeWebhookEndpoints(), targets=targets, caller=UnknownCaller())
    assert targets.checked == []


def full() -> FakeWebhookEndpoints:
    """Return the store of a workspace with one endpoint fewer than the limit."""
    ids = (EndpointId(f"019a0000-0000-7000-8000-{number:012x}") for number in range(MAX_ENDPOINTS - 1))
    return FakeWebhookEndpoints(*(webhook_endpoint(endpoint_id=endpoint_id) for endpoint_id in ids))


def test_a_workspace_has_at_most_fifty_endpoints() -> None:
    endpoints = full()
    create(endpoints)

    with pytest.raises(InvalidRequest, match="has 50 webhook endpoints, which is the limit"):
        create(endpoints)
    assert len(endpoints.stored) == 50
    assert create(endpoints, caller=GLOBEX).active


def test_concurrent_requests_do_not_exceed_the_limit() -> None:
    endpoints = full()
    create_webhook_endpoint = CreateWebhookEndpoint(
        endpoints, FakeAgents(), FakeWebhookTargets(), WEBHOOK_SECRETS, FakeClock(NOW)
    )

    async def race() -> list[Any]:
        rivals = (create_webhook_endpoint(request(), ACME) for _ in range(5))
        return await asyncio.gather(*rivals, return_exceptions=True)

    outcomes = asyncio.run(race())

    created = [each for each in outcomes if isinstance(each, WebhookEndpointWithSecret)]
    assert len(endpoints.stored) == MAX_ENDPOINTS - 1 + len(created) <= MAX_ENDPOINTS
    assert {type(each) for each in outcomes} <= {InvalidRequest, WebhookEndpointWithSecret}


def test_without_a_master_nothing_is_stored() -> None:
    def no_masters() -> Masters:
        raise SettingsError("WEBHOOK_MASTER_ID is not set.")

    endpoints = FakeWebhookEndpoints()

    with pytest.raises(SettingsError):
        create(endpoints, secrets=WebhookSecrets(no_masters))
    assert endpoints.stored == {}


def test_a_request_that_crashed_after_the_write_is_recognized_by_its_hash() -> None:
    endpoints = FakeWebhookEndpoints()
    created = create(endpoints, request_hash="h1")

    with pytest.raises(AlreadyProcessed) as raised:
        create(endpoints, request_hash="h1")

    assert raised.value.resource_id == created.endpoint_id
    assert len(endpoints.stored) == 1
    assert create(endpoints, request_hash="h2").endpoint_id != created.endpoint_id


def test_a_repeated_create_returns_the_endpoint_with_its_secret() -> None:
    endpoints = FakeWebhookEndpoints()
    created = create(endpoints)
    repeating = CreateWebhookEndpoint(endpoints, FakeAgents(), FakeWebhookTargets(), WEBHOOK_SECRETS, FakeClock(NOW))

    assert asyncio.run(repeating.repeat(created.endpoint_id, ACME)) == created
    with pytest.raises(WebhookEndpointNotFound):
        asyncio.run(repeating.repeat(created.endpoint_id, GLOBEX))


# ---- Update -----------------------------------------------------------------------------------------


def test_an_update_changes_the_fields_it_names() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint(events=("session.failed",), include=("results",)))

    updated = update(endpoints, {"events": ["session.started"], "agent_id": AGENT_ID, "description": "Mine"})

    [stored] = endpoints.stored.values()
    assert stored == webhook_endpoint(
        events=("session.started",),
        include=("results",),
        agent_id=AGENT_ID,
        description="Mine",
        updated_at=NOW + 60,
        revision=2,
    )
    assert (updated.events, updated.description, updated.updated_at) == (("session.started",), "Mine", NOW + 60)


def test_null_resets_a_field() -> None:
    before = webhook_endpoint(events=("session.failed",), agent_id=AGENT_ID, description="Mine", active=False)
    endpoints = FakeWebhookEndpoints(before)

    updated = update(endpoints, {"events": None, "agent_id": None, "description": None, "active": None})

    assert (updated.events, updated.agent_id, updated.description, updated.active) == ((), None, "", True)


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"url": None}, "url"),
        ({"url": ""}, "url"),
        ({"events": ["session.ended"]}, "events.0"),
        ({"active": "yes"}, "active"),
        ({"secret": "whsec_mine"}, "secret"),
        ({"disabled_at": None}, "disabled_at"),
        ({"agent_id": "x"}, "agent_id"),
    ],
)
def test_a_result_that_is_not_valid_is_refused_by_its_path(patch: dict[str, JsonValue], path: str) -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())

    with pytest.raises(InvalidRequest) as raised:
        update(endpoints, patch)

    assert paths(raised.value) == [path]
    assert endpoints.writes == 0


def test_an_update_without_a_change_writes_nothing() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())

    assert update(endpoints, {"active": True, "url": URL}).updated_at == NOW
    assert endpoints.writes == 0


def test_a_url_and_an_agent_are_checked_only_when_they_change() -> None:
    gone = AgentId("019a0000-0000-7000-8000-0000000000aa")
    endpoints, targets = FakeWebhookEndpoints(webhook_endpoint(agent_id=gone)), FakeWebhookTargets(URL)

    update(endpoints, {"description": "Mine", "url": URL, "agent_id": gone}, targets=targets)
    assert targets.checked == []
    with pytest.raises(InvalidRequest):
        update(endpoints, {"url": OTHER_URL}, targets=FakeWebhookTargets(OTHER_URL))
    assert endpoints.stored[ENDPOINT_ID].url == URL


def test_a_new_url_starts_without_failures_and_stays_disabled() -> None:
    disabled = webhook_endpoint(failing_since=NOW - 5, disabled_at=NOW, disabled_reason="failing")
    endpoints = FakeWebhookEndpoints(disabled)

    updated = update(endpoints, {"url": OTHER_URL})

    assert (updated.url, updated.failing_since, updated.disabled_at) == (OTHER_URL, None, NOW)


def test_active_true_enables_a_disabled_endpoint() -> None:
    disabled = webhook_endpoint(
        failing_since=NOW - 5, timeouts=9, resting_until=NOW + 5, disabled_at=NOW, disabled_reason="failing"
    )
    endpoints = FakeWebhookEndpoints(disabled)

    assert update(endpoints, {"description": "x"}).disabled_reason == "failing"
    updated = update(endpoints, {"active": True})

    assert (updated.failing_since, updated.disabled_at, updated.disabled_reason) == (None, None, None)
    assert endpoints.stored[ENDPOINT_ID].receives
    assert not endpoints.stored[ENDPOINT_ID].hangs


@pytest.mark.parametrize(("patch", "failing_since"), [({"active": True}, NOW - 5), ({"url": OTHER_URL}, None)])
def test_the_owner_ends_the_rest_of_an_endpoint_that_hangs(
    patch: dict[str, JsonValue], failing_since: int | None
) -> None:
    hanging = webhook_endpoint(failing_since=NOW - 5, timeouts=2, resting_until=NOW + 300)
    endpoints = FakeWebhookEndpoints(hanging)

    assert update(endpoints, {"description": "x"}).resting_until == NOW + 300
    updated = update(endpoints, patch)

    assert (updated.resting_until, updated.failing_since) == (None, failing_since)
    assert endpoints.stored[ENDPOINT_ID].timeouts == 0


def test_two_concurrent_updates_both_apply() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())
    update_webhook_endpoint = UpdateWebhookEndpoint(endpoints, FakeAgents(), FakeWebhookTargets(), FakeClock(NOW + 60))

    async def race() -> None:
        await asyncio.gather(
            update_webhook_endpoint(ENDPOINT_ID, {"description": "Mine"}, ACME),
            update_webhook_endpoint(ENDPOINT_ID, {"include": ["results"]}, ACME),
        )

    asyncio.run(race())

    stored = endpoints.stored[ENDPOINT_ID]
    assert (stored.description, stored.include, stored.revision) == ("Mine", ("results",), 3)


class NeverSaves(FakeWebhookEndpoints):
    """A store in which another request is always first."""

    async def update(self, *_: Any) -> None:
        return None

    async def rotate(self, *_: Any) -> None:
        return None


def test_an_update_that_always_loses_is_a_storage_error() -> None:
    with pytest.raises(StorageError):
        update(NeverSaves(webhook_endpoint()), {"description": "Mine"})


def test_another_workspace_s_endpoint_is_not_found() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())
    manage = ManageWebhookEndpoints(endpoints)

    for work in (
        lambda: update(endpoints, {"description": "Mine"}, caller=GLOBEX),
        lambda: rotate(endpoints, caller=GLOBEX),
        lambda: asyncio.run(manage.get_webhook_endpoint(ENDPOINT_ID, GLOBEX)),
        lambda: asyncio.run(manage.delete_webhook_endpoint(ENDPOINT_ID, GLOBEX)),
    ):
        with pytest.raises(WebhookEndpointNotFound):
            work()
    assert endpoints.writes == 0
    assert asyncio.run(manage.list_webhook_endpoints(ListWebhookEndpointsQuery(), GLOBEX)).data == []


# ---- Rotate -----------------------------------------------------------------------------------------


def test_a_rotation_returns_the_next_secret_and_the_one_before_signs_too_for_a_day() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())

    rotated = rotate(endpoints)

    assert rotated.secret == WEBHOOK_SECRETS.reveal(ENDPOINT_ID, SECOND)
    assert rotated.previous_secret_ends_at == NOW + 60 + DAY
    stored = endpoints.stored[ENDPOINT_ID]
    assert stored.secrets_at(NOW + 60 + DAY - 1) == (SECOND, FIRST)
    assert stored.secrets_at(NOW + 60 + DAY) == (SECOND,)
    assert get(endpoints, NOW + 60 + DAY - 1).previous_secret_ends_at == NOW + 60 + DAY
    assert get(endpoints, NOW + 60 + DAY).previous_secret_ends_at is None


def test_a_rotation_takes_the_current_master_and_the_one_before_keeps_its_own() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())

    rotated = rotate(endpoints, secrets=ROTATED_MASTER)

    stored = endpoints.stored[ENDPOINT_ID]
    assert stored.secrets_at(NOW + 61) == (SecretVersion("b2", 2), FIRST)
    assert rotated.secret == ROTATED_MASTER.reveal(ENDPOINT_ID, SecretVersion("b2", 2))


def test_a_second_rotation_within_the_day_keeps_the_last_two_secrets() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())
    rotate(endpoints)

    again = rotate(endpoints, at=NOW + 120)

    assert again.previous_secret_ends_at == NOW + 120 + DAY
    assert endpoints.stored[ENDPOINT_ID].secrets_at(NOW + 121) == (SecretVersion("a1", 3), SECOND)


def test_a_repeated_rotation_is_recognized_by_its_hash() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())
    rotated = rotate(endpoints, request_hash="h1")

    with pytest.raises(AlreadyProcessed) as raised:
        rotate(endpoints, request_hash="h1")

    assert raised.value.resource_id == ENDPOINT_ID
    assert endpoints.stored[ENDPOINT_ID].secret == SECOND
    repeating = RotateWebhookSecret(endpoints, WEBHOOK_SECRETS, FakeClock(NOW + 60))
    assert asyncio.run(repeating.repeat(ENDPOINT_ID, ACME)) == rotated


def test_a_rotation_whose_answer_was_lost_is_not_made_twice() -> None:
    class Losing(FakeWebhookEndpoints):
        """A store that rotates, and then says that another request was first, as after a repeated write."""

        async def rotate(self, before: Any, after: Any) -> None:
            await super().rotate(before, after)

    endpoints = Losing(webhook_endpoint())

    assert rotate(endpoints).secret == WEBHOOK_SECRETS.reveal(ENDPOINT_ID, SECOND)
    assert endpoints.stored[ENDPOINT_ID].secrets_at(NOW + 61) == (SECOND, FIRST)


def test_concurrent_rotations_each_make_a_secret_of_their_own() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())
    rotate_webhook_secret = RotateWebhookSecret(endpoints, WEBHOOK_SECRETS, FakeClock(NOW + 60))

    async def race() -> set[str]:
        rotated = await asyncio.gather(*(rotate_webhook_secret(ENDPOINT_ID, ACME) for _ in range(2)))
        return {each.secret for each in rotated}

    assert asyncio.run(race()) == {
        WEBHOOK_SECRETS.reveal(ENDPOINT_ID, SecretVersion("a1", number)) for number in (2, 3)
    }
    assert endpoints.stored[ENDPOINT_ID].secrets_at(NOW + 61) == (SecretVersion("a1", 3), SECOND)


def test_a_rotation_and_an_update_at_the_same_time_both_apply() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())
    update_webhook_endpoint = UpdateWebhookEndpoint(endpoints, FakeAgents(), FakeWebhookTargets(), FakeClock(NOW + 60))

    async def race() -> None:
        await asyncio.gather(
            RotateWebhookSecret(endpoints, WEBHOOK_SECRETS, FakeClock(NOW + 60))(ENDPOINT_ID, ACME),
            update_webhook_endpoint(ENDPOINT_ID, {"description": "Mine"}, ACME),
        )

    asyncio.run(race())

    stored = endpoints.stored[ENDPOINT_ID]
    assert (stored.secret, stored.description) == (SECOND, "Mine")


def test_a_rotation_that_always_loses_is_a_storage_error() -> None:
    with pytest.raises(StorageError):
        rotate(NeverSaves(webhook_endpoint()))


# ---- Get, list and delete ---------------------------------------------------------------------------


def test_an_endpoint_is_shown_without_its_secret() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint(disabled_at=NOW, disabled_reason="gone"))

    shown = get(endpoints)

    assert (shown.disabled_at, shown.disabled_reason) == (NOW, "gone")
    assert "secret" not in shown.model_dump()


def test_what_a_newer_version_stored_is_shown() -> None:
    newer = webhook_endpoint(events=("session.paused",), include=("summary",), disabled_reason="slow")

    shown = json.loads(get(FakeWebhookEndpoints(newer)).model_dump_json(warnings=False))

    assert (shown["events"], shown["include"], shown["disabled_reason"]) == (["session.paused"], ["summary"], "slow")


def test_endpoints_are_listed_newest_first() -> None:
    newer = replace(webhook_endpoint(), endpoint_id=EndpointId("019a0000-0000-7000-8000-0000000000e2"))
    manage = ManageWebhookEndpoints(FakeWebhookEndpoints(webhook_endpoint(), newer))

    page = asyncio.run(manage.list_webhook_endpoints(ListWebhookEndpointsQuery(limit=2), ACME))

    assert [endpoint.endpoint_id for endpoint in page.data] == [newer.endpoint_id, ENDPOINT_ID]


def test_a_deleted_endpoint_is_gone() -> None:
    endpoints = FakeWebhookEndpoints(webhook_endpoint())
    manage = ManageWebhookEndpoints(endpoints)

    asyncio.run(manage.delete_webhook_endpoint(ENDPOINT_ID, ACME))

    with pytest.raises(WebhookEndpointNotFound):
        asyncio.run(manage.delete_webhook_endpoint(ENDPOINT_ID, ACME))
    assert endpoints.stored == {}

import asyncio

import pytest

from pi_voice.domain import api_keys
from pi_voice.domain.api_keys import CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest
from pi_voice.domain.errors import ApiKeyNotFound
from pi_voice.use_cases.manage_api_keys import ManageApiKeys
from tests.support.fakes import FakeApiKeys, FakeClock
from tests.unit.examples import NOW


def create_api_key(
    keys: FakeApiKeys, clock: FakeClock, workspace: str = "acme", name: str = "backend"
) -> api_keys.CreatedApiKey:
    """Create a key as an operator does."""
    return asyncio.run(ManageApiKeys(keys, clock).create_api_key(CreateApiKeyRequest(workspace=workspace, name=name)))


def test_a_created_key_is_returned_with_its_secret() -> None:
    keys, clock = FakeApiKeys(), FakeClock()

    created = create_api_key(keys, clock, name="backend")

    assert api_keys.parse(created.api_key).reveal() == created.api_key
    assert (created.workspace, created.name, created.created_at) == ("acme", "backend", 1_800_000_000)


def test_the_secret_of_a_key_is_not_stored() -> None:
    keys, clock = FakeApiKeys(), FakeClock()

    created = create_api_key(keys, clock)

    assert created.api_key not in repr(keys.stored)
    assert [key.hint for key in keys.stored.values()] == [created.api_key[-4:]]


def test_a_workspace_s_keys_are_listed_newest_first_without_their_secrets() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    created = []
    for name in ("first", "second"):
        created.append(create_api_key(keys, clock, name=name))
        clock.now += 1
    create_api_key(keys, clock, "globex")

    page = asyncio.run(ManageApiKeys(keys, clock).list_api_keys(ListApiKeysRequest(workspace="acme")))

    assert [key.name for key in page.data] == ["second", "first"]
    assert page.next_cursor is None
    listed = page.model_dump_json()
    assert [key.key_id for key in created if key.key_id not in listed] == []
    assert [key.api_key for key in created if key.api_key in listed] == []


def test_revoking_a_key_again_keeps_the_first_time() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    request = RevokeApiKeyRequest(workspace="acme", key_id=create_api_key(keys, clock).key_id)

    first = asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(request))
    clock.now += 100
    second = asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(request))

    assert first.revoked_at == NOW
    assert second == first


@pytest.mark.parametrize("workspace", ["globex", "acme"])
def test_a_key_of_another_workspace_or_an_unknown_key_cannot_be_revoked(workspace: str) -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    key_id = create_api_key(keys, clock, "acme").key_id
    request = RevokeApiKeyRequest(workspace=workspace, key_id=key_id if workspace == "globex" else "no-such-key")

    with pytest.raises(ApiKeyNotFound):
        asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(request))

    assert [key.revoked_at for key in keys.stored.values()] == [None]

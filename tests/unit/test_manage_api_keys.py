import asyncio

import pytest

from pi_voice.domain import api_keys
from pi_voice.domain.api_keys import CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest
from pi_voice.domain.errors import ApiKeyNotFound
from pi_voice.use_cases.manage_api_keys import ManageApiKeys
from tests.fakes import FakeApiKeys, FakeClock
from tests.unit.examples import NOW


def issue(
    keys: FakeApiKeys, clock: FakeClock, workspace: str = "acme", name: str = "backend"
) -> api_keys.CreatedApiKey:
    """Make a key as an operator does."""
    return asyncio.run(ManageApiKeys(keys, clock).create_api_key(CreateApiKeyRequest(workspace=workspace, name=name)))


def test_a_key_is_issued_with_its_secret_once() -> None:
    keys, clock = FakeApiKeys(), FakeClock()

    issued = issue(keys, clock, name="backend")

    assert api_keys.parse(issued.api_key).reveal() == issued.api_key
    assert (issued.workspace, issued.name, issued.created_at) == ("acme", "backend", 1_800_000_000)


def test_nothing_that_is_kept_of_a_key_holds_its_secret() -> None:
    keys, clock = FakeApiKeys(), FakeClock()

    issued = issue(keys, clock)

    assert issued.api_key not in repr(keys.kept)
    assert [key.hint for key in keys.kept.values()] == [issued.api_key[-4:]]


def test_a_workspace_s_keys_are_listed_newest_first_without_their_secrets() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    issued = []
    for name in ("first", "second"):
        issued.append(issue(keys, clock, name=name))
        clock.now += 1
    issue(keys, clock, "globex")

    page = asyncio.run(ManageApiKeys(keys, clock).list_api_keys(ListApiKeysRequest(workspace="acme")))

    assert [key.name for key in page.data] == ["second", "first"]
    assert page.next_cursor is None
    assert all(key.api_key not in page.model_dump_json() for key in issued)


def test_a_key_is_revoked_once_and_the_first_time_stands() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    order = RevokeApiKeyRequest(workspace="acme", key_id=issue(keys, clock).key_id)

    first = asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(order))
    clock.now += 100
    second = asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(order))

    assert first.revoked_at == NOW
    assert second == first


@pytest.mark.parametrize("workspace", ["globex", "acme"])
def test_a_key_that_a_workspace_does_not_have_cannot_be_revoked(workspace: str) -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    key_id = issue(keys, clock, "acme").key_id
    order = RevokeApiKeyRequest(workspace=workspace, key_id=key_id if workspace == "globex" else "no-such-key")

    with pytest.raises(ApiKeyNotFound):
        asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(order))

    assert [key.revoked_at for key in keys.kept.values()] == [None]

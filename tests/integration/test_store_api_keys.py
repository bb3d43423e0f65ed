"""API keys in DynamoDB."""

import asyncio
import io
import json
from typing import Any

import pytest

from pi_voice.domain import api_keys
from pi_voice.domain.api_keys import ApiKey, Secret
from pi_voice.domain.errors import UnreadableRow
from pi_voice.domain.ids import KeyHash, KeyId, WorkspaceId, uuid7
from tests.integration.samples import ACME, GLOBEX, NOW, id_made_at
from tests.integration.store import Request, Store, never_sent

run = asyncio.run


def a_key(workspace: WorkspaceId = ACME, second: int = NOW, **changes: Any) -> tuple[ApiKey, Secret]:
    secret = api_keys.generate()
    key = ApiKey(
        key_id=KeyId(id_made_at(second)), workspace=workspace, name="Büro 1", hint=secret.hint, created_at=second
    )
    return key.model_copy(update=changes), secret


def added(store: Store, workspace: WorkspaceId = ACME, second: int = NOW) -> tuple[ApiKey, Secret]:
    key, secret = a_key(workspace, second)
    run(store.api_keys.add(key, secret.hash))
    return key, secret


def test_a_key_is_found_only_by_the_hash_of_its_secret(store: Store) -> None:
    key, secret = added(store)
    _, another = added(store, GLOBEX)

    assert run(store.api_keys.find(secret.hash)) == key
    assert run(store.api_keys.find(another.hash)) != key
    assert run(store.api_keys.find(KeyHash("0" * 64))) is None


def test_the_secret_of_a_key_is_not_stored(store: Store) -> None:
    _, secret = added(store)

    stored = store.words()

    assert secret.hash in stored
    assert secret.reveal() not in stored
    assert secret.reveal().removeprefix(api_keys.PREFIX)[:-6] not in stored


def test_a_workspace_lists_all_its_keys_newest_first(store: Store) -> None:
    older, _ = added(store, second=NOW)
    added(store, GLOBEX, NOW + 1)
    newer, _ = added(store, second=NOW + 2)

    assert run(store.api_keys.in_workspace(ACME)) == [newer, older]
    assert run(store.api_keys.in_workspace(WorkspaceId("acm"))) == []


def test_keys_in_several_responses_are_all_returned(store: Store) -> None:
    keys = [added(store, second=NOW + second)[0] for second in range(5)]

    def two_at_a_time(query: Request) -> Request:
        return lambda **arguments: query(**arguments, Limit=2)

    assert run(store.through(query=two_at_a_time).api_keys.in_workspace(ACME)) == keys[::-1]


def test_a_revoked_key_is_stored_with_the_time_of_its_revocation(store: Store) -> None:
    key, secret = added(store)

    revoked = run(store.api_keys.revoke(ACME, key.key_id, NOW + 10))

    assert revoked == key.model_copy(update={"revoked_at": NOW + 10})
    assert run(store.api_keys.find(secret.hash)) == revoked
    assert run(store.api_keys.in_workspace(ACME)) == [revoked]


def test_revoking_again_does_not_change_the_time(store: Store) -> None:
    key, _ = added(store)
    first = run(store.api_keys.revoke(ACME, key.key_id, NOW + 10))

    assert run(store.api_keys.revoke(ACME, key.key_id, NOW + 20)) == first


def test_another_workspaces_key_cannot_be_revoked(store: Store) -> None:
    key, secret = added(store, GLOBEX)

    assert run(store.api_keys.revoke(ACME, key.key_id, NOW + 10)) is None
    assert run(store.api_keys.find(secret.hash)) == key


def test_an_unknown_key_cannot_be_revoked_and_leaves_no_row(store: Store) -> None:
    assert run(store.api_keys.revoke(ACME, KeyId(uuid7()), NOW)) is None
    assert store.rows(store.names.api_keys) == []


@pytest.mark.parametrize("key_id", ["", "no-id", "0" * 32])
def test_an_invalid_key_id_sends_no_request(store: Store, key_id: str) -> None:
    silent = store.through(query=never_sent, update_item=never_sent)

    assert run(silent.api_keys.revoke(ACME, KeyId(key_id), NOW)) is None


# ---- Rows of other versions -------------------------------------------------------------------------

KEY_ID = KeyId(id_made_at(NOW))
LEAST = {"key_hash": {"S": "f" * 64}, "workspace": {"S": ACME}, "key_id": {"S": KEY_ID}, "created_at": {"N": str(NOW)}}


def stored(store: Store, **changes: Any) -> KeyHash:
    """Write a key as another version of the code might."""
    row = {name: value for name, value in {**LEAST, **changes}.items() if value is not None}
    store.dynamodb.put_item(TableName=store.names.api_keys, Item=row)
    return KeyHash("f" * 64)


def test_a_key_with_more_fields_is_read(store: Store) -> None:
    key_hash = stored(store, name={"S": "Büro"}, scopes={"SS": ["agents:read"]}, limits={"M": {"rate": {"N": "5"}}})

    key = ApiKey(key_id=KEY_ID, workspace=ACME, name="Büro", created_at=NOW)
    assert run(store.api_keys.find(key_hash)) == key
    assert run(store.api_keys.in_workspace(ACME)) == [key]
    assert run(store.api_keys.revoke(ACME, KEY_ID, NOW + 9)) == key.model_copy(update={"revoked_at": NOW + 9})


def test_revoking_a_key_keeps_the_fields_of_a_newer_version(store: Store) -> None:
    stored(store, scopes={"SS": ["agents:read"]})

    run(store.api_keys.revoke(ACME, KEY_ID, NOW + 9))

    assert store.rows(store.names.api_keys)[0]["scopes"] == {"SS": ["agents:read"]}


def test_a_key_with_fewer_fields_is_read(store: Store) -> None:
    key_hash = stored(store)

    key = run(store.api_keys.find(key_hash))

    assert key is not None
    assert (key.workspace, key.name, key.hint, key.revoked_at) == (ACME, "", "", None)


@pytest.mark.parametrize("broken", [{"created_at": None}, {"created_at": {"S": "secret"}}, {"name": {"N": "5"}}])
def test_a_broken_key_is_missing_from_lists_and_a_storage_error_alone(
    store: Store, logged: io.StringIO, broken: dict[str, Any]
) -> None:
    key_hash = stored(store, **broken)
    readable, _ = added(store)

    assert run(store.api_keys.in_workspace(ACME)) == [readable]
    with pytest.raises(UnreadableRow):
        run(store.api_keys.find(key_hash))

    line = json.loads(logged.getvalue().splitlines()[-1])
    assert (line["message"], line["key"]) == ("row_unreadable", {"key_hash": key_hash, "key_id": KEY_ID})
    assert line["table"] == store.names.api_keys
    assert "secret" not in logged.getvalue()


def test_a_broken_key_can_be_revoked(store: Store) -> None:
    stored(store, name={"N": "5"})

    with pytest.raises(UnreadableRow):
        run(store.api_keys.revoke(ACME, KEY_ID, NOW + 9))

    assert store.rows(store.names.api_keys)[0]["revoked_at"] == {"N": str(NOW + 9)}

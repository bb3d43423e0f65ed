import asyncio

import pytest

from pi_voice.domain import api_keys
from pi_voice.domain.api_keys import CreateApiKeyRequest, RevokeApiKeyRequest
from pi_voice.domain.errors import InvalidApiKey, SessionNotFound, StorageError
from pi_voice.domain.ids import SessionId, WorkspaceId
from pi_voice.ports import Scope, SessionCaller
from pi_voice.use_cases.authorization import ApiKeyVerifier, authorized_session
from pi_voice.use_cases.manage_api_keys import ManageApiKeys
from tests.fakes import (
    FakeApiKeys,
    FakeCaller,
    FakeClient,
    FakeClock,
    FakeSessions,
    SessionsThatCannotGet,
    UnknownCaller,
)
from tests.unit.examples import SESSION_ID, session


def issue(
    keys: FakeApiKeys, clock: FakeClock, workspace: str = "acme", name: str = "backend"
) -> api_keys.CreatedApiKey:
    """Make a key as an operator does."""
    return asyncio.run(ManageApiKeys(keys, clock).create_api_key(CreateApiKeyRequest(workspace=workspace, name=name)))


# ---- Who may call ---------------------------------------------------------------------------------------


def test_a_key_opens_its_workspace() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    secret = api_keys.parse(issue(keys, clock).api_key)

    assert asyncio.run(ApiKeyVerifier(keys, clock).workspace_of(secret)) == "acme"


def test_an_unknown_key_opens_nothing() -> None:
    with pytest.raises(InvalidApiKey):
        asyncio.run(ApiKeyVerifier(FakeApiKeys(), FakeClock()).workspace_of(api_keys.generate()))


def test_a_key_is_looked_up_once_a_minute() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    secret = api_keys.parse(issue(keys, clock).api_key)
    ring = ApiKeyVerifier(keys, clock)

    for _ in range(3):
        asyncio.run(ring.workspace_of(secret))
    clock.now += 59.9
    asyncio.run(ring.workspace_of(secret))
    assert keys.lookups == 1

    clock.now += 0.1
    asyncio.run(ring.workspace_of(secret))
    assert keys.lookups == 2


def test_a_revoked_key_works_for_no_more_than_a_minute() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    issued = issue(keys, clock)
    secret = api_keys.parse(issued.api_key)
    ring = ApiKeyVerifier(keys, clock)
    asyncio.run(ring.workspace_of(secret))

    asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(RevokeApiKeyRequest(workspace="acme", key_id=issued.key_id)))

    clock.now += 59.9
    assert asyncio.run(ring.workspace_of(secret)) == "acme"
    clock.now += 0.1
    with pytest.raises(InvalidApiKey):
        asyncio.run(ring.workspace_of(secret))


def test_a_revoked_key_never_works_where_it_was_not_known_yet() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    issued = issue(keys, clock)
    asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(RevokeApiKeyRequest(workspace="acme", key_id=issued.key_id)))

    with pytest.raises(InvalidApiKey):
        asyncio.run(ApiKeyVerifier(keys, clock).workspace_of(api_keys.parse(issued.api_key)))


def test_a_key_that_was_unknown_works_as_soon_as_it_is_made() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    ring, secret = ApiKeyVerifier(keys, clock), api_keys.generate()
    with pytest.raises(InvalidApiKey):
        asyncio.run(ring.workspace_of(secret))

    asyncio.run(ManageApiKeys(keys, clock).create_api_key(CreateApiKeyRequest(workspace="acme"), secret))

    assert asyncio.run(ring.workspace_of(secret)) == "acme"


def test_keys_of_different_workspaces_are_never_mixed_up() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    ours, theirs = issue(keys, clock, "acme"), issue(keys, clock, "globex")
    ring = ApiKeyVerifier(keys, clock)

    for _ in range(2):  # looked up, and remembered
        assert asyncio.run(ring.workspace_of(api_keys.parse(ours.api_key))) == "acme"
        assert asyncio.run(ring.workspace_of(api_keys.parse(theirs.api_key))) == "globex"


def test_a_key_ring_forgets_rather_than_grow_without_end() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    ring = ApiKeyVerifier(keys, clock)
    secrets = [api_keys.parse(issue(keys, clock).api_key) for _ in range(1_001)]

    async def use_all() -> None:
        for secret in secrets:
            await ring.workspace_of(secret)
        await ring.workspace_of(secrets[0])

    asyncio.run(use_all())

    assert keys.lookups == 1_002  # the first one's place was needed


# ---- What is theirs -------------------------------------------------------------------------------------


OTHER_ID = SessionId("019a0000-0000-7000-8000-00000000000f")


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        (Scope(workspace=WorkspaceId("acme")), True),
        (Scope(workspace=WorkspaceId("globex")), False),
        (Scope(workspace=WorkspaceId("")), False),
        (Scope(session_id=SESSION_ID), True),
        (Scope(session_id=OTHER_ID), False),
        (Scope(), False),
    ],
    ids=str,
)
def test_a_workspace_covers_its_sessions_and_a_session_itself_alone(scope: Scope, *, covered: bool) -> None:
    assert scope.covers(session("acme")) == covered


@pytest.mark.parametrize("visitor", [FakeCaller("acme"), FakeClient(SESSION_ID)], ids=str)
def test_a_session_is_open_to_its_workspace_and_to_its_own_client(visitor: SessionCaller) -> None:
    assert asyncio.run(authorized_session(visitor, FakeSessions(session()), SESSION_ID)) == session()


@pytest.mark.parametrize("visitor", [FakeCaller("globex"), FakeClient(OTHER_ID)], ids=str)
def test_to_anybody_else_a_session_is_as_unknown_as_one_that_never_was(visitor: SessionCaller) -> None:
    for sessions in (FakeSessions(session()), FakeSessions()):
        with pytest.raises(SessionNotFound):
            asyncio.run(authorized_session(visitor, sessions, SESSION_ID))


def test_a_client_whose_session_was_deleted_finds_nothing() -> None:
    with pytest.raises(SessionNotFound):
        asyncio.run(authorized_session(FakeClient(SESSION_ID), FakeSessions(), SESSION_ID))


def test_what_is_wrong_with_the_key_is_told_before_what_is_wrong_with_the_table() -> None:
    session_id = SessionId("0199a0f0-0000-7000-8000-000000000000")

    with pytest.raises(InvalidApiKey):
        asyncio.run(authorized_session(UnknownCaller(), SessionsThatCannotGet(), session_id))
    with pytest.raises(StorageError):
        asyncio.run(authorized_session(FakeCaller(), SessionsThatCannotGet(), session_id))

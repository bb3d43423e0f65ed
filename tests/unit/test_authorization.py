import asyncio

import pytest

from pi_voice.domain import api_keys
from pi_voice.domain.api_keys import CreateApiKeyRequest, RevokeApiKeyRequest
from pi_voice.domain.errors import InvalidApiKey, RateLimited, SessionNotFound, StorageError
from pi_voice.domain.ids import SessionId, WorkspaceId
from pi_voice.domain.sessions import Session
from pi_voice.ports import Scope, SessionCaller
from pi_voice.use_cases.authorization import ApiKeyVerifier, authorized_session
from pi_voice.use_cases.manage_api_keys import ManageApiKeys
from tests.support.fakes import (
    FakeApiKeys,
    FakeCaller,
    FakeClient,
    FakeClock,
    FakeRateLimiter,
    FakeSessions,
    SessionsThatCannotGet,
    UnknownCaller,
)
from tests.unit.examples import SESSION_ID, session


def create_api_key(
    keys: FakeApiKeys, clock: FakeClock, workspace: str = "acme", name: str = "backend"
) -> api_keys.CreatedApiKey:
    """Create a key as an operator does."""
    return asyncio.run(ManageApiKeys(keys, clock).create_api_key(CreateApiKeyRequest(workspace=workspace, name=name)))


# ---- API keys -------------------------------------------------------------------------------------------


def test_a_key_gives_its_workspace() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    secret = api_keys.parse(create_api_key(keys, clock).api_key)

    assert asyncio.run(ApiKeyVerifier(keys, clock).workspace_of(secret)) == "acme"


def test_an_unknown_key_is_invalid() -> None:
    with pytest.raises(InvalidApiKey):
        asyncio.run(ApiKeyVerifier(FakeApiKeys(), FakeClock()).workspace_of(api_keys.generate()))


def test_a_key_is_cached_for_a_minute() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    secret = api_keys.parse(create_api_key(keys, clock).api_key)
    verifier = ApiKeyVerifier(keys, clock)

    for _ in range(3):
        asyncio.run(verifier.workspace_of(secret))
    clock.now += 59.9
    asyncio.run(verifier.workspace_of(secret))
    assert keys.lookups == 1

    clock.now += 0.1
    asyncio.run(verifier.workspace_of(secret))
    assert keys.lookups == 2


def test_a_cached_key_works_for_a_minute_after_it_is_revoked() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    created = create_api_key(keys, clock)
    secret = api_keys.parse(created.api_key)
    verifier = ApiKeyVerifier(keys, clock)
    asyncio.run(verifier.workspace_of(secret))

    asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(RevokeApiKeyRequest(workspace="acme", key_id=created.key_id)))

    clock.now += 59.9
    assert asyncio.run(verifier.workspace_of(secret)) == "acme"
    clock.now += 0.1
    with pytest.raises(InvalidApiKey):
        asyncio.run(verifier.workspace_of(secret))


def test_a_revoked_key_that_is_not_cached_is_invalid() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    created = create_api_key(keys, clock)
    asyncio.run(ManageApiKeys(keys, clock).revoke_api_key(RevokeApiKeyRequest(workspace="acme", key_id=created.key_id)))

    with pytest.raises(InvalidApiKey):
        asyncio.run(ApiKeyVerifier(keys, clock).workspace_of(api_keys.parse(created.api_key)))


def test_an_unknown_key_is_not_cached() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    verifier, secret = ApiKeyVerifier(keys, clock), api_keys.generate()
    with pytest.raises(InvalidApiKey):
        asyncio.run(verifier.workspace_of(secret))

    asyncio.run(ManageApiKeys(keys, clock).create_api_key(CreateApiKeyRequest(workspace="acme"), secret))

    assert asyncio.run(verifier.workspace_of(secret)) == "acme"


def test_two_keys_of_a_workspace_are_cached_apart() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    verifier = ApiKeyVerifier(keys, clock)
    first, second = (api_keys.parse(create_api_key(keys, clock, name=name).api_key) for name in ("first", "second"))

    def lookups_after(*used: api_keys.Secret, later: float) -> int:
        clock.now += later
        before = keys.lookups
        for secret in used:
            assert asyncio.run(verifier.workspace_of(secret)) == "acme"
        return keys.lookups - before

    assert lookups_after(first, first, later=0) == 1
    assert lookups_after(second, second, first, later=30) == 1
    assert lookups_after(second, later=30) == 0
    assert lookups_after(first, later=0) == 1
    assert lookups_after(first, later=30) == 0
    assert lookups_after(second, later=0) == 1


def test_an_unknown_key_is_invalid_while_another_is_cached() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    verifier = ApiKeyVerifier(keys, clock)
    known = api_keys.parse(create_api_key(keys, clock).api_key)

    for _ in range(2):
        assert asyncio.run(verifier.workspace_of(known)) == "acme"
        with pytest.raises(InvalidApiKey):
            asyncio.run(verifier.workspace_of(api_keys.generate()))
    assert keys.lookups == 3


def test_each_key_gives_its_own_workspace() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    ours, theirs = create_api_key(keys, clock, "acme"), create_api_key(keys, clock, "globex")
    verifier = ApiKeyVerifier(keys, clock)

    for _ in range(2):  # from the store, then from the cache
        assert asyncio.run(verifier.workspace_of(api_keys.parse(ours.api_key))) == "acme"
        assert asyncio.run(verifier.workspace_of(api_keys.parse(theirs.api_key))) == "globex"
    assert keys.lookups == 2


def test_the_cache_is_cleared_at_1_000_keys() -> None:
    keys, clock = FakeApiKeys(), FakeClock()
    verifier = ApiKeyVerifier(keys, clock)
    secrets = [api_keys.parse(create_api_key(keys, clock).api_key) for _ in range(1_001)]

    async def use_all() -> None:
        for secret in secrets:
            await verifier.workspace_of(secret)
        await verifier.workspace_of(secrets[0])

    asyncio.run(use_all())

    assert keys.lookups == 1_002  # the first key is no longer cached


# ---- Sessions -------------------------------------------------------------------------------------------


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
def test_a_scope_covers_the_sessions_of_its_workspace_or_its_single_session(scope: Scope, *, covered: bool) -> None:
    assert scope.covers(session("acme")) == covered


@pytest.mark.parametrize("caller", [FakeCaller("acme"), FakeClient(SESSION_ID)], ids=str)
def test_a_session_is_found_by_its_workspace_and_by_its_own_client(caller: SessionCaller) -> None:
    assert asyncio.run(authorized_session(caller, FakeSessions(session()), SESSION_ID)) == session()


@pytest.mark.parametrize("caller", [FakeCaller("globex"), FakeClient(OTHER_ID)], ids=str)
def test_for_any_other_caller_an_existing_session_is_not_found(caller: SessionCaller) -> None:
    for sessions in (FakeSessions(session()), FakeSessions()):
        with pytest.raises(SessionNotFound):
            asyncio.run(authorized_session(caller, sessions, SESSION_ID))


def test_a_deleted_session_is_not_found_by_its_client() -> None:
    with pytest.raises(SessionNotFound):
        asyncio.run(authorized_session(FakeClient(SESSION_ID), FakeSessions(), SESSION_ID))


def test_an_invalid_key_takes_precedence_over_a_storage_error() -> None:
    session_id = SessionId("0199a0f0-0000-7000-8000-000000000000")

    with pytest.raises(InvalidApiKey):
        asyncio.run(authorized_session(UnknownCaller(), SessionsThatCannotGet(), session_id))
    with pytest.raises(StorageError):
        asyncio.run(authorized_session(FakeCaller(), SessionsThatCannotGet(), session_id))


# ---- Counted requests -----------------------------------------------------------------------------------


def test_a_request_with_an_invalid_key_is_not_counted() -> None:
    rate_limiter = FakeRateLimiter()

    with pytest.raises(InvalidApiKey):
        asyncio.run(authorized_session(UnknownCaller(), FakeSessions(session()), SESSION_ID, rate_limiter.acquire))

    assert rate_limiter.acquired == []


def test_a_request_for_a_session_of_another_workspace_is_counted() -> None:
    rate_limiter = FakeRateLimiter()

    with pytest.raises(SessionNotFound):
        asyncio.run(authorized_session(FakeCaller("globex"), FakeSessions(session()), SESSION_ID, rate_limiter.acquire))

    assert rate_limiter.acquired == ["globex"]


def test_a_caller_over_its_limit_does_not_learn_whether_a_session_exists() -> None:
    for sessions in (FakeSessions(session()), FakeSessions(), SessionsThatCannotGet()):
        with pytest.raises(RateLimited):
            asyncio.run(authorized_session(FakeCaller(), sessions, SESSION_ID, FakeRateLimiter(limit=0).acquire))


def test_a_request_is_counted_while_the_session_is_read() -> None:
    both = asyncio.Barrier(2)  # passed only if both requests are in flight

    class SessionsAtBarrier(FakeSessions):
        async def get(self, session_id: SessionId) -> Session | None:
            await both.wait()
            return await super().get(session_id)

    async def count(_: str) -> None:
        await both.wait()

    assert asyncio.run(authorized_session(FakeCaller(), SessionsAtBarrier(session()), SESSION_ID, count)) == session()

"""Sessions in DynamoDB that fail, are hung up or renewed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import RenewalLimitReached
from pi_voice.domain.extractions import ErrorInfo
from pi_voice.domain.sessions import Session
from tests.integration.samples import NOW, TURNS, UNPROVISIONED, a_call_end, a_session, added, found
from tests.integration.store import Store, sent_twice

run = asyncio.run

EXPIRED = ErrorInfo(code="expired", message='Never completed: "ä".')


def ended(store: Store) -> Session:
    done = run(store.sessions.complete(added(store), a_call_end()))
    assert done is not None
    return done


def failed(store: Store) -> Session:
    session = a_session().failed(EXPIRED, "expired", NOW)
    run(store.sessions.add(session))
    return session


def hung_up(store: Store) -> Session:
    session = run(store.sessions.hang_up(added(store), "stopped", NOW + 60))
    assert session is not None
    return session


def fail(store: Store, session: Session) -> Session | None:
    expired = session.failed(EXPIRED, "expired", NOW + 5_000)
    return run(store.sessions.fail(session, expired, close_room_at=NOW + 5_000))


# ---- Failing ----------------------------------------------------------------------------------------


def test_an_abandoned_session_fails_with_the_reason_and_the_duty_to_close_its_room(store: Store) -> None:
    session = added(store)

    failed_session = fail(store, session)

    assert failed_session
    assert failed_session == found(store, session)
    assert failed_session == replace(
        session,
        status="failed",
        failed_at=NOW + 5_000,
        failure=EXPIRED,
        end_reason="expired",
        duties=Duties().plus(close_room=NOW + 5_000, send_events=NOW + 5_010),
        owed_events=failed_session.owed_events,
    )
    assert [(event.type, event.at) for event in failed_session.owed_events] == [("session.failed", NOW + 5_000)]


def test_a_session_that_could_not_be_provisioned_has_only_the_duty_to_send_its_event(store: Store) -> None:
    session = added(store)
    unprovisioned = session.failed(UNPROVISIONED, "failed", NOW)

    failed_session = run(store.sessions.fail(session, unprovisioned, close_room_at=None))

    assert failed_session == found(store, session) == unprovisioned
    assert unprovisioned.duties == Duties().plus(send_events=NOW + 10)


def test_failing_a_hung_up_call_keeps_the_reason_of_the_hang_up(store: Store) -> None:
    failed_session = fail(store, hung_up(store))

    assert failed_session is not None
    assert failed_session.end_reason == "stopped"


def test_a_session_with_checkpoints_does_not_fail(store: Store) -> None:
    session = added(store)
    run(store.checkpoints.append(session, TURNS, 100, NOW))

    assert fail(store, session) is None
    assert found(store, session).status == "active"


def test_a_session_renewed_after_the_sweeper_read_it_does_not_end(store: Store) -> None:
    session = added(store)
    end = a_call_end(expires_at=session.expires_at)
    renewed = run(store.sessions.renew(session.session_id, session.expires_at + 60))

    assert fail(store, session) is None
    assert run(store.sessions.complete(session, end)) is None
    assert found(store, session) == renewed
    assert run(store.sessions.complete(session, end._replace(expires_at=session.expires_at + 60)))


@pytest.mark.parametrize("over", [ended, failed], ids=["completed", "failed"])
def test_a_session_that_has_ended_does_not_fail_again(store: Store, over: Callable[[Store], Session]) -> None:
    session = over(store)

    assert fail(store, session) is None
    assert found(store, session) == session


def test_a_failure_whose_first_response_was_lost_is_stored_once(store: Store) -> None:
    session = added(store)

    fail(store.through(update_item=sent_twice), session)

    assert (found(store, session).status, found(store, session).failed_at) == ("failed", NOW + 5_000)
    assert found(store, session).duties == Duties().plus(close_room=NOW + 5_000, send_events=NOW + 5_010)
    assert [event.type for event in found(store, session).owed_events] == ["session.failed"]


# ---- Hanging up -------------------------------------------------------------------------------------


def test_a_hung_up_call_stays_active_with_the_duty_to_close_its_room(store: Store) -> None:
    session = added(store, duties=Duties().plus(end_call=NOW + 4_200, hang_up=NOW + 75))

    hung_up_session = run(store.sessions.hang_up(session, "stopped", NOW + 60))

    duties = Duties().plus(end_call=NOW + 4_200, close_room=NOW + 60)
    assert hung_up_session == found(store, session)
    assert hung_up_session == replace(session, hung_up_at=NOW + 60, end_reason="stopped", duties=duties)


def test_a_second_hang_up_keeps_the_first_time_and_reason_and_closes_the_room_again(store: Store) -> None:
    first = run(store.sessions.hang_up(added(store), "cap", NOW + 75))
    assert first is not None
    closed = run(store.sessions.set_duties(first.session_id, first.duties, first.duties.without("close_room")))
    assert isinstance(closed, Session)

    again = run(store.sessions.hang_up(closed, "stopped", NOW + 90))

    assert again == replace(first, duties=closed.duties.plus(close_room=NOW + 90))


def test_a_hang_up_whose_first_response_was_lost_is_stored_once(store: Store) -> None:
    session = added(store)

    hung_up_session = run(store.through(update_item=sent_twice).sessions.hang_up(session, "stopped", NOW + 60))

    duties = session.duties.plus(close_room=NOW + 60)
    assert hung_up_session == found(store, session)
    assert hung_up_session == replace(session, hung_up_at=NOW + 60, end_reason="stopped", duties=duties)


@pytest.mark.parametrize("over", [ended, failed], ids=["completed", "failed"])
def test_a_session_that_has_ended_is_not_hung_up(store: Store, over: Callable[[Store], Session]) -> None:
    session = over(store)

    assert run(store.sessions.hang_up(session, "stopped", NOW + 300)) is None
    assert found(store, session) == session


# ---- Renewing ---------------------------------------------------------------------------------------


def test_a_renewal_moves_the_expiry_and_not_the_duties(store: Store) -> None:
    session = added(store)

    renewed = run(store.sessions.renew(session.session_id, NOW + 1_100))

    assert renewed == found(store, session) == replace(session, expires_at=NOW + 1_100)


@pytest.mark.parametrize("expires_at", [NOW + 600, NOW + 900, NOW + 1_100])
def test_a_renewal_never_moves_the_expiry_back(store: Store, expires_at: int) -> None:
    session = added(store)
    further = run(store.sessions.renew(session.session_id, NOW + 1_100))

    assert run(store.sessions.renew(session.session_id, expires_at)) == further
    assert found(store, session).expires_at == NOW + 1_100


def test_a_renewal_whose_first_response_was_lost_is_stored(store: Store) -> None:
    session = added(store)

    renewed = run(store.through(update_item=sent_twice).sessions.renew(session.session_id, NOW + 1_100))

    assert renewed == found(store, session) == replace(session, expires_at=NOW + 1_100)


def test_renewals_are_counted_up_to_20(store: Store) -> None:
    session = added(store)

    for number in range(20):
        counted = run(store.sessions.count_renewal(session.session_id))
        assert counted == replace(session, renewals=number + 1)
    with pytest.raises(RenewalLimitReached):
        run(store.sessions.count_renewal(session.session_id))

    assert found(store, session).renewals == 20


def test_concurrent_renewals_are_counted_apart(store: Store) -> None:
    session = added(store)

    def count(_: int) -> bool:
        try:
            return run(store.sessions.count_renewal(session.session_id)) is not None
        except RenewalLimitReached:
            return False

    with ThreadPoolExecutor(max_workers=8) as clients:
        outcomes = list(clients.map(count, range(32)))

    assert outcomes.count(True) == found(store, session).renewals == 20


@pytest.mark.parametrize("over", [ended, failed, hung_up], ids=["completed", "failed", "hung up"])
def test_a_renewal_of_an_ended_or_hung_up_call_is_not_counted(store: Store, over: Callable[[Store], Session]) -> None:
    session = over(store)

    assert run(store.sessions.count_renewal(session.session_id)) is None
    assert found(store, session) == session


@pytest.mark.parametrize("expires_at", [NOW + 600, NOW + 1_100])
@pytest.mark.parametrize("over", [ended, failed, hung_up], ids=["completed", "failed", "hung up"])
def test_an_ended_or_hung_up_call_is_not_renewed(
    store: Store, over: Callable[[Store], Session], expires_at: int
) -> None:
    session = over(store)

    assert run(store.sessions.renew(session.session_id, expires_at)) is None
    assert found(store, session) == session


def test_the_latest_expiry_of_concurrent_renewals_is_stored(store: Store) -> None:
    session = added(store)

    def renew(seconds: int) -> Session | None:
        return run(store.sessions.renew(session.session_id, NOW + 600 + seconds))

    with ThreadPoolExecutor(max_workers=8) as clients:
        outcomes = list(clients.map(renew, range(16)))

    assert None not in outcomes
    assert found(store, session).expires_at == NOW + 615

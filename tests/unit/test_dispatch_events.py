import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import AgentId, EndpointId, EventId
from pi_voice.domain.sessions import Session
from pi_voice.domain.webhook_deliveries import Delivery, delivery_id
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.domain.webhook_events import OwedEvent
from pi_voice.use_cases.dispatch_events import DispatchEvents
from tests.support.fakes import (
    BrokenDeliveryQueue,
    FakeClock,
    FakeDeliveryQueue,
    FakeSessions,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
)
from tests.unit.examples import AGENT_ID, NOW, SESSION_ID, session, webhook_endpoint

COMPLETED = OwedEvent.new("session.completed", NOW)
EXTRACTED = OwedEvent.new("extraction.succeeded", NOW + 7)
FIRST, SECOND = EndpointId("019a0000-0000-7000-8000-0000000000e1"), EndpointId("019a0000-0000-7000-8000-0000000000e2")


def owing(*events: OwedEvent) -> Session:
    return replace(session(), status="completed", owed_events=events, duties=Duties().plus(send_events=NOW + 10))


def subscribed(endpoint_id: EndpointId, *events: str, **fields: Any) -> WebhookEndpoint:
    return webhook_endpoint(endpoint_id=endpoint_id, events=events, **fields)


class Setup:
    """A DispatchEvents on fakes."""

    def __init__(
        self,
        stored: Session,
        *endpoints: WebhookEndpoint,
        sessions: FakeSessions | None = None,
        deliveries: FakeWebhookDeliveries | None = None,
        queue: FakeDeliveryQueue | None = None,
    ) -> None:
        self.sessions = sessions or FakeSessions(stored)
        self.endpoints = FakeWebhookEndpoints(*endpoints)
        self.deliveries = deliveries or FakeWebhookDeliveries()
        self.queue = queue or FakeDeliveryQueue()

    def dispatch(self, seconds: float = 5.0) -> None:
        dispatch_events = DispatchEvents(
            self.sessions, self.endpoints, self.deliveries, self.queue, FakeClock(NOW + 20.5)
        )
        asyncio.run(dispatch_events(SESSION_ID, seconds))

    @property
    def session(self) -> Session:
        return self.sessions.stored[SESSION_ID]


def test_a_subscribed_endpoint_gets_a_delivery_that_is_due_now() -> None:
    setup = Setup(owing(COMPLETED), subscribed(FIRST, "session.completed"))

    setup.dispatch()

    expected = Delivery(
        endpoint_id=FIRST,
        delivery_id=delivery_id(COMPLETED.event_id, FIRST),
        workspace=session().workspace,
        event_id=COMPLETED.event_id,
        type="session.completed",
        event_at=NOW,
        created_at=NOW + 20,
        session_id=SESSION_ID,
        due_at=NOW + 20,
    )
    assert (list(setup.deliveries.stored.values()), setup.queue.messages) == ([expected], [expected])
    assert (setup.session.owed_events, setup.session.duties) == ((), Duties())


@pytest.mark.parametrize(
    "endpoint",
    [
        subscribed(FIRST, "session.started"),
        subscribed(FIRST),
        subscribed(FIRST, "session.completed", active=False),
        subscribed(FIRST, "session.completed", disabled_at=NOW, disabled_reason="gone"),
        subscribed(FIRST, "session.completed", agent_id=AgentId("019a0000-0000-7000-8000-00000000000f")),
        subscribed(FIRST, "session.completed", workspace="globex"),
    ],
    ids=["of another event", "of none", "inactive", "disabled", "of another agent", "of another workspace"],
)
def test_an_endpoint_that_is_not_subscribed_gets_none(endpoint: WebhookEndpoint) -> None:
    setup = Setup(owing(COMPLETED), endpoint)

    setup.dispatch()

    assert (setup.deliveries.stored, setup.queue.messages) == ({}, [])
    assert (setup.session.owed_events, setup.session.duties) == ((), Duties())


@pytest.mark.parametrize("resting_until", [NOW - 500, NOW + 500])
def test_a_delivery_to_an_endpoint_that_hangs_is_stored_and_left_to_the_job(resting_until: int) -> None:
    hanging = subscribed(FIRST, "session.completed", timeouts=2, resting_until=resting_until)
    setup = Setup(owing(COMPLETED), hanging, subscribed(SECOND, "session.completed"))

    setup.dispatch()

    due = {each.endpoint_id: each.due_at for each in setup.deliveries.stored.values()}
    assert due == {FIRST: NOW + 20, SECOND: NOW + 20}
    assert [message.endpoint_id for message in setup.queue.messages] == [SECOND]
    assert (setup.session.owed_events, setup.session.duties) == ((), Duties())


def test_each_event_goes_to_each_endpoint_that_is_subscribed_to_it() -> None:
    setup = Setup(
        owing(COMPLETED, EXTRACTED),
        subscribed(FIRST, "session.completed", agent_id=AGENT_ID),
        subscribed(SECOND, "session.completed", "extraction.succeeded"),
    )

    setup.dispatch()

    assert {(each.endpoint_id, each.type, each.event_at) for each in setup.deliveries.stored.values()} == {
        (FIRST, "session.completed", NOW),
        (SECOND, "session.completed", NOW),
        (SECOND, "extraction.succeeded", NOW + 7),
    }


class SlowToStoreTheFirst(FakeWebhookDeliveries):
    async def add(self, delivery: Delivery) -> bool:
        for _ in range(10 if delivery.event_id == COMPLETED.event_id else 0):
            await asyncio.sleep(0)
        return await super().add(delivery)


def test_events_are_queued_in_their_order() -> None:
    both = subscribed(FIRST, "session.completed", "extraction.succeeded")
    setup = Setup(owing(COMPLETED, EXTRACTED), both, deliveries=SlowToStoreTheFirst())

    setup.dispatch()

    assert [each.type for each in setup.queue.messages] == ["session.completed", "extraction.succeeded"]


def test_a_second_message_makes_no_second_delivery_and_changes_nothing() -> None:
    setup = Setup(owing(COMPLETED), subscribed(FIRST, "session.completed"))
    setup.dispatch()
    before = (dict(setup.deliveries.stored), list(setup.queue.messages), setup.session, setup.sessions.writes)

    setup.dispatch()

    assert (setup.deliveries.stored, setup.queue.messages, setup.session, setup.sessions.writes) == before


def test_after_a_crash_the_delivery_is_queued_and_stays_as_it_was_stored() -> None:
    known = Setup(owing(COMPLETED), subscribed(FIRST, "session.completed"))
    known.dispatch()
    setup = Setup(owing(COMPLETED), subscribed(FIRST, "session.completed"), deliveries=known.deliveries)

    setup.dispatch()

    assert (len(setup.deliveries.stored), len(setup.queue.messages)) == (1, 1)
    assert setup.session.owed_events == ()


def test_a_deleted_session_owes_nothing() -> None:
    setup = Setup(owing(COMPLETED), subscribed(FIRST, "session.completed"))
    del setup.sessions.stored[SESSION_ID]

    setup.dispatch()

    assert setup.deliveries.stored == {}


def test_a_duty_without_events_is_removed() -> None:
    setup = Setup(owing())

    setup.dispatch()

    assert setup.session.duties == Duties()


def test_an_event_that_is_owed_meanwhile_stays_with_its_duty() -> None:
    class OwingMore(FakeSessions):
        async def clear_owed_events(self, session: Session, dispatched: Collection[EventId]) -> None:
            duties = EXTRACTED.duties_after(session.duties)
            self.stored[SESSION_ID] = replace(session, owed_events=(*session.owed_events, EXTRACTED), duties=duties)
            await super().clear_owed_events(session, dispatched)

    setup = Setup(owing(COMPLETED), sessions=OwingMore(owing(COMPLETED)))

    setup.dispatch()

    assert setup.session.owed_events == (EXTRACTED,)
    assert setup.session.duties == Duties({"send_events": Duty(NOW + 17)})


def test_an_endpoint_whose_delivery_cannot_be_stored_does_not_stop_the_others() -> None:
    class DeliveriesOfOne(FakeWebhookDeliveries):
        async def add(self, delivery: Delivery) -> bool:
            if (delivery.endpoint_id, delivery.type) == (FIRST, "session.completed"):
                raise StorageError
            return await super().add(delivery)

    events = ("session.completed", "extraction.succeeded")
    setup = Setup(
        owing(COMPLETED, EXTRACTED),
        subscribed(FIRST, *events),
        subscribed(SECOND, *events),
        deliveries=DeliveriesOfOne(),
    )

    with pytest.raises(StorageError):
        setup.dispatch()

    assert len(setup.deliveries.stored) == 3
    assert (setup.session.owed_events, setup.session.duties) == (
        (COMPLETED,),
        Duties().plus(send_events=NOW + 10),
    )


def test_a_delivery_that_cannot_be_queued_is_due_and_left_to_its_sweeper(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup(owing(COMPLETED), subscribed(FIRST, "session.completed"), queue=BrokenDeliveryQueue())

    setup.dispatch()

    [delivery] = setup.deliveries.stored.values()
    assert (delivery.due_at, setup.session.owed_events) == (NOW + 20, ())
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == ["delivery_not_queued"]


def test_a_dispatch_that_hangs_ends_at_its_time_limit_and_the_events_stay() -> None:
    class Hanging(FakeWebhookDeliveries):
        async def add(self, delivery: Delivery) -> bool:
            await asyncio.Event().wait()
            return await super().add(delivery)

    setup = Setup(owing(COMPLETED), subscribed(FIRST, "session.completed"), deliveries=Hanging())

    with pytest.raises(TimeoutError):
        setup.dispatch(seconds=0.01)

    assert setup.session.owed_events == (COMPLETED,)

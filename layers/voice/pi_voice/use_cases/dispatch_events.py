"""Dispatch the events that a session owes: a delivery for each endpoint that is subscribed."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from pi_voice.domain.errors import StorageError
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Session
from pi_voice.domain.webhook_deliveries import Delivery, delivery_id
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.domain.webhook_events import OwedEvent
from pi_voice.logs import logger
from pi_voice.ports import DeliveryQueue, Sessions, WebhookDeliveries, WebhookEndpoints

_CONCURRENT_DELIVERIES: Final = 16


class DispatchEvents:
    """Makes the deliveries of events, at least once. A delivery has the same id each time, so twice makes one."""

    def __init__(
        self,
        sessions: Sessions,
        endpoints: WebhookEndpoints,
        deliveries: WebhookDeliveries,
        queue: DeliveryQueue,
        clock: Clock = time.time,
    ) -> None:
        self._sessions = sessions
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._queue = queue
        self._clock = clock

    async def __call__(self, session_id: SessionId, seconds: float) -> None:
        """Make the deliveries of a session's events within a time limit, then clear these events.

        A session that owes none is skipped, because a message may be delivered twice. An event stays if one of its
        deliveries could not be stored. Raises StorageError and TimeoutError; then the message is delivered again.
        """
        async with asyncio.timeout(seconds):
            await self._dispatch_all(session_id)

    async def _dispatch_all(self, session_id: SessionId) -> None:
        session = await self._sessions.get(session_id)
        if session is None or not (session.owed_events or session.duties.get("send_events")):
            logger.info("events_not_owed", session_id=session_id)
            return
        endpoints = await self._endpoints.in_workspace(session.workspace) if session.owed_events else []
        slots = asyncio.Semaphore(_CONCURRENT_DELIVERIES)
        outcomes = [await self._dispatch(session, event, endpoints, slots) for event in session.owed_events]
        dispatched = [event.event_id for event, is_done in zip(session.owed_events, outcomes, strict=True) if is_done]
        await self._sessions.clear_owed_events(session, dispatched)
        if len(dispatched) < len(session.owed_events):
            raise StorageError

    async def _dispatch(
        self, session: Session, event: OwedEvent, endpoints: Sequence[WebhookEndpoint], slots: asyncio.Semaphore
    ) -> bool:
        """Store the deliveries of an event, and return whether all are stored. An error does not affect the others."""
        subscribed = [each for each in endpoints if each.is_subscribed(event.type, session.agent_id)]
        outcomes = await asyncio.gather(*(self._deliver(session, event, each, slots) for each in subscribed))
        is_done = all(outcomes)
        logger.info(
            "event_dispatched" if is_done else "event_not_dispatched",
            session_id=session.session_id,
            event_id=event.event_id,
            type=event.type,
            deliveries=len(subscribed),
        )
        return is_done

    async def _deliver(
        self, session: Session, event: OwedEvent, endpoint: WebhookEndpoint, slots: asyncio.Semaphore
    ) -> bool:
        """Store a delivery that is due now, and queue it; return whether it is stored.

        That to an endpoint that hangs is left to the scheduled job.
        """
        now = int(self._clock())
        delivery = Delivery(
            endpoint_id=endpoint.endpoint_id,
            delivery_id=delivery_id(event.event_id, endpoint.endpoint_id),
            workspace=session.workspace,
            event_id=event.event_id,
            type=event.type,
            event_at=event.at,
            created_at=now,
            session_id=session.session_id,
            due_at=now,
        )
        async with slots:
            try:
                await self._deliveries.add(delivery)
            except StorageError:
                return False
            if endpoint.hangs:
                return True
            try:
                await self._queue.put(delivery)  # also of a known one: an earlier run may have died before this
            except StorageError:
                logger.error("delivery_not_queued", delivery_id=delivery.delivery_id)  # it is due, so it is swept
        return True

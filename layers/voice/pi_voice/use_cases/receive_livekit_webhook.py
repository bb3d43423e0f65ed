"""Receive LiveKit's webhooks: merge room events into sessions, and enforce the end of calls.

A webhook never completes a session. A join reopens a closed room, so it is checked against the session's state.
"""

import time
from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from pi_voice.domain.errors import (
    InvalidRequest,
    InvalidWebhookSignature,
    LiveKitError,
    LiveKitUnavailable,
    RequestTooLarge,
    StorageError,
    UpstreamTimeout,
)
from pi_voice.domain.ids import Clock, is_uuid
from pi_voice.domain.livekit_webhooks import ReceivedWebhook, RoomEvent, WebhookEvent
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.logs import logger
from pi_voice.ports import Rooms, SessionQueue, Sessions, SignedWebhook, WebhookVerifier
from pi_voice.use_cases.queue_events import queue_events
from pi_voice.use_cases.settle_duties import room_closed, settle_duties

_ATTEMPTS: Final = 5


class ReceiveLivekitWebhook:
    """Applies signed LiveKit webhooks to sessions."""

    ERRORS = (
        InvalidWebhookSignature,
        InvalidRequest,
        RequestTooLarge,
        LiveKitError,
        LiveKitUnavailable,
        UpstreamTimeout,
    )

    def __init__(
        self,
        verifier: WebhookVerifier,
        sessions: Sessions,
        rooms: Callable[[], Rooms],
        event_queue: Callable[[], SessionQueue],
        clock: Clock = time.time,
    ) -> None:
        self._verifier = verifier
        self._sessions = sessions
        self._rooms = rooms
        self._event_queue = event_queue
        self._clock = clock

    async def __call__(self, webhook: SignedWebhook) -> ReceivedWebhook:
        """Verify a webhook and merge it into the session of its room.

        Other kinds of events, and rooms of other applications, are ignored. Raises InvalidWebhookSignature,
        InvalidRequest, RequestTooLarge, and a ProviderError if a room cannot be closed; LiveKit then sends the event
        again.
        """
        self._verifier.verify(webhook)
        try:
            event = WebhookEvent.model_validate_json(webhook.body)
        except ValidationError:
            raise InvalidRequest("The body is signed, but it is not a LiveKit webhook event.") from None
        room_event = RoomEvent.of(event, now=int(self._clock()))
        if room_event and (room_event.room_sid or room_event.recordings) and is_uuid(room_event.session_id):
            row = await self._sessions.merge_room_event(room_event)
            merged = isinstance(row, Session)
            logger.info("room_event", kind=event.event, session_id=room_event.session_id, merged=merged)
            if isinstance(row, Session):
                _log_missing_recordings(room_event, row)
            if row is not None and room_event.is_join:
                await self._enforce_end(row)
        return ReceivedWebhook()

    async def _enforce_end(self, joined: Session | Tombstone) -> None:
        """Close the room if the call is over; else let the sweeper hang up at the end of its time limit.

        The first person who joins starts the call, in the same write as the duty to hang up.
        """
        row: Session | Tombstone | None = joined
        for _ in range(_ATTEMPTS):
            if row is None:
                return
            if isinstance(row, Tombstone):  # it has the duty to close the room already
                logger.info("room_reopened", session_id=row.session_id)
                await self._rooms().close(row.session_id)
                return
            if not row.is_ongoing:
                if not row.keeps_room(int(self._clock())):
                    await self._close_again(row)
                return
            ends_at, planned = row.call_ends_at, row.duties.get("hang_up")
            is_planned = ends_at is None or (planned is not None and planned.due_at <= ends_at)
            if row.started_at is None and row.first_joined_at is not None:
                row = await self._start(row, row.first_joined_at, None if is_planned else ends_at)
                continue
            if ends_at is None or is_planned:
                return
            duties = row.duties.plus(hang_up=ends_at)
            row = await self._sessions.set_duties(row.session_id, row.duties, duties)
            if row is not None and row.duties == duties:
                return
        raise StorageError

    async def _start(self, session: Session, joined_at: int, hang_up_at: int | None) -> Session | Tombstone | None:
        """Record the start of a call, and queue its event."""
        row = await self._sessions.start(session, min(joined_at, int(self._clock())), hang_up_at)
        await queue_events(self._event_queue(), session.session_id)
        return row

    async def _close_again(self, session: Session) -> None:
        """Close a room that a join reopened. The duty comes first, in case that this function dies."""
        logger.info("room_reopened", session_id=session.session_id)
        now = int(self._clock())
        row = await settle_duties(self._sessions, session, lambda duties: duties.plus(close_room=now))
        await self._rooms().close(session.session_id)
        if row is not None:
            await settle_duties(self._sessions, row, room_closed(row, closed_at=now))


def _log_missing_recordings(event: RoomEvent, session: Session) -> None:
    places = {recording.place for recording in session.recordings}
    if missing := sum(recording.place not in places for recording in event.recordings):
        logger.warning("recordings_not_stored", session_id=session.session_id, recordings=missing)

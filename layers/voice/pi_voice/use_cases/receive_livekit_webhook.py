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
    StorageError,
    UpstreamTimeout,
)
from pi_voice.domain.ids import Clock, is_uuid
from pi_voice.domain.livekit_webhooks import ReceivedWebhook, RoomEvent, SignedWebhook, WebhookEvent
from pi_voice.domain.sessions import Session
from pi_voice.logs import logger
from pi_voice.ports import Rooms, Sessions, WebhookVerifier

_ATTEMPTS: Final = 5


class ReceiveLivekitWebhook:
    """Applies signed LiveKit webhooks to sessions."""

    ERRORS = (InvalidWebhookSignature, InvalidRequest, LiveKitError, LiveKitUnavailable, UpstreamTimeout)

    def __init__(
        self,
        verifier: WebhookVerifier,
        sessions: Sessions,
        rooms: Callable[[], Rooms],
        clock: Clock = time.time,
    ) -> None:
        self._verifier = verifier
        self._sessions = sessions
        self._rooms = rooms
        self._clock = clock

    async def __call__(self, webhook: SignedWebhook) -> ReceivedWebhook:
        """Verify a webhook and merge it into the session of its room.

        Other kinds of events, and rooms of other applications, are ignored. Raises InvalidWebhookSignature,
        InvalidRequest, and a ProviderError if a room cannot be closed; LiveKit then sends the event again.
        """
        self._verifier.verify(webhook)
        try:
            event = WebhookEvent.model_validate_json(webhook.body)
        except ValidationError:
            raise InvalidRequest("The body is signed, but it is not a LiveKit webhook event.") from None
        room_event = RoomEvent.of(event, now=int(self._clock()))
        if room_event and room_event.room_sid and is_uuid(room_event.session_id):
            session = await self._sessions.merge_room_event(room_event)
            merged = session is not None
            logger.info("room_event", kind=event.event, session_id=room_event.session_id, merged=merged)
            if session is not None and room_event.joined_at is not None:
                await self._enforce_end(session)
        return ReceivedWebhook()

    async def _enforce_end(self, session: Session) -> None:
        """Close the room if the call is over; else schedule the sweeper for the end of its time limit."""
        for _ in range(_ATTEMPTS):
            if not session.is_ongoing:
                logger.info("room_reopened", session_id=session.session_id)
                await self._rooms().close(session.session_id)
                return
            cap_ends_at = session.cap_ends_at
            if cap_ends_at is None or (session.due_at is not None and session.due_at <= cap_ends_at):
                return
            current = await self._sessions.schedule(session, cap_ends_at)
            if current is None:
                return
            session = current  # a concurrent write, such as a later join, may have set another due time
        raise StorageError

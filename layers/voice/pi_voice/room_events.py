"""Room events: what LiveKit's webhooks tell of a session's room is merged into the session, and never completes it.

A join may call for more: a call that is over must not go on, and one with a cap has an end from now on.
"""

import time
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from pi_voice.documents import Document, JsonObject
from pi_voice.errors import InvalidRequest, StorageError
from pi_voice.ids import Clock, SessionId, is_uuid
from pi_voice.logs import logger
from pi_voice.ports import RoomEvent, RoomLog, Rooms, Sessions
from pi_voice.sessions import Session

MAX_METADATA_BYTES: Final = 4_096
_ATTEMPTS: Final = 5
_METADATA: Final[TypeAdapter[dict[str, JsonValue]]] = TypeAdapter(JsonObject)

Int64 = Annotated[int, BeforeValidator(lambda value: int(value) if isinstance(value, str) else value)]
"""An int64 as protobuf's JSON writes it: a string of digits."""


class _Taken(BaseModel):
    """The fields that are taken of LiveKit's messages. The rest, `turnPassword` for one, is never looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class WebhookRoom(_Taken):
    """The room that an event is about."""

    sid: str = ""
    name: str = ""
    metadata: str = ""


class WebhookEvent(_Taken):
    """A LiveKit webhook event (livekit.WebhookEvent as JSON: camelCase, zero values absent)."""

    event: Annotated[str, Field(min_length=1)]
    room: WebhookRoom = WebhookRoom()
    created_at: Annotated[Int64, Field(alias="createdAt", ge=0, lt=2**63)] = 0


class Receipt(Document):
    """The answer to a webhook that was understood, whether or not anything came of it."""

    received: bool = True


class RoomEvents:
    """Applies LiveKit's webhooks to sessions."""

    def __init__(
        self, room_log: RoomLog, sessions: Sessions, rooms: Callable[[], Rooms], clock: Clock = time.time
    ) -> None:
        self._room_log = room_log
        self._sessions = sessions
        self._rooms = rooms
        self._clock = clock

    async def apply(self, body: bytes) -> None:
        """Merge one verified webhook into its session; raises InvalidRequest for what is no event.

        Events of kinds that we do not keep, and of rooms that are not ours, are dropped. Raises a ProviderError where
        a room cannot be closed: LiveKit then sends the event again.
        """
        try:
            event = WebhookEvent.model_validate_json(body)
        except ValidationError:
            raise InvalidRequest("The body is signed, but it is no LiveKit webhook event.") from None
        told = _told(event, now=int(self._clock()))
        if told is None or not is_uuid(told.session_id) or not told.room_sid:
            return
        session = await self._room_log.merge(told)
        logger.info("room event", kind=event.event, session_id=told.session_id, merged=session is not None)
        if session is not None and told.joined_at is not None:
            await self._joined(session)

    async def _joined(self, session: Session) -> None:
        """Hang up who joins a call that is over, and see to the end of one that has a cap."""
        for _ in range(_ATTEMPTS):
            if not session.is_on:
                logger.info("a join of a call that is over", session_id=session.session_id)
                await self._rooms().close(session.session_id)
                return
            over_at = session.cap_ends_at
            if over_at is None or (session.due_at is not None and session.due_at <= over_at):
                return
            now = await self._sessions.schedule(session, over_at)
            if now is None:
                return
            session = now  # where somebody else was faster, for a later join perhaps, this is what they have said
        raise StorageError


def _told(event: WebhookEvent, now: int) -> RoomEvent | None:
    """Translate an event into what it tells of the room; None for the kinds that tell nothing we keep."""
    at = event.created_at or now
    session_id, sid = SessionId(event.room.name), event.room.sid
    match event.event:
        case "room_started":
            return RoomEvent(session_id, sid, started_at=at)
        case "participant_joined":
            return RoomEvent(session_id, sid, joined_at=at)
        case "room_finished":
            return RoomEvent(session_id, sid, finished_at=at, metadata=_clipped(event.room.metadata))
        case _:
            return None


def _clipped(metadata: str) -> dict[str, JsonValue] | None:
    """Read room metadata, which anybody with the right grant may have written: a small JSON object or nothing."""
    if len(metadata.encode()) > MAX_METADATA_BYTES:
        return None
    try:
        return _METADATA.validate_json(metadata)
    except ValidationError:
        return None

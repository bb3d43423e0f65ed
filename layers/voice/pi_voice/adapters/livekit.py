"""LiveKit: rooms by its server API, and the tokens that let people in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import aiohttp
from google.protobuf.message import DecodeError
from livekit import api
from livekit.api.room_service import RoomService
from livekit.api.twirp_client import ServerError, ServerErrorCode
from livekit.protocol.room import RoomConfiguration

from pi_voice.adapters.http_client import DEAD_CONNECTION, HttpClient
from pi_voice.domain.errors import LiveKitError, LiveKitUnavailable, UpstreamTimeout
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.session_api import LiveKitConnection
from pi_voice.domain.sessions import Medium, Participant, Session
from pi_voice.logs import logger
from pi_voice.ports import CreatedRoom
from pi_voice.settings import LiveKitSettings

TIME_LIMIT_SECONDS: Final = 5.0
"""What one exchange may take, with everything that the SDK retries inside it; the SDK's own limit does not hold."""

DEPARTURE_SECONDS: Final = 60
"""How long a room stays after the last person left: enough for a phone to find its network again.

LiveKit's own 20 s would close the room under a caller who is still reconnecting; a re-join would then open a
second room of the same name that knows nothing of the first.
"""

_BUSY: Final = (408, 429)
_BROKEN: Final = 500

Answer = TypeVar("Answer")


class LiveKitRooms:
    """Rooms whose name is their session's id."""

    def __init__(
        self,
        settings: LiveKitSettings,
        web: HttpClient,
        clock: Clock = time.time,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
    ) -> None:
        self._settings = settings
        self._web = web
        self._clock = clock
        self._time_limit_seconds = time_limit_seconds

    async def open(self, session: Session) -> CreatedRoom:
        """Make a session's room, empty for up to its ttl; a repeat finds the same room.

        Raises LiveKitError, LiveKitUnavailable, UpstreamTimeout.
        """
        # Everybody in the room can read its metadata: the session's id and nothing more.
        order = api.CreateRoomRequest(
            name=session.session_id,
            empty_timeout=session.ttl_seconds,
            departure_timeout=DEPARTURE_SECONDS,
            metadata=f'{{"session_id":"{session.session_id}"}}',
        )
        room = await self._within_limits(lambda: self._rooms().create_room(order))
        if room is None or not room.sid:
            raise LiveKitError
        return CreatedRoom(room.sid, started_at=room.creation_time or int(self._clock()))

    async def close(self, session_id: SessionId) -> None:
        """Remove a session's room and everybody in it; one that is gone already is fine.

        Raises LiveKitError, LiveKitUnavailable, UpstreamTimeout.
        """
        order = api.DeleteRoomRequest(room=session_id)
        await self._within_limits(lambda: self._rooms().delete_room(order), missing_is_fine=True)

    def issue_token(self, session: Session, participant: Participant, media: Sequence[Medium]) -> LiveKitConnection:
        """Sign a token that lets one person into the session's room until the session expires."""
        room = session.session_id
        token = (
            api.AccessToken(self._settings.api_key, self._settings.api_secret)
            .with_identity(participant.identity)
            .with_name(participant.name)
            .with_ttl(timedelta(seconds=session.expires_at - self._clock()))
            .with_grants(
                api.VideoGrants(
                    room_join=True,
                    room=room,
                    can_publish=True,
                    can_publish_sources=list(media),
                    can_publish_data=True,
                    can_subscribe=True,
                    can_update_own_metadata=False,
                )
            )
            # A join after the room has closed opens it anew; then with the same timeouts.
            .with_room_config(RoomConfiguration(empty_timeout=session.ttl_seconds, departure_timeout=DEPARTURE_SECONDS))
        )
        return LiveKitConnection(url=self._settings.url, token=token.to_jwt(), room=room)

    def _rooms(self) -> RoomService:
        settings = self._settings
        return RoomService(self._web.session, settings.url, settings.api_key, settings.api_secret)

    async def _within_limits(
        self, exchange: Callable[[], Awaitable[Answer]], *, missing_is_fine: bool = False
    ) -> Answer | None:
        """Do one exchange, again if a kept connection turns out to be dead, and translate what goes wrong.

        Both exchanges that we do may be repeated: LiveKit makes and deletes rooms by name.
        """
        try:
            async with asyncio.timeout(self._time_limit_seconds):
                try:
                    return await exchange()
                except DEAD_CONNECTION:
                    return await exchange()
        except TimeoutError:
            logger.warning("livekit did not answer", seconds=self._time_limit_seconds)
            raise UpstreamTimeout("LiveKit did not answer in time. Try again in a moment.") from None
        except ServerError as error:
            if missing_is_fine and error.code == ServerErrorCode.NOT_FOUND:
                return None
            logger.warning("livekit refused", status=error.status)
            if error.status in _BUSY or error.status >= _BROKEN:
                raise LiveKitUnavailable from None
            raise LiveKitError from None
        except aiohttp.ClientError as error:
            logger.warning("livekit cannot be reached", error=type(error).__name__)
            raise LiveKitUnavailable from None
        except (DecodeError, AttributeError):  # the latter is the SDK's, for an error whose body is no JSON object
            logger.warning("livekit answered with something else than a room")
            raise LiveKitError from None

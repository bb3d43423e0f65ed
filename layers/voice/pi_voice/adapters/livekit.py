"""LiveKit: rooms through its server API, and access tokens."""

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

from pi_voice.adapters.http_client import DEAD_CONNECTION, HttpClient, Redirected, ResponseTooLarge
from pi_voice.domain.connection_api import LiveKitConnection
from pi_voice.domain.errors import LiveKitError, LiveKitUnavailable, UpstreamTimeout
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Medium, Participant, Session
from pi_voice.logs import logger
from pi_voice.ports import CreatedRoom
from pi_voice.settings import LiveKitSettings

TIME_LIMIT_SECONDS: Final = 5.0
"""Time limit of a request with the SDK's retries; the SDK's own limit does not cover them."""

DEPARTURE_SECONDS: Final = 60
"""How long a room stays open after the last participant left, so that a phone can reconnect.

LiveKit's default of 20 s would close the room of a caller who is still reconnecting. The caller would then join a
second room of the same name, without the state of the first.
"""

_RETRYABLE: Final = (408, 429)
_SERVER_ERROR: Final = 500

Response = TypeVar("Response")


class LiveKitRooms:
    """LiveKit rooms; the name of a room is the id of its session."""

    def __init__(
        self,
        settings: Callable[[], LiveKitSettings],
        http_client: HttpClient,
        clock: Clock = time.time,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
    ) -> None:
        self._settings = settings
        self._http_client = http_client
        self._clock = clock
        self._time_limit_seconds = time_limit_seconds

    async def open(self, session: Session) -> CreatedRoom:
        """Create a session's room, which may stay empty for the session's `ttl_seconds`. Idempotent.

        Raises LiveKitError, LiveKitUnavailable, UpstreamTimeout.
        """
        # All participants can read the metadata, so it contains only the session's id.
        request = api.CreateRoomRequest(
            name=session.session_id,
            empty_timeout=session.ttl_seconds,
            departure_timeout=DEPARTURE_SECONDS,
            metadata=f'{{"session_id":"{session.session_id}"}}',
        )
        room = await self._request(lambda: self._room_service().create_room(request))
        if room is None or not room.sid:
            raise LiveKitError
        return CreatedRoom(room.sid, started_at=room.creation_time or int(self._clock()))

    async def close(self, session_id: SessionId) -> None:
        """Delete a session's room if it exists, and disconnect its participants.

        Raises LiveKitError, LiveKitUnavailable, UpstreamTimeout.
        """
        request = api.DeleteRoomRequest(room=session_id)
        await self._request(lambda: self._room_service().delete_room(request), allow_not_found=True)

    def issue_token(self, session: Session, participant: Participant, media: Sequence[Medium]) -> LiveKitConnection:
        """Sign a token for one participant to join the session's room until the session expires."""
        room = session.session_id
        settings = self._settings()
        token = (
            api.AccessToken(settings.api_key, settings.api_secret)
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
            # A join after the room was closed creates it again, with the same timeouts.
            .with_room_config(RoomConfiguration(empty_timeout=session.ttl_seconds, departure_timeout=DEPARTURE_SECONDS))
        )
        return LiveKitConnection(url=settings.url, token=token.to_jwt(), room=room)

    def _room_service(self) -> RoomService:
        settings = self._settings()
        return RoomService(self._http_client.session, settings.url, settings.api_key, settings.api_secret)

    async def _request(
        self, send: Callable[[], Awaitable[Response]], *, allow_not_found: bool = False
    ) -> Response | None:
        """Send a request, once more if the reused connection was closed, and translate errors.

        Both requests are idempotent: LiveKit creates and deletes rooms by name.
        """
        try:
            async with asyncio.timeout(self._time_limit_seconds):
                try:
                    return await send()
                except DEAD_CONNECTION:
                    return await send()
        except TimeoutError:
            logger.warning("livekit_timed_out", seconds=self._time_limit_seconds)
            raise UpstreamTimeout("LiveKit did not respond in time. Try again in a moment.") from None
        except ServerError as error:
            if allow_not_found and error.code == ServerErrorCode.NOT_FOUND:
                return None
            logger.warning("livekit_request_refused", status=error.status)
            if error.status in _RETRYABLE or error.status >= _SERVER_ERROR:
                raise LiveKitUnavailable from None
            raise LiveKitError from None
        except aiohttp.ClientError as error:
            logger.warning("livekit_unreachable", error=type(error).__name__)
            raise LiveKitUnavailable from None
        except (
            DecodeError,
            AttributeError,
            Redirected,
            ResponseTooLarge,
        ):  # the SDK raises AttributeError for an error whose body is not a JSON object
            logger.warning("livekit_response_invalid")
            raise LiveKitError from None

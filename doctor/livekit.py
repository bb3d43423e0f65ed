"""Checks of LiveKit: the server is there, takes the key, opens a room, lets a participant join, and closes it."""

import time
import uuid
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from doctor.checks import Check, Fault, NotChecked, Passed
from doctor.target import Target
from pi_voice.adapters.http_client import HttpClient
from pi_voice.adapters.livekit import LiveKitRooms
from pi_voice.domain.connection_api import LiveKitConnection
from pi_voice.domain.errors import LiveKitError, LiveKitUnavailable, SettingsError, UpstreamTimeout
from pi_voice.domain.ids import AgentId, SessionId, WorkspaceId
from pi_voice.domain.sessions import LiveKitRoom, Participant, Session
from pi_voice.settings import LiveKitSettings

SERVER: Final = "LiveKit server"
ROOM: Final = "LiveKit room"
TOKEN: Final = "LiveKit token"  # noqa: S105 (the name of a check)
JOIN: Final = "LiveKit join"
CLOSE: Final = "LiveKit room closed"

_SECONDS: Final = 10.0
_JOIN_SECONDS: Final = 15.0
_OPEN_SECONDS: Final = 120
_OK: Final = 200
_SERVER_ERROR: Final = 500


class LiveKitChecks:
    """Checks with one room, whose name no session has."""

    def __init__(self, target: Target, http: HttpClient) -> None:
        self._target = target
        self._http = http
        self._rooms = LiveKitRooms(self._settings, http)
        self._session = _session()

    def checks(self) -> list[Check]:
        """Return the checks in order."""
        return [
            Check(SERVER, self.server, _SECONDS),
            Check(ROOM, self.room, _SECONDS, (SERVER,)),
            Check(TOKEN, self.token, _SECONDS, (ROOM,)),
            Check(JOIN, self.join, 2 * _JOIN_SECONDS, (TOKEN,)),
            Check(CLOSE, self.close, _SECONDS, (ROOM,)),
        ]

    async def server(self) -> Passed:
        """Open the server's address."""
        url = self._settings().url
        try:
            status = await self._status(_http_url(url))
        except (aiohttp.ClientError, OSError) as error:
            raise Fault(
                f"{url} cannot be reached ({type(error).__name__}). If the address is wrong: "
                f"{self._target.change('LIVEKIT_URL', 'wss://your-project.livekit.cloud')}"
            ) from None
        if status >= _SERVER_ERROR:
            raise Fault(
                f"{url} answers with the status {status}. Look at LiveKit's status page or at your server's log."
            )
        return Passed(f"{url} answers{'' if self._target.has_real_livekit else '; it is a stand-in'}.")

    async def room(self) -> Passed:
        """Create a room."""
        try:
            room = await self._rooms.open(self._session)
        except LiveKitError:
            raise Fault(
                "LiveKit refuses to create a room: the API key or its secret is wrong, or is of another project than "
                f"{self._settings().url}. {self._target.replace('LIVEKIT_API_KEY', 'LIVEKIT_API_SECRET')}"
            ) from None
        except (LiveKitUnavailable, UpstreamTimeout) as error:
            raise Fault(
                f"LiveKit does not create a room: {error.message} Check LiveKit's status and the project's quota."
            ) from None
        return Passed(f"{room.room_sid} was created.")

    async def token(self) -> Passed:
        """Have the server validate a participant's token."""
        connection = self._connection()
        url = f"{_http_url(connection.url)}/rtc/validate"
        status = await self._status(url, access_token=connection.token)
        if status != _OK:
            raise Fault(
                f"LiveKit refuses a participant's token with the status {status}. Check that the clock of this machine "
                "is right, and that the room's name and identity have no restrictions in your project."
            )
        return Passed("A participant's token is accepted.")

    async def join(self) -> Passed:
        """Join the room with LiveKit's own client, as a caller does."""
        if not self._target.has_real_livekit:
            raise NotChecked("The stand-in's rooms cannot be joined.")
        if find_spec("livekit.rtc") is None:
            raise NotChecked("It needs LiveKit's client: pip install livekit")
        from livekit import rtc  # noqa: PLC0415 (a program of its own, which not every machine has)

        room, connection = rtc.Room(), self._connection()
        try:
            await room.connect(connection.url, connection.token, rtc.RoomOptions(connect_timeout=_JOIN_SECONDS))
        except rtc.ConnectError as error:
            raise Fault(
                f"The room cannot be joined ({error.message}). Callers need UDP, or TCP 443, to LiveKit's media "
                "servers: check the firewall, and for a server of your own its rtc settings."
            ) from None
        finally:
            await room.disconnect()
        return Passed("A participant joined and left.")

    async def close(self) -> Passed:
        """Delete the room."""
        try:
            await self._rooms.close(self._session.session_id)
        except (LiveKitError, LiveKitUnavailable, UpstreamTimeout) as error:
            raise Fault(
                f"LiveKit did not delete the room {self._session.session_id}: {error.message} It closes by itself "
                f"after {_OPEN_SECONDS} s."
            ) from None
        return Passed("The room was deleted.")

    def _settings(self) -> LiveKitSettings:
        try:
            return LiveKitSettings.of(self._target.variables)
        except SettingsError as error:
            raise Fault(str(error)) from None

    def _connection(self) -> LiveKitConnection:
        return self._rooms.issue_token(self._session, self._session.participant, self._session.media)

    async def _status(self, url: str, **query: str) -> int:
        async with self._http.session.get(url, params=query, allow_redirects=False) as response:
            return response.status


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme={"ws": "http", "wss": "https"}[parts.scheme]).geturl()


def _session() -> Session:
    """Return a session that is stored nowhere; its webhooks are ignored, because its id is no UUID."""
    name, now = SessionId(f"doctor-{uuid.uuid4()}"), int(time.time())
    return Session(
        session_id=name,
        workspace=WorkspaceId("doctor"),
        agent_id=AgentId(str(uuid.uuid4())),
        agent_version=1,
        status="active",
        participant=Participant(identity="doctor"),
        max_duration_seconds=None,
        ttl_seconds=_OPEN_SECONDS,
        created_at=now,
        expires_at=now + _OPEN_SECONDS,
        livekit=LiveKitRoom(room_name=name),
    )

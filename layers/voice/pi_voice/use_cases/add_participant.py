"""Add a participant to a session's LiveKit room."""

import time

from pi_voice.domain.connection_api import AddedParticipant, AddParticipantRequest, ParticipantConnection
from pi_voice.domain.errors import ErrorDetail, InvalidRequest, SessionNotActive, SessionNotFound
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.sessions import Participant
from pi_voice.ports import Rooms, SessionCaller, Sessions
from pi_voice.use_cases.authorization import authorized_session


class AddParticipant:
    """Issues LiveKit tokens for more people in the same room."""

    ERRORS = (SessionNotFound, SessionNotActive)

    def __init__(self, sessions: Sessions, rooms: Rooms, clock: Clock = time.time) -> None:
        self._sessions = sessions
        self._rooms = rooms
        self._clock = clock

    async def __call__(
        self, session_id: SessionId, request: AddParticipantRequest, caller: SessionCaller
    ) -> AddedParticipant:
        """Issue a token that is valid until the session expires.

        Raises SessionNotFound, SessionNotActive, and InvalidRequest for the identity of the session's own
        participant, because LiveKit would disconnect that one.
        """
        session = await authorized_session(caller, self._sessions, session_id)
        if session.status != "active":
            raise SessionNotActive
        if session.hung_up_at is not None:
            raise SessionNotActive("The call was hung up, so no participant can join. Complete the session.")
        if self._clock() >= session.expires_at:
            raise SessionNotActive("The session's connections have expired. Start another session.")
        if request.identity == session.participant.identity:
            message = "Is the identity of the session's own participant. Use another one for each participant."
            raise InvalidRequest(details=[ErrorDetail("identity", message)])
        participant = Participant(identity=request.identity, name=request.name)
        return AddedParticipant(
            session_id=session_id,
            participant=participant,
            expires_at=session.expires_at,
            connection=ParticipantConnection(livekit=self._rooms.issue_token(session, participant, request.media)),
        )

"""Admission: more people join a running call."""

import time

from pi_voice.access import session_of
from pi_voice.errors import Fault, InvalidRequest, SessionNotActive
from pi_voice.ids import Clock, SessionId
from pi_voice.ports import Rooms, Sessions, Visitor
from pi_voice.sessions import AdmittedParticipant, NewParticipant, Participant, ParticipantConnection


class Admission:
    """Lets people into running sessions."""

    def __init__(self, sessions: Sessions, rooms: Rooms, clock: Clock = time.time) -> None:
        self._sessions = sessions
        self._rooms = rooms
        self._clock = clock

    async def admit(self, session_id: SessionId, order: NewParticipant, caller: Visitor) -> AdmittedParticipant:
        """Let another person into a running session, until it expires.

        Raises SessionNotFound, SessionNotActive, and InvalidRequest for the identity of the session's own
        participant, whom LiveKit would throw out in favour of the newcomer.
        """
        session = await session_of(caller, self._sessions, session_id)
        if not session.is_on:
            raise SessionNotActive
        if self._clock() >= session.expires_at:
            raise SessionNotActive("The session's connections have expired. Start another session.")
        if order.identity == session.participant.identity:
            raise InvalidRequest(
                faults=[Fault("identity", "Is the session's own participant. Give everybody another one.")]
            )
        participant = Participant(identity=order.identity, name=order.name)
        return AdmittedParticipant(
            session_id=session_id,
            participant=participant,
            expires_at=session.expires_at,
            connection=ParticipantConnection(livekit=self._rooms.admit(session, participant, order.media)),
        )

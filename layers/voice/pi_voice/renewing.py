"""Renewing: a call whose connections ended, or are about to, goes on with new ones."""

import time
from dataclasses import replace

from pi_voice.access import session_of
from pi_voice.connecting import Connecting
from pi_voice.errors import SessionNotActive
from pi_voice.ids import Clock, SessionId
from pi_voice.ports import Agents, Checkpoints, Sessions, Visitor
from pi_voice.prompt import instruction_for, instruction_to_go_on
from pi_voice.sessions import LONGEST_SECONDS, Renewal, RenewedSession


class Renewing:
    """Keeps calls going."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        checkpoints: Checkpoints,
        connecting: Connecting,
        clock: Clock = time.time,
    ) -> None:
        self._agents = agents
        self._sessions = sessions
        self._checkpoints = checkpoints
        self._connecting = connecting
        self._clock = clock

    async def renew(self, session_id: SessionId, order: Renewal, caller: Visitor) -> RenewedSession:
        """Give an active session fresh tokens for the same room and the same agent, and more time.

        Up to an hour after its creation. A client that cannot resume the conversation with Gemini gets a token
        whose agent knows what was kept of it. Raises SessionNotFound, SessionNotActive, or a ProviderError.
        """
        session = await session_of(caller, self._sessions, session_id)
        now = int(self._clock())
        if session.status != "active":
            raise SessionNotActive
        if session.hung_up_at is not None:
            raise SessionNotActive("The call was hung up, and cannot go on. Complete the session.")
        latest = session.created_at + LONGEST_SECONDS
        if latest <= now:
            raise SessionNotActive("The session is an hour old, and cannot be renewed any more. Start another one.")
        renewed = replace(session, expires_at=max(session.expires_at, min(now + session.ttl_seconds, latest)))
        agent = await self._agents.version(session.agent_id, session.agent_version)
        if order.has_resumption_handle or not session.checkpoint_turns:
            instruction = instruction_for(agent)
        else:
            instruction = instruction_to_go_on(agent, await self._checkpoints.read(session))
        made = await self._connecting.connect(renewed, agent, instruction)
        if await self._sessions.renew(session_id, renewed.expires_at) is None:
            await self._connecting.disconnect(session_id)  # the room was closed when the call ended, and is open again
            raise SessionNotActive
        return RenewedSession.model_construct(
            session_id=session_id,
            expires_at=renewed.expires_at,
            client_token=made.client_token,
            connection=made.connection,
        )

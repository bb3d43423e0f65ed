"""What was said and done in a call, as it is stored."""

import asyncio

from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.ports import ToolCalls, Transcripts


class CallContent:
    """Reads of the transcript and the tool calls of a session."""

    def __init__(self, transcripts: Transcripts, tool_calls: ToolCalls) -> None:
        self._transcripts = transcripts
        self._tool_calls = tool_calls

    async def turns(self, session: Session) -> list[TranscriptTurn] | None:
        """Return the transcript; None until the session is completed."""
        if session.transcript_id is None:
            return None
        return await self._transcripts.get(session.session_id, session.transcript_id) if session.turns else []

    async def tool_calls(self, session: Session) -> list[ToolCall]:
        """Return the tool calls that were recorded when the session was read, in their order."""
        return await self._tool_calls.read(session)

    async def both(self, session: Session) -> tuple[list[TranscriptTurn] | None, list[ToolCall]]:
        """Return the transcript and the tool calls, read at the same time."""
        return await asyncio.gather(self.turns(session), self.tool_calls(session))

"""What was said is kept by the API as the call goes, so that a closed window loses nothing."""

import asyncio

from demo.errors import CallFailed
from demo.transcript import Turn
from demo.voice_api import Json, VoiceApi


class Keeping:
    """Sends each turn once it is complete; the conversation never waits for it."""

    def __init__(self, api: VoiceApi, session: Json) -> None:
        self.kept = 0
        self._api = api
        self._session = session
        self._turns: list[Json] = []
        self._sending: asyncio.Task[None] | None = None

    def add(self, turn: Turn) -> None:
        """Have a turn kept."""
        self._turns.append(turn.message)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        """Send what is not kept yet; what fails goes with the next turn."""
        while turns := self._turns[self.kept :]:
            try:
                self.kept = await self._api.keep_turns(self._session, self.kept, turns)
            except CallFailed:
                return

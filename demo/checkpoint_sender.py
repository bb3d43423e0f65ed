"""Checkpoints: send each turn to the API during the call, so that a client that disappears loses no turns."""

import asyncio

from demo.errors import CallFailed
from demo.transcript import Turn
from demo.voice_api import Json, VoiceApi


class CheckpointSender:
    """Sends completed turns in the background, without delaying the conversation."""

    def __init__(self, api: VoiceApi, session: Json) -> None:
        self.saved = 0
        self._api = api
        self._session = session
        self._turns: list[Json] = []
        self._sending: asyncio.Task[None] | None = None

    def add(self, turn: Turn) -> None:
        """Queue a turn, and start sending unless that is in progress."""
        self._turns.append(turn.message)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        """Send the turns that are not saved yet; after a failure they are sent again with the next turn."""
        while turns := self._turns[self.saved :]:
            try:
                self.saved = await self._api.save_transcript(self._session, self.saved, turns)
            except CallFailed:
                return

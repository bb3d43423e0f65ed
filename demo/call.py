"""A call from the first word to the last: what a client has to do between session create and session complete.

connect ──► say something, so that the agent greets ──► listen, answer, listen ... ──► hang up
      meanwhile: send what the microphone hears, stitch the transcript, keep the resumption handle,
                 move to another connection after goAway, hang up at `max_duration_seconds`
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import aiohttp

from demo.clock import CallClock
from demo.earpiece import Earpiece
from demo.errors import CallFailed
from demo.example import Line
from demo.live_line import LiveLine, Message
from demo.mouthpiece import Keyboard, Microphone, Mouthpiece
from demo.recording import Recording
from demo.transcript import Transcript, Turn
from local.speech import Speech

EndReason = Literal["completed", "max_duration", "agent_silent", "connection_lost"]

OPENING: Final = "The caller is on the line."
"""What makes the model greet: it does not speak first."""

_REACTION_SECONDS: Final = 0.4
_INTERRUPTION_SECONDS: Final = 1.5
PATIENCE_SECONDS: Final = 90.0


class Call:
    """One call, in which a caller says their lines in turn."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        connection: Message,
        speech: Speech | None,
        pace: float,
        on_turn: Callable[[Turn], None],
    ) -> None:
        """Prepare a call over a session's connection; without speech the caller types."""
        self.clock = CallClock(pace)
        self.transcript = Transcript(self.clock.now, on_turn)
        self.recording = Recording()
        self.seconds = 0.0
        self._patience_seconds = PATIENCE_SECONDS
        self._line = LiveLine(client, connection)
        self._earpiece = Earpiece(self.transcript, self.clock, self.recording)
        self._mouthpiece: Mouthpiece = (
            Microphone(self._line, self.transcript, speech, self.clock, self.recording)
            if speech
            else Keyboard(self._line, self.transcript)
        )

    async def hold(
        self, lines: Sequence[Line], max_duration_seconds: int | None, patience_seconds: float = PATIENCE_SECONDS
    ) -> EndReason:
        """Hold the call until it is over, for whatever reason; raises CallFailed when it does not come about.

        The agent gets so much patience for each of its turns, by the clock on the wall.
        """
        self._patience_seconds = patience_seconds
        await self._line.open()
        self.clock.start()
        talking = asyncio.create_task(self._talk(lines))
        listening = asyncio.create_task(self._listen())
        sending = asyncio.create_task(self._mouthpiece.run())
        tasks: list[asyncio.Task[EndReason] | asyncio.Task[None]] = [talking, listening, sending]
        limit = max_duration_seconds and max_duration_seconds / self.clock.pace
        try:
            await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending  # it only ends by an error
            for task in (talking, listening):
                if task.done():
                    return await task
            return "max_duration"
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.transcript.end()
            self.seconds = self.clock.now()
            await self._line.close()

    @property
    def hangup(self) -> str:
        """Why Gemini has hung up, if it has."""
        return self._line.hangup

    async def _talk(self, lines: Sequence[Line]) -> EndReason:
        await self._line.send({"realtimeInput": {"text": OPENING}})
        for line in lines:
            if not await self._may_speak(line):
                return "agent_silent"
            self._earpiece.expect_turn()
            await self._mouthpiece.say(line.text)
        return "completed" if await self._comes(self._earpiece.turn_heard()) else "agent_silent"

    async def _may_speak(self, line: Line) -> bool:
        """Wait for the moment to say a line; False if it does not come."""
        if line.interrupts:
            wait, pause = self._earpiece.turn_begun(), _INTERRUPTION_SECONDS
        else:
            wait, pause = self._earpiece.turn_heard(), _REACTION_SECONDS
        comes = await self._comes(wait)
        await self.clock.sleep(pause)
        return comes

    async def _comes(self, event: Awaitable[None]) -> bool:
        try:
            await asyncio.wait_for(event, self._patience_seconds)
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> EndReason:
        """Take what Gemini sends, over as many connections as the call needs."""
        while True:
            while (message := await self._line.receive()) is not None:
                self._earpiece.take(message)
                if self._earpiece.should_move and not self._mouthpiece.is_in_use:
                    break
            handle = self._earpiece.take_handle()
            if handle is None:
                return "connection_lost"
            try:
                await self._line.open(handle)
            except CallFailed:
                return "connection_lost"

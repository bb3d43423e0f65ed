"""One call, from session create to session complete, as a client holds it.

connect ──► send an opening text, so that the agent greets ──► listen, answer, listen ... ──► hang up
meanwhile: stream the microphone, assemble the transcript, store the resumption handle,
           reconnect after goAway, hang up at `max_duration_seconds`
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import aiohttp

from demo.caller_input import CallerInput, Keyboard, Microphone
from demo.clock import CallClock
from demo.errors import CallFailed
from demo.example import Line
from demo.live_connection import LiveConnection, Message
from demo.recording import Recording
from demo.server_messages import ServerMessages
from demo.transcript import Transcript, Turn
from local.speech import Speech

EndReason = Literal["completed", "max_duration", "agent_silent", "connection_lost"]

OPENING: Final = "The caller is on the line."
"""Text that makes the model greet: the model does not speak first."""

_REACTION_SECONDS: Final = 0.4
_INTERRUPTION_SECONDS: Final = 1.5
TURN_TIMEOUT_SECONDS: Final = 90.0


class Call:
    """One call, in which the caller says a list of lines in order."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        connection: Message,
        speech: Speech | None,
        pace: float,
        on_turn: Callable[[Turn], None],
    ) -> None:
        """Prepare a call over a session's connection; if speech is None, the caller types."""
        self.clock = CallClock(pace)
        self.transcript = Transcript(self.clock.now, on_turn)
        self.recording = Recording()
        self.seconds = 0.0
        self._turn_timeout_seconds = TURN_TIMEOUT_SECONDS
        self._connection = LiveConnection(client, connection)
        self._server_messages = ServerMessages(self.transcript, self.clock, self.recording)
        self._input: CallerInput = (
            Microphone(self._connection, self.transcript, speech, self.clock, self.recording)
            if speech
            else Keyboard(self._connection, self.transcript)
        )

    async def hold(
        self,
        lines: Sequence[Line],
        max_duration_seconds: int | None,
        turn_timeout_seconds: float = TURN_TIMEOUT_SECONDS,
    ) -> EndReason:
        """Hold the call, and return why it ended; raises CallFailed if it cannot be opened.

        Each turn of the agent may take `turn_timeout_seconds` of real time.
        """
        self._turn_timeout_seconds = turn_timeout_seconds
        await self._connection.open()
        self.clock.start()
        talking = asyncio.create_task(self._talk(lines))
        listening = asyncio.create_task(self._listen())
        sending = asyncio.create_task(self._input.run())
        tasks: list[asyncio.Task[EndReason] | asyncio.Task[None]] = [talking, listening, sending]
        limit = max_duration_seconds and max_duration_seconds / self.clock.pace
        try:
            await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending  # ends only by an error
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
            await self._connection.close()

    @property
    def hangup(self) -> str:
        """Why Gemini closed the connection, if it did."""
        return self._connection.hangup

    async def _talk(self, lines: Sequence[Line]) -> EndReason:
        await self._connection.send({"realtimeInput": {"text": OPENING}})
        for line in lines:
            if not await self._wait_to_speak(line):
                return "agent_silent"
            self._server_messages.expect_turn()
            await self._input.say(line.text)
        return "completed" if await self._wait_for(self._server_messages.turn_heard()) else "agent_silent"

    async def _wait_to_speak(self, line: Line) -> bool:
        """Wait until the caller may say a line; False if the agent stays silent."""
        if line.interrupts:
            wait, pause = self._server_messages.turn_begun(), _INTERRUPTION_SECONDS
        else:
            wait, pause = self._server_messages.turn_heard(), _REACTION_SECONDS
        arrived = await self._wait_for(wait)
        await self.clock.sleep(pause)
        return arrived

    async def _wait_for(self, event: Awaitable[None]) -> bool:
        try:
            await asyncio.wait_for(event, self._turn_timeout_seconds)
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> EndReason:
        """Handle Gemini's messages, and reconnect with the resumption handle as often as needed."""
        while True:
            while (message := await self._connection.receive()) is not None:
                self._server_messages.take(message)
                if self._server_messages.should_reconnect and not self._input.is_in_use:
                    break
            handle = self._server_messages.take_handle()
            if handle is None:
                return "connection_lost"
            try:
                await self._connection.open(handle)
            except CallFailed:
                return "connection_lost"

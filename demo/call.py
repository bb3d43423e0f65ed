"""One call on the Python reference client: the caller says lines, the agent is heard, and both are recorded.

connect ──► the agent greets ──► listen, answer, listen ... ──► hang up, unless the agent does

The reference client also runs functions, assembles the transcript, saves it during the call, reconnects, and keeps the
time limit.
"""

import asyncio
import base64
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from demo.caller_input import CallerInput, Keyboard, Microphone
from demo.clock import CallClock
from demo.errors import CallFailed
from demo.example import Line
from demo.recording import Recording
from docs.clients import client
from local.speech import Speech, seconds_of

Json = dict[str, Any]

AGENTS_RATE: Final = 24_000
"""Sample rate of Gemini's audio output, in hertz."""

_REACTION_SECONDS: Final = 0.4
_INTERRUPTION_SECONDS: Final = 1.5
_HANG_UP_SECONDS: Final = 5.0
"""How long the caller waits, in real time, for an agent that has said goodbye and may hang up."""

TURN_TIMEOUT_SECONDS: Final = 90.0


class Call:
    """One call, in which the caller says a list of lines in order.

    `on_turn` gets each turn that can no longer change, and whether it was interrupted. `on_tool_call` gets each tool
    call, and when it ended in milliseconds, between the turns to which it belongs.
    """

    def __init__(
        self,
        live: client.Call,
        clock: CallClock,
        speech: Speech | None,
        on_turn: Callable[[Json, bool], None],
        on_tool_call: Callable[[Json, float], None],
    ) -> None:
        """Prepare a call over the reference client; if speech is None, the caller types."""
        self.recording = Recording()
        self.live = live
        self.clock = clock
        self._on_turn = on_turn
        self._on_tool_call = on_tool_call
        self._tool_calls: deque[tuple[float, Json]] = deque()
        self._input: CallerInput = (
            Microphone(live.send, speech, clock, self.recording) if speech else Keyboard(live.send)
        )
        self._reported = 0
        self._cut: set[int] = set()
        self._begun = asyncio.Event()
        self._complete = asyncio.Event()
        self._heard_until = 0.0
        live.on_message = self._take
        live.on_turn = self._turn_is_complete
        live.on_tool_call = lambda call: self._tool_calls.append((clock.now() * 1000, call))
        live.played = self._audio_heard

    async def hold(
        self,
        lines: Sequence[Line],
        max_duration_seconds: float | None,
        turn_timeout_seconds: float = TURN_TIMEOUT_SECONDS,
        *,
        may_hang_up: bool = False,
    ) -> str:
        """Hold the call, and return why it ended; raises CallFailed if there is no connection to Gemini.

        Each turn of the agent may take `turn_timeout_seconds` of real time. The caller hangs up after the agent's last
        turn, unless the agent itself does, if it may.
        """
        self.clock.start()
        talking = self._talk(lines, turn_timeout_seconds, _HANG_UP_SECONDS if may_hang_up else 0.0)
        tasks = [asyncio.create_task(talking), asyncio.create_task(self._input.run())]
        for task in tasks:
            task.add_done_callback(self._hang_up_on_error)
        try:
            return await self.live.hold(max_duration_seconds and max_duration_seconds / self.clock.pace)
        except ConnectionError as error:
            raise CallFailed(str(error)) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._report(len(self.live.transcript.turns))
            self._report_tool_calls(math.inf)
            for task in tasks:
                if not task.cancelled():
                    task.result()

    @property
    def unfinished(self) -> list[Json]:
        """The turns that may still change."""
        return self.live.transcript.turns[self._reported :]

    # ---- The caller ----

    async def _talk(self, lines: Sequence[Line], time_limit: float, hang_up_seconds: float) -> None:
        """Say the lines; hang up after the agent's last turn, if the agent does not, or when it stays silent."""
        for line in lines:
            if not await _in_time(self._begun.wait() if line.interrupts else self._turn_heard(), time_limit):
                return self.live.hang_up("agent_silent")
            await self.clock.sleep(_INTERRUPTION_SECONDS if line.interrupts else _REACTION_SECONDS)
            self._begun.clear()
            self._complete.clear()
            await self._input.say(line.text)
        is_heard = await _in_time(self._turn_heard(), time_limit)
        await asyncio.sleep(hang_up_seconds)
        if self.live.agent_hangs_up:
            return None
        return self.live.hang_up("completed" if is_heard else "agent_silent")

    async def _turn_heard(self) -> None:
        """Wait until the agent's turn is complete and all its audio would have been played.

        This does not return after the turn in which the agent hangs up.
        """
        await self._complete.wait()
        await self._audio_heard()

    async def _audio_heard(self) -> None:
        """Wait until the agent's audio would have been played."""
        await self.clock.sleep(self._heard_until - self.clock.now())

    def _hang_up_on_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            self.live.hang_up("failed")

    # ---- The agent ----

    def _take(self, message: Json) -> None:
        """Play a message's audio; it counts as heard when it would have been played, not when it arrives."""
        content = message.get("serverContent", {})
        for part in content.get("modelTurn", {}).get("parts", ()):
            if audio := part.get("inlineData"):
                self._begun.set()
                self._play(base64.b64decode(audio["data"]))
        if content.get("interrupted"):
            self._begun.clear()
            self._heard_until = self.clock.now()
            self.recording.forget_agent_from(self._heard_until)
            turns = enumerate(self.live.transcript.turns)
            self._cut.update([number for number, turn in turns if turn["role"] == "agent"][-1:])
        self._report(self.live.transcript.settled)

    async def _turn_is_complete(self) -> None:
        self._complete.set()

    def _play(self, pcm: bytes) -> None:
        start = max(self._heard_until, self.clock.now())
        self.recording.add("agent", start, AGENTS_RATE, pcm)
        self._heard_until = start + seconds_of(pcm, AGENTS_RATE)

    def _report(self, count: int) -> None:
        """Report the turns up to a number that were not reported yet."""
        for number, turn in enumerate(self.live.transcript.turns[self._reported : count], start=self._reported):
            if turn["role"] == "agent":
                self._report_tool_calls(turn["start_ms"])
            self._on_turn(turn, number in self._cut)
            if turn["role"] == "agent":
                self._report_tool_calls(turn["end_ms"])
        self._reported = max(self._reported, count)

    def _report_tool_calls(self, until_ms: float) -> None:
        """Report the tool calls that ended up to a time."""
        while self._tool_calls and self._tool_calls[0][0] <= until_ms:
            ended_ms, call = self._tool_calls.popleft()
            self._on_tool_call(call, ended_ms)


async def _in_time(event: Awaitable[object], seconds: float) -> bool:
    try:
        await asyncio.wait_for(event, seconds)
    except TimeoutError:
        return False
    return True

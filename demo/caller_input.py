"""The caller's input to a call: a microphone for synthesized speech, or a keyboard where no speech is available."""

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from demo.clock import CallClock
from demo.recording import Recording
from local.pacing import Pacer
from local.speech import Speech, pieces, silence

RATE: Final = 16_000
"""Sample rate of Gemini's audio input, in hertz."""

_PIECE_SECONDS: Final = 0.04

Send = Callable[[dict[str, Any]], Awaitable[None]]
"""Sends a `realtimeInput`."""


class CallerInput(Protocol):
    """The input of one caller."""

    async def run(self) -> None:
        """Send input until the task is canceled at the end of the call."""

    async def say(self, text: str) -> None:
        """Say a text, and return once all of it is sent."""


class Microphone:
    """Streams audio for the whole call, because Gemini detects the end of a turn by silence."""

    def __init__(self, send: Send, speech: Speech, clock: CallClock, recording: Recording) -> None:
        self._send = send
        self._speech = speech
        self._clock = clock
        self._recording = recording
        self._pieces: deque[bytes] = deque()
        self._is_quiet = asyncio.Event()

    async def run(self) -> None:
        """Send queued speech or silence in pieces of 40 ms, in real time by the call's clock."""
        pacer, seconds, nothing = Pacer(self._clock.pace), 0.0, silence(RATE, _PIECE_SECONDS)
        while True:
            await pacer.reach(seconds)
            if not self._pieces:
                self._is_quiet.set()
            audio = base64.b64encode(self._pieces.popleft() if self._pieces else nothing).decode()
            await self._send({"audio": {"data": audio, "mimeType": f"audio/pcm;rate={RATE}"}})
            seconds += _PIECE_SECONDS

    async def say(self, text: str) -> None:
        """Synthesize a text, queue its audio, and return once all of it is sent."""
        words = await asyncio.to_thread(list, self._speech.say(text))
        pcm = b"".join(word.pcm for word in words)
        self._recording.add("user", self._clock.now(), RATE, pcm)
        self._pieces.extend(pieces(pcm, RATE, _PIECE_SECONDS))
        self._is_quiet.clear()
        await self._is_quiet.wait()


class Keyboard:
    """Sends the caller's lines as text."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def run(self) -> None:
        """Wait until the task is canceled at the end of the call: text is sent by `say`."""
        await asyncio.Event().wait()

    async def say(self, text: str) -> None:
        """Send a text."""
        await self._send({"text": text})

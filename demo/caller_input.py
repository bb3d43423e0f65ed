"""The caller's input to a call: a microphone for synthesized speech, or a keyboard where no speech is available."""

import asyncio
import base64
from collections import deque
from typing import Final, Protocol

from demo.clock import CallClock
from demo.live_connection import LiveConnection
from demo.recording import Recording
from demo.transcript import Transcript
from local.pacing import Pacer
from local.speech import Speech, pieces, silence

RATE: Final = 16_000
"""Sample rate of Gemini's audio input, in hertz."""

_PIECE_SECONDS: Final = 0.04


class CallerInput(Protocol):
    """The input of one caller."""

    @property
    def is_in_use(self) -> bool:
        """Whether the caller is speaking."""

    async def run(self) -> None:
        """Send input until the task is canceled at the end of the call."""

    async def say(self, text: str) -> None:
        """Say a text, and return once all of it is sent."""


class Microphone:
    """Streams audio for the whole call, because Gemini detects the end of a turn by silence."""

    def __init__(
        self, connection: LiveConnection, transcript: Transcript, speech: Speech, clock: CallClock, recording: Recording
    ) -> None:
        self._connection = connection
        self._transcript = transcript
        self._speech = speech
        self._clock = clock
        self._recording = recording
        self._pieces: deque[bytes] = deque()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    @property
    def is_in_use(self) -> bool:
        """Whether the caller is speaking."""
        return not self._is_quiet.is_set()

    async def run(self) -> None:
        """Send queued speech or silence in pieces of 40 ms, in real time by the call's clock."""
        pacer, seconds, nothing = Pacer(self._clock.pace), 0.0, silence(RATE, _PIECE_SECONDS)
        while True:
            await pacer.reach(seconds)
            if not self._pieces:
                self._is_quiet.set()
            audio = base64.b64encode(self._pieces.popleft() if self._pieces else nothing).decode()
            await self._connection.send(
                {"realtimeInput": {"audio": {"data": audio, "mimeType": f"audio/pcm;rate={RATE}"}}}
            )
            seconds += _PIECE_SECONDS

    async def say(self, text: str) -> None:
        """Synthesize a text, queue its audio, and return once all of it is sent."""
        words = await asyncio.to_thread(list, self._speech.say(text))
        self._transcript.begin("user")
        pcm = b"".join(word.pcm for word in words)
        self._recording.add("user", self._clock.now(), RATE, pcm)
        self._pieces.extend(pieces(pcm, RATE, _PIECE_SECONDS))
        self._is_quiet.clear()
        await self._is_quiet.wait()


class Keyboard:
    """Sends the caller's lines as text, and adds them to the transcript, because Gemini transcribes audio only."""

    is_in_use = False

    def __init__(self, connection: LiveConnection, transcript: Transcript) -> None:
        self._connection = connection
        self._transcript = transcript

    async def run(self) -> None:
        """Wait until the task is canceled at the end of the call: text is sent by `say`."""
        await asyncio.Event().wait()

    async def say(self, text: str) -> None:
        """Send a text."""
        self._transcript.begin("user")
        self._transcript.add("user", text)
        await self._connection.send({"realtimeInput": {"text": text}})

"""The caller's side of a call: a microphone into which somebody speaks, or a keyboard where nobody can."""

import asyncio
import base64
from collections import deque
from typing import Final, Protocol

from demo.clock import CallClock
from demo.live_line import LiveLine
from demo.recording import Recording
from demo.transcript import Transcript
from local.pacing import Pacer
from local.speech import Speech, pieces, silence

RATE: Final = 16_000
"""What Gemini takes, in hertz."""

_PIECE_SECONDS: Final = 0.04


class Mouthpiece(Protocol):
    """How a caller makes themselves heard."""

    @property
    def is_in_use(self) -> bool:
        """Whether the caller is in the middle of something."""

    async def run(self) -> None:
        """Send all that there is to send, for as long as the call lasts."""

    async def say(self, text: str) -> None:
        """Say something, and come back when it is said."""


class Microphone:
    """Is open for the whole call, so that Gemini hears the silence by which a turn ends."""

    def __init__(
        self, line: LiveLine, transcript: Transcript, speech: Speech, clock: CallClock, recording: Recording
    ) -> None:
        self._line = line
        self._transcript = transcript
        self._speech = speech
        self._clock = clock
        self._recording = recording
        self._pieces: deque[bytes] = deque()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    @property
    def is_in_use(self) -> bool:
        """Whether the caller is in the middle of something."""
        return not self._is_quiet.is_set()

    async def run(self) -> None:
        """Send what the microphone hears, piece by piece, at the pace at which it sounds."""
        pacer, seconds, nothing = Pacer(self._clock.pace), 0.0, silence(RATE, _PIECE_SECONDS)
        while True:
            await pacer.reach(seconds)
            if not self._pieces:
                self._is_quiet.set()
            audio = base64.b64encode(self._pieces.popleft() if self._pieces else nothing).decode()
            await self._line.send({"realtimeInput": {"audio": {"data": audio, "mimeType": f"audio/pcm;rate={RATE}"}}})
            seconds += _PIECE_SECONDS

    async def say(self, text: str) -> None:
        """Speak into the microphone, and come back when it is said."""
        words = await asyncio.to_thread(list, self._speech.say(text))
        self._transcript.begin("user")
        pcm = b"".join(word.pcm for word in words)
        self._recording.add("user", self._clock.now(), RATE, pcm)
        self._pieces.extend(pieces(pcm, RATE, _PIECE_SECONDS))
        self._is_quiet.clear()
        await self._is_quiet.wait()


class Keyboard:
    """Types what the caller would say; Gemini does not transcribe that, so it goes into the transcript here."""

    is_in_use = False

    def __init__(self, line: LiveLine, transcript: Transcript) -> None:
        self._line = line
        self._transcript = transcript

    async def run(self) -> None:
        """Do nothing until the call is over."""
        await asyncio.Event().wait()

    async def say(self, text: str) -> None:
        """Send a text."""
        self._transcript.begin("user")
        self._transcript.add("user", text)
        await self._line.send({"realtimeInput": {"text": text}})

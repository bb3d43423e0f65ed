"""Voice activity detection by the energy of the caller's audio, and the words that the audio carries.

Time is measured in audio, not by a clock, so the result does not depend on how fast the audio arrives.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local.audio_watermark import WatermarkReader

RATE: Final = 16_000
SILENCE_SECONDS: Final = 0.7

_FRAME_SECONDS: Final = 0.02
_FRAME: Final = struct.Struct(f"<{round(RATE * _FRAME_SECONDS)}h")
_LOUD: Final = 500
"""Minimum root mean square of a frame with speech; a quiet room is at a tenth of that."""

_FRAMES_TO_START: Final = 3

WITHOUT_WORDS: Final = re.compile(r"\[\d+\.\d s of speech\]")
"""What stands in the transcript for speech whose words cannot be read, as from a real microphone."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller has begun to speak."""


@dataclass(frozen=True, slots=True)
class WordsHeard:
    """The caller has said more words."""

    text: str


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The caller's turn has ended by silence: its words, and the duration of the speech in seconds."""

    text: str
    seconds: float

    @property
    def utterance(self) -> str:
        """The words as they are transcribed."""
        return self.text.strip() or f"[{self.seconds:.1f} s of speech]"


Heard = SpeechStarted | WordsHeard | SpeechEnded


class VoiceActivityDetector:
    """Detects the voice activity of one caller."""

    def __init__(self, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._silence_seconds = silence_seconds
        self._reader = WatermarkReader()
        self._rest = b""
        self._speaks = False
        self._loud = self._quiet = self._frames = 0
        self._words: list[str] = []

    @property
    def hears_speech(self) -> bool:
        """Whether the caller is speaking."""
        return self._speaks

    def listen(self, pcm: bytes) -> Iterator[Heard]:
        """Process the next audio (16 kHz, 16-bit little-endian mono), and yield what it contains."""
        pcm = self._rest + pcm
        whole = len(pcm) // _FRAME.size * _FRAME.size
        self._rest = pcm[whole:]
        for frame in _FRAME.iter_unpack(pcm[:whole]):
            yield from self._frame(frame)

    def end(self) -> Iterator[Heard]:
        """Process the end of the audio, which ends speech immediately."""
        if self._speaks:
            yield self._ended()

    def _frame(self, samples: tuple[int, ...]) -> Iterator[Heard]:
        words = "".join(self._reader.read(samples))
        is_loud = math.hypot(*samples) > _LOUD * math.sqrt(len(samples))
        if not self._speaks:
            self._words += [words] if words else []
            self._loud = self._loud + 1 if is_loud else 0
            if self._loud < _FRAMES_TO_START:
                return
            self._speaks, self._frames, self._quiet = True, self._loud, 0
            yield SpeechStarted()
            words = "".join(self._words)
            self._words = []
        else:
            self._frames += 1
            self._quiet = 0 if is_loud else self._quiet + 1
        if words:
            self._words.append(words)
            yield WordsHeard(words)
        if self._quiet * _FRAME_SECONDS >= self._silence_seconds:
            yield self._ended()

    def _ended(self) -> SpeechEnded:
        text, seconds = "".join(self._words), (self._frames - self._quiet) * _FRAME_SECONDS
        self._speaks, self._loud, self._words = False, 0, []
        return SpeechEnded(text, seconds)

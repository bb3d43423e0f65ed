"""Voice activity detection by the energy of the caller's audio, and the words that the audio carries.

Time is measured in audio, not by a clock, so the result does not depend on how fast the audio arrives. Audio with words
is speech. Any other sound is speech once it was loud for long enough and its level has varied: fans, hum and tones are
steady, and clicks are short. See docs/adr/0038.
"""

import math
import re
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import sub
from typing import Final

from local.audio_watermark import WatermarkReader

RATE: Final = 16_000
SILENCE_SECONDS: Final = 0.7

_FRAME_SECONDS: Final = 0.02
_FRAME: Final = struct.Struct(f"<{round(RATE * _FRAME_SECONDS)}h")
_LAG: Final = 4
"""Samples of the difference that is measured, which removes an offset and most of a mains hum."""

_LOWEST_LEVEL: Final = 150.0
"""Minimum level of speech."""

_QUIET_ROOM: Final = 40.0
_TIMES_NOISE_TO_START: Final = 3.0
_TIMES_NOISE_TO_GO_ON: Final = 2.0
_STEADY_FRAMES: Final = 40
"""How long a sound has to be steady to be noise; longer than sounds of speech."""

_RISE: Final = 1.02
_RISE_IN_SPEECH: Final = 1.005
_FALL: Final = 0.8
"""By which factor the noise may rise and fall in a frame."""

_WINDOW_FRAMES: Final = 12
_FRAMES_TO_START: Final = 8
_FRAMES_TO_GO_ON: Final = 3
"""Loud frames: of the last ones, to be speech; and in a row, to end a pause."""

_FRAMES_TO_FORGET: Final = 20
"""Pause that ends a sound which is not speech yet."""

_VARIED_FRAMES: Final = 25
_LONGEST_FRAMES: Final = 6_000
"""After two minutes a turn ends, even if it is not silent."""

WITHOUT_WORDS: Final = re.compile(r"\[\d+\.\d s of speech\]")
"""What stands in the transcript for speech whose words are not known."""


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
        self._noise = _Noise()
        self._rest = b""
        self._sound: _Sound | None = None

    @property
    def hears_speech(self) -> bool:
        """Whether the caller is speaking."""
        return self._sound is not None and self._sound.is_speech

    def listen(self, pcm: bytes) -> Iterator[Heard]:
        """Process the next audio (16 kHz, 16-bit little-endian mono), and yield what it contains."""
        pcm = self._rest + pcm
        whole = len(pcm) // _FRAME.size * _FRAME.size
        self._rest = pcm[whole:]
        for frame in _FRAME.iter_unpack(pcm[:whole]):
            yield from self._frame(frame)

    def end(self) -> Iterator[Heard]:
        """Process the end of the audio, which ends speech immediately."""
        sound, self._sound = self._sound, None
        if sound and sound.is_speech:
            yield sound.ended

    def _frame(self, samples: tuple[int, ...]) -> Iterator[Heard]:
        words, level = "".join(self._reader.read(samples)), _level(samples)
        times = _TIMES_NOISE_TO_GO_ON if self.hears_speech else _TIMES_NOISE_TO_START
        is_loud = level > max(_LOWEST_LEVEL, times * self._noise.level)
        if not (words or (self._sound and self._sound.words)):
            self._noise.add(level, _RISE_IN_SPEECH if self.hears_speech else _RISE)
        if self._sound is None:
            if not is_loud and not words:
                return
            self._sound = _Sound()
        sound = self._sound
        sound.add(level, words, is_loud=is_loud)
        if not sound.is_speech:
            if sound.is_like_speech:
                sound.is_speech = True
                yield SpeechStarted()
            elif sound.quiet >= _FRAMES_TO_FORGET:
                self._sound = None
        if words:
            yield WordsHeard(words)
        if sound.is_speech and (
            sound.quiet * _FRAME_SECONDS >= self._silence_seconds or sound.frames >= _LONGEST_FRAMES
        ):
            yield from self.end()


@dataclass(slots=True)
class _Sound:
    """A sound from its first loud frame on, and whether it is speech; the last `quiet` frames are a pause."""

    frames: int = 0
    quiet: int = 0
    is_speech: bool = False
    words: list[str] = field(default_factory=list)
    _in_a_row: int = 0
    _loud: deque[bool] = field(default_factory=lambda: deque(maxlen=_WINDOW_FRAMES))
    _levels: deque[float] = field(default_factory=lambda: deque(maxlen=_VARIED_FRAMES))
    _pause: deque[float] = field(default_factory=lambda: deque(maxlen=_VARIED_FRAMES))

    def add(self, level: float, words: str, *, is_loud: bool) -> None:
        """Add a frame."""
        self.frames += 1
        self._loud.append(is_loud)
        self._in_a_row = self._in_a_row + 1 if is_loud else 0
        if words:
            self.words.append(words)
        # A click in a pause does not end it.
        needed = _FRAMES_TO_GO_ON if self.is_speech else 1
        self.quiet = 0 if words or self._in_a_row >= needed else self.quiet + 1
        if not is_loud:
            self._pause.append(level)
        elif self.frames > 1:  # the first frame may be loud in part only
            self._levels += [*self._pause, level]
            self._pause.clear()

    @property
    def is_like_speech(self) -> bool:
        """Whether the sound has words, or is loud, long and varied enough."""
        if self.words:
            return True
        if not self._loud[-1] or sum(self._loud) < _FRAMES_TO_START:
            return False
        *_, loud, _ = sorted(self._levels)
        return sum(level < loud / 2 for level in self._levels) > 1  # one frame may be its end

    @property
    def ended(self) -> SpeechEnded:
        """The words and the duration without the pause at the end."""
        return SpeechEnded("".join(self.words), (self.frames - self.quiet) * _FRAME_SECONDS)


class _Noise:
    """The level of the noise behind the speech: of the last steady sound, or of the quietest moments."""

    def __init__(self) -> None:
        self.level = _QUIET_ROOM
        self._recent = deque[float](maxlen=_STEADY_FRAMES)

    def add(self, level: float, rise: float) -> None:
        """Add the level of a frame."""
        self._recent.append(level)
        quiet, *_, loud, _ = sorted(self._recent) if len(self._recent) == _STEADY_FRAMES else (0.0, 1.0, 1.0)
        if loud < 2 * quiet:
            self.level = loud
        elif level < self.level:
            self.level = max(level, _FALL * self.level)
        else:
            self.level = min(level, rise * self.level)
        self.level = max(self.level, 1.0)


def _level(samples: Sequence[int]) -> float:
    """Return the root mean square of a frame's differences."""
    return math.hypot(*map(sub, samples[_LAG:], samples)) / math.sqrt(len(samples) - _LAG)

"""Speech synthesis: by espeak-ng if it is installed, otherwise hummed, with one soft tone per word.

The audio is 16-bit little-endian mono PCM, and carries its words as watermarks (`audio_watermark.py`).
"""

import io
import math
import re
import shutil
import struct
import subprocess
import wave
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from local.audio_watermark import embed

SAMPLE_BYTES: Final = 2
ESPEAK: Final = "espeak-ng"

_PART: Final = re.compile(r"\S{1,16}\s*")
"""A word, or a part of one in languages without spaces between words."""

_WORDS_PER_MINUTE: Final = 175
_ESPEAK_SECONDS: Final = 20
_LETTER_SECONDS: Final = 0.05
_WORD_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = {",": 0.12, ";": 0.12, ":": 0.12, ".": 0.25, "!": 0.25, "?": 0.25, "…": 0.25}
_GAP_SECONDS: Final = 0.04
_FADE_SECONDS: Final = 0.015
_LOUDNESS: Final = 3_000
_TONE: Final = tuple(
    round(_LOUDNESS * (math.sin(2 * math.pi * place / 512) + 0.3 * math.sin(4 * math.pi * place / 512)))
    for place in range(512)
)
"""One period of the tone."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word with the space after it, and its audio; joined, the words are the text."""

    text: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice: language (a BCP 47 tag), pitch in hertz, and speed (1 is natural)."""

    language: str = "en-US"
    pitch: float = 180.0
    speed: float = 1.0


class Speech:
    """Synthesizes texts with one voice at one sample rate in hertz."""

    def __init__(self, rate: int, voice: Voice, espeak: str | None = ESPEAK) -> None:
        """Prepare the synthesis; `espeak` is the program's name, and None hums everything."""
        self.rate = rate
        self._voice = voice
        self._espeak = espeak and shutil.which(espeak)

    def has_words(self) -> bool:
        """Return whether espeak-ng can speak the voice's language on this machine."""
        return self._spoken("a") is not None

    def say(self, text: str) -> Iterator[SpokenWord]:
        """Synthesize a text word by word; blocks, so call it outside the event loop."""
        parts = parts_of(text)
        spoken = self._spoken(" ".join(text.split())) if parts else None
        sounds = _split_by_words(spoken, parts) if spoken else map(self._hummed, parts)
        for part, sound in zip(parts, sounds, strict=True):
            yield SpokenWord(part, _pcm(embed(sound, part)))

    def _spoken(self, text: str) -> list[int] | None:
        """Synthesize by espeak-ng; None if it is missing, does not know the language, or fails."""
        if self._espeak is None:
            return None
        speed, pitch = round(_WORDS_PER_MINUTE * self._voice.speed), round(self._voice.pitch / 4)
        command = [self._espeak, "--stdin", "--stdout", "-v", self._voice.language, "-s", str(speed)]
        try:
            done = subprocess.run(  # noqa: S603 (fixed arguments; the text is passed on standard input)
                [*command, "-p", str(pitch)],
                input=text.encode(),
                capture_output=True,
                timeout=_ESPEAK_SECONDS,
                check=True,
            )
            with wave.open(io.BytesIO(done.stdout)) as file:
                return resampled(samples_of(file.readframes(file.getnframes())), file.getframerate(), self.rate)
        except (OSError, subprocess.SubprocessError, wave.Error, EOFError):
            return None

    def _hummed(self, part: str) -> list[int]:
        word = part.strip()
        seconds = _WORD_SECONDS + _LETTER_SECONDS * len(word)
        pause = _GAP_SECONDS + _PAUSE_SECONDS.get(word[-1:], 0.0)
        pitch = self._voice.pitch * (1 + zlib.crc32(word.lower().encode()) % 7 / 12)
        step = len(_TONE) * pitch / self.rate
        hum = [
            _TONE[int(number * step) % len(_TONE)] for number in range(round(self.rate * seconds / self._voice.speed))
        ]
        fade = round(self.rate * _FADE_SECONDS)
        for number in range(fade):
            hum[number] = hum[number] * number // fade
            hum[-1 - number] = hum[-1 - number] * number // fade
        return hum + [0] * round(self.rate * pause / self._voice.speed)


def parts_of(text: str) -> list[str]:
    """Split a text into its spoken words, each with the space after it."""
    return [part.rstrip() + " " * part[-1:].isspace() for part in _PART.findall(text)]


def seconds_of(pcm: bytes, rate: int) -> float:
    """Return the duration of audio in seconds."""
    return len(pcm) / SAMPLE_BYTES / rate


def pieces(pcm: bytes, rate: int, seconds: float) -> Iterator[bytes]:
    """Split audio into pieces of equal length; the last may be shorter."""
    size = round(rate * seconds) * SAMPLE_BYTES
    return (pcm[start : start + size] for start in range(0, len(pcm), size))


def silence(rate: int, seconds: float) -> bytes:
    """Return silent audio."""
    return bytes(round(rate * seconds) * SAMPLE_BYTES)


def _split_by_words(samples: Sequence[int], parts: Sequence[str]) -> Iterator[Sequence[int]]:
    """Split the audio of a text into the audio of its words, in proportion to their letters."""
    letters, passed, start = sum(map(len, parts)), 0, 0
    for part in parts:
        passed += len(part)
        end = round(len(samples) * passed / letters)
        yield samples[start:end]
        start = end


def resampled(samples: Sequence[int], rate: int, wanted: int) -> list[int]:
    """Change the sample rate by linear interpolation."""
    last, step = len(samples) - 1, rate / wanted
    drawn = []
    for number in range(int(len(samples) / step)):
        before = min(int(number * step), last)
        after, share = samples[min(before + 1, last)], number * step - before
        drawn.append(round(samples[before] + (after - samples[before]) * share))
    return drawn


def samples_of(pcm: bytes) -> tuple[int, ...]:
    """Return the samples of audio as integers."""
    return struct.unpack(f"<{len(pcm) // SAMPLE_BYTES}h", pcm[: len(pcm) // SAMPLE_BYTES * SAMPLE_BYTES])


def _pcm(samples: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(samples)}h", *samples)

"""Synthetic sounds of a microphone at 16 kHz: a voice, and the noises of a room."""

import math
import random
import struct
from collections.abc import Sequence
from typing import Final

RATE: Final = 16_000

_SYLLABLES: Final = 4.5
"""Syllables a second."""


def voice(seconds: float, loudness: int = 4_000, pitch: float = 130.0) -> list[int]:
    """Return a voice: harmonics below two formants, with the rise and fall of syllables."""
    harmonics = [(number, _formants(number * pitch)) for number in range(1, 24)]
    samples = []
    for place in range(round(seconds * RATE)):
        time = place / RATE
        glide = 2 * math.pi * pitch * (time + 0.01 * math.sin(6 * time))
        swell = max(0.0, math.sin(math.pi * (time * _SYLLABLES % 1.0))) ** 0.8
        sound = sum(strength * math.sin(number * glide) for number, strength in harmonics)
        samples.append(max(-32_768, min(32_767, round(loudness * swell * sound))))
    return samples


def _formants(hertz: float) -> float:
    return sum(weight * math.exp(-(((hertz - peak) / width) ** 2)) for peak, width, weight in _PEAKS)


_PEAKS: Final = ((150.0, 150.0, 0.5), (600.0, 200.0, 0.6), (1_400.0, 300.0, 0.25))


def silent(seconds: float) -> list[int]:
    """Return silence."""
    return [0] * round(seconds * RATE)


def noise(seconds: float, loudness: int, seed: int = 7) -> list[int]:
    """Return white noise, as of a fan."""
    generator = random.Random(seed)  # noqa: S311 (the same noise every time)
    return [generator.randint(-loudness, loudness) for _ in range(round(seconds * RATE))]


def tone(seconds: float, loudness: int, hertz: float) -> list[int]:
    """Return a tone, as of a telephone."""
    return [round(loudness * math.sin(2 * math.pi * hertz * place / RATE)) for place in range(round(seconds * RATE))]


def hum(seconds: float, loudness: int, hertz: float = 50.0) -> list[int]:
    """Return mains hum with its harmonics."""
    parts = [tone(seconds, loudness // number, number * hertz) for number in (1, 2, 3, 5)]
    return [max(-32_768, min(32_767, sum(samples))) for samples in zip(*parts, strict=True)]


def mixed(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Return two recordings of equal length at once."""
    return [max(-32_768, min(32_767, sum(pair))) for pair in zip(first, second, strict=True)]


def pcm_of(samples: Sequence[int]) -> bytes:
    """Return samples as audio."""
    return struct.pack(f"<{len(samples)}h", *samples)

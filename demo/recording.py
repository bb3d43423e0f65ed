"""A recording of a call as a WAV file: the agent on the left, the caller on the right, at natural speed."""

import struct
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from local.speech import SAMPLE_BYTES, resampled, samples_of

Role = Literal["agent", "user"]

_RATE: Final = 24_000
_SIDES: Final[tuple[Role, Role]] = ("agent", "user")


@dataclass(frozen=True, slots=True)
class _Sound:
    role: Role
    start: float
    rate: int
    pcm: bytes


class Recording:
    """The sounds of a call, each with its start in seconds since the call began."""

    def __init__(self) -> None:
        self._sounds: list[_Sound] = []

    def add(self, role: Role, start: float, rate: int, pcm: bytes) -> None:
        """Add a sound."""
        self._sounds.append(_Sound(role, start, rate, pcm))

    def forget_agent_from(self, moment: float) -> None:
        """Remove the agent's audio from a moment on, because an interruption cut it off."""
        self._sounds = [sound for sound in self._sounds if sound.role != "agent" or sound.start < moment]

    def save(self, path: Path) -> None:
        """Write the file; raises OSError."""
        sides = [self._side(role) for role in _SIDES]
        length = max(map(len, sides))
        frames = [
            sample
            for frame in zip(*(side + [0] * (length - len(side)) for side in sides), strict=True)
            for sample in frame
        ]
        with wave.open(str(path), "wb") as file:
            file.setnchannels(len(sides))
            file.setsampwidth(SAMPLE_BYTES)
            file.setframerate(_RATE)
            file.writeframes(struct.pack(f"<{len(frames)}h", *frames))

    def _side(self, role: Role) -> list[int]:
        side: list[int] = []
        for sound in self._sounds:
            if sound.role == role:
                start = round(sound.start * _RATE)
                side += [0] * (start - len(side))
                samples = samples_of(sound.pcm)
                side[start : start + len(samples)] = (
                    samples if sound.rate == _RATE else resampled(samples, sound.rate, _RATE)
                )
        return side

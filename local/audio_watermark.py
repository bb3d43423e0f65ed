"""Audio watermarks: text in the least significant bits of audio samples, where it is inaudible.

The stand-in for Gemini Live cannot recognize speech. Audio from `speech.py` carries its own words, which can be read as
long as the samples are unchanged. A microphone, a resampler or a codec destroys them. See docs/adr/0011.

    a watermark: a pattern of 32 bits, the length of the text in bytes (8 bits), the text as UTF-8, its CRC (32 bits)
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

LONGEST_TEXT_BYTES: Final = 255

_PATTERN_BYTES: Final = (0x5069_766F).to_bytes(4)
_LENGTH_BYTES: Final = 1
_CHECKSUM_BYTES: Final = 4


def embed(samples: Sequence[int], text: str) -> list[int]:
    """Return the samples with a text embedded from the first sample on; raises ValueError if it does not fit."""
    content = text.encode()
    length = len(content).to_bytes(_LENGTH_BYTES) if len(content) <= LONGEST_TEXT_BYTES else b""
    bits = _bits(_PATTERN_BYTES + length + content + zlib.crc32(content).to_bytes(_CHECKSUM_BYTES))
    if not length or len(bits) > len(samples):
        raise ValueError(f"{len(samples)} samples are too few for {text!r}.")
    embedded = [sample & ~1 | bit for sample, bit in zip(samples, bits, strict=False)]
    return [*embedded, *samples[len(bits) :]]


class WatermarkReader:
    """Finds watermarks in audio that arrives in pieces."""

    def __init__(self) -> None:
        self._bits = b""

    def read(self, samples: Sequence[int]) -> Iterator[str]:
        """Read the next samples, and yield the texts that end in them."""
        self._bits += bytes(sample & 1 for sample in samples)
        while (start := self._bits.find(_PATTERN)) >= 0:
            text, end = _content(self._bits, start + len(_PATTERN))
            if end > len(self._bits):
                self._bits = self._bits[start:]
                return
            if text is not None:
                yield text
            self._bits = self._bits[start + 1 if text is None else end :]
        self._bits = self._bits[-len(_PATTERN) + 1 :]


def _content(bits: bytes, start: int) -> tuple[str | None, int]:
    """Return a watermark's text, or None if it is invalid, and the position where it ends."""
    at = start + 8 * _LENGTH_BYTES
    length = int.from_bytes(_bytes(bits[start:at]))
    end = at + 8 * (length + _CHECKSUM_BYTES)
    content, checksum = _bytes(bits[at : at + 8 * length]), _bytes(bits[at + 8 * length : end])
    is_text = len(bits) >= end and zlib.crc32(content).to_bytes(_CHECKSUM_BYTES) == checksum
    return content.decode(errors="replace") if is_text else None, end


def _bits(content: bytes) -> bytes:
    return bytes(byte >> place & 1 for byte in content for place in range(7, -1, -1))


def _bytes(bits: bytes) -> bytes:
    return bytes(
        sum(bit << place for bit, place in zip(bits[start : start + 8], range(7, -1, -1), strict=False))
        for start in range(0, len(bits), 8)
    )


_PATTERN: Final = _bits(_PATTERN_BYTES)

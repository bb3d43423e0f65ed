"""Usage metadata of the Live API."""

from dataclasses import dataclass
from typing import Final

from local.stand_ins.gemini_messages import Message

_AUDIO_TOKENS_PER_SECOND: Final = 25
_LETTERS_PER_TOKEN: Final = 4


@dataclass(slots=True)
class Usage:
    """Usage: the input of the conversation so far, and the output of the current turn.

    Text is what the caller types and what functions answer, and in the output the function calls.
    """

    heard_seconds: float = 0.0
    read_letters: int = 0
    spoken_seconds: float = 0.0
    written_letters: int = 0

    def end_turn(self) -> Message:
        """Return the usage metadata at the end of a turn, and begin the next one."""
        message = self._message
        self.spoken_seconds, self.written_letters = 0.0, 0
        return message

    @property
    def _message(self) -> Message:
        heard, read = round(self.heard_seconds * _AUDIO_TOKENS_PER_SECOND), self.read_letters // _LETTERS_PER_TOKEN
        spoken = round(self.spoken_seconds * _AUDIO_TOKENS_PER_SECOND)
        written = self.written_letters // _LETTERS_PER_TOKEN
        return {
            "promptTokenCount": heard + read,
            "responseTokenCount": spoken + written,
            "totalTokenCount": heard + read + spoken + written,
            "promptTokensDetails": [_detail("AUDIO", heard), _detail("TEXT", read)],
            "responseTokensDetails": [_detail("AUDIO", spoken), *([_detail("TEXT", written)] if written else [])],
        }


def _detail(modality: str, tokens: int) -> Message:
    return {"modality": modality, "tokenCount": tokens}

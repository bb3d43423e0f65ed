"""What a conversation needs from its setup."""

import zlib
from typing import Final

from local.speech import Voice
from local.stand_ins.gemini_live_agent import Script
from local.stand_ins.gemini_live_voice_activity import SILENCE_SECONDS
from local.stand_ins.gemini_messages import Message

_LOWEST_VOICE_HERTZ: Final = 110
_VOICES_HERTZ: Final = 120


def instruction_of(setup: Message) -> str:
    """Return the system instruction."""
    return "\n".join(part.get("text", "") for part in setup.get("systemInstruction", {}).get("parts", []))


def silence_seconds_of(setup: Message) -> float:
    """Return the silence that ends a turn of the caller."""
    detection = setup.get("realtimeInputConfig", {}).get("automaticActivityDetection", {})
    return float(detection.get("silenceDurationMs", SILENCE_SECONDS * 1000)) / 1000


def voice_of(setup: Message, script: Script) -> Voice:
    """Return a voice whose pitch depends on the name of Gemini's voice."""
    config = setup.get("generationConfig", {}).get("speechConfig", {}).get("voiceConfig", {})
    name = config.get("prebuiltVoiceConfig", {}).get("voiceName", "Puck")
    return Voice(script.language, _LOWEST_VOICE_HERTZ + zlib.crc32(name.encode()) % _VOICES_HERTZ, script.speed)

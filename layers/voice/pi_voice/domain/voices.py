"""The prebuilt voices of Gemini Live."""

from typing import Final, Literal

from typing_extensions import TypeAliasType

from pi_voice.domain.base import Document

VoiceName = TypeAliasType("VoiceName", Literal[
    "Zephyr", "Puck", "Charon", "Kore", "Fenrir", "Leda", "Orus", "Aoede", "Callirrhoe", "Autonoe",
    "Enceladus", "Iapetus", "Umbriel", "Algieba", "Despina", "Erinome", "Algenib", "Rasalgethi", "Laomedeia",
    "Achernar", "Alnilam", "Schedar", "Gacrux", "Pulcherrima", "Achird", "Zubenelgenubi", "Vindemiatrix",
    "Sadachbia", "Sadaltager", "Sulafat",
])  # fmt: skip
"""Name of a prebuilt voice."""


class Voice(Document):
    """A prebuilt voice, with Google's one-word description."""

    name: VoiceName
    """Name, as in an agent's `voice.name`."""
    style: str
    """Google's description of the voice in one word."""


VOICES: Final[tuple[Voice, ...]] = (
    Voice(name="Zephyr", style="Bright"),
    Voice(name="Puck", style="Upbeat"),
    Voice(name="Charon", style="Informative"),
    Voice(name="Kore", style="Firm"),
    Voice(name="Fenrir", style="Excitable"),
    Voice(name="Leda", style="Youthful"),
    Voice(name="Orus", style="Firm"),
    Voice(name="Aoede", style="Breezy"),
    Voice(name="Callirrhoe", style="Easy-going"),
    Voice(name="Autonoe", style="Bright"),
    Voice(name="Enceladus", style="Breathy"),
    Voice(name="Iapetus", style="Clear"),
    Voice(name="Umbriel", style="Easy-going"),
    Voice(name="Algieba", style="Smooth"),
    Voice(name="Despina", style="Smooth"),
    Voice(name="Erinome", style="Clear"),
    Voice(name="Algenib", style="Gravelly"),
    Voice(name="Rasalgethi", style="Informative"),
    Voice(name="Laomedeia", style="Upbeat"),
    Voice(name="Achernar", style="Soft"),
    Voice(name="Alnilam", style="Firm"),
    Voice(name="Schedar", style="Even"),
    Voice(name="Gacrux", style="Mature"),
    Voice(name="Pulcherrima", style="Forward"),
    Voice(name="Achird", style="Friendly"),
    Voice(name="Zubenelgenubi", style="Casual"),
    Voice(name="Vindemiatrix", style="Gentle"),
    Voice(name="Sadachbia", style="Lively"),
    Voice(name="Sadaltager", style="Knowledgeable"),
    Voice(name="Sulafat", style="Warm"),
)

import pytest
from pydantic import TypeAdapter, ValidationError

from pi_voice.domain.voices import VOICES, VoiceName

GOOGLE_VOICES = """
Zephyr Bright, Puck Upbeat, Charon Informative, Kore Firm, Fenrir Excitable, Leda Youthful, Orus Firm, Aoede Breezy,
Callirrhoe Easy-going, Autonoe Bright, Enceladus Breathy, Iapetus Clear, Umbriel Easy-going, Algieba Smooth,
Despina Smooth, Erinome Clear, Algenib Gravelly, Rasalgethi Informative, Laomedeia Upbeat, Achernar Soft,
Alnilam Firm, Schedar Even, Gacrux Mature, Pulcherrima Forward, Achird Friendly, Zubenelgenubi Casual,
Vindemiatrix Gentle, Sadachbia Lively, Sadaltager Knowledgeable, Sulafat Warm
"""


def test_the_voices_are_the_thirty_of_gemini_live_with_their_styles() -> None:
    expected = [tuple(entry.split()) for entry in GOOGLE_VOICES.split(",")]

    assert list(VOICES.items()) == expected
    assert len(expected) == 30


@pytest.mark.parametrize("name", VOICES)
def test_every_listed_voice_is_a_valid_name(name: str) -> None:
    assert TypeAdapter(VoiceName).validate_python(name) == name


@pytest.mark.parametrize("name", ["puck", "Puck ", "Alloy", "", None])
def test_another_name_is_rejected(name: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(VoiceName).validate_python(name)

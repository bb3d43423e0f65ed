"""Voice activity detection by the energy of the audio."""

import random
import struct

from local.speech import silence
from local.stand_ins.gemini_live_voice_activity import (
    RATE,
    Heard,
    SpeechEnded,
    SpeechStarted,
    VoiceActivityDetector,
    WordsHeard,
)
from tests.local.live.callers import spoken


def heard(pcm: bytes, piece: int = 997) -> list[Heard]:
    """Process audio in pieces of an odd size."""
    detector = VoiceActivityDetector()
    return [what for start in range(0, len(pcm), piece) for what in detector.listen(pcm[start : start + piece])]


def noise(seconds: float, loudness: int) -> bytes:
    generator = random.Random(7)  # noqa: S311 (the same noise every time)
    count = round(seconds * RATE)
    return struct.pack(f"<{count}h", *(generator.randint(-loudness, loudness) for _ in range(count)))


def test_a_turn_is_detected_with_its_words() -> None:
    first, *words, last = heard(silence(RATE, 1) + spoken("My name is Erik."))

    assert first == SpeechStarted()
    assert words == [WordsHeard("My "), WordsHeard("name "), WordsHeard("is "), WordsHeard("Erik.")]
    assert isinstance(last, SpeechEnded)
    assert last.text == "My name is Erik."


def test_the_size_of_audio_pieces_does_not_matter() -> None:
    pcm = spoken("My name is Erik.")

    assert heard(pcm, 2) == heard(pcm, 640) == heard(pcm, len(pcm))


def test_two_turns_are_detected_separately() -> None:
    ended = [what.text for what in heard(spoken("One.") + spoken("Two.")) if isinstance(what, SpeechEnded)]

    assert ended == ["One.", "Two."]


def test_quiet_noise_is_not_speech_and_loud_noise_is() -> None:
    assert heard(noise(2, loudness=200)) == []
    assert SpeechStarted() in heard(noise(2, loudness=3_000))


def test_a_click_is_not_speech() -> None:
    assert heard(noise(0.03, loudness=20_000) + silence(RATE, 1)) == []


def test_the_length_of_speech_leaves_out_the_silence_after_it() -> None:
    [_, ended] = heard(noise(1.5, loudness=3_000) + silence(RATE, 1))

    assert ended == SpeechEnded("", 1.5)


def test_the_end_of_the_audio_ends_only_speech() -> None:
    detector = VoiceActivityDetector()
    assert list(detector.end()) == []

    assert list(detector.listen(noise(0.5, loudness=3_000))) == [SpeechStarted()]
    assert list(detector.end()) == [SpeechEnded("", 0.5)]
    assert list(detector.end()) == []

"""Voice activity detection by the energy of the audio: voices are detected, noises are not."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from local.speech import silence
from local.stand_ins.gemini_live_voice_activity import (
    RATE,
    Heard,
    SpeechEnded,
    SpeechStarted,
    VoiceActivityDetector,
    WordsHeard,
)
from tests.local.live.callers import spoken, unmarked
from tests.local.live.sounds import hum, mixed, noise, pcm_of, silent, tone, voice


def heard(pcm: bytes, piece: int = 997) -> list[Heard]:
    """Process audio in pieces of an odd size."""
    detector = VoiceActivityDetector()
    return [what for start in range(0, len(pcm), piece) for what in detector.listen(pcm[start : start + piece])]


def utterances(*parts: Sequence[int]) -> list[float]:
    """Return the durations of the utterances in a recording with silence after it."""
    pcm = pcm_of([sample for part in parts for sample in part]) + silence(RATE, 1)
    return [what.seconds for what in heard(pcm) if isinstance(what, SpeechEnded)]


# ---- Audio with words ----


def test_a_turn_is_detected_with_its_words() -> None:
    first, *words, last = heard(silence(RATE, 1) + spoken("My name is Erik."))

    assert first == SpeechStarted()
    assert words == [WordsHeard("My "), WordsHeard("name "), WordsHeard("is "), WordsHeard("Erik.")]
    assert isinstance(last, SpeechEnded)
    assert last.text == "My name is Erik."


def test_the_size_of_audio_pieces_does_not_matter() -> None:
    for pcm in (spoken("My name is Erik."), unmarked(spoken("My name is Erik."))):
        assert heard(pcm, 2) == heard(pcm, 640) == heard(pcm, len(pcm))


def test_two_turns_are_detected_separately() -> None:
    ended = [what.text for what in heard(spoken("One.") + spoken("Two.")) if isinstance(what, SpeechEnded)]

    assert ended == ["One.", "Two."]


def test_the_longest_words_are_one_turn() -> None:
    [_, *_, ended] = heard(spoken("Incomprehensible characteristics, telecommunications."))

    assert isinstance(ended, SpeechEnded)
    assert ended.text == "Incomprehensible characteristics, telecommunications."


# ---- Voices ----


@pytest.mark.parametrize(
    ("loudness", "background"),
    [(800, 0), (800, 60), (4_000, 0), (4_000, 60), (4_000, 200), (20_000, 0), (20_000, 1_000)],
)
def test_a_voice_is_detected_at_any_loudness_and_in_a_room_that_is_not_silent(loudness: int, background: int) -> None:
    recording = mixed(
        [*silent(1.5), *voice(1.5, loudness), *silent(1.5), *voice(1.0, loudness), *silent(1.5)], noise(7, background)
    )

    assert utterances(recording) == [pytest.approx(1.5, abs=0.3), pytest.approx(1.0, abs=0.3)]


def test_a_voice_is_detected_that_speaks_from_the_first_sample_on() -> None:
    assert utterances(voice(1.5)) == [pytest.approx(1.5, abs=0.3)]


def test_a_short_answer_is_detected() -> None:
    assert utterances(silent(1), voice(0.3)) == [pytest.approx(0.3, abs=0.1)]


@pytest.mark.parametrize("text", ["Hi, my name is Ana Torres.", "Five. No, wait, six of us.", "Yes, one."])
def test_speech_is_detected_that_lost_its_words(text: str) -> None:
    [started, ended] = heard(unmarked(spoken(text)))

    assert started == SpeechStarted()
    assert isinstance(ended, SpeechEnded)
    assert ended.text == ""
    assert ended.seconds == pytest.approx(len(spoken(text, rest=0)) / 2 / RATE, abs=0.35)


def test_a_voice_over_a_loud_hum_is_detected() -> None:
    recording = mixed([*silent(3), *voice(1.5, 6_000), *silent(2)], hum(6.5, 3_000))

    assert utterances(recording) == [pytest.approx(1.5, abs=0.3)]


def test_a_voice_over_a_hum_from_the_first_sample_on_ends() -> None:
    recording = mixed([*voice(1.5, 8_000), *silent(3)], noise(4.5, 600))

    assert len(utterances(recording)) == 1


def test_a_pause_within_a_turn_does_not_end_it_and_a_click_does_not_prolong_one() -> None:
    click = noise(0.02, 20_000)
    quiet = silent(0.3)

    assert len(utterances(voice(0.8), silent(0.5), voice(0.8))) == 1
    [seconds] = utterances(voice(0.8), *([quiet, click] * 20))
    assert seconds == pytest.approx(0.8, abs=0.2)


def test_a_turn_without_a_pause_ends_after_two_minutes() -> None:
    assert 1 <= len(utterances(*[voice(10)] * 13)) <= 3


def test_the_end_of_the_audio_ends_only_speech() -> None:
    detector = VoiceActivityDetector()
    assert list(detector.end()) == []

    assert list(detector.listen(pcm_of(noise(0.5, 3_000)))) == []
    assert list(detector.end()) == []

    assert list(detector.listen(pcm_of(voice(0.8)))) == [SpeechStarted()]
    [ended] = detector.end()
    assert isinstance(ended, SpeechEnded)
    assert ended.seconds == pytest.approx(0.8, abs=0.1)
    assert list(detector.end()) == []


# ---- Noises ----


def clicks(seconds: float) -> list[int]:
    """Return a keyboard: ten clicks a second at uneven times, on a quiet desk."""
    generator = random.Random(3)  # noqa: S311 (the same clicks every time)
    samples = noise(seconds, 20)
    for number in range(round(seconds * 10)):
        at = round((number + generator.random() * 0.5) * RATE / 10)
        for place, sample in enumerate(noise(0.008, 15_000, seed=number)):
            samples[at + place] += sample
    return samples


NOISES: dict[str, Callable[[], list[int]]] = {
    "silence": lambda: silent(5),
    "an offset": lambda: [4_000] * (5 * RATE),
    "a quiet room": lambda: noise(5, 100),
    "a loud fan": lambda: noise(5, 6_000),
    "a fan that is switched on and off": lambda: [*silent(2), *noise(3, 3_000), *silent(2)],
    "mains hum at 50 Hz": lambda: hum(5, 5_000, 50),
    "mains hum at 60 Hz": lambda: hum(5, 5_000, 60),
    "a click": lambda: [*silent(1), *noise(0.03, 20_000), *silent(1)],
    "a keyboard": lambda: clicks(10),
    "a beep": lambda: [*silent(1), *tone(0.5, 8_000, 1_000), *silent(1)],
    "a beep every second": lambda: [*tone(0.2, 8_000, 440), *silent(0.8)] * 5,
    "full-scale clipping": lambda: [32_767 if number // 8 % 2 else -32_768 for number in range(5 * RATE)],
}


@pytest.mark.parametrize("name", NOISES)
def test_a_noise_is_not_speech(name: str) -> None:
    assert heard(pcm_of(NOISES[name]())) == []


@pytest.mark.parametrize("name", NOISES)
def test_a_voice_after_a_noise_is_speech(name: str) -> None:
    assert utterances(NOISES[name](), silent(1), voice(1.5)) == [pytest.approx(1.5, abs=0.3)]


# ---- Bounds ----


def test_a_long_call_leaves_nothing_behind() -> None:
    detector, sizes = VoiceActivityDetector(), []
    minute = pcm_of([*voice(5), *clicks(10), *hum(10, 3_000), *noise(20, 2_000), *silent(15)])
    for _ in range(3):
        for _ in detector.listen(minute):
            pass
        sizes.append(size_of(detector))

    assert max(sizes) < 10_000


def size_of(thing: Any) -> int:
    """Return the number of bytes and items that an object holds."""
    match thing:
        case bytes() | str():
            return len(thing)
        case list() | deque():
            return sum(1 + size_of(item) for item in thing)
        case int() | float() | None:
            return 1
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    return sum(size_of(getattr(thing, name)) for name in names)

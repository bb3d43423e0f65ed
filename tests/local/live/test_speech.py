"""Synthesized speech carries its words, with and without espeak-ng."""

import random
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.audio_watermark import WatermarkReader, embed
from local.pacing import Pacer
from local.speech import Speech, Voice, parts_of, pieces, samples_of, seconds_of, silence

RATE = 16_000
TEXT = "Hello, this is Nora. Was kostet ein Donaudampfschifffahrtsbillett? 我想预订一张今天晚上七点的桌子请问可以吗"

A_SECOND_OF_A_BUZZ = """#!/bin/sh
cat > /dev/null
{python} -c '
import struct, sys, wave
with wave.open(sys.stdout.buffer, "wb") as file:
    file.setparams((1, 2, 22050, 22050, "NONE", ""))
    file.writeframes(struct.pack("<22050h", *(2000 * (n // 50 % 2) for n in range(22050))))'
"""


def espeak(folder: Path, script: str) -> str:
    """Write a script that replaces espeak-ng."""
    program = folder / "espeak-ng"
    program.write_text(script, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def spoken(speech: Speech, text: str) -> bytes:
    return b"".join(word.pcm for word in speech.say(text))


def words_in(pcm: bytes, seconds: float = 0.03) -> str:
    reader = WatermarkReader()
    return "".join(word for piece in pieces(pcm, RATE, seconds) for word in reader.read(samples_of(piece)))


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_audio_carries_the_text_that_was_spoken(rate: int) -> None:
    assert words_in(spoken(Speech(rate, Voice(), espeak=None), TEXT)) == TEXT


def test_pitch_and_speed_of_a_voice_change_the_hummed_audio() -> None:
    slow, fast = (spoken(Speech(RATE, Voice(speed=speed), espeak=None), TEXT) for speed in (0.5, 2.0))

    assert seconds_of(slow, RATE) == pytest.approx(4 * seconds_of(fast, RATE), rel=0.01)
    assert spoken(Speech(RATE, Voice(pitch=100), espeak=None), "Hi") != spoken(Speech(RATE, Voice(), espeak=None), "Hi")


def test_the_same_text_always_sounds_the_same() -> None:
    assert spoken(Speech(RATE, Voice(), espeak=None), TEXT) == spoken(Speech(RATE, Voice(), espeak=None), TEXT)


def test_espeak_is_used_if_it_is_installed(tmp_path: Path) -> None:
    program = espeak(tmp_path, A_SECOND_OF_A_BUZZ.format(python=sys.executable))
    pcm = spoken(Speech(RATE, Voice(), program), "Hello, this is Nora.")

    assert seconds_of(pcm, RATE) == pytest.approx(1.0, abs=0.001)
    assert words_in(pcm) == "Hello, this is Nora."


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho what\n", "#!/bin/sh\n", "no program"])
def test_a_text_is_hummed_if_espeak_fails(tmp_path: Path, script: str) -> None:
    hummed = spoken(Speech(RATE, Voice(), espeak=None), "Hello.")

    assert spoken(Speech(RATE, Voice(), espeak(tmp_path, script)), "Hello.") == hummed


def test_has_words_tells_whether_espeak_speaks_the_language(tmp_path: Path) -> None:
    program = espeak(tmp_path, A_SECOND_OF_A_BUZZ.format(python=sys.executable))

    assert Speech(RATE, Voice(), program).has_words()
    assert not Speech(RATE, Voice(), "no-such-program").has_words()
    assert not Speech(RATE, Voice(), espeak=None).has_words()


def test_an_empty_text_has_no_audio() -> None:
    assert spoken(Speech(RATE, Voice(), espeak=None), " ") == b""
    assert silence(RATE, 0.5) == bytes(RATE)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200))
def test_the_words_of_a_text_join_to_the_text(text: str) -> None:
    assert " ".join("".join(parts_of(text)).split()) == " ".join(text.split())


# ---- Watermarks ----


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(st.text(max_size=30), max_size=4), seed=st.integers(), size=st.integers(1, 500))
def test_watermarks_are_found_in_noise_in_pieces_of_any_size(texts: list[str], seed: int, size: int) -> None:
    noise = random.Random(seed)  # noqa: S311 (hypothesis controls the seed)
    samples: list[int] = []
    for text in texts:
        samples += noise.choices(range(-9, 10), k=seed % 99)
        samples += embed(noise.choices(range(-9, 10), k=1_100), text)
    reader = WatermarkReader()

    found = [text for start in range(0, len(samples), size) for text in reader.read(samples[start : start + size])]
    assert found == texts


def test_a_watermark_is_inaudible() -> None:
    samples = [100] * 2_000

    changes = {abs(before - after) for before, after in zip(samples, embed(samples, "Hello"), strict=True)}
    assert changes == {0, 1}


def test_a_damaged_watermark_is_ignored_and_does_not_hide_the_next() -> None:
    damaged = embed([0] * 1_000, "Hello")
    damaged[60] ^= 1

    assert list(WatermarkReader().read([*damaged, *embed([0] * 1_000, "there")])) == ["there"]


def test_a_text_that_does_not_fit_raises_an_error() -> None:
    with pytest.raises(ValueError, match="are too few for 'Hello'"):
        embed([0] * 100, "Hello")


# ---- Pacing ----


@pytest.mark.anyio
@pytest.mark.parametrize("pace", [1, 4])
async def test_audio_is_paced_in_real_time_or_a_number_of_times_faster(pace: float) -> None:
    now = 100.0
    waits = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds + 0.001  # a sleep is always late, and the pacer catches up

    pacer = Pacer(pace, lambda: now, sleep)
    for number in range(6):
        await pacer.reach(number)

    assert waits[0] == 0
    assert sum(waits) == pytest.approx(5 / pace, abs=0.01)

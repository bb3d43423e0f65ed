import hashlib
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from pi_voice.domain import api_keys
from pi_voice.domain.api_keys import CreateApiKeyRequest
from pi_voice.domain.errors import InvalidApiKey

LETTERS = string.digits + string.ascii_letters


def new_key() -> str:
    return api_keys.generate().reveal()


def test_a_key_is_a_prefix_and_49_letters_and_digits() -> None:
    assert re.fullmatch(r"pi_live_[0-9A-Za-z]{49}", new_key())


def test_a_key_holds_256_random_bits() -> None:
    numbers = [_number(new_key()[8:51]) for _ in range(300)]

    assert all(number < 2**256 for number in numbers)
    for bit in range(256):  # a random bit takes both values in 300 keys
        assert len({number >> bit & 1 for number in numbers}) == 2


def _number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 62 + LETTERS.index(letter)
    return number


def test_a_generated_key_is_parsed() -> None:
    key = new_key()

    assert api_keys.parse(key).reveal() == key


def test_the_last_six_letters_are_the_crc_32_of_the_random_ones() -> None:
    # The CRC-32 of 43 zeros is 0x7849568F, which is 2czCLJ in base 62.
    assert api_keys.parse("pi_live_" + "0" * 43 + "2czCLJ").hint == "zCLJ"


@given(st.builds(new_key), st.integers(0, 56), st.sampled_from(string.printable))
def test_a_key_with_one_wrong_letter_is_invalid(key: str, place: int, typo: str) -> None:
    assume(key[place] != typo)

    with pytest.raises(InvalidApiKey):
        api_keys.parse(key[:place] + typo + key[place + 1 :])


@given(st.builds(new_key), st.integers(0, 55))
def test_a_key_with_two_swapped_letters_is_invalid(key: str, place: int) -> None:
    assume(key[place] != key[place + 1])

    with pytest.raises(InvalidApiKey):
        api_keys.parse(key[:place] + key[place + 1] + key[place] + key[place + 2 :])


@given(st.builds(new_key), st.integers(0, 56))
def test_a_key_with_a_missing_or_repeated_letter_is_invalid(key: str, place: int) -> None:
    with pytest.raises(InvalidApiKey):
        api_keys.parse(key[:place] + key[place + 1 :])
    with pytest.raises(InvalidApiKey):
        api_keys.parse(key[:place] + key[place] + key[place:])


@given(st.text())
def test_any_other_text_is_an_invalid_key(text: str) -> None:
    with pytest.raises(InvalidApiKey):
        api_keys.parse(text)
    with pytest.raises(InvalidApiKey):
        api_keys.parse("pi_live_" + text)


def test_a_secret_is_not_part_of_its_text_or_repr() -> None:
    secret = api_keys.generate()

    shown = f"{secret} {secret!r} {secret!s} {[secret]}"

    assert secret.reveal() not in shown
    assert "Secret(...)" in shown


def test_the_hash_of_a_secret_is_its_sha_256() -> None:
    secret = api_keys.generate()

    assert secret.hash == hashlib.sha256(secret.reveal().encode()).hexdigest()


def test_the_hint_of_a_secret_is_its_last_four_letters() -> None:
    secret = api_keys.generate()

    assert secret.hint == secret.reveal()[-4:]


@pytest.mark.parametrize("workspace", ["a", "acme", "acme-eu_2", "0" * 63])
def test_a_workspace_name_has_lower_case_letters_digits_dashes_and_underscores(workspace: str) -> None:
    assert CreateApiKeyRequest(workspace=workspace).workspace == workspace
    assert CreateApiKeyRequest(workspace=workspace).name == "default"


@pytest.mark.parametrize("workspace", ["", "Acme", "-acme", "_acme", "acme corp", "acmé", "acme\n", "0" * 64])
def test_any_other_workspace_name_is_rejected(workspace: str) -> None:
    with pytest.raises(ValidationError):
        CreateApiKeyRequest(workspace=workspace)


@pytest.mark.parametrize("name", ["", "n" * 121])
def test_a_key_s_name_has_1_to_120_characters(name: str) -> None:
    assert CreateApiKeyRequest(workspace="acme", name="n").name == "n"
    assert CreateApiKeyRequest(workspace="acme", name="n" * 120).name == "n" * 120
    with pytest.raises(ValidationError):
        CreateApiKeyRequest(workspace="acme", name=name)

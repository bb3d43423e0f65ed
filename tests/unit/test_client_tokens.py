import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain.client_tokens import PREFIX, ClientTokens
from pi_voice.domain.errors import InvalidApiKey
from pi_voice.domain.ids import SessionId
from tests.support.fakes import FakeClock
from tests.unit.examples import NOW, SESSION_ID

SECRET = "a-secret-of-more-than-thirty-two-bytes"
EXPIRES_AT = NOW + 600
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def tokens(now: float = NOW, secret: str = SECRET) -> ClientTokens:
    return ClientTokens(lambda: [secret], FakeClock(now))


TOKEN = tokens().issue(SESSION_ID, EXPIRES_AT)


def decoded(token: str = TOKEN) -> bytes:
    """Decode a token's bytes."""
    letters = token.removeprefix(PREFIX)
    return base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))


def encoded(signed: bytes) -> str:
    """Encode bytes as a token."""
    return PREFIX + base64.urlsafe_b64encode(signed).decode().rstrip("=")


def assert_invalid(token: str, clock: float = NOW) -> None:
    with pytest.raises(InvalidApiKey) as raised:
        tokens(clock).session_of(token)
    assert raised.value.message.startswith("The client token is mistyped or has expired.")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@given(st.uuids(), st.integers(NOW + 1, 2**40 - 1))
def test_a_token_gives_the_session_it_was_issued_for(session_id: uuid.UUID, expires_at: int) -> None:
    token = tokens().issue(SessionId(str(session_id)), expires_at)

    assert tokens().session_of(token) == str(session_id)


def test_a_token_has_a_prefix_and_71_letters_of_base64url() -> None:
    assert TOKEN.startswith("pi_sess_")
    assert set(TOKEN.removeprefix("pi_sess_")) <= set(ALPHABET)
    assert len(TOKEN) == 79


def test_a_token_depends_on_its_session_and_expiry_only() -> None:
    other = SessionId("019a0000-0000-7000-8000-00000000000f")

    assert tokens(NOW + 5).issue(SESSION_ID, EXPIRES_AT) == TOKEN
    assert tokens().issue(SESSION_ID, EXPIRES_AT + 1) != TOKEN
    assert tokens().issue(other, EXPIRES_AT) != TOKEN


def test_a_token_is_valid_until_its_expiry() -> None:
    assert tokens(EXPIRES_AT - 0.1).session_of(TOKEN) == SESSION_ID
    assert_invalid(TOKEN, EXPIRES_AT)
    assert_invalid(TOKEN, EXPIRES_AT + 86_400)


def test_a_token_of_another_secret_is_invalid() -> None:
    assert_invalid(tokens(secret="another-secret-of-thirty-two-bytes").issue(SESSION_ID, EXPIRES_AT))


def test_a_token_with_another_session_or_expiry_is_invalid() -> None:
    other = SessionId("019a0000-0000-7000-8000-00000000000f")
    other_session = decoded(tokens().issue(other, EXPIRES_AT))
    later = decoded(tokens().issue(SESSION_ID, EXPIRES_AT + 1))

    assert_invalid(encoded(other_session[:16] + decoded()[16:]))
    assert_invalid(encoded(decoded()[:16] + later[16:21] + decoded()[21:]))


@pytest.mark.parametrize("place", range(53))
def test_a_token_with_one_flipped_bit_is_invalid(place: int) -> None:
    for bit in range(8):
        flipped = bytearray(decoded())
        flipped[place] ^= 1 << bit
        assert_invalid(encoded(bytes(flipped)))


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(ALPHABET + "+/= .é"))
def test_a_token_with_one_other_letter_is_invalid(place: int, letter: str) -> None:
    changed = TOKEN[:place] + letter + TOKEN[place + 1 :]

    if changed != TOKEN:
        assert_invalid(changed)


@pytest.mark.parametrize(
    "token",
    [
        "",
        PREFIX,
        PREFIX + "A",
        PREFIX + "é" * 71,
        PREFIX + "\ud800",
        PREFIX + "=" * 71,
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN + "=",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN.removeprefix(PREFIX),
        PREFIX + TOKEN,
        encoded(decoded()[1:]),
        encoded(decoded()[21:]),
        encoded(decoded()[:21]),
        encoded(b"\0" * 53),
    ],
    ids=ascii,
)
def test_a_malformed_token_is_invalid(token: str) -> None:
    assert_invalid(token)


@given(st.text() | st.text(ALPHABET, max_size=80) | st.binary(max_size=60).map(encoded))
def test_any_other_text_is_an_invalid_token(text: str) -> None:
    for token in (text, PREFIX + text):
        assert_invalid(token)


def test_during_a_rotation_tokens_of_all_accepted_secrets_are_valid_and_the_first_one_signs() -> None:
    old, new = "o" * 32, "n" * 32
    rotated = ClientTokens(lambda: [new, old], FakeClock(NOW))

    assert rotated.issue(SESSION_ID, EXPIRES_AT) == tokens(secret=new).issue(SESSION_ID, EXPIRES_AT)
    assert rotated.session_of(tokens(secret=old).issue(SESSION_ID, EXPIRES_AT)) == SESSION_ID
    with pytest.raises(InvalidApiKey):
        rotated.session_of(TOKEN)

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain.client_tokens import PREFIX, ClientTokens
from pi_voice.domain.errors import InvalidApiKey
from pi_voice.domain.ids import SessionId
from tests.fakes import FakeClock
from tests.unit.examples import NOW, SESSION_ID

SECRET = "a-secret-of-more-than-thirty-two-bytes"
UNTIL = NOW + 600
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def tokens(now: float = NOW, secret: str = SECRET) -> ClientTokens:
    return ClientTokens(secret, FakeClock(now))


TOKEN = tokens().issue(SESSION_ID, UNTIL)


def raw(token: str = TOKEN) -> bytes:
    """Read a token's bytes."""
    letters = token.removeprefix(PREFIX)
    return base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))


def written(signed: bytes) -> str:
    """Write bytes as a token."""
    return PREFIX + base64.urlsafe_b64encode(signed).decode().rstrip("=")


def assert_refused(token: str, clock: float = NOW) -> None:
    with pytest.raises(InvalidApiKey) as refusal:
        tokens(clock).session_of(token)
    assert refusal.value.message.startswith("The client token is mistyped or has expired.")
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


@given(st.uuids(), st.integers(NOW + 1, 2**40 - 1))
def test_a_token_opens_the_session_that_it_was_made_for(session_id: uuid.UUID, until: int) -> None:
    token = tokens().issue(SessionId(str(session_id)), until)

    assert tokens().session_of(token) == str(session_id)


def test_a_token_fits_a_header_and_is_known_by_its_beginning() -> None:
    assert TOKEN.startswith("pi_sess_")
    assert set(TOKEN.removeprefix("pi_sess_")) <= set(ALPHABET)
    assert len(TOKEN) == 79


def test_the_same_session_and_the_same_end_give_the_same_token_and_any_other_another() -> None:
    other = SessionId("019a0000-0000-7000-8000-00000000000f")

    assert tokens(NOW + 5).issue(SESSION_ID, UNTIL) == TOKEN
    assert tokens().issue(SESSION_ID, UNTIL + 1) != TOKEN
    assert tokens().issue(other, UNTIL) != TOKEN


def test_a_token_is_good_until_its_second_comes() -> None:
    assert tokens(UNTIL - 0.1).session_of(TOKEN) == SESSION_ID
    assert_refused(TOKEN, UNTIL)
    assert_refused(TOKEN, UNTIL + 86_400)


def test_a_token_of_another_deployment_opens_nothing() -> None:
    assert_refused(tokens(secret="another-secret-of-thirty-two-bytes").issue(SESSION_ID, UNTIL))


def test_neither_its_session_nor_its_end_can_be_exchanged() -> None:
    other = SessionId("019a0000-0000-7000-8000-00000000000f")
    theirs, later = raw(tokens().issue(other, UNTIL)), raw(tokens().issue(SESSION_ID, UNTIL + 1))

    assert_refused(written(theirs[:16] + raw()[16:]))
    assert_refused(written(raw()[:16] + later[16:21] + raw()[21:]))


@pytest.mark.parametrize("place", range(53))
def test_a_token_with_a_bit_of_any_byte_turned_opens_nothing(place: int) -> None:
    for bit in range(8):
        turned = bytearray(raw())
        turned[place] ^= 1 << bit
        assert_refused(written(bytes(turned)))


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(ALPHABET + "+/= .é"))
def test_a_token_with_any_letter_exchanged_opens_nothing(place: int, letter: str) -> None:
    exchanged = TOKEN[:place] + letter + TOKEN[place + 1 :]

    if exchanged != TOKEN:
        assert_refused(exchanged)


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
        written(raw()[1:]),
        written(raw()[21:]),
        written(raw()[:21]),
        written(b"\0" * 53),
    ],
    ids=ascii,
)
def test_what_is_no_token_opens_nothing(token: str) -> None:
    assert_refused(token)


@given(st.text() | st.text(ALPHABET, max_size=80) | st.binary(max_size=60).map(written))
def test_nothing_that_was_not_made_here_opens_anything(text: str) -> None:
    for token in (text, PREFIX + text):
        assert_refused(token)

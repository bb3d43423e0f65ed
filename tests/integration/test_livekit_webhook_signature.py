"""LiveKit's webhook signature: what LiveKit's own SDK signs is believed, and nothing else."""

import base64
import hashlib
import hmac
import json
import math
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import jwt
import pytest
from livekit.api import AccessToken, TokenVerifier, WebhookReceiver

from pi_voice.adapters.livekit_webhook import LEEWAY_SECONDS, MAX_VALIDITY_SECONDS, LiveKitWebhookVerifier
from pi_voice.domain.errors import InvalidWebhookSignature
from pi_voice.domain.ids import Clock
from pi_voice.domain.livekit_webhooks import SignedWebhook
from pi_voice.settings import WebhookSettings

KEY, SECRET = "APIwebhook", "the-secret-that-webhooks-are-signed-with"
OTHER_SECRET = "another-secret-that-webhooks-are-signed-with"
BODY = '{"event":"room_finished", "room":{"sid":"RM_1","name":"n","metadata":"é"},"createdAt":"1800000000"}'.encode()


def digest(body: bytes = BODY) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def genuine(body: bytes = BODY, key: str = KEY, secret: str = SECRET) -> str:
    """Sign as LiveKit does."""
    return AccessToken(key, secret).with_ttl(timedelta(minutes=5)).with_sha256(digest(body)).to_jwt()


def made(secret: str = SECRET, algorithm: str = "HS256", without: str = "", **claims: Any) -> str:
    """Sign claims of one's own."""
    now = int(time.time())
    all_claims = {"iss": KEY, "nbf": now, "exp": now + 300, "sha256": digest(), **claims}
    all_claims.pop(without, None)
    return jwt.encode(all_claims, secret, algorithm=algorithm)


def expiring_in(seconds: float, **claims: Any) -> str:
    return made(exp=int(time.time() + seconds), **claims)


def verify(token: str, body: bytes = BODY, key: str = KEY, secret: str = SECRET, clock: Clock = time.time) -> None:
    LiveKitWebhookVerifier(WebhookSettings(key, secret), clock).verify(SignedWebhook(token, body))


def is_refused(token: str, body: bytes = BODY, key: str = KEY, secret: str = SECRET, clock: Clock = time.time) -> bool:
    with pytest.raises(InvalidWebhookSignature) as refusal:
        verify(token, body, key, secret, clock)
    assert refusal.value.message == InvalidWebhookSignature.default_message
    return True


# ---- What is believed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [BODY, b"{}", b"", b"\xff\x00\r\n", b"x" * 100_000], ids=["event", "{}", "", "bytes", "long"]
)
def test_what_livekit_signs_is_believed_byte_for_byte(body: bytes) -> None:
    verify(genuine(body), body)


def test_what_livekits_own_receiver_takes_is_taken() -> None:
    token = genuine()

    assert WebhookReceiver(TokenVerifier(KEY, SECRET)).receive(BODY.decode(), token).event == "room_finished"
    verify(token)


def test_the_same_webhook_is_believed_again_because_livekit_repeats_itself() -> None:
    verifier = LiveKitWebhookVerifier(WebhookSettings(KEY, SECRET))
    webhook = SignedWebhook(genuine(), BODY)

    verifier.verify(webhook)
    verifier.verify(webhook)


def test_a_token_without_nbf_or_with_more_claims_than_are_asked_for_is_believed() -> None:
    verify(made(without="nbf"))
    verify(made(iat=int(time.time()), sub="", video={"roomJoin": True}, jti="1"))


# ---- Other bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        BODY[:-1],
        BODY + b" ",
        BODY + b"\n",
        BODY.replace(b", ", b","),
        BODY.replace(b"RM_1", b"RM_2"),
        json.dumps(json.loads(BODY)).encode(),
        b"\xef\xbb\xbf" + BODY,
        base64.b64encode(BODY),
    ],
    ids=["empty", "shorter", "space", "newline", "compact", "tampered", "written anew", "with a BOM", "base64"],
)
def test_other_bytes_than_those_that_were_signed_are_refused(body: bytes) -> None:
    assert is_refused(genuine(), body)


@pytest.mark.parametrize(
    "sha256",
    [
        "",
        hashlib.sha256(BODY).hexdigest(),
        digest().rstrip("="),
        digest().lower(),
        digest() + "=",
        f" {digest()}",
        base64.b64encode(hashlib.sha1(BODY, usedforsecurity=False).digest()).decode(),
        "é",
        "\ud800",
        None,
        True,
        0,
        1.5,
        [digest()],
        {"sha256": digest()},
    ],
)
def test_a_digest_that_is_not_written_as_livekit_writes_it_is_refused(sha256: object) -> None:
    assert is_refused(made(sha256=sha256))


def test_a_digest_in_the_alphabet_for_urls_is_refused() -> None:
    bodies = (b"%d" % number for number in range(1_000))
    body = next(body for body in bodies if {"+", "/"} & set(digest(body)))
    urlsafe = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()

    verify(genuine(body), body)
    assert is_refused(made(sha256=urlsafe), body)


# ---- Other keys -------------------------------------------------------------------------------------


def test_another_secret_or_another_key_is_refused() -> None:
    assert is_refused(genuine(secret=OTHER_SECRET))
    assert is_refused(genuine(key="APIanother"))
    assert is_refused(genuine(), key="APIanother")
    assert is_refused(genuine(), secret=OTHER_SECRET)


@pytest.mark.parametrize(("key", "secret"), [("", ""), (KEY, ""), ("", SECRET)])
def test_a_deployment_without_a_webhook_secret_believes_nobody_even_where_livekit_api_would_fall_back(
    monkeypatch: pytest.MonkeyPatch, key: str, secret: str
) -> None:
    assert is_refused(genuine(), key=key, secret=secret)

    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    TokenVerifier(key, secret).verify(genuine())
    assert is_refused(genuine(), key=key, secret=secret)


def test_nobody_signs_with_an_empty_secret() -> None:
    token = _signed_by_hand({"alg": "HS256", "typ": "JWT"}, b"")

    assert is_refused(token)
    assert is_refused(token, secret="")


def _signed_by_hand(header: dict[str, Any], secret: bytes, **claims: Any) -> str:
    now = int(time.time())
    parts = [header, {"iss": KEY, "exp": now + 300, "sha256": digest(), **claims}]
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    code = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).decode().rstrip("=")
    return f"{signed}.{code}"


def test_a_token_that_is_not_signed_is_refused() -> None:
    unsigned = made(secret="", algorithm="none")

    assert is_refused(unsigned)
    assert is_refused(unsigned.replace("none", "None"))
    assert is_refused(genuine().rpartition(".")[0] + ".")
    assert is_refused(_signed_by_hand({"alg": "none"}, b""))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_with_the_same_secret_is_refused(algorithm: str) -> None:
    assert is_refused(made(SECRET * 2, algorithm), secret=SECRET * 2)


@pytest.mark.parametrize(
    "header", [{"alg": "HS256", "crit": ["b64"], "b64": False}, {"alg": ["HS256"]}, {"alg": None}, {}]
)
def test_a_header_that_livekit_does_not_write_is_refused(header: dict[str, Any]) -> None:
    assert is_refused(_signed_by_hand(header, SECRET.encode()))


def test_a_token_of_nothing_but_brackets_is_refused() -> None:
    brackets = base64.urlsafe_b64encode(b"[" * 6_000).decode()

    assert is_refused(f"{brackets}.{brackets}.x")


def test_a_token_that_is_signed_by_hand_as_livekit_signs_is_believed() -> None:
    verify(_signed_by_hand({"alg": "HS256", "typ": "JWT"}, SECRET.encode()))


@pytest.mark.parametrize(
    "token", ["", " ", ".", "..", "a.b.c", "not a token", "é", "\ud800", "e30.e30.e30", "x" * 10_000]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    assert is_refused(token)


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "Basic {}", " {} .", "{},{}"])
def test_a_token_with_anything_around_it_is_refused_because_livekit_sends_it_bare(scheme: str) -> None:
    token = genuine()

    assert is_refused(scheme.format(token, token))


# ---- Claims -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["iss", "exp", "sha256"])
def test_a_claim_that_is_missing_is_refused(claim: str) -> None:
    assert is_refused(made(without=claim))


@pytest.mark.parametrize("iss", ["", KEY.lower(), f"{KEY} ", None, 7, [KEY], {"key": KEY}])
def test_an_issuer_that_is_not_the_key_is_refused(iss: object) -> None:
    assert is_refused(_signed_by_hand({"alg": "HS256"}, SECRET.encode(), iss=iss))


@pytest.mark.parametrize("exp", ["soon", "", None, [], {}, True, math.inf, -math.inf, math.nan, 1e30, 10**400])
def test_an_expiry_that_is_no_instant_is_refused(exp: object) -> None:
    assert is_refused(made(exp=exp))


def test_an_expiry_written_as_a_text_is_refused() -> None:
    assert is_refused(made(exp=str(int(time.time()) + 300)))


@pytest.mark.parametrize("seconds", [0, 1, 300, MAX_VALIDITY_SECONDS, MAX_VALIDITY_SECONDS + LEEWAY_SECONDS])
def test_a_token_that_is_good_for_ten_minutes_at_most_is_believed(seconds: int) -> None:
    verify(expiring_in(seconds))


@pytest.mark.parametrize("seconds", [MAX_VALIDITY_SECONDS + LEEWAY_SECONDS + 10, 12 * 60, 3_600, 10 * 365 * 86_400])
def test_a_token_that_is_good_for_longer_is_refused(seconds: int) -> None:
    now = int(time.time())

    assert is_refused(made(exp=now + seconds), clock=lambda: now)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    """What time it is, which PyJWT believes for as long as a test takes."""
    moment = datetime.now(UTC)

    class Standing(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return moment.astimezone(tz)

    monkeypatch.setattr("jwt.api_jwt.datetime", Standing)
    return int(moment.timestamp())


def test_a_token_that_expired_within_the_leeway_is_believed(now: int) -> None:
    verify(made(exp=now - LEEWAY_SECONDS + 20, nbf=0))


@pytest.mark.parametrize("seconds", [-LEEWAY_SECONDS - 1, -3_600, -50 * 365 * 86_400])
def test_a_token_that_expired_before_is_refused(seconds: int) -> None:
    assert is_refused(expiring_in(seconds, nbf=0))


def test_a_token_that_is_not_good_yet_is_believed_within_the_leeway_alone(now: int) -> None:
    verify(made(nbf=now + LEEWAY_SECONDS - 20))
    assert is_refused(made(nbf=now + LEEWAY_SECONDS + 20))


def test_the_secret_is_shown_in_no_representation() -> None:
    assert SECRET not in repr(WebhookSettings(KEY, SECRET))

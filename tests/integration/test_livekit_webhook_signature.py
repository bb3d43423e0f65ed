"""Webhook signatures: only what LiveKit's SDK signs is accepted."""

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

from pi_voice.adapters.livekit_webhook import LiveKitWebhookVerifier
from pi_voice.domain.errors import InvalidWebhookSignature
from pi_voice.domain.ids import Clock
from pi_voice.ports import SignedWebhook
from pi_voice.settings import KeyPair, WebhookSettings

KEY, SECRET = "APIwebhook", "the-secret-that-webhooks-are-signed-with"
OTHER_SECRET = "another-secret-that-webhooks-are-signed-with"
BODY = '{"event":"room_finished", "room":{"sid":"RM_1","name":"n","metadata":"é"},"createdAt":"1800000000"}'.encode()


def digest(body: bytes = BODY) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def genuine(body: bytes = BODY, key: str = KEY, secret: str = SECRET) -> str:
    """Sign as LiveKit does."""
    return AccessToken(key, secret).with_ttl(timedelta(minutes=5)).with_sha256(digest(body)).to_jwt()


def token_with(secret: str = SECRET, algorithm: str = "HS256", without: str = "", **claims: Any) -> str:
    """Sign chosen claims."""
    now = int(time.time())
    all_claims = {"iss": KEY, "nbf": now, "exp": now + 300, "sha256": digest(), **claims}
    all_claims.pop(without, None)
    return jwt.encode(all_claims, secret, algorithm=algorithm)


def expiring_in(seconds: float, **claims: Any) -> str:
    return token_with(exp=int(time.time() + seconds), **claims)


def verify(token: str, body: bytes = BODY, key: str = KEY, secret: str = SECRET, clock: Clock = time.time) -> None:
    LiveKitWebhookVerifier(lambda: WebhookSettings((KeyPair(key, secret),)), clock).verify(SignedWebhook(token, body))


def is_refused(token: str, body: bytes = BODY, key: str = KEY, secret: str = SECRET, clock: Clock = time.time) -> bool:
    with pytest.raises(InvalidWebhookSignature) as raised:
        verify(token, body, key, secret, clock)
    assert raised.value.message == InvalidWebhookSignature.default_message
    return True


# ---- Valid signatures -------------------------------------------------------------------------------


def test_during_a_rotation_both_key_pairs_are_accepted() -> None:
    pairs = KeyPair("APInew", "a-new-secret-of-more-than-thirty-two-bytes"), KeyPair(KEY, SECRET)
    verifier = LiveKitWebhookVerifier(lambda: WebhookSettings(pairs))

    for pair in pairs:
        verifier.verify(SignedWebhook(genuine(key=pair.api_key, secret=pair.api_secret), BODY))
    with pytest.raises(InvalidWebhookSignature):
        verifier.verify(SignedWebhook(genuine(key=KEY, secret=pairs[0].api_secret), BODY))


@pytest.mark.parametrize(
    "body", [BODY, b"{}", b"", b"\xff\x00\r\n", b"x" * 100_000], ids=["event", "{}", "", "bytes", "long"]
)
def test_a_body_signed_by_livekits_sdk_is_accepted(body: bytes) -> None:
    verify(genuine(body), body)


def test_a_webhook_that_livekits_receiver_accepts_is_accepted() -> None:
    token = genuine()

    assert WebhookReceiver(TokenVerifier(KEY, SECRET)).receive(BODY.decode(), token).event == "room_finished"
    verify(token)


def test_a_repeated_webhook_is_accepted_because_livekit_retries() -> None:
    verifier = LiveKitWebhookVerifier(lambda: WebhookSettings((KeyPair(KEY, SECRET),)))
    webhook = SignedWebhook(genuine(), BODY)

    verifier.verify(webhook)
    verifier.verify(webhook)


def test_a_token_without_nbf_or_with_additional_claims_is_accepted() -> None:
    verify(token_with(without="nbf"))
    verify(token_with(iat=int(time.time()), sub="", video={"roomJoin": True}, jti="1"))


# ---- Other bodies -----------------------------------------------------------------------------------


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
def test_a_body_other_than_the_signed_one_is_refused(body: bytes) -> None:
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
def test_a_digest_in_another_format_than_livekits_is_refused(sha256: object) -> None:
    assert is_refused(token_with(sha256=sha256))


def test_a_digest_in_url_safe_base64_is_refused() -> None:
    bodies = (b"%d" % number for number in range(1_000))
    body = next(body for body in bodies if {"+", "/"} & set(digest(body)))
    urlsafe = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()

    verify(genuine(body), body)
    assert is_refused(token_with(sha256=urlsafe), body)


# ---- Wrong keys -------------------------------------------------------------------------------------


def test_a_wrong_secret_or_key_is_refused() -> None:
    assert is_refused(genuine(secret=OTHER_SECRET))
    assert is_refused(genuine(key="APIanother"))
    assert is_refused(genuine(), key="APIanother")
    assert is_refused(genuine(), secret=OTHER_SECRET)


@pytest.mark.parametrize(("key", "secret"), [("", ""), (KEY, ""), ("", SECRET)])
def test_a_deployment_without_a_webhook_secret_refuses_all_even_where_livekit_api_falls_back(
    monkeypatch: pytest.MonkeyPatch, key: str, secret: str
) -> None:
    assert is_refused(genuine(), key=key, secret=secret)

    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    TokenVerifier(key, secret).verify(genuine())
    assert is_refused(genuine(), key=key, secret=secret)


def test_a_signature_with_an_empty_secret_is_refused() -> None:
    token = _signed_by_hand({"alg": "HS256", "typ": "JWT"}, b"")

    assert is_refused(token)
    assert is_refused(token, secret="")


def _signed_by_hand(header: dict[str, Any], secret: bytes, **claims: Any) -> str:
    now = int(time.time())
    parts = [header, {"iss": KEY, "exp": now + 300, "sha256": digest(), **claims}]
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    code = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).decode().rstrip("=")
    return f"{signed}.{code}"


def test_an_unsigned_token_is_refused() -> None:
    unsigned = token_with(secret="", algorithm="none")

    assert is_refused(unsigned)
    assert is_refused(unsigned.replace("none", "None"))
    assert is_refused(genuine().rpartition(".")[0] + ".")
    assert is_refused(_signed_by_hand({"alg": "none"}, b""))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_with_the_same_secret_is_refused(algorithm: str) -> None:
    assert is_refused(token_with(SECRET * 2, algorithm), secret=SECRET * 2)


@pytest.mark.parametrize(
    "header", [{"alg": "HS256", "crit": ["b64"], "b64": False}, {"alg": ["HS256"]}, {"alg": None}, {}]
)
def test_a_header_that_livekit_does_not_send_is_refused(header: dict[str, Any]) -> None:
    assert is_refused(_signed_by_hand(header, SECRET.encode()))


def test_a_token_of_nested_brackets_is_refused() -> None:
    brackets = base64.urlsafe_b64encode(b"[" * 6_000).decode()

    assert is_refused(f"{brackets}.{brackets}.x")


def test_a_hand_made_token_with_a_valid_signature_is_accepted() -> None:
    verify(_signed_by_hand({"alg": "HS256", "typ": "JWT"}, SECRET.encode()))


@pytest.mark.parametrize(
    "token", ["", " ", ".", "..", "a.b.c", "not a token", "é", "\ud800", "e30.e30.e30", "x" * 10_000]
)
def test_text_that_is_not_a_token_is_refused(token: str) -> None:
    assert is_refused(token)


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "Basic {}", " {} .", "{},{}"])
def test_a_token_with_a_scheme_is_refused_because_livekit_sends_none(scheme: str) -> None:
    token = genuine()

    assert is_refused(scheme.format(token, token))


# ---- Claims -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["iss", "exp", "sha256"])
def test_a_token_without_a_required_claim_is_refused(claim: str) -> None:
    assert is_refused(token_with(without=claim))


@pytest.mark.parametrize("iss", ["", KEY.lower(), f"{KEY} ", None, 7, [KEY], {"key": KEY}])
def test_an_issuer_other_than_the_key_is_refused(iss: object) -> None:
    assert is_refused(_signed_by_hand({"alg": "HS256"}, SECRET.encode(), iss=iss))


@pytest.mark.parametrize("exp", ["soon", "", None, [], {}, True, math.inf, -math.inf, math.nan, 1e30, 10**400])
def test_an_expiry_that_is_not_a_time_is_refused(exp: object) -> None:
    assert is_refused(token_with(exp=exp))


def test_an_expiry_as_a_string_is_refused() -> None:
    assert is_refused(token_with(exp=str(int(time.time()) + 300)))


@pytest.mark.parametrize("seconds", [0, 1, 300, 600, 660])
def test_a_token_valid_for_at_most_ten_minutes_is_accepted(seconds: int) -> None:
    verify(expiring_in(seconds))


@pytest.mark.parametrize("seconds", [670, 12 * 60, 3_600, 10 * 365 * 86_400])
def test_a_token_valid_for_longer_is_refused(seconds: int) -> None:
    now = int(time.time())

    assert is_refused(token_with(exp=now + seconds), clock=lambda: now)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    """The current time, at which the clock of PyJWT stops."""
    moment = datetime.now(UTC)

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return moment.astimezone(tz)

    monkeypatch.setattr("jwt.api_jwt.datetime", Stopped)
    return int(moment.timestamp())


def test_a_token_that_expired_within_the_leeway_is_accepted(now: int) -> None:
    verify(token_with(exp=now - 40, nbf=0))


@pytest.mark.parametrize("seconds", [-61, -3_600, -50 * 365 * 86_400])
def test_a_token_that_expired_before_the_leeway_is_refused(seconds: int) -> None:
    assert is_refused(expiring_in(seconds, nbf=0))


def test_a_token_that_is_not_valid_yet_is_accepted_only_within_the_leeway(now: int) -> None:
    verify(token_with(nbf=now + 40))
    assert is_refused(token_with(nbf=now + 80))


def test_the_secret_is_not_in_the_repr() -> None:
    assert SECRET not in repr(WebhookSettings((KeyPair(KEY, SECRET),)))

"""LiveKit tokens: exactly these claims."""

import time
from collections.abc import Sequence
from typing import Any

import jwt
import pytest
from livekit.api import TokenVerifier

from pi_voice.adapters.http_client import HttpClient
from pi_voice.adapters.livekit import LiveKitRooms
from pi_voice.domain.connection_api import LiveKitConnection
from pi_voice.domain.sessions import Medium, Participant, Session
from pi_voice.settings import LiveKitSettings
from tests.integration.samples import a_session

KEY, SECRET = "APIkey", "a-secret-of-livekit-that-is-long-enough"
URL = "wss://acme.livekit.example"
ANA = Participant(identity="user-1 é 🙂", name="Ana Ñ")


def a_running_session(ttl_seconds: int = 600) -> Session:
    now = int(time.time())
    return a_session(ttl_seconds=ttl_seconds, created_at=now, expires_at=now + ttl_seconds)


def issue_token(
    session: Session, participant: Participant = ANA, media: Sequence[Medium] = ("microphone",)
) -> LiveKitConnection:
    return LiveKitRooms(lambda: LiveKitSettings(URL, KEY, SECRET), HttpClient()).issue_token(
        session, participant, media
    )


def claims(connection: LiveKitConnection) -> dict[str, Any]:
    assert jwt.get_unverified_header(connection.token) == {"alg": "HS256", "typ": "JWT"}
    return dict(jwt.decode(connection.token, SECRET, algorithms=["HS256"]))


def test_the_connection_has_the_url_and_the_room() -> None:
    session = a_running_session()

    connection = issue_token(session)

    assert connection.url == URL
    assert connection.room == session.session_id
    assert connection.token not in connection.url


@pytest.mark.parametrize("media", [("microphone",), ("microphone", "camera"), ("camera", "microphone")])
def test_a_token_has_exactly_these_claims(media: Sequence[Medium]) -> None:
    session = a_running_session()

    payload = claims(issue_token(session, ANA, media))

    assert abs(payload.pop("nbf") - time.time()) < 60
    assert payload == {
        "iss": KEY,
        "sub": ANA.identity,
        "name": ANA.name,
        "exp": session.expires_at,
        "video": {
            "roomJoin": True,
            "room": session.session_id,
            "canPublish": True,
            "canPublishSources": list(media),
            "canPublishData": True,
            "canSubscribe": True,
            "canUpdateOwnMetadata": False,
        },
        "roomConfig": {"emptyTimeout": session.ttl_seconds, "departureTimeout": 60},
    }


@pytest.mark.parametrize("ttl_seconds", [60, 599, 3600])
@pytest.mark.parametrize("age_seconds", [0, 59])
def test_a_token_expires_with_the_session_whatever_its_age(ttl_seconds: int, age_seconds: int) -> None:
    created_at = int(time.time()) - age_seconds
    session = a_session(ttl_seconds=ttl_seconds, created_at=created_at, expires_at=created_at + ttl_seconds + 1)

    for _ in range(20):  # long enough for a session to expire
        payload = jwt.decode(issue_token(session).token, SECRET, algorithms=["HS256"], options={"verify_exp": False})
        assert payload["exp"] == session.expires_at


def test_a_participant_without_a_name_has_no_name_claim() -> None:
    assert "name" not in claims(issue_token(a_running_session(), Participant(identity="x")))


def test_livekits_verifier_accepts_the_token() -> None:
    session = a_running_session()

    verified = TokenVerifier(KEY, SECRET).verify(issue_token(session).token)

    assert (verified.identity, verified.name, verified.kind, verified.metadata) == (ANA.identity, ANA.name, "", "")
    assert verified.attributes == {}
    assert verified.agent is None
    assert verified.video is not None
    grants = verified.video
    assert (grants.room_join, grants.room) == (True, session.session_id)
    assert (grants.room_create, grants.room_list, grants.room_record, grants.room_admin) == (None,) * 4
    assert (grants.hidden, grants.recorder, grants.agent, grants.destination_room) == (None,) * 4
    assert verified.room_config is not None
    assert verified.room_config.name == ""
    assert (verified.room_config.empty_timeout, verified.room_config.departure_timeout) == (600, 60)
    assert not verified.room_config.agents


@pytest.mark.parametrize("name", ['", "video": {"roomAdmin": true}, "x": "', "\x00", "\\", "{}"])
def test_a_name_with_json_syntax_stays_a_name(name: str) -> None:
    session = a_running_session()

    payload = claims(issue_token(session, Participant(identity=name, name=name)))

    assert (payload["sub"], payload["name"]) == (name, name)
    assert "roomAdmin" not in payload["video"]


def test_a_token_is_not_valid_for_another_deployment() -> None:
    token = issue_token(a_running_session()).token

    with pytest.raises(jwt.InvalidSignatureError):
        TokenVerifier(KEY, SECRET + "!").verify(token)
    with pytest.raises(jwt.InvalidIssuerError):
        TokenVerifier("another", SECRET).verify(token)

"""Failing providers: the documented error, no open room, and a failed session with the reason."""

import socket
import time
from collections.abc import Iterator

import pytest

from pi_voice.adapters import gemini_live, livekit
from pi_voice.use_cases import create_session
from tests.functions.api import Api
from tests.functions.front import Front, changed_environment
from tests.functions.providers import Providers


def test_the_time_limits_of_a_create_add_up_to_less_than_the_documented_ten_seconds() -> None:
    side_by_side = max(livekit.TIME_LIMIT_SECONDS, gemini_live.TIME_LIMIT_SECONDS)

    assert side_by_side + create_session.CLEAN_UP_SECONDS <= 8


@pytest.fixture
def refused_port() -> Iterator[str]:
    """A URL that refuses connections. Its port stays bound, so that no other process can use it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        (400, "gemini_error", 502),
        (401, "gemini_error", 502),
        (403, "gemini_error", 502),
        (404, "gemini_error", 502),
        (200, "gemini_error", 502),
        (429, "gemini_unavailable", 503),
        (500, "gemini_unavailable", 503),
        (503, "gemini_unavailable", 503),
    ],
)
def test_when_gemini_fails_the_room_is_closed_and_the_failed_session_has_the_reason(
    api: Api, providers: Providers, front: Front, status: int, code: str, answered: int
) -> None:
    agent, rooms = api.agent(), providers.rooms()
    request = {"agent_id": agent, "participant": {"identity": "caller-1"}}

    with (
        front.answering(status, '{"error": {"message": "do not tell: key AIza-secret"}}') as url,
        changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as broken,
    ):
        answer = broken.post("/sessions", request)

    error = answer.error(code, answered)
    assert error.retryable == (answered == 503)
    assert ("Retry-After" in answer.headers) == (answered == 503)
    assert "do not tell" not in answer.text
    assert providers.rooms() == rooms
    [failed] = api.get("/sessions", status="failed").json["data"]
    assert failed["failure"] == {"code": code, "message": error.message, "details": []}
    assert failed["created_at"] <= failed["failed_at"] <= time.time()
    api.post(f"/sessions/{failed['session_id']}/complete", transcript=[]).error("voice_session_not_active", 409)
    assert api.delete(f"/sessions/{failed['session_id']}").status == 204


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        (401, "livekit_error", 502),
        (403, "livekit_error", 502),
        (200, "livekit_error", 502),
        (429, "livekit_unavailable", 503),
        (500, "livekit_unavailable", 503),
        (503, "livekit_unavailable", 503),
    ],
)
def test_when_livekit_fails_the_failed_session_has_the_reason(
    api: Api, front: Front, status: int, code: str, answered: int
) -> None:
    request = {"agent_id": api.agent(), "participant": {"identity": "caller-1"}}

    with (
        front.answering(status, '{"code": "internal", "msg": "do not tell"}') as url,
        changed_environment(api, LIVEKIT_URL=url) as broken,
    ):
        answer = broken.post("/sessions", request)

    answer.error(code, answered)
    assert "do not tell" not in answer.text
    [failed] = api.get("/sessions", status="failed").json["data"]
    assert failed["failure"]["code"] == code
    assert failed["livekit"]["room_sid"] is None


@pytest.mark.parametrize(
    ("variable", "code"),
    [("LIVEKIT_URL", "livekit_unavailable"), ("GOOGLE_GEMINI_BASE_URL", "gemini_unavailable")],
)
def test_a_provider_that_refuses_connections_is_unavailable(
    api: Api, refused_port: str, variable: str, code: str
) -> None:
    request = {"agent_id": api.agent(), "participant": {"identity": "caller-1"}}

    with changed_environment(api, **{variable: refused_port}) as broken:
        broken.post("/sessions", request).error(code, 503)


def test_providers_that_never_respond_time_out(api: Api, front: Front) -> None:
    request = {"agent_id": api.agent(), "participant": {"identity": "caller-1"}}

    with front.hanging() as url, changed_environment(api, LIVEKIT_URL=url, GOOGLE_GEMINI_BASE_URL=url) as broken:
        broken.post("/sessions", request).error("upstream_timeout", 504)

    assert [session["failure"]["code"] for session in api.get("/sessions").json["data"]] == ["upstream_timeout"]


@pytest.mark.parametrize(
    ("status", "code", "is_passing"),
    [(400, "gemini_error", False), (200, "answer_invalid", True), (503, "gemini_unavailable", True)],
)
def test_a_failed_extraction_returns_200_and_the_transcript_is_stored(
    api: Api, front: Front, status: int, code: str, *, is_passing: bool
) -> None:
    session = api.session(api.agent(output_schema={"mood": "string"}))
    path = f"/sessions/{session['session_id']}"
    transcript = [{"role": "user", "text": "I am well."}]

    with (
        front.answering(status, '{"error": {"message": "do not tell"}}') as url,
        changed_environment(api, GOOGLE_GEMINI_BASE_URL=url) as broken,
    ):
        answer = broken.post(f"{path}/complete", transcript=transcript)

    state = answer.json
    assert (answer.status, state["status"], state["results"]) == (200, "completed", None)
    extraction = state["extraction"]
    assert (extraction["status"], extraction["error"]["code"]) == ("pending" if is_passing else "failed", code)
    assert extraction["attempts"] == (3 if is_passing else 1)
    assert "do not tell" not in answer.text
    assert api.get(path).data["transcript"] == transcript

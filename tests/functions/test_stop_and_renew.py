"""Stopped calls, renewed calls, and joins after the end of a call."""

import time
from typing import Any

import jwt
import pytest

from tests.functions.api import Api
from tests.functions.front import Front, changed_environment
from tests.functions.livekit_webhooks import Webhook, event
from tests.functions.providers import Providers
from tests.functions.work import Work
from tests.support.bad_values import each

TURNS = [{"role": "user", "text": "Hello."}]


@pytest.fixture
def session(api: Api) -> dict[str, Any]:
    """An active session with the sid of its room."""
    session = api.session(max_duration_seconds=60)
    return {**session, "sid": api.get(f"/sessions/{session['session_id']}").data["livekit"]["room_sid"]}


def path_of(session: dict[str, Any]) -> str:
    return f"/sessions/{session['session_id']}"


# ---- Stopping ---------------------------------------------------------------------------------------


def test_stopping_a_call_closes_its_room_and_the_session_stays_active(
    api: Api, providers: Providers, session: dict[str, Any]
) -> None:
    stopped = api.post(f"{path_of(session)}/stop")

    state = stopped.data
    assert stopped.status == 200
    assert (state["status"], state["end_reason"]) == ("active", "stopped")
    assert abs(state["hung_up_at"] - time.time()) < 60
    assert session["session_id"] not in providers.rooms()
    assert api.get(path_of(session)).data == state
    done = api.post(f"{path_of(session)}/complete", transcript=TURNS, end_reason="hang_up").json
    assert (done["status"], done["end_reason"], done["hung_up_at"]) == ("completed", "stopped", state["hung_up_at"])


def test_stopping_again_returns_the_same_session(api: Api, session: dict[str, Any]) -> None:
    first = api.post(f"{path_of(session)}/stop").data

    assert api.post(f"{path_of(session)}/stop").data == first


def test_an_ended_session_cannot_be_stopped(api: Api, session: dict[str, Any]) -> None:
    assert api.post(f"{path_of(session)}/complete", transcript=[]).status == 200

    api.post(f"{path_of(session)}/stop").error("voice_session_not_active", 409)


def test_a_stopped_call_accepts_no_participants_and_no_renewal(api: Api, session: dict[str, Any]) -> None:
    assert api.post(f"{path_of(session)}/stop").status == 200

    api.post(f"{path_of(session)}/participants", identity="late").error("voice_session_not_active", 409)
    api.post(f"{path_of(session)}/renew").error("voice_session_not_active", 409)


def test_when_livekit_is_down_a_stop_is_recorded_and_the_sweeper_closes_the_room(
    api: Api, providers: Providers, front: Front, work: Work, session: dict[str, Any]
) -> None:
    with front.answering(503) as url, changed_environment(api, LIVEKIT_URL=url) as broken:
        answer = broken.post(f"{path_of(session)}/stop")

    error = answer.error("livekit_unavailable", 503)
    assert error.retryable
    assert answer.headers["Retry-After"]
    assert session["session_id"] in providers.rooms()
    assert api.get(path_of(session)).data["end_reason"] == "stopped"

    assert work.sweep()["rooms_closed"] == 1
    assert session["session_id"] not in providers.rooms()
    assert work.sweep()["rooms_closed"] == 0


# ---- Late joins -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["/stop", "/complete"])
def test_a_join_after_the_end_of_a_call_closes_the_room_again(
    api: Api, providers: Providers, session: dict[str, Any], ending: str
) -> None:
    assert api.post(f"{path_of(session)}{ending}", {} if ending == "/complete" else None).status == 200
    providers.open_room(session["session_id"])  # as a join with the old token does
    reopened = {**session, "sid": providers.room(session["session_id"]).sid}
    webhook = Webhook(api.functions)

    assert webhook.send(event("room_started", reopened)).status == 200
    assert session["session_id"] in providers.rooms()
    assert webhook.send(event("participant_joined", reopened)).status == 200

    assert session["session_id"] not in providers.rooms()


def test_when_livekit_is_down_a_late_join_gets_503_so_that_livekit_retries_it(
    api: Api, front: Front, session: dict[str, Any]
) -> None:
    assert api.post(f"{path_of(session)}/stop").status == 200

    with front.answering(503) as url, changed_environment(api, LIVEKIT_URL=url):
        answer = Webhook(api.functions).send(event("participant_joined", session))

    answer.error("livekit_unavailable", 503)


def test_a_call_over_its_cap_is_hung_up(api: Api, providers: Providers, work: Work, session: dict[str, Any]) -> None:
    assert Webhook(api.functions).send(event("participant_joined", session)).status == 200

    work.advance(session["session_id"], 15)
    assert work.sweep()["hung_up"] == 0
    work.advance(session["session_id"], 60)
    assert work.sweep()["hung_up"] == 1

    state = api.get(path_of(session)).data
    assert (state["status"], state["end_reason"]) == ("active", "cap")
    assert session["session_id"] not in providers.rooms()


# ---- Renewing ---------------------------------------------------------------------------------------


def test_a_renewal_returns_new_tokens_for_the_same_room_with_a_later_expiry(
    api: Api, providers: Providers, work: Work
) -> None:
    session = api.session(media=["microphone", "camera"])
    work.advance(session["session_id"], 500)

    answer = api.post(f"{path_of(session)}/renew", {})

    renewed = answer.data
    assert answer.status == 200
    assert renewed.keys() == {"session_id", "expires_at", "client_token", "connection"}
    assert 0 <= renewed["expires_at"] - session["expires_at"] < 300  # 500 s are gone, and 600 more are given
    assert renewed["expires_at"] == api.get(path_of(session)).data["expires_at"]
    livekit, gemini = renewed["connection"]["livekit"], renewed["connection"]["gemini_live"]
    claims = jwt.decode(livekit["token"], providers.variables["LIVEKIT_API_SECRET"], algorithms=["HS256"])
    assert (claims["sub"], claims["exp"]) == ("caller-1", renewed["expires_at"])
    assert claims["video"]["room"] == livekit["room"] == session["session_id"]
    assert claims["video"]["canPublishSources"] == ["microphone", "camera"]
    assert gemini["token"].startswith("auth_tokens/")
    assert gemini["token"] != session["connection"]["gemini_live"]["token"]
    assert gemini["setup"] == session["connection"]["gemini_live"]["setup"]


def test_a_session_older_than_an_hour_is_not_renewed(api: Api, work: Work, session: dict[str, Any]) -> None:
    api.post(f"{path_of(session)}/transcript", {"from": 0, "turns": [{"role": "user", "text": "Hello."}]})
    work.advance(session["session_id"], 3_300)  # a full ttl would exceed the hour by five minutes
    renewed = api.post(f"{path_of(session)}/renew").data
    assert renewed["expires_at"] == api.get(path_of(session)).data["created_at"] + 3_600

    work.advance(session["session_id"], 300)
    api.post(f"{path_of(session)}/renew").error("voice_session_not_active", 409)


def test_a_session_is_renewed_20_times_at_most(api: Api, session: dict[str, Any]) -> None:
    client = api.client_of(session)

    renewals = [client.post(f"{path_of(session)}/renew") for _ in range(21)]

    assert [renewed.status for renewed in renewals] == [200] * 20 + [409]
    renewals[-1].error("renewal_limit_reached", 409)


@pytest.mark.parametrize(("path", "value"), [*each("has_resumption_handle", None, 1, "true", []), ("ttl_seconds", 600)])
def test_a_bad_field_of_a_renewal_is_refused_by_its_path(
    api: Api, session: dict[str, Any], path: str, value: object
) -> None:
    assert api.post(f"{path_of(session)}/renew", {path: value}).error("invalid_request", 400).paths == [path]


@pytest.mark.parametrize(
    ("variable", "code"),
    [("LIVEKIT_URL", "livekit_unavailable"), ("GOOGLE_GEMINI_BASE_URL", "gemini_unavailable")],
)
def test_a_renewal_that_fails_at_a_provider_changes_nothing(
    api: Api, providers: Providers, front: Front, session: dict[str, Any], variable: str, code: str
) -> None:
    before = api.get(path_of(session)).data

    with front.answering(503) as url, changed_environment(api, **{variable: url}) as broken:
        broken.post(f"{path_of(session)}/renew").error(code, 503)

    assert api.get(path_of(session)).data == before
    assert session["session_id"] in providers.rooms()


def test_a_renewal_reopens_a_closed_room(api: Api, providers: Providers, session: dict[str, Any]) -> None:
    providers.close_room(session["session_id"])

    assert api.post(f"{path_of(session)}/renew").status == 200

    assert session["session_id"] in providers.rooms()

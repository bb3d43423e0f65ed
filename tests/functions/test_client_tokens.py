"""Client tokens: valid for the own routes of one session, without a lookup."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.ids import SessionId
from tests.functions.api import CLIENT_TOKEN_SECRET, GRACE_SECONDS, Answer, Api
from tests.support.reference import OPERATIONS

TURNS = [{"role": "user", "text": "Hi"}]
BODIES: Final[Mapping[str, dict[str, Any]]] = {
    "/transcript": {"from": 0, "turns": TURNS},
    "/complete": {"transcript": TURNS},
    "/usage": {"input_tokens": {"audio": 25}},
    "/tool-calls": {"call_id": "one", "name": "hang_up", "response": {}},
}
"""Good bodies of the routes that require fields."""

SESSION: Final = "/sessions/{session_id}"
CLIENT_TOKEN_ROUTES: Final = [
    (method, path.removeprefix(SESSION), None if method == "GET" else BODIES.get(path.removeprefix(SESSION), {}))
    for method, path, operation in OPERATIONS
    if {"client_token": []} in operation["security"]
]
API_KEY_ROUTES: Final = [
    (method, path) for method, path, operation in OPERATIONS if operation["security"] == [{"api_key": []}]
]
own_routes = pytest.mark.parametrize(("method", "route", "body"), CLIENT_TOKEN_ROUTES)


def session_of_each_route(api: Api, **fields: Any) -> dict[str, Any]:
    """Create a session whose agent has what all routes need."""
    session: dict[str, Any] = api.session(api.agent(behaviors={"may_hang_up": True}), **fields)
    return session


def ask(client: Api, session: dict[str, Any], method: str, route: str, body: dict[str, Any] | None) -> Answer:
    return client.call(method, f"/sessions/{session['session_id']}{route}", body=body)


def for_a_client(session: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in session.items() if name not in ("metadata", "overrides", "variables")}


def token_until(session: dict[str, Any], expires_at: int, secret: str = CLIENT_TOKEN_SECRET) -> str:
    return ClientTokens(lambda: [secret]).issue(SessionId(session["session_id"]), expires_at)


@own_routes
def test_a_token_is_accepted_by_each_of_its_sessions_own_routes(
    api: Api, method: str, route: str, body: dict[str, Any] | None
) -> None:
    session = session_of_each_route(api)

    assert ask(api.client_of(session), session, method, route, body).status == 200


def test_a_whole_call_is_made_without_an_api_key(api: Api) -> None:
    session = api.session(api.agent(instructions="Do not tell.", output_schema={"word": "string"}))
    client, path = api.client_of(session), f"/sessions/{session['session_id']}"

    turn = {"role": "user", "text": "Hello."}
    assert client.post(f"{path}/transcript", {"from": 0, "turns": [turn]}).data["next"] == 1
    renewed = client.post(f"{path}/renew").data
    client = api.client_of(renewed)
    assert client.post(f"{path}/transcript", {"from": 1, "turns": [turn]}).data["next"] == 2
    state = client.post(f"{path}/complete").json
    assert state["transcript"] == [turn, turn]
    assert client.get(path).data == state == for_a_client(api.get(path).data)
    assert "Do not tell" not in client.get(path).text


@own_routes
def test_no_response_to_a_client_token_has_the_metadata_of_the_backend(
    api: Api, method: str, route: str, body: dict[str, Any] | None
) -> None:
    session = session_of_each_route(api, metadata={"crm": "for the backend"}, client_metadata={"page": "for the page"})

    answer = ask(api.client_of(session), session, method, route, body)

    document = answer.json.get("data", answer.json)
    assert "for the backend" not in answer.text
    assert document.get("client_metadata", {"page": "for the page"}) == {"page": "for the page"}
    assert "metadata" not in document


@own_routes
def test_no_response_to_a_client_token_has_variables_or_overrides(
    api: Api, method: str, route: str, body: dict[str, Any] | None
) -> None:
    agent = api.agent(variables={"guest": {"type": "string"}}, behaviors={"greeting": "Hello {{guest}}."})
    session = api.session(
        agent, variables={"guest": "Ada Lovelace"}, overrides={"closing_message": "Goodbye, countess."}
    )

    answer = ask(api.client_of(session), session, method, route, body)

    document = answer.json.get("data", answer.json)
    assert "Lovelace" not in answer.text
    assert "countess" not in answer.text
    assert {"variables", "overrides"}.isdisjoint(document)


def test_an_api_key_sees_the_metadata_of_the_backend_and_of_the_client(api: Api) -> None:
    both: dict[str, Any] = {"metadata": {"crm": "1"}, "client_metadata": {"page": "2"}}
    path = f"/sessions/{api.session(**both)['session_id']}"

    [listed] = api.get("/sessions").json["data"]
    documents = [listed, api.get(path).data, api.post(f"{path}/stop").data, api.post(f"{path}/complete", {}).json]

    assert [{name: document[name] for name in both} for document in documents] == [both] * 4


def test_a_replayed_completion_has_metadata_for_an_api_key_and_none_for_a_client_token(api: Api) -> None:
    both: dict[str, Any] = {"metadata": {"crm": "for the backend"}, "client_metadata": {"page": "2"}}
    for is_client in (True, False):
        session = api.session(**both)
        caller = api.client_of(session) if is_client else api
        caller = replace(caller, headers={"idempotency-key": session["session_id"]})
        caller.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)

        replayed = caller.post(f"/sessions/{session['session_id']}/complete", transcript=TURNS)

        assert replayed.headers["Idempotent-Replayed"] == "true"
        assert replayed.json["client_metadata"] == {"page": "2"}
        assert ("for the backend" in replayed.text, "metadata" in replayed.json) == (not is_client, not is_client)


@own_routes
def test_another_sessions_token_gets_404_even_in_the_same_workspace(
    api: Api, method: str, route: str, body: dict[str, Any] | None
) -> None:
    session, other = api.session(), api.session()

    answer = ask(api.client_of(other), session, method, route, body)

    answer.error("voice_session_not_found", 404)
    assert api.get(f"/sessions/{session['session_id']}").data["status"] == "active"


@pytest.mark.parametrize(("method", "route"), API_KEY_ROUTES)
def test_a_token_is_refused_by_routes_that_require_an_api_key(api: Api, method: str, route: str) -> None:
    session = api.session()
    path = route.format(**session, version=1, endpoint_id=session["session_id"], delivery_id=session["session_id"])

    answer = api.client_of(session).call(method, path, body={} if method in ("POST", "PATCH") else None)

    error = answer.error("invalid_api_key", 401)
    assert error.message == "A client token is valid for its own session only. Use an API key for this route."
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert api.get(f"/sessions/{session['session_id']}").data["status"] == "active"


@own_routes
@pytest.mark.parametrize("fault", ["expired", "another deployment's", "mistyped", "garbage"])
def test_an_invalid_token_is_refused(
    api: Api, method: str, route: str, body: dict[str, Any] | None, fault: str
) -> None:
    session = api.session()
    good = session["client_token"]
    token = {
        "expired": token_until(session, int(time.time()) - 1),
        "another deployment's": token_until(session, int(time.time()) + 600, "another-secret-of-thirty-two-bytes!!"),
        "mistyped": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "garbage": "pi_sess_x",
    }[fault]

    answer = ask(Api(api.functions, api.workspace, token), session, method, route, body)

    answer.error("invalid_api_key", 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert api.get(f"/sessions/{session['session_id']}").data["status"] == "active"


def test_an_invalid_token_is_reported_before_validation_errors(api: Api) -> None:
    session = api.session()
    client = Api(api.functions, api.workspace, token_until(session, 1))

    answer = client.post(f"/sessions/{session['session_id']}/transcript", {"unknown": 1})

    answer.error("invalid_api_key", 401)


def test_a_token_is_valid_until_the_expiry_plus_the_grace_time_and_a_renewed_one_for_longer(api: Api) -> None:
    session = api.session(ttl_seconds=60)

    renewed = api.post(f"/sessions/{session['session_id']}/renew").data

    assert session["client_token"] == token_until(session, session["expires_at"] + GRACE_SECONDS)
    assert renewed["client_token"] == token_until(session, renewed["expires_at"] + GRACE_SECONDS)


def test_a_token_of_a_deleted_session_gets_404(api: Api) -> None:
    session = api.session()
    path = f"/sessions/{session['session_id']}"
    assert api.post(f"{path}/complete", transcript=[]).status == 200
    assert api.delete(path).status == 204

    api.client_of(session).get(path).error("voice_session_not_found", 404)


def test_a_token_requires_no_key_lookup(api: Api, dynamodb: Any) -> None:
    session = api.session()
    table = next(name for name in dynamodb.list_tables()["TableNames"] if name.endswith("voice_api_keys"))
    for item in dynamodb.scan(TableName=table)["Items"]:
        dynamodb.delete_item(TableName=table, Key={"key_hash": item["key_hash"]})
    api.functions.start_over()

    assert api.client_of(session).get(f"/sessions/{session['session_id']}").status == 200

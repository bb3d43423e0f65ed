"""Behavior common to all routes: keys, bodies, the envelope, errors."""

import io
import json
import re
from dataclasses import replace
from typing import Any, Final

import pytest

from pi_voice.domain import api_keys
from tests.functions.api import BASE, Answer, Api, Functions, http_event
from tests.support.moto_server import MotoServer
from tests.support.reference import OPERATIONS

KEYED: Final = [
    (method, re.sub(r"{\w+}", "0199a0f0-0000-7000-8000-000000000000", path), operation)
    for method, path, operation in OPERATIONS
    if {"api_key": []} in operation["security"]
]
"""Every operation that takes an API key, with an id in its path."""

ROUTES: Final = [(method, path) for method, path, _ in KEYED]
WITH_BODY: Final = [(method, path) for method, path, operation in KEYED if "requestBody" in operation]

WITHOUT_BODY: Final = [route for route in ROUTES if route not in WITH_BODY]


def send(api: Api, method: str, path: str) -> Answer:
    return api.call(method, path, body={"unknown": 1} if (method, path) in WITH_BODY else None)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_requires_a_key(api: Api, method: str, path: str) -> None:
    api.key = None

    answer = send(api, method, path)

    assert not answer.error("missing_api_key", 401).retryable
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_refuses_an_unknown_key_before_validation(api: Api, method: str, path: str) -> None:
    api.key = api_keys.generate().reveal()

    answer = send(api, method, path)

    answer.error("invalid_api_key", 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("Basic abc", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("pi_live_x", "missing_api_key"),
        ("Bearer x", "invalid_api_key"),
        ("Bearer pi_live_short", "invalid_api_key"),
    ],
)
def test_a_malformed_authorization_header_is_refused(api: Api, authorization: str, code: str) -> None:
    api.headers["authorization"] = authorization

    api.get("/voices").error(code, 401)


def test_scheme_and_header_name_are_case_insensitive(api: Api) -> None:
    api.headers["Authorization"] = f"bearer {api.key}"
    api.key = None

    assert api.get("/voices").status == 200


def test_every_response_has_the_request_id(api: Api) -> None:
    good, bad = api.get("/voices"), api.get("/agents/nothing")

    assert len(good.headers["X-Request-Id"]) == 36
    assert bad.json["error"]["request_id"] == bad.headers["X-Request-Id"]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/xml", "json"],
)
def test_a_content_type_other_than_json_in_utf_8_is_refused(
    api: Api, method: str, path: str, content_type: str
) -> None:
    api.call(method, path, body={}, content_type=content_type, binary=True).error("unsupported_media_type", 415)


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=UTF-8", 'application/json; charset="utf-8"', "APPLICATION/JSON"],
)
def test_json_in_utf_8_may_be_declared_in_several_ways(api: Api, content_type: str) -> None:
    body = {"name": "Ana", "instructions": "Take the call."}

    assert api.call("POST", "/agents", body=body, content_type=content_type).status == 201


def test_a_merge_patch_media_type_that_api_gateway_encodes_is_accepted(api: Api) -> None:
    agent = api.agent()

    answer = api.call(
        "PATCH", f"/agents/{agent}", body={"name": "Bo"}, content_type="application/merge-patch+json", binary=True
    )

    assert answer.data["name"] == "Bo"


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@pytest.mark.parametrize(
    "body",
    ["{", '{"name": }', "nul", '{"name": "\\ud8"}', "[" * 10_000, '{"name": NaN}', "{'name': 1}", "\x00"],
)
def test_a_body_that_is_not_json_is_refused(api: Api, method: str, path: str, body: str) -> None:
    error = api.call(method, path, body=body).error("invalid_request", 400)

    assert error.message.startswith("The body is not valid JSON: ")


def test_a_body_that_is_not_utf_8_is_refused(api: Api) -> None:
    """API Gateway puts U+FFFD, which is three bytes, for a byte that is not UTF-8."""
    body = '{"name": "Caf\ufffd", "instructions": "Answer."}'
    size = len(body.encode())
    latin_1 = replace(api, headers={"content-length": str(size - 2)})

    assert "UTF-8" in latin_1.call("POST", "/agents", body=body).error("invalid_request", 400).message
    assert replace(api, headers={"content-length": str(size)}).call("POST", "/agents", body=body).status == 201


@pytest.mark.parametrize(
    "body",
    ['{"name": "a", "name": "b"}', '{"metadata": {"k": "1", "\\u006b": "2"}}', '{"a": [{"b": [{"c": 1, "c": 1}]}]}'],
)
def test_a_body_with_a_key_twice_is_refused(api: Api, body: str) -> None:
    assert "twice" in api.call("POST", "/agents", body=body).error("invalid_request", 400).message


@pytest.mark.parametrize("body", [None, ""], ids=["no body", "an empty one"])
def test_a_missing_body_is_read_as_an_empty_object(api: Api, body: str | None) -> None:
    session = api.session()

    missing = api.call("POST", "/sessions", body=body).error("invalid_request", 400)
    renewed = api.call("POST", f"/sessions/{session['session_id']}/renew", body=body)

    assert missing.paths == ["agent_id", "participant"]
    assert renewed.status == 200


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@pytest.mark.parametrize("body", ["[]", '"text"', "1", "null", "true"])
def test_a_body_that_is_not_an_object_is_refused(api: Api, method: str, path: str, body: str) -> None:
    error = api.call(method, path, body=body).error("invalid_request", 400)

    assert error.details == [{"path": "", "message": "Input should be an object."}]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_refuses_an_unknown_query_parameter_after_the_key_was_found(
    api: Api, method: str, path: str
) -> None:
    body: dict[str, object] | None = {} if (method, path) in WITH_BODY else None

    refused = api.call(method, path, body=body, query={"unknown": "1", "cursors": ""})
    api.key = api_keys.generate().reveal()
    unknown = api.call(method, path, body=body, query={"unknown": "1"})

    assert sorted(refused.error("invalid_request", 400).paths) == ["cursors", "unknown"]
    unknown.error("invalid_api_key", 401)


@pytest.mark.parametrize(("method", "path"), WITHOUT_BODY)
@pytest.mark.parametrize(
    "body", ['{"unknown": 1}', "[]", "null", "{", "text", "{}" * 50_000], ids=lambda body: body[:9]
)
def test_a_route_that_takes_no_body_refuses_one_after_the_key_was_found(
    api: Api, method: str, path: str, body: str
) -> None:
    refused = api.call(method, path, body=body, content_type="text/plain")
    api.key = api_keys.generate().reveal()
    unknown = api.call(method, path, body=body)

    assert refused.error("invalid_request", 400).paths == [""]
    unknown.error("invalid_api_key", 401)


@pytest.mark.parametrize("body", [None, "", "{}", " {\r\n}\n"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_route_that_takes_no_body_accepts_an_empty_one(api: Api, body: str | None, *, binary: bool) -> None:
    path = f"/sessions/{api.session()['session_id']}"

    assert api.call("GET", path, body=body, binary=binary).status == 200
    assert api.call("POST", f"{path}/stop", body=body, binary=binary).status == 200


def test_the_webhook_ignores_a_query_that_its_sender_was_configured_with(functions: Functions) -> None:
    event = http_event("POST", "/", {}, "{}", {"from": "livekit"})

    answer = functions.invoke("receive_livekit_webhook", event)

    assert json.loads(answer["body"])["error"]["code"] == "invalid_webhook_signature"


def test_a_body_with_broken_base64_is_refused(api: Api, functions: Functions) -> None:
    headers = {"authorization": f"Bearer {api.key}", "content-type": "application/json"}
    event = http_event("POST", f"{BASE}/agents", headers, None)
    event |= {"body": "§", "isBase64Encoded": True}

    answer = functions.invoke("create_agent", event)

    assert answer["statusCode"] == 400


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_a_body_over_the_limit_of_its_route_is_refused(api: Api, method: str, path: str) -> None:
    limit = 4_194_304 if path.endswith(("/complete", "/preview")) else 1_048_576  # these take a transcript of 1 MB

    error = api.call(method, path, body={"name": "x" * limit}).error("request_too_large", 413)

    assert f"{limit:,} bytes" in error.message


def test_a_body_of_exactly_a_megabyte_is_read(api: Api) -> None:
    frame = len(json.dumps({"name": ""}))

    api.post("/agents", {"name": "x" * (1_048_576 - frame)}).error("invalid_request", 400)


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_a_large_body_is_read_only_after_the_key_was_found(
    api: Api, functions: Functions, moto: MotoServer, method: str, path: str
) -> None:
    api.key = api_keys.generate().reveal()
    functions.start_over()
    requests: list[str] = []
    moto.listeners.append(lambda operation, _: requests.append(operation))

    answer = api.call(method, path, body="{" * 65_537)

    moto.listeners.clear()
    answer.error("invalid_api_key", 401)
    assert requests == ["GetItem"]


def test_a_body_of_64_kb_is_read_beside_the_lookup_of_the_key(api: Api, moto: MotoServer) -> None:
    request = {"agent_id": api.agent(), "participant": {"identity": "caller-1"}}
    api.key = api_keys.generate().reveal()
    requests: list[str] = []
    moto.listeners.append(lambda operation, _: requests.append(operation))

    answer = api.call("POST", "/sessions", body=json.dumps(request).ljust(65_536))

    moto.listeners.clear()
    answer.error("invalid_api_key", 401)
    assert requests == ["GetItem", "GetItem"]


def test_a_body_with_too_many_values_is_refused(api: Api) -> None:
    error = api.post("/agents", {"questions": [0] * 16_384}).error("request_too_large", 413)

    assert "16,384 values" in error.message


def test_half_a_surrogate_pair_becomes_the_replacement_character(api: Api) -> None:
    body = '{"name": "\\ud83d\\ude00 \\ud83d", "instructions": "\\udc00\\\\ud83d"}'

    agent = api.call("POST", "/agents", body=body).data

    assert (agent["name"], agent["instructions"]) == ("\U0001f600 \ufffd", "\ufffd\\ud83d")


def test_responses_have_utf_8_instead_of_escapes(api: Api) -> None:
    answer = api.post("/agents", name="安娜", instructions="接电话。")

    assert "安娜" in answer.text


def test_the_thirty_voices_are_one_page(api: Api) -> None:
    page = api.get("/voices").json

    assert len(page["data"]) == 30
    assert page["next_cursor"] is None
    assert {"name": "Puck", "style": "Upbeat"} in page["data"]


def test_the_function_url_answers_other_methods_as_api_gateway_does(functions: Functions) -> None:
    answer = functions.invoke("receive_livekit_webhook", http_event("GET", "/", {}, None))

    assert (answer["statusCode"], json.loads(answer["body"])) == (404, {"message": "Not Found"})


def test_an_unexpected_error_is_reported_without_its_message(api: Api, dynamodb: Any, logged: io.StringIO) -> None:
    agent = api.agent()
    secret_item = {"agent_id": {"S": agent}, "version": {"N": "0"}, "workspace": {"S": api.workspace}}
    table = next(name for name in dynamodb.list_tables()["TableNames"] if name.endswith("voice_agents"))
    dynamodb.put_item(TableName=table, Item={**secret_item, "document": {"S": '{"name": "do not tell"}'}})
    error = api.get(f"/agents/{agent}").error("internal_error", 500)

    assert error.retryable
    assert '"error":"ValidationError"' in logged.getvalue()
    assert "do not tell" not in logged.getvalue() + error.message

"""The gateway handles CORS as an HTTP API does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from local.gateway import http_api
from local.http_server import serving
from local.template import Cors
from tests.local.conftest import Answer, Background, Project, Site

HERE, THERE = ("Origin", "https://here.example"), ("Origin", "https://there.example")
ASKS = ("Access-Control-Request-Method", "POST")
CORS = Cors(
    origins=("https://here.example", "https://other.example"),
    methods=("GET", "POST"),
    headers=("authorization", "content-type"),
    exposed=("x-request-id", "retry-after"),
    max_age=3600,
)


class OneAnswer:
    """A function for all routes, whose answer has its own CORS header."""

    async def invoke(self, _: str, event: Mapping[str, Any], __: str) -> Any:
        method = event["requestContext"]["http"]["method"]
        return {"statusCode": 201, "headers": {"Access-Control-Allow-Origin": "*", "x-method": method}, "body": "{}"}


def site(background: Background, project: Project, cors: Cors | None) -> Site:
    return Site(background.enter(serving(http_api(project.template().functions, OneAnswer(), cors))))


@pytest.fixture(scope="module", autouse=True)
def things(project: Project) -> None:
    project.function("Things", "", "POST /things", "GET /things")


@pytest.fixture(scope="module")
def api(background: Background, project: Project) -> Site:
    return site(background, project, CORS)


def cors_of(answer: Answer) -> dict[str, str]:
    return {
        name.lower(): value for name, value in answer.headers if name.lower().startswith(("access-control-", "vary"))
    }


def test_the_gateway_answers_preflight_requests(api: Site) -> None:
    answer = api.call("OPTIONS", "/things", headers=[HERE, ASKS, ("Access-Control-Request-Headers", "authorization")])

    assert (answer.status, answer.body) == (204, b"")
    assert cors_of(answer) == {
        "access-control-allow-origin": "https://here.example",
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "authorization,content-type",
        "access-control-max-age": "3600",
    }


def test_a_preflight_request_of_another_origin_gets_no_cors_headers(api: Site) -> None:
    answer = api.call("OPTIONS", "/things", headers=[THERE, ASKS])

    assert (answer.status, cors_of(answer)) == (204, {})


@pytest.mark.parametrize("headers", [[], [HERE], [ASKS]])
def test_an_options_request_that_is_no_preflight_is_404(api: Site, headers: list[tuple[str, str]]) -> None:
    answer = api.call("OPTIONS", "/things", headers=headers)

    assert (answer.status, answer.json) == (404, {"message": "Not Found"})


def test_an_answer_carries_the_cors_headers_for_an_allowed_origin(api: Site) -> None:
    answer = api.post("/things", {}, HERE)

    assert (answer.status, answer.header("x-method")) == (201, "POST")
    assert cors_of(answer) == {
        "access-control-allow-origin": "https://here.example",
        "access-control-expose-headers": "x-request-id,retry-after",
    }


def test_an_error_of_the_gateway_carries_cors_headers(api: Site) -> None:
    answer = api.get("/nowhere", HERE)

    assert (answer.status, cors_of(answer)["access-control-allow-origin"]) == (404, "https://here.example")


@pytest.mark.parametrize("headers", [[], [THERE], [("Origin", "null")], [("Origin", "https://here.example:8443")]])
def test_other_origins_get_no_cors_headers_not_even_the_functions(api: Site, headers: list[tuple[str, str]]) -> None:
    answer = api.get("/things", *headers)

    assert (answer.status, cors_of(answer)) == (201, {})


@pytest.mark.parametrize(
    ("allowed", "origin"), [("*", "*"), ("https://*", "https://here.example"), ("http://*", None)], ids=str
)
def test_an_allowed_origin_may_be_a_wildcard(
    background: Background, project: Project, allowed: str, origin: str | None
) -> None:
    wildcard = site(background, project, Cors((allowed,), ("GET",), (), (), None))
    headers = {"access-control-allow-origin": origin} if origin else {}
    methods = {"access-control-allow-methods": "GET"} if origin else {}

    assert cors_of(wildcard.get("/things", HERE)) == headers
    assert cors_of(wildcard.call("OPTIONS", "/things", headers=[HERE, ASKS])) == headers | methods


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost:5173", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:3000", True),
        ("https://here.example", True),
        ("https://localhost.example", False),
        ("null", False),
    ],
)
def test_pages_on_loopback_may_be_allowed_with_any_port(
    background: Background, project: Project, origin: str, *, is_allowed: bool
) -> None:
    local = site(background, project, replace(CORS, allows_loopback=True))

    answer = local.get("/things", ("Origin", origin))
    assert cors_of(answer).get("access-control-allow-origin") == (origin if is_allowed else None)


def test_without_a_configuration_the_gateway_leaves_cors_to_the_functions(
    background: Background, project: Project
) -> None:
    plain = site(background, project, None)

    assert plain.call("OPTIONS", "/things", headers=[HERE, ASKS]).status == 404
    assert cors_of(plain.get("/things", HERE)) == {"access-control-allow-origin": "*"}

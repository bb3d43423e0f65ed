"""Pages of other origins may call as an HTTP API lets them, and not at all unless they are named."""

from collections.abc import Mapping
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
    """All functions in one: its answer has its own idea of who may read it."""

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


def test_a_preflight_is_answered_by_the_gateway_itself(api: Site) -> None:
    answer = api.call("OPTIONS", "/things", headers=[HERE, ASKS, ("Access-Control-Request-Headers", "authorization")])

    assert (answer.status, answer.body) == (204, b"")
    assert cors_of(answer) == {
        "access-control-allow-origin": "https://here.example",
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "authorization,content-type",
        "access-control-max-age": "3600",
    }


def test_a_preflight_of_another_origin_is_told_nothing(api: Site) -> None:
    answer = api.call("OPTIONS", "/things", headers=[THERE, ASKS])

    assert (answer.status, cors_of(answer)) == (204, {})


@pytest.mark.parametrize("headers", [[], [HERE], [ASKS]])
def test_what_is_no_preflight_is_a_request_without_a_route(api: Site, headers: list[tuple[str, str]]) -> None:
    answer = api.call("OPTIONS", "/things", headers=headers)

    assert (answer.status, answer.json) == (404, {"message": "Not Found"})


def test_an_answer_can_be_read_by_the_page_that_asked(api: Site) -> None:
    answer = api.post("/things", {}, HERE)

    assert (answer.status, answer.header("x-method")) == (201, "POST")
    assert cors_of(answer) == {
        "access-control-allow-origin": "https://here.example",
        "access-control-expose-headers": "x-request-id,retry-after",
    }


def test_a_refusal_of_the_gateway_can_be_read_too(api: Site) -> None:
    answer = api.get("/nowhere", HERE)

    assert (answer.status, cors_of(answer)["access-control-allow-origin"]) == (404, "https://here.example")


@pytest.mark.parametrize("headers", [[], [THERE], [("Origin", "null")], [("Origin", "https://here.example:8443")]])
def test_for_nobody_else_there_is_a_word_on_origins_not_even_the_function_s(
    api: Site, headers: list[tuple[str, str]]
) -> None:
    answer = api.get("/things", *headers)

    assert (answer.status, cors_of(answer)) == (201, {})


@pytest.mark.parametrize(
    ("allowed", "told"), [("*", "*"), ("https://*", "https://here.example"), ("http://*", None)], ids=str
)
def test_an_origin_may_be_any(background: Background, project: Project, allowed: str, told: str | None) -> None:
    anybody = site(background, project, Cors((allowed,), ("GET",), (), (), None))
    told_headers = {"access-control-allow-origin": told} if told else {}
    methods = {"access-control-allow-methods": "GET"} if told else {}

    assert cors_of(anybody.get("/things", HERE)) == told_headers
    assert cors_of(anybody.call("OPTIONS", "/things", headers=[HERE, ASKS])) == told_headers | methods


def test_without_a_configuration_the_gateway_has_no_part_in_it(background: Background, project: Project) -> None:
    plain = site(background, project, None)

    assert plain.call("OPTIONS", "/things", headers=[HERE, ASKS]).status == 404
    assert cors_of(plain.get("/things", HERE)) == {"access-control-allow-origin": "*"}

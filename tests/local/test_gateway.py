"""The gateway behaves as API Gateway's HTTP API and Lambda's function URLs do."""

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from local.gateway import function_url, http_api
from local.http_server import serving
from local.workers import Workers
from tests.local.conftest import Background, Project, Site

SIX_MB: Final = 6 * 1024 * 1024

ECHO = """
    import json

    def handler(event, context):
        return {"statusCode": 200, "body": json.dumps(event)}
"""
ANSWER = """
    import json

    def handler(event, context):
        return json.loads(event["body"])
"""
LARGE = """
    def handler(event, context):
        return "x" * int(event["queryStringParameters"]["bytes"])
"""
BROKEN = """
    def handler(event, context):
        raise ValueError("on purpose")
"""
SLOW = """
    import time

    def handler(event, context):
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def workers(background: Background, project: Project) -> Iterator[Workers]:
    project.function(
        "Echo",
        ECHO,
        "ANY /echo",
        "GET /echo/{name}",
        "GET /echo/{name}/deep/{rest+}",
        FunctionUrlConfig={"AuthType": "NONE"},
    )
    project.function("Literal", "def handler(event, context): return 'literal'", "GET /echo/literal", "POST /echo")
    project.function("Answer", ANSWER, "POST /answer")
    project.function("Large", LARGE, "GET /large")
    project.function("Broken", BROKEN, "GET /broken")
    project.function("BrokenToo", BROKEN)  # a worker writes to the terminal in which it was started
    project.function("Slow", SLOW, "GET /slow")
    workers = Workers(project.template().functions, {})
    yield workers
    background.run(workers.stop())


@pytest.fixture(scope="module")
def api(background: Background, project: Project, workers: Workers) -> Site:
    return Site(background.enter(serving(http_api(project.template().functions, workers, seconds=300))))


@pytest.fixture(scope="module")
def impatient_api(background: Background, project: Project, workers: Workers) -> Site:
    return Site(background.enter(serving(http_api(project.template().functions, workers, seconds=0.3))))


@pytest.fixture(scope="module")
def url(background: Background, project: Project, workers: Workers) -> Site:
    [echo] = [function for function in project.template().functions if function.has_url]
    return Site(background.enter(serving(function_url(echo, workers))))


# ---- Events ----


def test_an_event_has_the_form_of_payload_version_2(api: Site) -> None:
    event = api.get("/echo?a=1", ("User-Agent", "test")).json

    context = event.pop("requestContext")
    headers = event.pop("headers")
    assert event == {
        "version": "2.0",
        "routeKey": "ANY /echo",
        "rawPath": "/echo",
        "rawQueryString": "a=1",
        "queryStringParameters": {"a": "1"},
        "isBase64Encoded": False,
    }
    assert context["http"] == {
        "method": "GET",
        "path": "/echo",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "test",
    }
    assert (context["routeKey"], context["stage"], context["accountId"]) == ("ANY /echo", "$default", "000000000000")
    assert isinstance(context["timeEpoch"], int)
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-amzn-trace-id"].startswith("Root=1-")
    assert headers["content-length"] == "0"


def test_header_names_are_lower_case_and_repeated_ones_are_joined(api: Site) -> None:
    headers = api.get("/echo", ("X-Color", "red"), ("x-cOLOR", "grün")).json["headers"]

    assert headers["x-color"] == "red,grün"


def test_hop_by_hop_headers_are_removed(api: Site) -> None:
    headers = api.get("/echo", ("Connection", "keep-alive"), ("TE", "trailers")).json["headers"]

    assert not {"connection", "te"} & headers.keys()


def test_cookies_are_removed_from_the_headers(api: Site) -> None:
    event = api.get("/echo", ("Cookie", "a=1; b=2"), ("Cookie", "c=3")).json

    assert event["cookies"] == ["a=1", "b=2", "c=3"]
    assert "cookie" not in event["headers"]


def test_repeated_query_parameters_are_joined_and_decoded_and_the_raw_query_is_as_sent(api: Site) -> None:
    event = api.get("/echo?tag=a%20b&tag=c%2Fd&empty=").json

    assert event["rawQueryString"] == "tag=a%20b&tag=c%2Fd&empty="
    assert event["queryStringParameters"] == {"tag": "a b,c/d", "empty": ""}


def test_a_path_may_contain_an_encoded_line_break(api: Site) -> None:
    assert api.get("/echo/one%0Atwo").json["pathParameters"] == {"name": "one\ntwo"}
    assert api.get("/echo/one/deep/two%0A/three").json["pathParameters"] == {"name": "one", "rest": "two\n/three"}
    assert api.get("/no%0Asuch").json == {"message": "Not Found"}


def test_the_path_and_its_parameters_are_decoded(api: Site) -> None:
    event = api.get("/echo/caf%C3%A9%20noir").json

    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/echo/café noir"
    assert event["pathParameters"] == {"name": "café noir"}


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/csv; charset=utf-8", "application/json", "Application/JSON;charset=utf-8", "application/xml"],
)
def test_a_body_of_text_arrives_as_text(api: Site, content_type: str) -> None:
    event = api.call("PUT", "/echo", "hé", [("Content-Type", content_type)]).json

    assert (event["body"], event["isBase64Encoded"]) == ("hé", False)


@pytest.mark.parametrize(
    "content_type", ["application/webhook+json", "application/octet-stream", "application/jsonp", "image/png", None]
)
def test_any_other_body_arrives_as_base64(api: Site, content_type: str | None) -> None:
    body = bytes(range(256))
    event = api.call("PUT", "/echo", body, [("Content-Type", content_type)] if content_type else []).json

    assert (base64.b64decode(event["body"]), event["isBase64Encoded"]) == (body, True)


# ---- Routes ----


@pytest.mark.parametrize(
    ("method", "target", "route"),
    [
        ("GET", "/echo", "ANY /echo"),
        ("PATCH", "/echo", "ANY /echo"),
        ("GET", "/echo/other", "GET /echo/{name}"),
        ("GET", "/echo/a/deep/b/c", "GET /echo/{name}/deep/{rest+}"),
    ],
)
def test_a_request_finds_its_route(api: Site, method: str, target: str, route: str) -> None:
    assert api.call(method, target).json["routeKey"] == route


def test_the_most_specific_route_wins(api: Site) -> None:
    assert api.get("/echo/literal").body == b"literal"
    assert api.post("/echo", {}).body == b"literal"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("DELETE", "/answer"),
        ("HEAD", "/large"),
        ("GET", "/echo/"),
        ("GET", "/echo/a/b"),
        ("GET", "/echo/a%2Fb"),
        ("GET", "/large/"),
    ],
)
def test_without_a_route_the_answer_is_404(api: Site, method: str, target: str) -> None:
    answer = api.call(method, target)

    assert answer.status == 404
    assert answer.header("content-type") == "application/json"
    assert answer.body == (b"" if method == "HEAD" else b'{"message":"Not Found"}')


# ---- Answers ----


def test_a_full_answer_is_rendered(api: Site) -> None:
    answer = api.post(
        "/answer",
        {
            "statusCode": 201,
            "headers": {"Content-Type": "text/css", "X-Number": 5, "X-Flag": True},
            "cookies": ["a=1; Secure", "b=2"],
            "body": "é",
        },
    )

    assert (answer.status, answer.body) == (201, "é".encode())
    assert answer.header("content-type") == "text/css"
    assert (answer.header("x-number"), answer.header("x-flag")) == ("5", "true")
    assert answer.all("set-cookie") == ["a=1; Secure", "b=2"]
    assert answer.header("apigw-requestid")
    assert not answer.all("server")


def test_a_base64_answer_is_decoded(api: Site) -> None:
    answer = api.post("/answer", {"statusCode": 200, "body": "AAEC/w==", "isBase64Encoded": True})

    assert answer.body == b"\x00\x01\x02\xff"
    assert answer.header("content-type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("value", "body"), [({"a": [1, "é"]}, '{"a": [1, "é"]}'), ([], "[]"), ("plain", "plain"), (5, "5"), (None, "null")]
)
def test_a_plain_value_becomes_a_200_of_json(api: Site, value: object, body: str) -> None:
    answer = api.post("/answer", value)

    assert (answer.status, answer.body.decode()) == (200, body)
    assert answer.header("content-type") == "application/json"


@pytest.mark.parametrize(
    "invalid",
    [
        {"statusCode": 200.5},
        {"statusCode": "200"},
        {"statusCode": 0},
        {"statusCode": True},
        {"statusCode": 200, "body": {"an": "object"}},
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
        {"statusCode": 200, "headers": {"x-list": ["a"]}},
        {"statusCode": 200, "headers": {"x-evil": "a\r\nb: c"}},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "cookies": "a=1"},
    ],
)
def test_an_invalid_answer_is_a_500(api: Site, invalid: object) -> None:
    answer = api.post("/answer", invalid)

    assert (answer.status, answer.body) == (500, b'{"message":"Internal Server Error"}')


def test_a_function_that_raises_is_a_500_and_its_traceback_is_in_the_terminal(
    api: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = api.get("/broken")

    assert (answer.status, answer.body) == (500, b'{"message":"Internal Server Error"}')
    shown = capfd.readouterr().err
    assert "ValueError: on purpose" in shown
    assert "GET /broken 500 " in shown


# ---- Limits ----


def test_a_body_over_10_mb_is_413(api: Site) -> None:
    answer = api.call("POST", "/answer", b" " * (10 * 1024 * 1024 + 1))

    assert (answer.status, answer.body) == (413, b'{"message":"Request Entity Too Large"}')


def test_an_event_over_the_6_mb_of_lambda_is_413_too(api: Site) -> None:
    answer = api.call("POST", "/answer", b" " * SIX_MB, [("Content-Type", "text/plain")])

    assert (answer.status, answer.body) == (413, b'{"message":"Request Entity Too Large"}')


def test_an_answer_over_the_6_mb_of_lambda_is_a_500(api: Site) -> None:
    assert len(api.get(f"/large?bytes={SIX_MB}").body) == SIX_MB
    assert api.get(f"/large?bytes={SIX_MB + 100}").status == 500


def test_a_function_that_takes_too_long_is_a_503(impatient_api: Site) -> None:
    answer = impatient_api.get("/slow")

    assert (answer.status, answer.body) == (503, b'{"message":"Service Unavailable"}')


# ---- The function URL ----


@pytest.mark.parametrize(
    ("method", "target"), [("POST", "/"), ("DELETE", "/any/where"), ("GET", "/a%20b?c=%20"), ("GET", "/a%0Ab")]
)
def test_a_function_url_accepts_any_path_and_leaves_it_encoded(url: Site, method: str, target: str) -> None:
    event = url.call(method, target).json

    path, _, query = target.partition("?")
    assert (event["rawPath"], event["rawQueryString"]) == (path, query)
    assert event["routeKey"] == event["requestContext"]["routeKey"] == "$default"
    assert event["requestContext"]["accountId"] == "anonymous"
    assert "pathParameters" not in event


def test_a_function_url_gets_a_webhook_as_base64(url: Site) -> None:
    event = url.call("POST", "/", b"{}", [("Content-Type", "application/webhook+json")]).json

    assert (event["body"], event["isBase64Encoded"]) == ("e30=", True)


def test_an_error_behind_a_function_url_is_a_502(background: Background, project: Project, workers: Workers) -> None:
    [broken] = [function for function in project.template().functions if function.logical_id == "BrokenToo"]
    site = Site(background.enter(serving(function_url(broken, workers))))

    answer = site.get("/")

    assert (answer.status, answer.body) == (502, b"Internal Server Error")


# ---- The connection ----


def test_one_connection_carries_many_requests(api: Site) -> None:
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=300)
    statuses = []
    for _ in range(3):
        connection.request("POST", "/answer", json.dumps("again"), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        statuses.append((answer.status, answer.read()))
    connection.close()

    assert statuses == [(200, b"again")] * 3


def test_bytes_that_are_not_utf_8_are_replaced(api: Site) -> None:
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=300)
    connection.putrequest("POST", "/echo/%ff")
    connection.putheader("X-Odd", b"\xff")
    connection.endheaders()
    not_found = connection.getresponse()
    not_found.read()
    connection.close()
    event: Any = api.call("PUT", "/echo?q=%ff", b"\xff", [("Content-Type", "text/plain")]).json

    assert not_found.status == 404
    assert (event["body"], event["queryStringParameters"]) == ("\ufffd", {"q": "\ufffd"})

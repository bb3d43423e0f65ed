"""Web pages of other sites cannot use the local servers, and error lines quote no request."""

import base64
import gzip
import json
import logging
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from local.aws import aws_stand_in
from local.gateway import function_url, http_api
from local.http_server import serving
from local.invoke_api import invoke_api
from local.loopback import is_local, is_loopback
from local.stand_ins.gemini import gemini_app
from local.stand_ins.gemini_tokens import Tokens
from local.stand_ins.livekit import livekit_stand_in
from tests.local.conftest import Answer, Background, Project, Site

KEY = ("x-goog-api-key", "some-key")
NOWHERE = "http://127.0.0.1:9"
FOREIGN_HOST = ("Host", "rebound.example:3000")
FOREIGN_PAGES = [("Origin", "https://page.example"), ("Origin", "http://127.0.0.1.page.example"), ("Origin", "null")]
OUR_PAGE = ("Origin", "http://localhost:5173")
TARGET = ("X-Amz-Target", "DynamoDB_20120810.ListTables")
SIGNED = ("Authorization", "AWS4-HMAC-SHA256 Credential=x/20261129/us-east-1/dynamodb/aws4_request, SignedHeaders=host")
ECHO = """
    def handler(event, context):
        return {"statusCode": 200, "body": __import__("json").dumps(event)}
"""


class _Functions:
    """Records the invocations."""

    def __init__(self) -> None:
        self.invoked: list[Any] = []

    async def invoke(self, _: str, event: Any, __: str = "") -> Any:
        self.invoked.append(event)
        return {"statusCode": 200, "headers": {}, "body": json.dumps(event)}


@pytest.fixture(scope="module", autouse=True)
def echo(project: Project) -> None:
    project.function("Echo", ECHO, "PUT /echo", FunctionUrlConfig={"AuthType": "NONE"})


@pytest.fixture
def functions() -> _Functions:
    return _Functions()


@pytest.fixture
def invoking(background: Background, project: Project, functions: Any) -> Site:
    return Site(background.enter(serving(invoke_api(project.template().functions, functions))))


@pytest.fixture
def gateway(background: Background, project: Project, functions: Any) -> Site:
    return Site(background.enter(serving(http_api(project.template().functions, functions))))


@pytest.fixture(scope="module")
def gemini(background: Background) -> Site:
    return Site(background.enter(serving(gemini_app(Tokens(), KEY[1]))))


@pytest.fixture(scope="module")
def livekit(background: Background) -> Site:
    return Site(background.enter(livekit_stand_in(NOWHERE, None)).url.replace("ws:", "http:"))


@pytest.fixture(scope="module")
def aws(background: Background) -> Site:
    return Site(background.enter(aws_stand_in()))


def invoke(site: Site, *headers: tuple[str, str]) -> Answer:
    return site.call("POST", "/2015-03-31/functions/Echo/invocations", "{}", list(headers))


def list_tables(site: Site, *headers: tuple[str, str]) -> Answer:
    return site.call("POST", "/", "{}", [TARGET, SIGNED, ("Content-Type", "application/x-amz-json-1.0"), *headers])


# ---- Hosts and origins ----


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:3000", "127.8.8.8", "localhost", "LOCALHOST:3000", "pi-voice.localhost:3000", "[::1]:3000"],
)
def test_a_loopback_host_is_this_machine(host: str) -> None:
    assert is_loopback(f"http://{host}")
    assert is_local(host, None)
    assert is_local("127.0.0.1:3000", f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "page.example",
        "127.0.0.1.page.example",
        "localhost.page.example",
        "notlocalhost",
        "10.0.0.1",
        "[::2]",
        "[::1",
    ],
)
def test_any_other_host_is_not(host: str) -> None:
    assert not is_local(host, None)
    assert not is_local("127.0.0.1:3000", f"http://{host}")


@pytest.mark.parametrize("header", [FOREIGN_HOST, *FOREIGN_PAGES], ids=str)
def test_pages_of_other_sites_invoke_no_function(
    invoking: Site, functions: _Functions, header: tuple[str, str]
) -> None:
    assert invoke(invoking, header).status == 403
    assert functions.invoked == []


def test_programs_and_pages_of_this_machine_invoke_functions(invoking: Site) -> None:
    assert [invoke(invoking).status, invoke(invoking, OUR_PAGE).status] == [200, 200]


@pytest.mark.parametrize("header", [FOREIGN_HOST, *FOREIGN_PAGES], ids=str)
def test_pages_of_other_sites_read_no_table(aws: Site, header: tuple[str, str]) -> None:
    assert list_tables(aws, header).status == 403
    assert aws.call("POST", "/moto-api/reset", "", [header]).status == 403
    assert list_tables(aws).json == {"TableNames": []}


@pytest.mark.parametrize("header", [FOREIGN_HOST, *FOREIGN_PAGES], ids=str)
def test_pages_of_other_sites_plan_no_answers(gemini: Site, header: tuple[str, str]) -> None:
    assert gemini.call("PUT", "/stand-in/answers", "[]", [header]).status == 403
    assert gemini.call("PUT", "/stand-in/answers", "[]").status == 204


def test_the_stand_ins_refuse_other_hosts_because_their_keys_are_public(gemini: Site, livekit: Site) -> None:
    assert gemini.post("/v1alpha/auth_tokens", {}, KEY, FOREIGN_HOST).status == 403
    assert livekit.get("/", FOREIGN_HOST).status == 403
    assert livekit.get("/").status == 200


def test_the_gateway_answers_under_any_name_as_through_a_tunnel(gateway: Site) -> None:
    assert gateway.call("PUT", "/echo", "{}", [FOREIGN_HOST]).status == 200


# ---- Compressed bodies ----


def test_a_compressed_body_is_passed_on_unchanged(
    background: Background, project: Project, gateway: Site, functions: Any
) -> None:
    [function] = project.template().functions
    url = Site(background.enter(serving(function_url(function, functions))))
    body = gzip.compress(b'{"name": "Ana"}')
    for site in (gateway, url):
        headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
        event = site.call("PUT", "/echo", body, headers).json

        assert (base64.b64decode(event["body"]), event["isBase64Encoded"]) == (body, True)
        assert event["headers"]["content-encoding"] == "gzip"


def test_a_compressed_event_is_not_json_to_the_invoke_api(invoking: Site) -> None:
    path = "/2015-03-31/functions/Echo/invocations"

    assert invoking.call("POST", path, gzip.compress(b"{}"), [("Content-Encoding", "gzip")]).status == 400


# ---- Error lines ----


@pytest.fixture
def failing(background: Background) -> Iterator[str]:
    async def fail(request: web.Request) -> web.Response:
        raise RuntimeError(f"{request.url} {request.headers['Authorization']}")

    app = web.Application()
    app.router.add_get("/fails", fail)
    with background.during(serving(app)) as url:
        yield url


def answer_to(url: str, request: str) -> bytes:
    """Send the bytes of a request, malformed or not, and return the response."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=300) as connection:
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


MALFORMED = [
    "GET /ws?access_token=hush-1 HTTP/one\r\nAuthorization: Bearer hush-2\r\n\r\n",
    "GET /ws?access_token=hush-1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \x00hush-2\r\n\r\n",
    "GET /ws?access_token=hush-1\r\nAuthorization Bearer hush-2\r\n\r\n",
]


@pytest.mark.parametrize("request_text", MALFORMED, ids=repr)
def test_the_error_line_of_a_malformed_request_does_not_quote_it(
    failing: str, aws: Site, request_text: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    list_tables(aws)  # it has started
    for url in (failing, aws.url):
        answer_to(url, request_text)

    printed = capfd.readouterr()
    assert "hush" not in caplog.text + printed.out + printed.err


def test_the_error_line_of_a_failing_handler_has_its_type_and_stack_only(
    failing: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.ERROR)

    answer = Site(failing).get("/fails?access_token=hush-1", ("Authorization", "Bearer hush-2"))

    printed = capfd.readouterr()
    assert answer.status == 500
    assert "RuntimeError" in caplog.text
    assert "in fail" in caplog.text
    assert "hush" not in caplog.text + printed.out + printed.err

"""The AWS client: signatures equal to those of botocore, connections, retries and errors."""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from select import select
from typing import Any
from unittest.mock import patch

import botocore.auth
import botocore.session
import hypothesis
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from local.http_server import serving
from pi_voice.adapters.aws import (
    DYNAMODB,
    SECRETS_MANAGER,
    SQS,
    SSM,
    AwsService,
    Protocol,
    Refused,
    Unanswered,
    signed_headers,
    trust,
)
from pi_voice.settings import AwsSettings
from tests.integration.conftest import ServiceAt
from tests.integration.provider import (
    Answer,
    Provider,
    breaks_off,
    hangs,
    hangs_up,
    resets,
    says,
    stalls,
)
from tests.patience import LONG
from tests.support.tls import loopback_tls

ALL = (DYNAMODB, SQS, SSM, SECRETS_MANAGER)
KEYS = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "ge/heim+"}
SAID = "what the caller said"

Ask = Callable[[AwsService], Any]

FINE = says('{"fine": true}', content_type="application/x-amz-json-1.0")


def settings(**variables: str) -> AwsSettings:
    return AwsSettings.of({**KEYS, **variables})


def refusal(code: str, status: int = 400) -> Answer:
    answer = says(json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": SAID}), status)
    answer.__name__ = f"{status} {code}"  # pytest shows it as the id of the case
    return answer


@pytest.fixture
def ask(runner: asyncio.Runner) -> Ask:
    """Send a request from a thread while the provider's loop runs."""

    def ask(service: AwsService) -> Any:
        return runner.run(asyncio.to_thread(service.ask, "GetItem", {"Key": SAID}))

    return ask


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], Answer]:
    """Start the client's time limit only once the provider has the request, so that a slow machine does not matter."""
    received_from: set[object] = set()

    def silent(answer: Answer) -> Answer:
        async def respond(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            received_from.add(request.transport.get_extra_info("peername"))
            return await answer(request)

        return respond

    class Waiting(HTTPConnection):
        def getresponse(self) -> HTTPResponse:
            while self.sock.getsockname() not in received_from and not select([self.sock], [], [], 0.01)[0]:
                pass
            return super().getresponse()

    monkeypatch.setattr("pi_voice.adapters.aws.HTTPConnection", Waiting)
    return silent


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Recorded pauses between attempts. No test waits for them."""
    slept: list[float] = []
    monkeypatch.setattr("pi_voice.adapters.aws.time.sleep", slept.append)
    return slept


# ---- Requests ---------------------------------------------------------------------------------------


@hypothesis.settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.binary(max_size=100),
    token=st.sampled_from(["", "IQoJb3JpZ2luX2VjE/+="]),
    protocol=st.sampled_from(ALL),
    operation=st.sampled_from(["GetItem", "SendMessage"]),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_request_is_signed_as_botocore_signs_it(
    body: bytes, token: str, protocol: Protocol, operation: str, now: datetime
) -> None:
    aws = settings(AWS_SESSION_TOKEN=token)
    host = aws.endpoint(protocol.service).removeprefix("https://")
    headers = signed_headers(aws, protocol, host, operation, body, now.timetuple())
    theirs = AWSRequest(
        "POST",
        aws.endpoint(protocol.service) + "/",
        data=body,
        headers={name: headers[name] for name in ("content-type", "x-amz-target")},
    )
    with patch.object(botocore.auth, "get_current_datetime", lambda: now.replace(tzinfo=None)):
        signer = SigV4Auth(Credentials("AKIDEXAMPLE", "ge/heim+", token or None), protocol.service, "eu-west-1")
        signer.add_auth(theirs)

    assert headers["authorization"] == theirs.headers["Authorization"]
    assert headers["x-amz-date"] == theirs.headers["X-Amz-Date"]
    assert headers.get("x-amz-security-token") == theirs.headers.get("X-Amz-Security-Token")


@pytest.mark.parametrize("protocol", ALL, ids=lambda protocol: protocol.service)
def test_the_protocol_matches_botocores_service_model(protocol: Protocol) -> None:
    model = botocore.session.get_session().get_service_model(protocol.service).metadata

    assert (model["targetPrefix"], model["jsonVersion"]) == (protocol.target, protocol.version)
    assert model.get("signingName", model["endpointPrefix"]) == protocol.service


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"])
@pytest.mark.parametrize("protocol", ALL, ids=lambda protocol: protocol.service)
def test_the_endpoint_is_that_of_botocore(protocol: Protocol, region: str) -> None:
    session = botocore.session.get_session()
    session.set_credentials("AKIDEXAMPLE", "secret")
    theirs = session.create_client(protocol.service, region_name=region).meta
    suffix = theirs.endpoint_url.partition(f".{region}.")[2]

    assert settings(AWS_REGION=region, URL_SUFFIX=suffix).endpoint(protocol.service) == theirs.endpoint_url


def test_the_request_arrives_unchanged(service_at: ServiceAt, provider: Provider, ask: Ask) -> None:
    provider.answers(FINE)

    assert ask(service_at(provider.url)) == {"fine": True}

    [received] = provider.received
    assert json.loads(received.body) == {"Key": SAID}
    assert (received.method, received.path) == ("POST", "/")
    assert received.headers["X-Amz-Target"] == "DynamoDB_20120810.GetItem"
    assert received.headers["Host"] == provider.authority
    assert received.headers["User-Agent"] == "pi-voice"


# ---- Connections ------------------------------------------------------------------------------------


def test_a_connection_is_reused(service_at: ServiceAt, provider: Provider, ask: Ask) -> None:
    provider.answers(FINE)
    service = service_at(provider.url)

    for _ in range(5):
        ask(service)

    assert provider.connections == 1


@pytest.fixture
def send_three(provider: Provider, runner: asyncio.Runner) -> Ask:
    """Send three concurrent requests; the provider responds after all have arrived."""

    def send_three(service: AwsService) -> None:
        together = asyncio.Barrier(3)

        async def wait(request: web.Request) -> web.StreamResponse:
            await together.wait()
            return await FINE(request)

        async def ask_all() -> None:
            await asyncio.gather(*(asyncio.to_thread(service.ask, "GetItem", {}) for _ in range(3)))

        provider.answers(wait)
        runner.run(ask_all())

    return send_three


def test_concurrent_requests_have_a_connection_each(service_at: ServiceAt, provider: Provider, send_three: Ask) -> None:
    service = service_at(provider.url)

    send_three(service)
    send_three(service)

    assert provider.connections == 3


def test_after_a_timeout_no_idle_connection_is_reused(
    service_at: ServiceAt,
    provider: Provider,
    ask: Ask,
    send_three: Ask,
    pauses: list[float],
    silent: Callable[[Answer], Answer],
) -> None:
    service = service_at(provider.url, time_limit_seconds=0.5)
    send_three(service)
    provider.answers(silent(hangs), FINE)

    ask(service)

    assert (provider.connections, len(pauses)) == (4, 1)


@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_dead_connection_is_replaced_at_once(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float], end: Answer
) -> None:
    provider.answers(FINE, end, FINE)
    service = service_at(provider.url)
    ask(service)

    assert ask(service) == {"fine": True}
    assert (len(provider.received), pauses) == (3, [])


def test_a_connection_that_the_server_closes_is_not_reused(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float]
) -> None:
    async def closes_afterwards(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"{}", headers={"Connection": "close"})

    provider.answers(closes_afterwards)
    service = service_at(provider.url)
    for _ in range(3):
        ask(service)

    assert (provider.connections, pauses) == (3, [])


@pytest.fixture
def tls(runner: asyncio.Runner, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A service with TLS, and the certificate to trust."""
    made = loopback_tls(tmp_path)
    app = web.Application()
    app.router.add_post("/", FINE)
    server = serving(app, tls=made.server)
    url = runner.run(server.__aenter__())
    trust.cache_clear()
    yield url, made.ca_file
    trust.cache_clear()
    runner.run(server.__aexit__(None, None, None))


def test_a_trusted_certificate_is_accepted(
    tls: tuple[str, Path], service_at: ServiceAt, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca_file = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    trust.cache_clear()

    assert ask(service_at(url)) == {"fine": True}


def test_an_untrusted_certificate_is_refused(
    tls: tuple[str, Path], service_at: ServiceAt, ask: Ask, pauses: list[float]
) -> None:
    with pytest.raises(Unanswered, match=ssl.SSLCertVerificationError.__name__):
        ask(service_at(tls[0]))
    assert len(pauses) == 2


# ---- Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        refusal("InternalServerError", 500),
        says("<html>", 502, "text/html"),
        says("", 503),
        says("{}", 429),
        refusal("ProvisionedThroughputExceededException"),
        refusal("ThrottlingException"),
        refusal("RequestLimitExceeded"),
        refusal("TransactionInProgressException"),
    ],
)
def test_transient_errors_are_retried_after_a_pause(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float], answer: Answer
) -> None:
    provider.answers(answer, answer, FINE)

    assert ask(service_at(provider.url)) == {"fine": True}
    assert len(pauses) == 2
    assert all(0 <= pause <= longest for pause, longest in zip(pauses, (1, 2), strict=True))


@pytest.mark.parametrize("answer", [refusal("InternalServerError", 500), refusal("ThrottlingException")])
def test_a_persistent_error_is_raised_after_three_attempts(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float], answer: Answer
) -> None:
    provider.answers(answer)

    with pytest.raises(Refused) as raised:
        ask(service_at(provider.url))

    assert (len(provider.received), len(pauses)) == (3, 2)
    assert raised.value.answer["message"] == SAID
    assert SAID not in str(raised.value)


def test_no_retry_starts_that_could_exceed_the_time_limit(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float]
) -> None:
    provider.answers(refusal("InternalServerError", 500))

    with pytest.raises(Refused):
        ask(service_at(provider.url, time_limit_seconds=LONG, patience_seconds=LONG))

    assert (len(provider.received), pauses) == (1, [])


def test_an_invalid_header_is_reported_without_its_value(ask: Ask, pauses: list[float]) -> None:
    with pytest.raises(Unanswered) as raised:
        ask(AwsService(settings(AWS_SESSION_TOKEN="very secret\n"), DYNAMODB))

    assert str(raised.value) == "GetItem: ValueError"
    assert raised.value.__suppress_context__
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refusal("ConditionalCheckFailedException"), "ConditionalCheckFailedException"),
        (refusal("AccessDeniedException", 403), "AccessDeniedException"),
        (says('{"__type": "ParameterNotFound"}', 400), "ParameterNotFound"),
        (says("<html>", 404, "text/html"), "404"),
        (says("[]", 400), "400"),
    ],
)
def test_a_refusal_is_raised_at_once_with_its_code(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float], answer: Answer, code: str
) -> None:
    provider.answers(answer)

    with pytest.raises(Refused) as raised:
        ask(service_at(provider.url))

    assert (raised.value.code, len(provider.received), pauses) == (code, 1, [])


@pytest.mark.parametrize("protocol", [DYNAMODB, SQS], ids=["dynamodb", "sqs"])
@pytest.mark.parametrize("body", ["<html>", '{"Item": {', "[]", "null"])
def test_an_unreadable_response_is_unanswered(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float], body: str, protocol: Protocol
) -> None:
    provider.answers(says(body))

    with pytest.raises(Unanswered):
        ask(service_at(provider.url, protocol))
    assert len(pauses) == 2


def test_an_empty_response_is_valid_only_for_services_that_send_it(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float]
) -> None:
    provider.answers(says(""))

    assert ask(service_at(provider.url, SQS)) == {}
    with pytest.raises(Unanswered):
        ask(service_at(provider.url, DYNAMODB))
    assert len(pauses) == 2


@pytest.mark.parametrize("silence", [hangs, stalls])
def test_a_silent_server_times_out(
    service_at: ServiceAt,
    provider: Provider,
    ask: Ask,
    pauses: list[float],
    silent: Callable[[Answer], Answer],
    silence: Answer,
) -> None:
    provider.answers(silent(silence))

    with pytest.raises(Unanswered, match=TimeoutError.__name__):
        ask(service_at(provider.url, time_limit_seconds=0.5))
    assert (len(provider.received), len(pauses)) == (3, 2)


@pytest.mark.parametrize("end", [hangs_up, resets, breaks_off])
def test_a_broken_connection_is_retried(
    service_at: ServiceAt, provider: Provider, ask: Ask, pauses: list[float], end: Answer
) -> None:
    provider.answers(end, end, FINE)

    assert ask(service_at(provider.url)) == {"fine": True}
    assert len(pauses) == 2


def test_an_unreachable_service_is_reported_without_its_address(
    service_at: ServiceAt, ask: Ask, closed_port: int, pauses: list[float]
) -> None:
    with pytest.raises(Unanswered) as raised:
        ask(service_at(f"http://127.0.0.1:{closed_port}"))

    assert str(raised.value) == "GetItem: ConnectionRefusedError"
    assert len(pauses) == 2


def test_the_signature_has_the_current_time(service_at: ServiceAt, provider: Provider, ask: Ask) -> None:
    provider.answers(FINE)
    ask(service_at(provider.url))

    moment = datetime.strptime(provider.received[0].headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(moment.timestamp() - time.time()) < 60

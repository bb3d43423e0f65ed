"""Memory and processor time that each route takes for a body, however the body is made."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

import pytest

from events.samples import SAMPLES
from pi_voice.domain import api_keys
from tests.functions.api import Api, http_event
from tests.functions.hostile.probes import MEGABYTE, Case, Measured, measure, memory_bytes
from tests.functions.hostile.shapes import schemas, shapes
from tests.functions.livekit_webhooks import signed
from tests.support.template import ROUTES

ROUTES_WITH_BODY: Final = [name for name, sample in SAMPLES.items() if sample.body is not None]
LIMITS: Final = {"CompleteSession": 4 * MEGABYTE, "PreviewExtraction": 4 * MEGABYTE}
"""Largest body of a route in bytes; of all others a megabyte."""

LISTS: Final = {
    "CreateAgent": "questions",
    "UpdateAgent": "questions",
    "CreateSession": "media",
    "AddParticipant": "media",
    "SaveTranscript": "turns",
    "CompleteSession": "transcript",
    "PreviewExtraction": "transcript",
    "CreateWebhookEndpoint": "events",
    "UpdateWebhookEndpoint": "events",
}
"""A field of each route that is a list."""

URL: Final = "https://9.9.9.9/"
"""URL of a webhook endpoint; a literal address is not looked up."""

TAKES_SCHEMA: Final = ("CreateAgent", "UpdateAgent", "RerunExtraction", "PreviewExtraction")
BYTES_PER_VALUE: Final = 64
WEBHOOK_LIMIT: Final = MEGABYTE
TIMES_THE_LARGEST: Final = 3
SMALLEST_BOUND: Final = 24 * MEGABYTE
"""Memory that is always allowed: three times what a valid body of a megabyte takes, and what an import may take."""

CPU_SECONDS: Final = 2.0
MAX_ANSWER_BYTES: Final = 65_536
UNAUTHENTICATED_BYTES: Final = 2 * MEGABYTE
"""Memory for a body that is not read: what the refusal itself takes."""


class Route:
    """Events of one route, with ids that exist."""

    def __init__(self, function: str, api: Api) -> None:
        self.function = function
        self._api = api
        self.limit = LIMITS.get(function, MEGABYTE)
        self._agent = api.agent(variables=SAMPLES["CreateAgent"].body["variables"])
        self._session = api.session(api.agent(tools=SAMPLES["CreateAgent"].body["tools"]))
        self._endpoint = api.post("/webhook-endpoints", url=URL).data
        if function == "RerunExtraction":
            api.post(f"/sessions/{self._session['session_id']}/complete", transcript=[])

    def event(self, body: str, *, binary: bool = False, **more_headers: str) -> dict[str, Any]:
        """Return an event with a body, and with a valid credential unless the headers have another."""
        method, path = ROUTES[self.function].split()
        ids = {
            "session_id": self._session["session_id"],
            "agent_id": self._agent,
            "endpoint_id": self._endpoint["endpoint_id"],
        }
        headers = {
            "authorization": f"Bearer {self._api.key}",
            "content-type": "application/json",
            **more_headers,
        }
        event = http_event(method, path.format(**ids), headers, body, binary=binary)
        return {**event, "routeKey": ROUTES[self.function], "pathParameters": ids}

    def case(self, name: str, body: str, **options: Any) -> Case:
        """Return a case with a body, after a small one that is refused."""
        return Case(name, self.event('{"unknown":1}'), self.event(body, **options))

    def largest(self) -> str:
        """Return the largest body that the route accepts: transcripts with each character escaped, and spaces."""
        body = {**SAMPLES[self.function].body}
        if "agent_id" in body:
            body["agent_id"] = self._agent
        if "url" in body:
            body["url"] = URL
        if self.limit > MEGABYTE:
            body["transcript"] = [{"role": "user", "text": "é" * 19_900}] * 26
        text = json.dumps(body)
        return text + " " * (self.limit - len(text))

    def hostile(self) -> Iterator[Case]:
        """Yield the hostile bodies of the route."""
        values = self.limit // BYTES_PER_VALUE
        bodies = [*shapes(LISTS.get(self.function, "x"), self.limit, values)]
        if self.function in TAKES_SCHEMA:
            bodies += schemas(SAMPLES[self.function].body, self.limit, values)
        yield from (self.case(name, body) for name, body in bodies)
        yield from (self.case(f"{name}, in base64", body, binary=True) for name, body in bodies[:2])
        key = {"idempotency-key": "hostile"}
        yield from (self.case(f"{name}, with a key", body, **key) for name, body in bodies[:2])
        yield self.case("larger than accepted", bodies[0][1] + " " * self.limit)
        yield self.case("larger than accepted, in base64", bodies[0][1] + " " * self.limit, binary=True, **key)


@pytest.fixture
def route(request: pytest.FixtureRequest, api: Api) -> Route:
    return Route(request.param, api)


def too_much(measured: Iterable[Measured], function: str, growth_bytes: int) -> list[Measured]:
    """Return what took more memory or processor time than allowed, or was not answered with a short 4xx."""
    return [
        each
        for each in measured
        if each.growth_bytes > growth_bytes
        or each.peak_bytes > memory_bytes(function)
        or each.cpu_seconds > CPU_SECONDS
        or each.answer_bytes > MAX_ANSWER_BYTES
        or not 400 <= each.status < 500
    ]


@pytest.mark.parametrize("route", ROUTES_WITH_BODY, indirect=True)
def test_no_body_takes_much_more_than_the_largest_valid_one(route: Route) -> None:
    valid, *hostile = measure(route.function, [route.case("valid", route.largest()), *route.hostile()])

    assert valid.status < 300
    assert len(hostile) > 30
    allowed = max(TIMES_THE_LARGEST * valid.growth_bytes, SMALLEST_BOUND)
    assert too_much(hostile, route.function, allowed) == []


@pytest.mark.parametrize("route", ROUTES_WITH_BODY, indirect=True)
def test_without_a_credential_no_large_body_is_read(route: Route) -> None:
    values = route.limit // BYTES_PER_VALUE
    [(_, body)] = islice(shapes(LISTS.get(route.function, "x"), route.limit, values), 1)
    cases = [
        route.case(f"{token[:15]} {binary}", body, authorization=token, binary=binary)
        for token in ("Bearer pi_sess_x", f"Bearer {api_keys.generate().reveal()}", "Bearer x")
        for binary in (False, True)
    ]

    measured = measure(route.function, cases)

    assert {each.status for each in measured} == {401}
    assert too_much(measured, route.function, UNAUTHENTICATED_BYTES) == []


def webhook_case(name: str, body: str, token: str | None = None, *, binary: bool = True) -> Case:
    """Return a signed webhook, or one with a token."""
    headers = {"content-type": "application/webhook+json"}

    def event(text: str, authorization: str) -> dict[str, Any]:
        sent = http_event("POST", "/", {**headers, "authorization": authorization}, text, binary=binary)
        return {**sent, "routeKey": "$default"}

    first = '{"event":"track_published"}'
    return Case(name, event(first, signed(first)), event(body, token or signed(body)))


@pytest.mark.usefixtures("api")
def test_no_signed_webhook_takes_much_more_than_the_largest_valid_one() -> None:
    largest = '{"event":"track_published"}'
    largest += " " * (WEBHOOK_LIMIT - len(largest))
    bodies = [*shapes("room", WEBHOOK_LIMIT, WEBHOOK_LIMIT // BYTES_PER_VALUE)]
    cases = [webhook_case("valid", largest), *(webhook_case(name, body) for name, body in bodies)]

    valid, *hostile = measure("ReceiveLivekitWebhook", cases)

    assert valid.status == 200
    allowed = max(TIMES_THE_LARGEST * valid.growth_bytes, SMALLEST_BOUND)
    assert too_much(hostile, "ReceiveLivekitWebhook", allowed) == []


@pytest.mark.usefixtures("api")
def test_the_body_of_an_unsigned_webhook_is_not_read() -> None:
    body = " " * 4 * MEGABYTE
    tokens = {"no JWT": "x", "another secret": signed(body, secret="another-secret-of-more-than-32-bytes")}
    cases = [
        webhook_case(f"{name} {binary}", body, token, binary=binary)
        for name, token in tokens.items()
        for binary in (False, True)
    ]

    measured = measure("ReceiveLivekitWebhook", cases)

    assert {each.status for each in measured} == {401}
    assert too_much(measured, "ReceiveLivekitWebhook", MEGABYTE) == []

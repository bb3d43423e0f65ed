import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pi_voice.domain.errors import SettingsError, StorageError
from pi_voice.domain.extractions import ErrorInfo, Evidence, Extraction, ExtractionRun
from pi_voice.domain.ids import DeliveryId, EndpointId, SessionId, TranscriptId, WorkspaceId
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_calls import ToolCall
from pi_voice.domain.webhook_deliveries import (
    HELD_SECONDS,
    LIFE_SECONDS,
    MAX_TRIES,
    PAUSES,
    SETTLING_SECONDS,
    Delivery,
    Outcome,
    Try,
    due_after,
)
from pi_voice.domain.webhook_endpoints import SecretVersion, WebhookEndpoint
from pi_voice.domain.webhook_events import TEST
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets
from pi_voice.ports import DueDelivery, SendError, Sent
from pi_voice.use_cases.call_content import CallContent
from pi_voice.use_cases.deliver_event import FAILING_SECONDS, DeliverEvent
from pi_voice.use_cases.event_bodies import EventBodies
from tests.support.fakes import (
    FakeClock,
    FakeSessions,
    FakeToolCalls,
    FakeTranscripts,
    FakeWebhookDeliveries,
    FakeWebhookEndpoints,
    FakeWebhookSender,
)
from tests.support.metrics import metrics
from tests.unit.examples import (
    DELIVERY_ID,
    ENDPOINT_ID,
    EVENT_ID,
    NOW,
    SESSION_ID,
    TURNS,
    WEBHOOK_SECRETS,
    delivery,
    session,
    webhook_endpoint,
)

DAY = 86_400
TRANSCRIPT_ID = TranscriptId("019a0000-0000-7000-8000-0000000000aa")
TOOL_CALL = ToolCall(
    call_id="c-1", name="show", arguments={"item": "hinge"}, status="succeeded", response={}, called_at=NOW
)
WORKS = Sent(204, 12, None)
FAILS = Sent(500, 34, "http_error", b"secret page of the receiver")
GONE = Sent(410, 5, "http_error")
HANGS = Sent(None, 15_000, "timeout")


def completed() -> Session:
    """Return a completed session with a transcript, a tool call, results and their evidence."""
    failed = ErrorInfo(code="answer_invalid", message="m", details=[])
    run = ExtractionRun(at=NOW, status="failed", agent_version=1, model="m", results={"city": "Rome"}, error=failed)
    extraction = Extraction(
        status="succeeded", fields={"city": Evidence(status="found", turn=1, quote="Oslo.")}, runs=[run]
    )
    return replace(
        session(),
        status="completed",
        completed_at=NOW,
        transcript_id=TRANSCRIPT_ID,
        turns=2,
        tool_calls=1,
        results={"city": "Oslo"},
        extraction=extraction,
    )


class World:
    """The worker with its stores, an endpoint that receives events, and a session."""

    def __init__(
        self,
        pending: Delivery | None = None,
        *answers: Sent,
        endpoint: WebhookEndpoint | None = None,
        secrets: WebhookSecrets = WEBHOOK_SECRETS,
        deliveries: FakeWebhookDeliveries | None = None,
        sessions: FakeSessions | None = None,
        sender: FakeWebhookSender | None = None,
        endpoints: FakeWebhookEndpoints | None = None,
    ) -> None:
        self.deliveries = deliveries or FakeWebhookDeliveries(pending or delivery())
        self.endpoints = endpoints or FakeWebhookEndpoints(endpoint or webhook_endpoint())
        self.sessions = sessions or FakeSessions(completed())
        self.sender = sender or FakeWebhookSender(*answers)
        self.clock = FakeClock(NOW + 0.5)
        transcripts, tool_calls = FakeTranscripts(), FakeToolCalls()
        transcripts.stored[SESSION_ID, TRANSCRIPT_ID] = TURNS
        tool_calls.stored[SESSION_ID] = [TOOL_CALL]
        bodies = EventBodies(self.sessions, CallContent(transcripts, tool_calls))
        self.deliver = DeliverEvent(self.deliveries, self.endpoints, secrets, bodies, self.sender, clock=self.clock)

    def work(self, due: Try | None = None) -> Delivery:
        """Process a message, by default that of the next try, and return the delivery."""
        asyncio.run(self.deliver(ENDPOINT_ID, DELIVERY_ID, due or self.stored.next_try))
        return self.stored

    def work_off(self) -> Iterator[Delivery]:
        """Process a message each time that the delivery is due, until it is not any more."""
        while self.stored.due_at is not None:
            self.clock.now = max(self.clock.now, self.stored.due_at)
            yield self.work()

    @property
    def stored(self) -> Delivery:
        return self.deliveries.stored[DELIVERY_ID]

    @property
    def endpoint(self) -> WebhookEndpoint:
        return self.endpoints.stored[ENDPOINT_ID]

    @property
    def body(self) -> Any:
        [sent] = self.sender.sent
        return json.loads(sent.body)


# ---- Success ----------------------------------------------------------------------------------------


def test_a_delivery_that_the_receiver_accepts_has_succeeded() -> None:
    world = World()

    done = world.work()

    assert (done.status, done.tries, done.due_at) == ("succeeded", 1, None)
    assert (done.http_status, done.milliseconds, done.error, done.response) == (204, 12, None, None)
    assert done.tried_at == NOW


def test_a_request_goes_to_the_endpoint_with_the_id_of_the_event_and_its_secret() -> None:
    world = World()

    world.work()

    [sent] = world.sender.sent
    assert (sent.url, sent.event_id) == (webhook_endpoint().url, EVENT_ID)
    assert sent.secrets == (WEBHOOK_SECRETS.reveal(ENDPOINT_ID, webhook_endpoint().secret),)


@pytest.mark.parametrize(("ends_at", "count"), [(NOW + 1, 2), (NOW, 1)])
def test_the_previous_secret_signs_along_until_it_ends(ends_at: int, count: int) -> None:
    rotated = replace(
        webhook_endpoint(),
        secret=SecretVersion("a1", 2),
        previous_secret=SecretVersion("a1", 1),
        previous_secret_ends_at=ends_at,
    )
    world = World(endpoint=rotated)

    world.work()

    [sent] = world.sender.sent
    expected = tuple(WEBHOOK_SECRETS.reveal(ENDPOINT_ID, SecretVersion("a1", each)) for each in (2, 1))
    assert sent.secrets == expected[:count]


def test_a_success_ends_a_time_of_failures() -> None:
    world = World(endpoint=replace(webhook_endpoint(), failing_since=NOW - DAY))

    world.work()

    assert world.endpoint.failing_since is None


# ---- Bodies -----------------------------------------------------------------------------------------


def test_a_body_has_the_session_as_it_is_now_without_what_was_said() -> None:
    world = World()

    world.work()

    assert (world.body["type"], world.body["timestamp"]) == ("session.completed", NOW - 5)
    data = world.body["data"]
    assert (data["session_id"], data["status"], data["participant"]["name"]) == (SESSION_ID, "completed", "Kim")
    assert data.keys().isdisjoint({"transcript", "tool_calls", "results"})
    assert (data["extraction"]["status"], data["extraction"]["fields"], data["extraction"]["runs"]) == (
        "succeeded",
        None,
        [],
    )
    for word in ("Oslo", "Rome", "hinge", "workspace"):
        assert word not in json.dumps(world.body)


def test_an_endpoint_may_include_transcript_and_results() -> None:
    world = World(endpoint=replace(webhook_endpoint(), include=("transcript", "results")))

    world.work()

    data = world.body["data"]
    assert [turn["text"] for turn in data["transcript"]] == ["Which city?", "Oslo."]
    assert [call["arguments"] for call in data["tool_calls"]] == [{"item": "hinge"}]
    assert data["results"] == {"city": "Oslo"}
    assert data["extraction"]["fields"]["city"]["quote"] == "Oslo."
    assert data["extraction"]["runs"][0]["results"] == {"city": "Rome"}


@pytest.mark.parametrize(
    ("include", "there", "missing"),
    [("transcript", {"transcript", "tool_calls"}, {"results"}), ("results", {"results"}, {"transcript", "tool_calls"})],
)
def test_an_endpoint_may_include_one_of_them(include: str, there: set[str], missing: set[str]) -> None:
    world = World(endpoint=replace(webhook_endpoint(), include=(include,)))

    world.work()

    assert there <= world.body["data"].keys()
    assert missing.isdisjoint(world.body["data"].keys())


def test_an_active_session_has_no_transcript_yet() -> None:
    world = World(
        delivery(type="session.started"),
        endpoint=replace(webhook_endpoint(), include=("transcript",)),
        sessions=FakeSessions(session()),
    )

    world.work()

    assert (world.body["data"]["transcript"], world.body["data"]["tool_calls"]) == (None, [])


def test_details_of_an_extraction_that_may_quote_values_are_left_out_without_results() -> None:
    error = ErrorInfo.model_validate(
        {"code": "answer_invalid", "message": "m", "details": [{"path": "city", "message": "Is not Oslo."}]}
    )
    failed = replace(completed(), results=None, extraction=Extraction(status="failed", error=error))
    world = World(sessions=FakeSessions(failed))

    world.work()

    assert world.body["data"]["extraction"]["error"] == {"code": "answer_invalid", "message": "m", "details": []}


def test_the_body_of_a_test_has_the_endpoint_only() -> None:
    world = World(delivery(type="endpoint.test", session_id=None))

    world.work()

    assert world.body == {"type": "endpoint.test", "timestamp": NOW - 5, "data": {"endpoint_id": ENDPOINT_ID}}


# ---- Failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "http_status", "error"),
    [
        (FAILS, 500, "http_error"),
        (Sent(302, 3, "redirected"), 302, "redirected"),
        *[
            (Sent(None, 7, code), None, code)
            for code in ("timeout", "connection_failed", "tls_failed", "address_refused")
        ],
    ],
)
def test_a_failed_try_is_recorded_and_another_one_is_due(sent: Sent, http_status: int | None, error: SendError) -> None:
    world = World(None, sent)

    tried = world.work()

    assert (tried.status, tried.tries, tried.http_status, tried.error) == ("pending", 1, http_status, error)
    assert tried.response is None
    assert tried.due_at is not None
    assert NOW + 48 <= tried.due_at <= NOW + 60
    assert world.endpoint.failing_since == NOW


@pytest.mark.parametrize("random", [0.0, 0.5, 1.0])
def test_pauses_grow_to_eight_hours_and_eight_tries_take_about_a_day(random: float) -> None:
    pauses = [due_after(tries, NOW, random) - NOW for tries in range(1, MAX_TRIES)]

    assert MAX_TRIES == 8
    for pause, longest in zip(pauses, PAUSES, strict=True):
        assert pause == round(longest * (0.8 + 0.2 * random))
    assert 18 * 3_600 < sum(pauses) < 24 * 3_600
    assert due_after(MAX_TRIES, NOW, random) == NOW + SETTLING_SECONDS


def test_a_delivery_is_tried_eight_times_and_then_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(None, FAILS)

    states = list(world.work_off())

    assert [state.tries for state in states] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [state.status for state in states] == ["pending"] * 7 + ["failed"]
    assert len(world.sender.sent) == 8
    assert len({sent.event_id for sent in world.sender.sent}) == 1
    assert metrics(capsys, "WebhookDeliveriesFailed") == 1


def test_a_delivery_that_succeeds_at_last_has_no_error_any_more() -> None:
    world = World(None, FAILS, FAILS, WORKS)

    *_, done = world.work_off()

    assert (done.status, done.tries, done.http_status, done.error) == ("succeeded", 3, 204, None)
    assert world.endpoint.failing_since is None


# ---- Consequences for the endpoint ------------------------------------------------------------------


def test_an_endpoint_that_responds_410_is_disabled_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(None, GONE)

    done = world.work()

    assert (done.status, done.tries, done.http_status, done.due_at) == ("failed", 1, 410, None)
    assert (world.endpoint.disabled_at, world.endpoint.disabled_reason) == (NOW, "gone")
    assert metrics(capsys, "WebhookEndpointsDisabled") == 1


@pytest.mark.parametrize(("seconds", "reason"), [(FAILING_SECONDS, "failing"), (FAILING_SECONDS - 1, None)])
def test_an_endpoint_that_has_failed_for_three_days_is_disabled(
    seconds: int, reason: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(None, FAILS, endpoint=replace(webhook_endpoint(), failing_since=NOW - seconds))

    tried = world.work()

    assert world.endpoint.disabled_reason == reason
    assert tried.status == "pending"  # cancelled at its next try
    assert metrics(capsys, "WebhookEndpointsDisabled") == (reason is not None)


@pytest.mark.parametrize("sent", [FAILS, GONE])
def test_a_test_never_disables_an_endpoint_and_does_not_count_as_a_failure(sent: Sent) -> None:
    failing = replace(webhook_endpoint(), failing_since=NOW - 4 * DAY)
    for endpoint in (webhook_endpoint(), failing):
        world = World(delivery(type="endpoint.test", session_id=None), sent, endpoint=endpoint)

        world.work()

        assert world.endpoint == endpoint


def test_a_test_that_works_does_not_end_a_time_of_failures() -> None:
    failing = replace(webhook_endpoint(), failing_since=NOW - DAY)
    world = World(delivery(type="endpoint.test", session_id=None), WORKS, endpoint=failing)

    assert world.work().status == "succeeded"
    assert world.endpoint.failing_since == NOW - DAY


def test_the_response_of_a_test_is_kept_and_that_of_an_event_is_not() -> None:
    shown = Sent(500, 1, "http_error", b"caf\xc3\xa9 \xff")
    world = World(delivery(type="endpoint.test", session_id=None), shown)

    assert world.work().response == "café \ufffd"
    assert World(None, shown).work().response is None


# ---- Cancelled --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"active": False}, {"disabled_at": NOW, "disabled_reason": "failing"}, {"workspace": WorkspaceId("b")}]
)
@pytest.mark.parametrize("kind", ["session.completed", "endpoint.test"])
def test_a_delivery_to_an_endpoint_that_receives_nothing_is_cancelled_without_a_try(
    changes: dict[str, Any], kind: str
) -> None:
    world = World(delivery(type=kind), endpoint=replace(webhook_endpoint(), **changes))

    done = world.work()

    assert (done.status, done.tries, done.due_at) == ("cancelled", 0, None)
    assert world.sender.sent == []


def test_a_delivery_to_a_deleted_endpoint_is_cancelled() -> None:
    world = World(endpoint=replace(webhook_endpoint(), endpoint_id=EndpointId("other")))

    assert world.work().status == "cancelled"


def test_a_delivery_of_a_deleted_session_is_cancelled() -> None:
    world = World(sessions=FakeSessions())

    done = world.work()

    assert (done.status, done.due_at) == ("cancelled", None)
    assert world.sender.sent == []


def test_an_event_never_shows_a_session_of_another_workspace() -> None:
    world = World(sessions=FakeSessions(replace(completed(), workspace=WorkspaceId("globex"))))

    assert world.work().status == "cancelled"
    assert world.sender.sent == []


# ---- Messages that are out of date ------------------------------------------------------------------


@pytest.mark.parametrize("due", [Try(0, 1), Try(1, 0), Try(1, 2), Try(0, -1)])
def test_a_message_of_another_try_is_skipped(due: Try) -> None:
    world = World()

    assert world.work(due) == delivery()
    assert world.sender.sent == []


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_delivery_that_has_ended_is_skipped(status: Any) -> None:
    ended = delivery(status=status, due_at=None)
    world = World(ended)

    assert world.work() == ended
    assert world.sender.sent == []


def test_a_delivery_that_is_not_in_the_log_any_more_is_skipped() -> None:
    world = World()

    asyncio.run(world.deliver(ENDPOINT_ID, DeliveryId("other"), Try(0, 0)))

    assert world.sender.sent == []


def test_of_two_workers_with_the_same_message_one_sends() -> None:
    world = World()

    async def both() -> None:
        await asyncio.gather(*(world.deliver(ENDPOINT_ID, DELIVERY_ID, Try(0, 0)) for _ in range(2)))

    asyncio.run(both())

    assert len(world.sender.sent) == 1
    assert world.stored.tries == 1


# ---- Workers that are killed, and stores that fail --------------------------------------------------


class Killed(BaseException):
    """The worker was killed."""


class KilledWhileSending(FakeWebhookSender):
    """Sends, and then the worker is killed."""

    async def send(self, request: Any) -> Sent:
        await super().send(request)
        raise Killed


def test_a_worker_that_is_killed_at_each_try_makes_eight_tries_and_the_delivery_fails_visibly() -> None:
    world = World(sender=KilledWhileSending())
    states = []
    while world.stored.due_at is not None:
        world.clock.now = max(world.clock.now, world.stored.due_at)
        try:
            world.work()
        except Killed:
            states.append((world.stored.status, world.stored.tries))

    assert states == [("pending", tries) for tries in range(1, 9)]
    assert (world.stored.status, world.stored.tries, world.stored.error) == ("failed", 8, "internal_error")
    assert len(world.sender.sent) == 8


class DeliveriesThatFail(FakeWebhookDeliveries):
    """One operation fails."""

    def __init__(self, operation: str, *deliveries: Delivery) -> None:
        super().__init__(*deliveries)
        self._operation = operation

    async def find(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery | None:
        if self._operation == "find":
            raise StorageError
        return await super().find(endpoint_id, delivery_id)

    async def claim(self, delivery: Delivery, now: int, due_at: int) -> Delivery | None:
        if self._operation == "claim":
            raise StorageError
        return await super().claim(delivery, now, due_at)

    async def record(self, delivery: Delivery, outcome: Outcome) -> Delivery | None:
        if self._operation == "record":
            raise StorageError
        return await super().record(delivery, outcome)


@pytest.mark.parametrize("operation", ["find", "claim"])
def test_a_store_that_fails_before_the_try_uses_up_none(operation: str) -> None:
    world = World(deliveries=DeliveriesThatFail(operation, delivery()))

    with pytest.raises(StorageError):
        world.work()

    assert world.stored == delivery()
    assert world.sender.sent == []


def test_a_master_secret_that_is_missing_uses_up_no_try() -> None:
    world = World(secrets=WebhookSecrets(lambda: Masters("b2", {"b2": "n" * 32})))

    with pytest.raises(SettingsError):
        world.work()

    assert world.stored == delivery()
    assert world.sender.sent == []


def test_an_outcome_that_cannot_be_stored_is_sent_again_later() -> None:
    world = World(deliveries=DeliveriesThatFail("record", delivery()))

    tried = world.work()

    assert (tried.status, tried.tries) == ("pending", 1)
    assert tried.due_at is not None
    assert tried.due_at > NOW


class SessionsThatFail(FakeSessions):
    """No session can be read."""

    async def get(self, session_id: SessionId) -> Session | None:
        del session_id
        raise StorageError


def test_a_session_that_cannot_be_read_is_a_failed_try_that_does_not_count_against_the_endpoint() -> None:
    world = World(sessions=SessionsThatFail())

    tried = world.work()

    assert (tried.status, tried.tries, tried.http_status, tried.error) == ("pending", 1, None, "internal_error")
    assert world.endpoint.failing_since is None


class EndpointsThatCannotBeChanged(FakeWebhookEndpoints):
    """Endpoints can be read only."""

    async def note_failure(
        self, endpoint: WebhookEndpoint, now: int, *, timed_out: bool = False
    ) -> WebhookEndpoint | None:
        del endpoint, now, timed_out
        raise StorageError


def test_an_endpoint_that_cannot_be_changed_does_not_change_the_outcome() -> None:
    world = World(None, FAILS, endpoints=EndpointsThatCannotBeChanged(webhook_endpoint()))

    tried = world.work()

    assert (tried.status, tried.error) == ("pending", "http_error")


# ---- Endpoints that hang ----------------------------------------------------------------------------


def resting(until: int, **fields: Any) -> WebhookEndpoint:
    return replace(webhook_endpoint(), failing_since=NOW - 90, timeouts=2, resting_until=until, **fields)


def test_one_timeout_does_not_let_an_endpoint_rest() -> None:
    world = World(None, HANGS)

    world.work()

    assert (world.endpoint.timeouts, world.endpoint.resting_until) == (1, None)


@pytest.mark.parametrize(("timeouts", "seconds"), [(1, 60), (2, 120), (3, 240), (4, 300), (5, 300), (1_000, 300)])
def test_consecutive_timeouts_let_an_endpoint_rest_for_longer_and_longer(timeouts: int, seconds: int) -> None:
    world = World(None, HANGS, endpoint=resting(NOW) if timeouts > 1 else webhook_endpoint())
    world.endpoints.stored[ENDPOINT_ID] = replace(world.endpoint, timeouts=timeouts)

    world.work()

    assert (world.endpoint.timeouts, world.endpoint.resting_until) == (timeouts + 1, NOW + seconds)


@pytest.mark.parametrize("answer", [WORKS, FAILS])
def test_an_endpoint_that_responds_hangs_no_more(answer: Sent) -> None:
    world = World(None, answer, endpoint=resting(NOW))

    world.work()

    assert (world.endpoint.timeouts, world.endpoint.resting_until) == (0, None)
    assert world.endpoint.failing_since == (None if answer is WORKS else NOW - 90)


def test_an_event_to_an_endpoint_that_rests_is_put_off_without_a_try() -> None:
    due = delivery(tries=3, tried_at=NOW - 500, error="timeout")
    world = World(due, endpoint=resting(NOW + 1_000))

    put_off = world.work()

    assert put_off == replace(due, due_at=NOW + 1_000)
    assert world.sender.sent == []
    assert world.endpoints.writes == 0


def test_an_event_is_put_off_until_the_queue_accepts_its_try_again() -> None:
    world = World(endpoint=resting(NOW + 1))

    assert world.work().due_at == NOW + HELD_SECONDS
    assert HELD_SECONDS > 300


def test_an_event_that_is_put_off_is_sent_after_the_rest() -> None:
    world = World(endpoint=resting(NOW + 60))
    world.work()

    world.clock.now = NOW + 400
    sent = world.work()

    assert (sent.status, sent.tries) == ("succeeded", 1)


def test_a_test_is_sent_to_an_endpoint_that_rests_and_does_not_end_the_rest() -> None:
    endpoint = resting(NOW + 60)
    world = World(delivery(type=TEST, session_id=None), endpoint=endpoint)

    assert world.work().status == "succeeded"
    assert world.endpoint == endpoint


def test_the_event_of_a_disabled_endpoint_is_cancelled_also_while_it_rests() -> None:
    world = World(endpoint=resting(NOW + 60, disabled_at=NOW - 1, disabled_reason="failing"))

    assert world.work().status == "cancelled"


@pytest.mark.parametrize(("age", "status"), [(LIFE_SECONDS - 1, "pending"), (LIFE_SECONDS, "failed")])
@pytest.mark.parametrize("redeliveries", [0, 1])
def test_an_event_that_was_put_off_for_three_days_has_failed(age: int, status: str, redeliveries: int) -> None:
    asked_at = NOW - age
    times = (
        {"created_at": asked_at - 20 * DAY, "redelivered_at": asked_at} if redeliveries else {"created_at": asked_at}
    )
    world = World(delivery(redeliveries=redeliveries, **times), endpoint=resting(NOW + 60))

    ended = world.work()

    assert (ended.status, ended.tries) == (status, 0)
    assert ended.error == ("timeout" if status == "failed" else None)
    assert (ended.due_at is None) == (status == "failed")


def test_an_old_event_is_sent_to_an_endpoint_that_does_not_rest() -> None:
    world = World(delivery(created_at=NOW - 2 * LIFE_SECONDS))

    assert world.work().status == "succeeded"


class DeliveriesThatStay(FakeWebhookDeliveries):
    """Deliveries cannot be put off."""

    async def put_off(self, due: DueDelivery, until: int) -> Delivery | None:
        del due, until
        raise StorageError


def test_an_event_that_cannot_be_put_off_has_its_message_delivered_again() -> None:
    world = World(deliveries=DeliveriesThatStay(delivery()), endpoint=resting(NOW + 60))

    with pytest.raises(StorageError):
        world.work()

    assert (world.stored, world.sender.sent) == (delivery(), [])

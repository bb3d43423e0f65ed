"""Errors of DynamoDB: each raises StorageError without DynamoDB's text."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from pi_voice.adapters.dynamodb.agents import DynamoAgents
from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys
from pi_voice.adapters.dynamodb.sessions import DynamoSessions
from pi_voice.adapters.dynamodb.transcripts import DynamoCheckpoints, DynamoTranscripts
from pi_voice.domain import api_keys
from pi_voice.domain.agents import ListAgentsQuery
from pi_voice.domain.api_keys import ApiKey
from pi_voice.domain.duties import Duties
from pi_voice.domain.errors import StorageError
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import KeyId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.session_api import ListSessionsQuery
from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.domain.webhook_endpoint_api import ListWebhookEndpointsQuery
from pi_voice.domain.webhook_endpoints import SecretVersion
from pi_voice.ports import DueSession
from pi_voice.settings import TableNames
from tests.integration.conftest import AwsAt
from tests.integration.provider import Provider, says
from tests.integration.samples import ACME, NOW, TURNS, a_call_end, a_new_endpoint, a_session, an_agent
from tests.integration.store import Request, Store

Work = Callable[[Store], Coroutine[Any, Any, object]]

SECRET = "turnPassword-and-what-the-caller-said"
SESSION, AGENT, END = a_session(), an_agent(), a_call_end()
ENDPOINT = a_new_endpoint(url=f"https://{SECRET.lower()}.example.com/")
TOMBSTONE = Tombstone(SESSION.session_id, Duties())
ID = KeyId(uuid7())
KEY = ApiKey(key_id=ID, workspace=ACME, name=SECRET, hint="abcd", created_at=NOW)
HASH = api_keys.generate().hash

FAILURE = ErrorInfo(code="expired", message=SECRET)


async def all_of(pages: AsyncIterator[list[DueSession]]) -> list[DueSession]:
    return [due async for page in pages for due in page]


EVERYTHING: dict[str, Work] = {
    "find a key": lambda store: store.api_keys.find(HASH),
    "add a key": lambda store: store.api_keys.add(KEY, HASH),
    "list keys": lambda store: store.api_keys.in_workspace(ACME),
    "revoke a key": lambda store: store.api_keys.revoke(ACME, ID, NOW),
    "read an agent": lambda store: store.agents.current(AGENT.agent_id),
    "read a version": lambda store: store.agents.version(AGENT.agent_id, 1),
    "save an agent": lambda store: store.agents.save(ACME, AGENT),
    "delete an agent": lambda store: store.agents.delete(ACME, AGENT.agent_id),
    "list agents": lambda store: store.agents.page(ACME, ListAgentsQuery()),
    "find an endpoint": lambda store: store.webhook_endpoints.find(ACME, ENDPOINT.endpoint_id),
    "list all endpoints": lambda store: store.webhook_endpoints.in_workspace(ACME),
    "list endpoints": lambda store: store.webhook_endpoints.page(ACME, ListWebhookEndpointsQuery()),
    "add an endpoint": lambda store: store.webhook_endpoints.add(ENDPOINT),
    "update an endpoint": lambda store: store.webhook_endpoints.update(ENDPOINT, replace(ENDPOINT, active=False)),
    "rotate a secret": lambda store: store.webhook_endpoints.rotate(
        ENDPOINT, replace(ENDPOINT, secret=SecretVersion("a1", 2))
    ),
    "delete an endpoint": lambda store: store.webhook_endpoints.delete(ACME, ENDPOINT.endpoint_id),
    "note a failure": lambda store: store.webhook_endpoints.note_failure(ENDPOINT, NOW),
    "note a success": lambda store: store.webhook_endpoints.note_success(replace(ENDPOINT, failing_since=NOW)),
    "disable an endpoint": lambda store: store.webhook_endpoints.disable(ENDPOINT, "gone", NOW),
    "read a session": lambda store: store.sessions.get(SESSION.session_id),
    "add a session": lambda store: store.sessions.add(SESSION),
    "complete a session": lambda store: store.sessions.complete(SESSION, END),
    "save an extraction": lambda store: store.sessions.save_extraction(
        SESSION, {"said": SECRET}, Extraction(status="succeeded"), lambda duties: duties
    ),
    "fail a session": lambda store: store.sessions.fail(SESSION, SESSION.failed(FAILURE, "expired", NOW), NOW),
    "hang up": lambda store: store.sessions.hang_up(SESSION, "stopped", NOW),
    "count a renewal": lambda store: store.sessions.count_renewal(SESSION.session_id),
    "renew a session": lambda store: store.sessions.renew(SESSION.session_id, NOW + 900),
    "read duties": lambda store: store.sessions.duties(SESSION.session_id),
    "set duties": lambda store: store.sessions.set_duties(SESSION.session_id, SESSION.duties, Duties()),
    "put off a row": lambda store: store.sessions.put_off(DueSession(SESSION.session_id, NOW), NOW + 60),
    "list due sessions": lambda store: all_of(store.sessions.due(NOW)),
    "append turns": lambda store: store.checkpoints.append(SESSION, TURNS, 100, NOW),
    "read checkpoints": lambda store: store.checkpoints.read(replace(SESSION, checkpoint_turns=3)),
    "delete a session": lambda store: store.sessions.delete(TOMBSTONE, NOW),
    "forget a tombstone": lambda store: store.sessions.forget(TOMBSTONE),
    "list sessions": lambda store: store.sessions.page(ACME, ListSessionsQuery(status="active")),
    "merge an event": lambda store: store.sessions.merge_room_event(
        RoomEvent(SESSION.session_id, "RM", finished_at=NOW)
    ),
    "put a transcript": lambda store: store.transcripts.put(SESSION.session_id, END.transcript_id, TURNS),
    "read a transcript": lambda store: store.transcripts.get(SESSION.session_id, END.transcript_id),
    "expire a transcript": lambda store: store.transcripts.expire(SESSION.session_id, END.transcript_id, TURNS),
    "delete what was said": lambda store: store.transcripts.delete(SESSION.session_id),
}
everything = pytest.mark.parametrize("work", EVERYTHING.values(), ids=list(EVERYTHING))

REQUESTS = (
    "batch_get_item",
    "batch_write_item",
    "delete_item",
    "get_item",
    "put_item",
    "query",
    "transact_write_items",
    "update_item",
)


def refusing(error: Exception) -> Callable[[Request], Request]:
    def instead(_: Request) -> Request:
        def refuse(**_: Any) -> Any:
            raise error

        return refuse

    return instead


def broken(store: Store, error: Exception) -> Store:
    return store.through(**dict.fromkeys(REQUESTS, refusing(error)))


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": SECRET}}, "Operation")


def assert_storage_error(store: Store, work: Work, logged: io.StringIO) -> None:
    """Check that the work raises StorageError, and that neither error nor log repeats the cause."""
    with pytest.raises(StorageError) as raised:
        asyncio.run(work(store))
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert (raised.value.status, raised.value.code, raised.value.retryable) == (500, "internal_error", True)
    assert raised.value.message == StorageError.default_message
    assert SECRET not in repr(raised.value)
    assert "dynamodb" in logged.getvalue()
    for secret in (SECRET, HASH, "How old are you", AGENT.instructions, "127.0.0.1"):
        assert secret not in logged.getvalue()


@everything
def test_throttling_is_a_storage_error(store: Store, logged: io.StringIO, work: Work) -> None:
    assert_storage_error(broken(store, refusal("ProvisionedThroughputExceededException")), work, logged)


@pytest.mark.parametrize(
    "code", ["AccessDeniedException", "ResourceNotFoundException", "ValidationException", "InternalServerError", "???"]
)
@pytest.mark.parametrize("name", ["save an agent", "complete a session", "merge an event", "find a key"])
def test_every_refusal_is_a_storage_error(store: Store, logged: io.StringIO, name: str, code: str) -> None:
    assert_storage_error(broken(store, refusal(code)), EVERYTHING[name], logged)
    assert code in logged.getvalue()


@everything
def test_a_missing_response_is_a_storage_error(store: Store, logged: io.StringIO, work: Work) -> None:
    assert_storage_error(broken(store, ReadTimeoutError(endpoint_url=SECRET)), work, logged)


@everything
def test_a_missing_table_is_a_storage_error(store: Store, logged: io.StringIO, work: Work) -> None:
    elsewhere = replace(
        store, names=TableNames("nowhere", "nowhere", "nowhere", "nowhere", "nowhere", "nowhere", "nowhere", 0)
    )

    assert_storage_error(elsewhere, work, logged)


def test_a_refused_connection_is_a_storage_error(
    aws_at: AwsAt, store: Store, closed_port: int, logged: io.StringIO
) -> None:
    unreachable = aws_at(f"http://127.0.0.1:{closed_port}", attempts=1)

    for work in EVERYTHING.values():
        assert_storage_error(replace(store, aws=unreachable), work, logged)


# ---- Broken responses -------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["", "<html>", '{"Item": {"session_id": {"S": '], ids=["nothing", "a page", "a half"])
@pytest.mark.parametrize("name", ["find a key", "read a session", "read an agent", "hang up", "put a transcript"])
def test_an_unreadable_response_does_not_mean_that_the_row_is_missing(
    aws_at: AwsAt, store: Store, provider: Provider, runner: asyncio.Runner, name: str, body: str
) -> None:
    provider.answers(says(body, content_type="application/x-amz-json-1.0"))

    with pytest.raises(StorageError):
        runner.run(EVERYTHING[name](replace(store, aws=aws_at(provider.url, attempts=2))))


def test_a_slow_response_times_out(store: Store, logged: io.StringIO) -> None:
    def slow(ask: Request) -> Request:
        def wait(**arguments: Any) -> Any:
            time.sleep(0.5)
            return ask(**arguments)

        return wait

    impatient = store.through(get_item=slow)
    impatient.aws.seconds = 0.05
    with pytest.raises(StorageError):
        asyncio.run(impatient.sessions.get(SESSION.session_id))
    assert "TimeoutError" in logged.getvalue()


# ---- Conflicts with transactions --------------------------------------------------------------------

CONFLICT = "TransactionConflictException"
WRITES = {
    "complete a session": lambda store, session: store.sessions.complete(session, END),
    "fail a session": lambda store, session: store.sessions.fail(session, session.failed(FAILURE, "expired", NOW), NOW),
    "hang up": lambda store, session: store.sessions.hang_up(session, "stopped", NOW),
    "merge an event": lambda store, session: store.sessions.merge_room_event(
        RoomEvent(session.session_id, "RM_ours", NOW)
    ),
    "merge another room's": lambda store, session: store.sessions.merge_room_event(
        RoomEvent(session.session_id, "RM_2", NOW)
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_a_write_that_conflicts_with_a_transaction_is_retried(
    store: Store, write: Callable[[Store, Session], Coroutine[Any, Any, Session | None]]
) -> None:
    session = a_session()
    asyncio.run(store.sessions.add(session))
    met: list[int] = []

    def in_the_way(update: Request) -> Request:
        def ask(**arguments: Any) -> Any:
            if len(met) < 3:
                met.append(1)
                raise refusal(CONFLICT)
            return update(**arguments)

        return ask

    assert asyncio.run(write(store.through(update_item=in_the_way), session)) is not None
    assert len(met) == 3


def test_a_conflict_that_persists_is_a_storage_error(store: Store, logged: io.StringIO) -> None:
    assert_storage_error(broken(store, refusal(CONFLICT)), EVERYTHING["complete a session"], logged)
    assert CONFLICT in logged.getvalue()


def test_creating_the_adapters_sends_no_request() -> None:
    class Client:
        """Records what is asked of it."""

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return lambda **_: {}

    asked: list[str] = []
    client = cast("Any", Client())

    for made in (DynamoApiKeys, DynamoAgents, DynamoSessions, DynamoTranscripts):
        made(client, "table")
    DynamoCheckpoints(client, "table", "table")

    assert asked == []

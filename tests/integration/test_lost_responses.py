"""Writes whose first response is lost on the way: boto3 repeats them, and they still succeed once."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from pi_voice.domain.sessions import Session
from tests.integration.conftest import AwsAt
from tests.integration.provider import Provider, hangs_up
from tests.integration.samples import ACME, NOW, TURNS, a_call_end, a_new_endpoint, a_session, an_agent
from tests.integration.store import Store

AGENT, END = an_agent(), a_call_end()


@pytest.fixture
def lossy(store: Store, aws_at: AwsAt, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store behind a relay that passes the first request on and closes the connection instead of responding."""
    url = store.dynamodb.meta.endpoint_url

    async def passed(request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name != "Host"}
        body = await request.read()
        async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as response:
            return web.Response(
                status=response.status, body=await response.read(), headers={"Content-Type": response.content_type}
            )

    async def lost(request: web.Request) -> web.StreamResponse:
        assert (await passed(request)).status == 200
        return await hangs_up(request)

    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    provider.answers(lost, passed)
    return replace(store, aws=aws_at(provider.url))


def added(store: Store, runner: asyncio.Runner) -> Session:
    session = a_session()
    assert runner.run(store.sessions.add(session))
    return session


def assert_sent_twice_with_one_token(provider: Provider) -> None:
    first, second = [json.loads(received.body)["ClientRequestToken"] for received in provider.received]
    assert first == second


def test_an_added_session_is_stored(lossy: Store, store: Store, runner: asyncio.Runner, provider: Provider) -> None:
    session = a_session()

    runner.run(lossy.sessions.add(session))

    assert runner.run(store.sessions.get(session.session_id)) == session
    assert len(provider.received) == 2


def test_a_completion_succeeds(lossy: Store, store: Store, runner: asyncio.Runner, provider: Provider) -> None:
    session = added(store, runner)

    completed = runner.run(lossy.sessions.complete(session, END))

    assert completed
    assert (completed.status, completed.transcript_id) == ("completed", END.transcript_id)
    assert len(provider.received) >= 2


def test_a_hang_up_succeeds(lossy: Store, store: Store, runner: asyncio.Runner, provider: Provider) -> None:
    session = added(store, runner)

    hung_up = runner.run(lossy.sessions.hang_up(session, "stopped", NOW))

    assert hung_up
    assert (hung_up.hung_up_at, hung_up.end_reason) == (NOW, "stopped")
    assert len(provider.received) >= 2


def test_saved_turns_are_stored_once_by_the_token_of_their_transaction(
    lossy: Store, store: Store, runner: asyncio.Runner, provider: Provider
) -> None:
    session = added(store, runner)

    grown = runner.run(lossy.checkpoints.append(session, TURNS, 100, NOW))

    assert grown
    assert runner.run(store.checkpoints.read(grown)) == TURNS
    assert_sent_twice_with_one_token(provider)


def test_a_webhook_endpoint_is_disabled_by_the_call_whose_response_was_lost(
    lossy: Store, store: Store, runner: asyncio.Runner, provider: Provider
) -> None:
    endpoint = a_new_endpoint()
    runner.run(store.webhook_endpoints.add(endpoint))

    disabled = runner.run(lossy.webhook_endpoints.disable(endpoint, "gone", NOW))

    assert disabled == replace(endpoint, disabled_at=NOW, disabled_reason="gone")
    assert len(provider.received) == 2


def test_a_saved_agent_is_stored_once_by_the_token_of_its_transaction(
    lossy: Store, store: Store, runner: asyncio.Runner, provider: Provider
) -> None:
    runner.run(lossy.agents.save(ACME, AGENT))

    assert runner.run(store.agents.current(AGENT.agent_id))
    assert_sent_twice_with_one_token(provider)

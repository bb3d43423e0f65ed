"""Concurrent requests with one call_id, through the whole stack: its endpoint is asked once."""

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from local.running import running_api
from tests.local.conftest import Site
from tests.support.patience import LONG
from tests.support.tool_endpoint import ToolEndpoint, json_answer

V = "/api/v1/voice"
ANSWER = {"table": "T12"}
Call = Callable[[str], Any]


@pytest.fixture
def endpoint() -> Iterator[ToolEndpoint]:
    with ToolEndpoint.running() as endpoint:
        yield endpoint


@pytest.fixture
def call(endpoint: ToolEndpoint) -> Iterator[Call]:
    """Calls a tool of one session, from any thread."""
    with running_api({**os.environ, "POWERTOOLS_LOG_LEVEL": "ERROR"}) as running:
        site, key = Site(running.base_url), ("Authorization", f"Bearer {running.api_key}")
        made = site.post(f"{V}/webhook-endpoints", {"url": endpoint.url, "events": []}, key).json["data"]
        endpoint.secret = made["secret"]
        tool = {
            "name": "find_table",
            "description": "Find a free table.",
            "run": {"where": "server", "endpoint_id": made["endpoint_id"], "timeout_seconds": 15},
        }
        agent = {"name": "Ana", "instructions": "Listen.", "tools": [tool]}
        agent_id = site.post(f"{V}/agents", agent, key).json["data"]["agent_id"]
        request = {"agent_id": agent_id, "participant": {"identity": "caller"}}
        session = site.post(f"{V}/sessions", request, key).json["data"]
        page = ("Authorization", f"Bearer {session['client_token']}")
        path = f"{V}/sessions/{session['session_id']}/tool-calls"
        yield lambda call_id: site.post(path, {"call_id": call_id, "name": "find_table"}, page)


def test_a_call_that_runs_is_in_progress_for_others_and_then_has_one_answer_for_all(
    call: Call, endpoint: ToolEndpoint
) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def answers_when_it_may(connection: socket.socket) -> None:
        asked.set()
        may_answer.wait()
        connection.sendall(json_answer(ANSWER))

    endpoint.answers = [answers_when_it_may]
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(call, "call-1")
        try:
            assert asked.wait(LONG)
            meanwhile = call("call-1")
        finally:
            may_answer.set()
        answered = first.result()

    assert (meanwhile.status, meanwhile.json["error"]["code"]) == (409, "tool_call_in_progress")
    assert meanwhile.json["error"]["retryable"]
    assert (answered.status, answered.json["data"]["response"]) == (200, ANSWER)
    assert call("call-1").json == answered.json
    assert len(endpoint.ids) == 1


def test_of_many_requests_at_once_one_asks_the_endpoint(call: Call, endpoint: ToolEndpoint) -> None:
    endpoint.answers = [json_answer(ANSWER)]

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(call, ["call-1", "call-2"] * 6))

    assert set(Counter(answer.status for answer in answers)) <= {200, 409}
    for call_id in ("call-1", "call-2"):
        done = [each.json["data"] for each in answers if each.status == 200 and each.json["data"]["call_id"] == call_id]
        assert done
        assert done == [call(call_id).json["data"]] * len(done)
    refused = [each.json["error"]["code"] for each in answers if each.status == 409]
    assert set(refused) <= {"tool_call_in_progress"}
    assert len(endpoint.ids) == len(set(endpoint.ids)) == 2

"""Fifty clients complete one session concurrently, through the whole stack."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3

from local.running import running_api
from tests.local.conftest import Site

V = "/api/v1/voice"
TABLE = "pi-voice-local-voice_sessions"
OTHERS = 1_000


def test_of_fifty_concurrent_completions_one_wins_and_its_transcript_is_saved() -> None:
    with running_api({**os.environ, "POWERTOOLS_LOG_LEVEL": "ERROR"}) as running:
        site, key = Site(running.base_url), ("Authorization", f"Bearer {running.api_key}")
        agent = site.post(f"{V}/agents", {"name": "Ana", "instructions": "Listen."}, key).json["data"]["agent_id"]
        request = {"agent_id": agent, "participant": {"identity": "caller"}}
        session = site.post(f"{V}/sessions", request, key).json["data"]["session_id"]
        fill_up(running.dynamodb_url, session)

        def complete(number: int) -> tuple[int, Any]:
            request = {"transcript": [{"role": "user", "text": f"I am caller {number}."}]}
            answer = site.post(f"{V}/sessions/{session}/complete", request, key)
            return answer.status, answer.json

        with ThreadPoolExecutor(50) as clients:
            answers = list(clients.map(complete, range(50)))
        saved = site.get(f"{V}/sessions/{session}", key).json["data"]

    assert Counter(status for status, _ in answers) == {200: 1, 409: 49}
    [won] = [state for status, state in answers if status == 200]
    assert saved["transcript"] == won["transcript"]
    assert {state["error"]["code"] for status, state in answers if status == 409} == {"voice_session_not_active"}


def fill_up(endpoint: str, session: str) -> None:
    """Add a thousand other sessions to the table."""
    dynamodb: Any = boto3.client(
        "dynamodb", "us-east-1", endpoint_url=endpoint, aws_access_key_id="local", aws_secret_access_key="local"
    )
    item = dynamodb.get_item(TableName=TABLE, Key={"session_id": {"S": session}})["Item"]
    rows = [{"PutRequest": {"Item": {**item, "session_id": {"S": f"neighbor-{n}"}}}} for n in range(OTHERS)]
    for start in range(0, OTHERS, 25):
        dynamodb.batch_write_item(RequestItems={TABLE: rows[start : start + 25]})
    assert dynamodb.scan(TableName=TABLE, Select="COUNT")["Count"] == OTHERS + 1

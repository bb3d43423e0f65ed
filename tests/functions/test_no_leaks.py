"""No secret in a log line, in an error or in a stored item."""

import io
import json
from typing import Any

import pytest

from tests.functions.api import CLIENT_TOKEN_SECRET, WEBHOOK_SECRET, Api, Functions
from tests.functions.livekit_webhooks import Webhook, event, signed
from tests.functions.providers import Providers


def test_no_log_line_error_or_stored_item_contains_a_secret(
    api: Api,
    functions: Functions,
    providers: Providers,
    dynamodb: Any,
    logged: io.StringIO,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = api.agent(output_schema={"word": "string"})
    session = api.session(agent)
    path = f"/sessions/{session['session_id']}"
    colleague = api.post(f"{path}/participants", identity="colleague").data
    turn_password = providers.room(session["session_id"]).turn_password
    renewed = api.post(f"{path}/renew").data
    client = api.client_of(renewed)
    facts = {**session, "sid": api.get(path).data["livekit"]["room_sid"]}
    webhook_body = event("room_finished", facts, metadata='{"rating": 5}')
    webhook_token = signed(webhook_body)
    assert Webhook(functions).send(webhook_body, webhook_token).status == 200
    assert Webhook(functions).send(webhook_body + " ", webhook_token).status == 401
    responses = [
        api.get(path).text,
        api.get("/sessions").text,
        client.get(path).text,
        client.post(f"{path}/transcript", {"from": 0, "turns": [{"role": "user", "text": "Said in confidence."}]}).text,
        client.post(f"{path}/transcript", {"from": 0, "turns": [{"role": "user", "text": "Other words."}]}).text,
        client.get("/sessions").text,
        client.post(f"{path}/stop").text,
        api.post(f"{path}/complete", transcript=[{"role": "user", "text": "A word said in confidence."}]).text,
        api.post(f"{path}/complete", transcript=[]).text,
        api.post("/sessions", agent_id=agent, participant={"identity": ""}).text,
    ]
    api.key = f"{api.key}x"
    responses.append(api.get(path).text)
    lines = logged.getvalue() + caplog.text
    stored = json.dumps(
        [dynamodb.scan(TableName=table)["Items"] for table in dynamodb.list_tables()["TableNames"]], default=repr
    )

    secrets = {
        "the LiveKit token": session["connection"]["livekit"]["token"],
        "the Gemini token": session["connection"]["gemini_live"]["token"],
        "the colleague's token": colleague["connection"]["livekit"]["token"],
        "the webhook's token": webhook_token,
        "the API key": api.key[:-1],
        "LiveKit's secret": providers.livekit.api_secret,
        "Gemini's key": providers.gemini.api_key,
        "the webhook's secret": WEBHOOK_SECRET,
        "turnPassword": "a-turn-password-that-is-not-stored",
        "the room's own turnPassword": turn_password,
        "the client's token": session["client_token"],
        "the renewed client's token": renewed["client_token"],
        "the renewed LiveKit token": renewed["connection"]["livekit"]["token"],
        "the renewed Gemini token": renewed["connection"]["gemini_live"]["token"],
        "what signs client tokens": CLIENT_TOKEN_SECRET,
    }
    assert '"message":"request"' in lines
    assert session["session_id"] in stored
    for name, secret in secrets.items():
        assert len(secret) > 8, name
        for place, text in {"the logs": lines, "the tables": stored, "the answers": "".join(responses)}.items():
            assert secret not in text, f"{name} is in {place}"
    assert "in confidence" not in lines

"""No secret in a log line, in an error or in a stored item."""

import io
import json
from typing import Any

import pytest

from tests.functions.conftest import WEBHOOK_SECRET, Api, Functions
from tests.functions.providers import Providers
from tests.functions.test_webhook import Webhook, event, signed


def test_no_log_line_error_or_stored_item_holds_a_secret(
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
    facts = {**session, "sid": api.get(path).data["livekit"]["room_sid"]}
    webhook_body = event("room_finished", facts, metadata='{"rating": 5}')
    webhook_token = signed(webhook_body)
    Webhook(functions).send(webhook_body, webhook_token)
    Webhook(functions).send(webhook_body + " ", webhook_token)
    told = [
        api.get(path).text,
        api.get("/sessions").text,
        api.post(f"{path}/complete", transcript=[{"role": "user", "text": "A word said in confidence."}]).text,
        api.post(f"{path}/complete", transcript=[]).text,
        api.post("/sessions", agent_id=agent, participant={"identity": ""}).text,
    ]
    api.key = f"{api.key}x"
    told.append(api.get(path).text)
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
        "turnPassword": "a-turn-password-that-nobody-keeps",
        "the room's own turnPassword": providers.room(session["session_id"]).turn_password,
    }
    assert '"message":"request"' in lines
    assert session["session_id"] in stored
    for name, secret in secrets.items():
        assert len(secret) > 8, name
        for place, text in {"the logs": lines, "the tables": stored, "the answers": "".join(told)}.items():
            assert secret not in text, f"{name} is in {place}"
    assert "said in confidence" not in lines

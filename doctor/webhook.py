"""Checks of the deployed functions from outside: the API answers, and the webhook knows LiveKit's signature."""

import base64
import hashlib
import json
import time
import uuid
from typing import Final

import aiohttp
import jwt

from doctor.checks import Check, Fault, NotChecked, Passed
from doctor.target import Target
from pi_voice.adapters.http_client import HttpClient
from pi_voice.settings import KeyPair, WebhookSettings

API: Final = "API"
WEBHOOK: Final = "Webhook"

_SECONDS: Final = 20.0
_TOKEN_SECONDS: Final = 300
_OK: Final = 200
_UNAUTHORIZED: Final = 401


def api_check(target: Target, http: HttpClient, api_url: str, needs: tuple[str, ...] = ()) -> Check:
    """Return the check that the API answers a caller without a key with 401."""

    async def run() -> Passed:
        url = f"{api_url}/voices"
        try:
            async with http.session.get(url, allow_redirects=False) as response:
                status = response.status
        except (aiohttp.ClientError, OSError) as error:
            raise Fault(f"{url} cannot be reached ({type(error).__name__}). {_redeploy(target)}") from None
        if status != _UNAUTHORIZED:
            raise Fault(f"{url} answers with {status} instead of 401. {_logs(target)}")
        return Passed(f"{api_url} answers, and requires a key.")

    return Check(API, run, _SECONDS, needs)


def webhook_check(target: Target, http: HttpClient, needs: tuple[str, ...] = ()) -> Check:
    """Return the check that the webhook accepts LiveKit's signature, and no other."""

    async def run() -> Passed:
        pairs = WebhookSettings.of(target.variables).pairs
        if not pairs:
            raise NotChecked(f"There is no key to sign with. {_replace(target)}")
        status = await _post(target, http, pairs[0])
        if status == _UNAUTHORIZED:
            raise Fault(
                f"{target.webhook_url} refuses a webhook that is signed with the key {pairs[0].api_key}: it has "
                f"another key or secret. {_replace(target)} Functions use new secrets within 5 minutes."
            )
        if status != _OK:
            raise Fault(f"{target.webhook_url} answers with {status}. {_logs(target)}")
        if await _post(target, http, KeyPair(pairs[0].api_key, "wrong" * 10)) != _UNAUTHORIZED:
            raise Fault(
                f"{target.webhook_url} accepts a webhook with a wrong signature, so it is not Pi Voice's webhook. "
                "Use the stack's output WebhookUrl."
            )
        return Passed(f"{target.webhook_url} accepts LiveKit's signature, and refuses a wrong one.")

    return Check(WEBHOOK, run, _SECONDS, needs)


async def _post(target: Target, http: HttpClient, pair: KeyPair) -> int:
    """Send an event of a kind that LiveKit does not have, which the function ignores; return the status."""
    now = int(time.time())
    event = {"event": "doctor_check", "id": f"EV_{uuid.uuid4().hex[:12]}", "createdAt": str(now)}
    body = json.dumps(event).encode()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    claims = {"iss": pair.api_key, "nbf": now, "exp": now + _TOKEN_SECONDS, "sha256": digest}
    headers = {
        "Authorization": jwt.encode(claims, pair.api_secret, algorithm="HS256"),
        "Content-Type": "application/webhook+json",
    }
    try:
        async with http.session.post(target.webhook_url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status
    except (aiohttp.ClientError, OSError) as error:
        raise Fault(
            f"{target.webhook_url} cannot be reached ({type(error).__name__}). Check the URL that LiveKit has too."
        ) from None


def _replace(target: Target) -> str:
    return target.replace("LIVEKIT_WEBHOOK_API_KEY", "LIVEKIT_WEBHOOK_API_SECRET")


def _redeploy(target: Target) -> str:
    return f"Run: make deploy STACK={target.stack}" if target.stack else "Check the network."


def _logs(target: Target) -> str:
    if target.stack is None:
        return "Look at the output of make run."
    return f"Look at the functions' log: aws logs tail /aws/lambda/{target.stack} --since 10m"

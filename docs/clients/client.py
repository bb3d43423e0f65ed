"""A reference client for the Gemini side of a session: it talks, saves the transcript and completes. Needs aiohttp.

    state = await hold_call(session, base_url, reply)

`session` is the `data` of the response of `POST /sessions`; its client token opens all routes that this client uses.
`reply` gets the turns so far when the agent has finished one, and returns what to send as `realtimeInput`:
{"text": ...}, {"audio": ...}, or None to hang up. `state` is the completed session, with its results. The LiveKit side
is one call of LiveKit's own client: `await rtc.Room().connect(livekit["url"], livekit["token"])`.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp

Json = dict[str, Any]
Turns = list[dict[str, str]]
Reply = Callable[[Turns], Json | None]

GREET = {"text": "The caller is on the line."}  # the model does not speak first
FINAL = (1007, 1008, 1011)  # refused, or the token is used up or expired: renew
NOT_ACTIVE = "voice_session_not_active"
PAUSES = (0, 1, 2, 4, 8, 16)  # seconds to wait before each try, the first included


async def hold_call(session: Json, base_url: str, reply: Reply) -> Json:
    """Hold a call until it ends or reaches its time limit, and return the completed session."""
    began = time.monotonic()
    async with aiohttp.ClientSession() as http:
        call = Call(http, session, base_url, reply)
        try:
            async with asyncio.timeout(session["max_duration_seconds"]):
                end_reason = await call.hold()
        except TimeoutError:
            end_reason = "client_timer"
        return await call.complete(end_reason, time.monotonic() - began)


class Call:
    """One call: its turns, and how many of them the API has saved."""

    def __init__(self, http: aiohttp.ClientSession, session: Json, base_url: str, reply: Reply) -> None:
        self._http = http
        self._url = f"{base_url}/api/v1/voice/sessions/{session['session_id']}"
        self._client_token: str = session["client_token"]
        self._live: Json = session["connection"]["gemini_live"]
        self._reply = reply
        self._handle: str | None = None
        self._turns = Turns()
        self._saved_turns = 0
        self._saving: asyncio.Task[None] | None = None

    async def hold(self) -> str:
        """Talk, over one connection after the other (each lasts about ten minutes), and return the end reason."""
        failures = code = 0
        while failures < len(PAUSES):
            await asyncio.sleep(PAUSES[failures])
            failures += 1
            try:
                url = f"{self._live['url']}?access_token={self._live['token']}"
                async with self._http.ws_connect(url, max_msg_size=0) as socket:
                    if end_reason := await self._talk(socket):
                        return end_reason
                code = socket.close_code or 0
                failures = 0 if self._handle else failures
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                code = 0
            if (code in FINAL or not self._handle) and await self._renew() == NOT_ACTIVE:
                break
        if not self._turns:
            raise ConnectionError(f"Gemini hung up with close code {code}.")
        return "disconnected"

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> str | None:
        """Talk over one connection; return the end reason, or None when the connection ends first."""
        resumption = {"handle": self._handle} if self._handle else {}
        self._handle = None  # valid for one connection, which sends new ones
        await socket.send_json({"setup": {**self._live["setup"]["setup"], "sessionResumption": resumption}})
        async for frame in socket:
            message = json.loads(frame.data)
            if "setupComplete" in message and not resumption:
                await socket.send_json({"realtimeInput": GREET})
            if message.get("sessionResumptionUpdate", {}).get("resumable"):
                self._handle = message["sessionResumptionUpdate"]["newHandle"]
            if "goAway" in message:
                break
            content = message.get("serverContent", {})
            stitch(self._turns, "user", content.get("inputTranscription", {}).get("text", ""))
            stitch(self._turns, "agent", content.get("outputTranscription", {}).get("text", ""))
            if content.get("turnComplete"):
                if (answer := self._reply(self._turns)) is None:
                    return "completed"
                stitch(self._turns, "user", answer.get("text", ""))  # Gemini does not transcribe typed text
                await socket.send_json({"realtimeInput": answer})
                self._start_saving()
        return None

    # ---- The API ----

    def _start_saving(self) -> None:
        """Save turns in the background, so that the conversation never waits."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_turns())

    async def _save_turns(self) -> None:
        """Send the turns that are not saved yet, except the last, which may still grow.

        Turns of a failed request are sent again with the next one; after a gap the response says where to continue.
        """
        if turns := self._turns[self._saved_turns : -1][:500]:
            answer = await self._ask("POST", "/transcript", {"from": self._saved_turns, "turns": turns})
            self._saved_turns = (answer.get("data") or answer["error"]).get("next", self._saved_turns)

    async def _renew(self) -> str:
        """Get new tokens for the same call; return the error code, or an empty string."""
        answer = await self._ask("POST", "/renew", {"has_resumption_handle": self._handle is not None})
        if "data" in answer:
            self._client_token = answer["data"]["client_token"]
            self._live = answer["data"]["connection"]["gemini_live"]
        return str(answer.get("error", {}).get("code", ""))

    async def complete(self, end_reason: str, seconds: float) -> Json:
        """Complete the session; retries under one Idempotency-Key complete it once."""
        request = {"transcript": self._turns, "duration_seconds": seconds, "end_reason": end_reason}
        key, answer = {"Idempotency-Key": str(uuid.uuid4())}, Json()
        for pause in PAUSES:
            await asyncio.sleep(pause)
            answer = await self._ask("POST", "/complete", request, **key)
            if not answer.get("error", {}).get("retryable"):
                break
        if answer.get("error", {}).get("code") == NOT_ACTIVE:  # another request completed it
            answer = (await self._ask("GET", "")).get("data", answer)
        if "error" in answer:
            raise ConnectionError(f"The call could not be completed: {answer['error']['code']}.")
        return answer

    async def _ask(self, method: str, action: str, body: Json | None = None, **headers: str) -> Json:
        """Call one of the session's routes; a failure without an error code of the API is retryable."""
        headers["Authorization"] = f"Bearer {self._client_token}"
        limit = aiohttp.ClientTimeout(total=40)
        try:
            async with self._http.request(
                method, self._url + action, json=body, headers=headers, timeout=limit
            ) as response:
                answer: Json = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            answer = {}
        return answer if answer.keys() - {"message"} else {"error": {"code": "no_answer", "retryable": True}}


def stitch(turns: Turns, role: str, fragment: str) -> None:
    """Append a fragment to the last turn if the speaker is the same, or start a new turn."""
    if turns and turns[-1]["role"] == role:
        turns[-1]["text"] += fragment
    elif fragment:
        turns.append({"role": role, "text": fragment})

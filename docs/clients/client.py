"""A reference client for the Gemini side of a session: it talks, saves the transcript and completes. Needs aiohttp.

    state = await hold_call(session, base_url, reply)

`session` is the `data` of the response of `POST /sessions`; its client token opens all routes that this client uses.
`reply` gets the turns so far when the agent has finished one, and returns what to send as `realtimeInput`:
{"text": ...}, {"audio": ...}, or None to hang up. `state` is the completed session, with its results. For a microphone
and a loudspeaker use Call, as `hold_call` does. The LiveKit side is one call of LiveKit's own client:
`await rtc.Room().connect(livekit["url"], livekit["token"])`.
"""

import asyncio
import json
import re
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from docs.clients.transcript import Transcript  # where you copy both files to: from transcript import Transcript

Json = dict[str, Any]
Reply = Callable[[list[Json]], Json | None]

# The model does not speak first. A text that is no instruction is sometimes not answered.
GREET = {"text": "The caller is on the line. Open the call now."}
GO_ON = {"text": "The connection was interrupted and is back. Go on with the call now, from where it broke off."}
PROMPT_SECONDS = 4.0  # without an answer, these texts are sent once more
LATE_SECONDS = 1.0  # text may arrive this long after the end of the call
MOVE_SECONDS = 5.0  # before Gemini closes a connection, move to the next one
OPENING_SECONDS = 20.0
CLOSING_SECONDS = 2.0
HELD_AUDIO = 1_000  # pieces of microphone audio to hold back while there is no connection: 40 s, in pieces of 40 ms
REFUSED = (1007, 1008)  # a bad token or handle
FINAL = (*REFUSED, 1011)  # or the token is used up or expired: renew
NOT_ACTIVE = "voice_session_not_active"
PAUSES = (0, 1, 2, 4, 8, 16)  # seconds to wait before each try, the first included


async def hold_call(session: Json, base_url: str, reply: Reply) -> Json:
    """Hold a call until it ends or reaches its time limit, and return the completed session."""

    async def answer() -> None:
        if (realtime_input := reply(call.transcript.turns)) is None:
            call.hang_up("completed")
        else:
            await call.send(realtime_input)

    async with aiohttp.ClientSession() as http:
        call = Call(http, session, base_url)
        call.on_turn = answer
        return await call.complete(await call.hold(session["max_duration_seconds"]))


class Call:
    """One call: its transcript, its connections one after the other, and how many turns the API has saved.

    `on_message` is called with each message of Gemini, and `on_turn` when the agent has finished a turn that was not
    interrupted. `clock` returns the seconds since the call began.
    """

    on_message: Callable[[Json], None] | None = None
    on_turn: Callable[[], Awaitable[None]] | None = None

    def __init__(
        self, http: aiohttp.ClientSession, session: Json, base_url: str, clock: Callable[[], float] | None = None
    ) -> None:
        self._http = http
        self._url = f"{base_url}/api/v1/voice/sessions/{session['session_id']}"
        self._client_token: str = session["client_token"]
        self._live: Json = session["connection"]["gemini_live"]
        began = time.monotonic()
        self._clock = clock or (lambda: time.monotonic() - began)
        self.transcript = Transcript(self._live.get("turn_ends_at", "turnComplete"), lambda: self._clock() * 1000)
        self.seconds = 0.0
        self.saved_turns = 0
        self._saving: asyncio.Task[None] | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None  # set up, so that it takes input
        self._handle: str | None = None
        self._is_leaving = False  # Gemini closes the connection soon
        self._unanswered: list[Json] = []  # texts since Gemini's last content
        self._held_audio = deque[Json](maxlen=HELD_AUDIO)
        self._end_reason = ""
        self._hung_up = asyncio.Event()

    async def hold(self, seconds: float | None) -> str:
        """Talk until someone hangs up or the time is over, wait for late text, and return the end reason."""
        talking = asyncio.create_task(self._talk())
        hung_up = asyncio.create_task(self._hung_up.wait())
        try:
            await asyncio.wait({talking, hung_up}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            self.seconds = self._clock()
            if talking.done() and not self._hung_up.is_set():
                return await talking
            self.hang_up("client_timer")  # unless it was hung up
            await asyncio.wait({talking}, timeout=LATE_SECONDS)
            return self._end_reason
        finally:
            talking.cancel()
            hung_up.cancel()
            await asyncio.gather(talking, hung_up, return_exceptions=True)

    def hang_up(self, end_reason: str) -> None:
        """End the call; the first reason counts."""
        self._end_reason = self._end_reason or end_reason
        self._hung_up.set()

    async def send(self, realtime_input: Json) -> None:
        """Send audio or text of the caller.

        Without a connection, text is sent as soon as there is one, and the latest pieces of audio.
        """
        if text := realtime_input.get("text"):
            self.transcript.typed(text)  # Gemini does not transcribe it
            self._unanswered.append(realtime_input)
        if not await self._sent(realtime_input) and not text:
            self._held_audio.append(realtime_input)

    async def _sent(self, realtime_input: Json) -> bool:
        try:
            if self._socket:
                await self._socket.send_json({"realtimeInput": realtime_input})
        except (aiohttp.ClientError, ConnectionError):
            return False
        return self._socket is not None

    # ---- Connections ----

    async def _talk(self) -> str:
        """Talk over one connection after the other (each lasts about ten minutes), until there is no next one."""
        failures = refusals = code = 0
        while failures < len(PAUSES):
            await asyncio.sleep(PAUSES[failures])
            was_set_up, code = await self._connect()
            refusals = 0 if was_set_up else refusals + (code in FINAL)
            if not was_set_up and (code in REFUSED or refusals > 1):
                self._handle = None  # start anew, with the saved turns
            failures = 0 if was_set_up and self._handle else failures + 1
            if (code in FINAL or not self._handle) and await self._renew() == NOT_ACTIVE:
                break
        if not self.transcript.turns:
            raise ConnectionError(f"There is no connection to Gemini (close code {code or 'none'}).")
        return "disconnected"

    async def _connect(self) -> tuple[bool, int]:
        """Talk over one connection and close it; return whether it was set up, and Gemini's close code or 0."""
        url = f"{self._live['url']}?access_token={self._live['token']}"
        resumption = {"handle": self._handle} if self._handle else {}
        was_set_up, code, repeating = False, 0, None
        self._is_leaving = False
        now, closing = asyncio.get_running_loop().time, aiohttp.ClientWSTimeout(ws_close=CLOSING_SECONDS)
        try:
            async with (
                asyncio.timeout(OPENING_SECONDS) as limit,
                self._http.ws_connect(url, max_msg_size=0, timeout=closing) as socket,
            ):
                await socket.send_json({"setup": {**self._live["setup"]["setup"], "sessionResumption": resumption}})
                async for frame in socket:
                    if frame.type is aiohttp.WSMsgType.ERROR:
                        break
                    message = json.loads(frame.data)
                    if "setupComplete" in message:
                        was_set_up = True
                        limit.reschedule(None)
                        await self._begin(socket, is_resumed=bool(resumption))
                        repeating = asyncio.create_task(self._repeat_prompt())
                    if "goAway" in message:
                        self._is_leaving = True
                        limit.reschedule(now() + _seconds(message["goAway"]) - MOVE_SECONDS)
                    if await self._take(message) and self._is_leaving:  # its late text and a handle will follow
                        limit.reschedule(min(limit.when() or 0.0, now() + LATE_SECONDS))
                code = socket.close_code or 0
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            pass  # like a connection that Gemini has closed
        finally:
            self._socket = None
            if repeating:
                repeating.cancel()
        return was_set_up, code

    async def _begin(self, socket: aiohttp.ClientWebSocketResponse, *, is_resumed: bool) -> None:
        """Make the agent speak if it is its turn, and send what was held back."""
        self._handle = None  # a handle is valid for one connection
        turns = self.transcript.turns
        is_agents_turn = self.transcript.agent_speaks or [turn["role"] for turn in turns[-1:]] == ["user"]
        if not self._unanswered and (is_agents_turn or not is_resumed):
            self._unanswered.append(GO_ON if turns else GREET)
        for text in self._unanswered:
            await socket.send_json({"realtimeInput": text})
        while self._held_audio:
            await socket.send_json({"realtimeInput": self._held_audio.popleft()})
        self._socket = socket

    async def _repeat_prompt(self) -> None:
        await asyncio.sleep(PROMPT_SECONDS)
        for text in [text for text in self._unanswered if text in (GREET, GO_ON)]:
            await self._sent(text)

    async def _take(self, message: Json) -> bool:
        """Handle a message, and return whether it ends a turn of the agent."""
        update = message.get("sessionResumptionUpdate", {})
        if update.get("resumable"):  # otherwise the latest handle stays the best one
            self._handle = update.get("newHandle")
        if "serverContent" in message:
            self._unanswered.clear()
        settled = self.transcript.settled
        is_end = self.transcript.take(message)
        if self.transcript.settled > settled and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save_turns())  # the conversation never waits for it
        if is_end and self._is_leaving:
            self._socket = None  # what the caller says from now on is for the next connection
        try:
            if self.on_message:
                self.on_message(message)
            if self.on_turn and is_end and not self._hung_up.is_set():
                await self.on_turn()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise RuntimeError("on_message or on_turn failed.") from error  # this is no lost connection
        return is_end

    # ---- The API ----

    async def _save_turns(self) -> None:
        """Send the turns that are not saved yet and can no longer change.

        Turns of a failed request are sent again with the next ones; after a gap the response says where to continue.
        """
        while turns := self.transcript.turns[self.saved_turns : self.transcript.settled][:500]:
            answer = await self._ask("POST", "/transcript", {"from": self.saved_turns, "turns": turns})
            self.saved_turns = (answer.get("data") or answer["error"]).get("next", self.saved_turns)
            if "error" in answer:
                break

    async def _renew(self) -> str:
        """Get new tokens for the same call; return the error code, or an empty string."""
        if not self._handle:  # the agent continues from the saved turns
            self.transcript.close()
            await (self._saving or asyncio.sleep(0))
            await self._save_turns()
        answer = await self._ask("POST", "/renew", {"has_resumption_handle": self._handle is not None})
        if "data" in answer:
            self._client_token = answer["data"]["client_token"]
            self._live = answer["data"]["connection"]["gemini_live"]
        return str(answer.get("error", {}).get("code", ""))

    async def complete(self, end_reason: str) -> Json:
        """Complete the session; retries under one Idempotency-Key complete it once."""
        request = {"transcript": self.transcript.turns, "duration_seconds": self.seconds, "end_reason": end_reason}
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


def _seconds(go_away: Json) -> float:
    """Return the seconds of a duration such as "49.5s"."""
    found = re.match(r"\d+(\.\d+)?", str(go_away.get("timeLeft")))
    return float(found[0]) if found else 0.0

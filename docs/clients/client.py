"""A reference client for the Gemini side of a session: it talks, runs functions, saves and completes. Needs aiohttp.

    state = await hold_call(session, base_url, reply, {"show_table": show_table})

`session` is the `data` of the response of `POST /sessions`; its client token opens all routes that this client uses.
`reply` gets the turns so far when the agent has finished one, and returns what to send as `realtimeInput`:
{"text": ...}, {"audio": ...}, or None to hang up. The functions that the agent may call, by name, get their arguments
as a dict and return a dict: `async def show_table(arguments)`. The tools of your server need none. `state` is the
completed session, with its results. For a microphone and a loudspeaker use Call, as `hold_call` does. The LiveKit side
is one call of LiveKit's own client: `await rtc.Room().connect(livekit["url"], livekit["token"])`.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from docs.clients.tools import Function, Outcome, Tools  # where you copy the files to: from tools import ...
from docs.clients.transcript import Transcript
from docs.clients.usage import add_usage

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
TOOL_SECONDS = 20.0  # time limit of a function
SERVER_TOOL_SECONDS = 28.0  # for a tool that runs on your server, with all that the API does for it
GOODBYE_SECONDS = 4.0  # the agent may still begin to speak this long after it has called hang_up
RECORD_SECONDS = 3.0  # before a conversation begins anew, for functions and their records
FINISH_SECONDS = 10.0  # at the end of the call, for functions, records and usage
USAGE_SECONDS = 60.0
HELD_AUDIO = 1_000  # pieces of microphone audio to hold back while there is no connection: 40 s, in pieces of 40 ms
REFUSED = (1007, 1008)  # a bad token or handle
FINAL = (*REFUSED, 1011)  # or the token is used up or expired: renew
NOT_ACTIVE = "voice_session_not_active"
PAUSES = (0, 1, 2, 4, 8, 16)  # seconds to wait before each try, the first included
SERVER_TOOL_PAUSES = (0, *[1] * 27)  # because the caller waits

log = logging.getLogger(__name__)


async def hold_call(session: Json, base_url: str, reply: Reply, tools: Mapping[str, Function] | None = None) -> Json:
    """Hold a call until it ends or reaches its time limit, and return the completed session."""

    async def answer() -> None:
        if (realtime_input := reply(call.transcript.turns)) is None:
            call.hang_up("completed")
        else:
            await call.send(realtime_input)

    async with aiohttp.ClientSession() as http:
        call = Call(http, session, base_url, tools=tools)
        call.on_turn = answer
        return await call.complete(await call.hold(session["max_duration_seconds"]))


class Call:
    """One call: its transcript, its connections one after the other, and how many turns the API has saved.

    `on_message` is called with each message of Gemini, `on_turn` when the agent has finished a turn that was not
    interrupted, and `on_tool_call` with each tool call once it has ended. `played` returns when all that the agent has
    said was heard. `clock` returns the seconds since the call began.
    """

    on_message: Callable[[Json], None] | None = None
    on_turn: Callable[[], Awaitable[None]] | None = None
    on_tool_call: Callable[[Json], None] | None = None
    played: Callable[[], Awaitable[None]] | None = None

    def __init__(
        self,
        http: aiohttp.ClientSession,
        session: Json,
        base_url: str,
        clock: Callable[[], float] | None = None,
        tools: Mapping[str, Function] | None = None,
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
        self.usage = Json()
        self._reported_at = began
        self._reporting: asyncio.Task[Json] | None = None
        self._on_server = {tool["name"] for tool in self._live.get("tools", ()) if tool["where"] == "server"}
        self._tools = Tools(tools or {}, TOOL_SECONDS, self._on_server, self._relay, self._answer, self._record)
        self._hanging_up: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None  # set up, so that it takes input
        self._handle: str | None = None
        self._is_leaving = False  # Gemini closes the connection soon
        self._unanswered: list[Json] = []  # texts and answers of functions since Gemini's last content
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
        except BaseException:
            self._tools.cancel()
            raise
        else:
            return self._end_reason
        finally:
            talking.cancel()
            hung_up.cancel()
            if self._hanging_up:
                self._hanging_up.cancel()
            await asyncio.gather(talking, hung_up, return_exceptions=True)

    def hang_up(self, end_reason: str) -> None:
        """End the call; the first reason counts."""
        self._end_reason = self._end_reason or end_reason
        self._hung_up.set()

    @property
    def agent_hangs_up(self) -> bool:
        """Whether the agent has called `hang_up`, and was not interrupted since."""
        return bool(self._tools.hang_up)

    async def send(self, realtime_input: Json) -> None:
        """Send audio or text of the caller.

        Without a connection, text is sent as soon as there is one, and the latest pieces of audio.
        """
        message = {"realtimeInput": realtime_input}
        if text := realtime_input.get("text"):
            self.transcript.typed(text)  # Gemini does not transcribe it
            self._unanswered.append(message)
        if not await self._sent(message) and not text:
            self._held_audio.append(message)

    async def _sent(self, message: Json) -> bool:
        try:
            if self._socket:
                await self._socket.send_json(message)
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
        if not is_resumed:
            self._tools.forget()
            self._unanswered = [message for message in self._unanswered if "toolResponse" not in message]
        is_prompted = any("realtimeInput" in message for message in self._unanswered)
        if not is_prompted and (is_agents_turn or not is_resumed):
            self._unanswered.append({"realtimeInput": GO_ON if turns else GREET})
        sent = 0
        while sent < len(self._unanswered) or self._held_audio:  # more may come meanwhile
            if sent < len(self._unanswered):
                await socket.send_json(self._unanswered[sent])
                sent += 1
            else:
                await socket.send_json(self._held_audio.popleft())
        self._socket = socket

    async def _repeat_prompt(self) -> None:
        await asyncio.sleep(PROMPT_SECONDS)
        for message in [each for each in self._unanswered if each.get("realtimeInput") in (GREET, GO_ON)]:
            await self._sent(message)

    async def _take(self, message: Json) -> bool:
        """Handle a message, and return whether it ends a turn of the agent."""
        update = message.get("sessionResumptionUpdate", {})
        if update.get("resumable"):  # otherwise the latest handle stays the best one
            self._handle = update.get("newHandle")
        if "serverContent" in message and self._socket:  # without a socket, it is no answer to what is held back
            self._unanswered.clear()
        if add_usage(self.usage, message) and time.monotonic() - self._reported_at >= USAGE_SECONDS:
            self._reported_at = time.monotonic()
            self._reporting = asyncio.create_task(self._ask("POST", "/usage", self.usage))
        settled = self.transcript.settled
        is_end = self.transcript.take(message)
        if self.transcript.settled > settled and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save_turns())  # the conversation never waits for it
        if is_end and self._is_leaving:
            self._socket = None  # what the caller says from now on is for the next connection
        if not self._hung_up.is_set():
            self._take_tool_calls(message, is_end=is_end)
        try:
            if self.on_message:
                self.on_message(message)
            if self.on_turn and is_end and not self.agent_hangs_up and not self._hung_up.is_set():
                await self.on_turn()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise RuntimeError("on_message or on_turn failed.") from error  # this is no lost connection
        return is_end

    # ---- Functions ----

    def _take_tool_calls(self, message: Json, *, is_end: bool) -> None:
        """Run the functions that the agent calls; after `hang_up` its sentence may go on, or begin."""
        hang_up = self._tools.hang_up
        self._tools.take(message)
        if self.agent_hangs_up and (is_end or self._tools.hang_up != hang_up):
            if self._hanging_up:
                self._hanging_up.cancel()
            self._hanging_up = asyncio.create_task(self._hang_up_after(0.0 if is_end else GOODBYE_SECONDS))

    async def _hang_up_after(self, seconds: float) -> None:
        """Hang up after the agent's sentence was played, unless the agent speaks or was interrupted by then."""
        await asyncio.sleep(seconds)
        try:
            await (self.played() if self.played else asyncio.sleep(0))
        except Exception:
            log.exception("played() failed.")
        if self.agent_hangs_up and not self.transcript.agent_speaks:
            self.hang_up("agent_hung_up")

    async def _answer(self, response: Json) -> None:
        """Answer a tool call. Without a connection, the answer is sent as soon as the conversation is resumed."""
        speaks = {tool["name"]: tool.get("speaks") for tool in self._live.get("tools", ())}.get(response["name"])
        scheduling = {"scheduling": speaks.upper()} if speaks else {}
        message = {"toolResponse": {"functionResponses": [{**response, **scheduling}]}}
        self._unanswered.append(message)
        await self._sent(message)

    async def _relay(self, call: Json) -> Outcome:
        """Let the API call your server. It runs a call once, so asking again is safe, and returns the same answer."""
        answer = Json()
        with suppress(TimeoutError):
            async with asyncio.timeout(SERVER_TOOL_SECONDS):
                answer = await self._ask_again("/tool-calls", call, SERVER_TOOL_PAUSES)
        if "data" in answer:
            return answer["data"]["response"], answer["data"]["status"]
        if "error" in answer:
            log.warning("The tool %s did not run: %s.", call["name"], answer["error"]["code"])
            return {"error": "This did not work."}, "failed"
        return {"error": "This takes too long."}, "timeout"

    async def _record(self, call: Json) -> None:
        """Record a tool call that has ended; the API takes the same one once, and has those that it ran."""
        if self.on_tool_call:
            self.on_tool_call(call)
        if call["name"] in self._on_server:
            return
        answer = await self._ask_again("/tool-calls", call)
        if "error" in answer:
            log.warning("A call of %s is not recorded: %s.", call["name"], answer["error"]["code"])

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
        if not self._handle:  # the agent continues from the saved turns and the recorded calls
            self.transcript.close()
            await (self._saving or asyncio.sleep(0))
            await self._save_turns()
            await self._tools.recorded(RECORD_SECONDS)
        answer = await self._ask("POST", "/renew", {"has_resumption_handle": self._handle is not None})
        if "data" in answer:
            self._client_token = answer["data"]["client_token"]
            self._live = answer["data"]["connection"]["gemini_live"]
        return str(answer.get("error", {}).get("code", ""))

    async def complete(self, end_reason: str) -> Json:
        """Complete the session; retries under one Idempotency-Key complete it once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await asyncio.gather(self._tools.recorded(), self._report_usage())
        self._tools.cancel()
        request = {"transcript": self.transcript.turns, "duration_seconds": self.seconds, "end_reason": end_reason}
        answer = await self._ask_again("/complete", request, **{"Idempotency-Key": str(uuid.uuid4())})
        if answer.get("error", {}).get("code") == NOT_ACTIVE:  # another request completed it
            answer = (await self._ask("GET", "")).get("data", answer)
        if "error" in answer:
            raise ConnectionError(f"The call could not be completed: {answer['error']['code']}.")
        return answer

    async def _report_usage(self) -> None:
        """Report all tokens that were used; the API keeps the larger numbers."""
        await (self._reporting or asyncio.sleep(0))
        if self.usage:
            await self._ask_again("/usage", self.usage)

    async def _ask_again(
        self, action: str, body: Json, pauses: Sequence[float] | None = None, /, **headers: str
    ) -> Json:
        """Post to one of the session's routes, again after pauses while it fails for the moment."""
        answer = Json()
        for pause in pauses or PAUSES:
            await asyncio.sleep(pause)
            answer = await self._ask("POST", action, body, **headers)
            if not answer.get("error", {}).get("retryable"):
                break
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

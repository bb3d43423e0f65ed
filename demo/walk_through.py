"""The steps of the demo: create an agent and a session, hold the call, complete it, show the results and webhooks."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp

from demo.call import Call
from demo.caller_input import RATE
from demo.clock import CallClock
from demo.errors import CallFailed
from demo.example import Example
from demo.results import rows
from demo.screen import Screen, in_minutes
from demo.tool_server import tool_server
from demo.voice_api import Json, VoiceApi
from demo.webhooks import Receiver, receiving
from docs.clients import client
from docs.clients.tools import Function
from local.speech import ESPEAK, Speech, Voice

_CALLERS_PITCH: Final = 260.0
_LETTERS_OF_A_TOKEN: Final = 16
_ENDINGS: Final[Mapping[str, str]] = {
    "completed": "the agent has said goodbye, and the caller has hung up",
    "agent_hung_up": "the agent has said goodbye and hung up",
    "client_timer": "max_duration_seconds has passed, so we hung up",
    "agent_silent": "the agent says nothing more",
    "disconnected": "Gemini has hung up",
}
_FAILURES: Final = ("agent_silent", "disconnected")


class WalkThrough:
    """One call between an example's caller and its agent; the pace is 1 unless the stand-in speaks faster."""

    def __init__(self, screen: Screen, example: Example, pace: float) -> None:
        self._screen = screen
        self._example = example
        self._pace = pace

    async def run(
        self, base_url: str, api_key: str, recording: Path | None = None, *, reaches_this_machine: bool = False
    ) -> None:
        """Take all steps, and write a recording if a file is given; raises CannotStart and CallFailed.

        If the call ends early, the session is still completed with the turns so far before CallFailed is raised. An API
        that reaches this machine also calls the example's server, and sends its webhooks to this process.
        """
        async with AsyncExitStack() as running:
            http = await running.enter_async_context(aiohttp.ClientSession())
            api = VoiceApi(http, base_url, api_key)
            receiver = await running.enter_async_context(receiving(api)) if reaches_this_machine else None
            await self._serve_tools(api, running, reaches_this_machine=reaches_this_machine)
            session = await self._prepare(api)
            speech = await self._speech(session["connection"]["gemini_live"]["url"])
            clock = CallClock(self._pace)
            live = client.Call(http, session, base_url, clock.now, self._page())
            call = Call(
                live,
                clock,
                speech,
                lambda turn, is_cut: self._screen.turn(turn, is_cut=is_cut),
                lambda call, ended_ms: self._screen.tool_call(
                    call, ended_ms, is_on_server=call["name"] in self._example.server_tools
                ),
            )
            reason = await self._hold(call, session["max_duration_seconds"])
            if recording:
                await self._record(call, recording)
            ended = await self._complete(live, reason)
            if receiver:
                await self._show_webhooks(receiver, ended)
        if reason in _FAILURES:
            raise CallFailed(f"The call ended early: {_ENDINGS[reason]}.")

    async def _serve_tools(self, api: VoiceApi, running: AsyncExitStack, *, reaches_this_machine: bool) -> None:
        """Start the server of the example's tools, or leave out those that the API cannot reach."""
        example = self._example
        names = ", ".join(example.server_tools)
        if example.server is None:
            return
        if not reaches_this_machine:
            self._screen.note(f"The API does not reach this machine, so the agent has no tools on a server: {names}.")
            self._example = example.without_server_tools()
            return
        server = await running.enter_async_context(tool_server(api, example.server, "make demo", is_shown=False))
        self._example = example.with_endpoint(server.endpoint_id)
        self._screen.step(
            f"Tools on a server: {names}",
            f"{example.server.name} at {server.url}, webhook endpoint {server.endpoint_id}",
        )

    async def _prepare(self, api: VoiceApi) -> Json:
        """Create the agent and the session, as a backend does."""
        caller = self._example.caller
        with self._screen.waiting("Creating an agent ..."):
            agent = await api.create_agent(self._example.agent)
        self._screen.step(f"Agent {agent['name']}, version {agent['version']}", agent["agent_id"])
        request = {
            "agent_id": agent["agent_id"],
            "participant": caller.participant.model_dump(),
            "ttl_seconds": caller.ttl_seconds,
            **({"variables": caller.variables} if caller.variables else {}),
        }
        with self._screen.waiting("Creating a session ..."):
            session = await api.create_session(request)
        livekit, gemini = session["connection"]["livekit"], session["connection"]["gemini_live"]
        cap = session["max_duration_seconds"]
        self._screen.step(
            f"Session of {caller.participant.name}, {f'at most {in_minutes(cap)}' if cap else 'without a limit'}, "
            f"tokens good for {in_minutes(session['ttl_seconds'])}",
            session["session_id"],
            f"LiveKit  {livekit['url']}  room {livekit['room']}  token {_clipped(livekit['token'])}",
            f"Gemini   {gemini['url'].partition('/ws/')[0]}  {gemini['model']}  token {_clipped(gemini['token'])}",
            *(f"{name}: {value}" for name, value in caller.variables.items()),
        )
        return session

    def _page(self) -> dict[str, Function]:
        """Return the functions of the caller's page."""

        def answering(response: Json) -> Function:
            async def run(_: Json) -> Json:
                return response

            return run

        return {name: answering(response) for name, response in self._example.caller.tools.items()}

    async def _speech(self, url: str) -> Speech | None:
        """Return the caller's speech, or None to let the caller type.

        Without espeak-ng the voice is hummed. Only the stand-in, which is reached by ws://, understands that.
        """
        speech = Speech(RATE, Voice(self._example.language, _CALLERS_PITCH))
        if await asyncio.to_thread(speech.has_words):
            return speech
        why = f"{ESPEAK} is not installed, or does not speak {self._example.language}"
        if url.startswith("ws://"):
            self._screen.note(f"{why}: voices are hummed, one tone a word.")
            return speech
        self._screen.note(f"{why}: the caller has no voice, and types.")
        return None

    async def _hold(self, call: Call, cap: int | None) -> str:
        """Hold the call, as a browser does."""
        caller = self._example.caller
        names = {"agent": self._example.agent["name"], "user": caller.participant.name}
        with self._screen.call(lambda: call.unfinished, call.clock, names, cap):
            may_hang_up = bool(self._example.agent.get("behaviors", {}).get("may_hang_up"))
            reason = await call.hold(caller.lines, cap, may_hang_up=may_hang_up)
        self._screen.step(f"The call is over after {in_minutes(call.live.seconds)}: {_ENDINGS[reason]}")
        return reason

    async def _record(self, call: Call, file: Path) -> None:
        try:
            await asyncio.to_thread(call.recording.save, file)
        except OSError as error:
            self._screen.note(f"The call is not recorded: {error}.")
        else:
            self._screen.step(f"Recorded to {file}")

    async def _complete(self, live: client.Call, reason: str) -> Json:
        """Complete the session with the transcript, show the results, and return the session."""
        began = time.monotonic()
        with self._screen.waiting("Completing the session ..."):
            try:
                ended = await live.complete(reason)
            except ConnectionError as error:
                raise CallFailed(str(error)) from None
        extraction = ended["extraction"]
        self._screen.step(f"Session {ended['status']} within {time.monotonic() - began:.1f} s", *_counted(ended))
        if extraction["status"] in {"failed", "pending"}:
            yet = " yet" if extraction["status"] == "pending" else ""
            raise CallFailed(f"There are no results{yet}: {extraction['error']['message']}")
        outcome = f"extraction {extraction['status']}" + (f" by {extraction['model']}" if extraction["model"] else "")
        self._screen.results(rows(self._example.agent, ended["results"]), outcome)
        return ended

    async def _show_webhooks(self, receiver: Receiver, ended: Json) -> None:
        """Show the deliveries of the session's events."""
        expected = {"session.completed"}
        if ended["extraction"]["status"] == "succeeded":
            expected.add("extraction.succeeded")
        with self._screen.waiting("Waiting for the webhooks ..."):
            deliveries = await receiver.deliveries(ended["session_id"], expected)
        succeeded = sum(each["status"] == "succeeded" for each in deliveries)
        self._screen.step(
            f"Webhooks: {succeeded} of {len(deliveries)} events delivered to {receiver.url}",
            *map(receiver.line, deliveries),
        )


def _counted(ended: Json) -> Iterator[str]:
    """Say which tool calls are on record, and how many tokens Gemini Live used, if it reported any."""
    if calls := ended.get("tool_calls"):
        yield f"Tool calls on record: {', '.join(call['name'] for call in calls)}"
    if usage := ended.get("usage"):
        came_in, went_out = (sum(usage[field].values()) for field in ("input_tokens", "output_tokens"))
        yield f"Gemini Live used {came_in:,} tokens of input and {went_out:,} of output"


def _clipped(token: str) -> str:
    return f"{token[:_LETTERS_OF_A_TOKEN]}..."

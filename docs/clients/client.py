"""A reference client: holds the Gemini side of a session and returns its transcript. Needs aiohttp.

    turns, end_reason = await hold_call(session, reply)

`session` is the `data` of session create. `reply` gets the turns so far when the agent has finished one, and returns
what to send as `realtimeInput`: {"text": ...}, {"audio": ...}, or None to hang up. The LiveKit side is one call of
LiveKit's own client: `await rtc.Room().connect(livekit["url"], livekit["token"])`.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

Turns = list[dict[str, str]]
Reply = Callable[[Turns], dict[str, Any] | None]

GREET = {"text": "The caller is on the line."}  # the model does not speak first
FINAL = (1007, 1008, 1011)  # refused, or the token is used up or expired: another connection would fare no better


async def hold_call(session: dict[str, Any], reply: Reply) -> tuple[Turns, str]:
    """Hold a call until somebody hangs up or its cap is reached; returns the turns and why it ended."""
    live, turns, handle = session["connection"]["gemini_live"], Turns(), None
    try:
        async with asyncio.timeout(session["max_duration_seconds"]), aiohttp.ClientSession() as http:
            while True:  # a connection lives about ten minutes; each round is one
                async with http.ws_connect(f"{live['url']}?access_token={live['token']}", max_msg_size=0) as socket:
                    end_reason, handle = await _talk(socket, live["setup"], handle, turns, reply)
                if end_reason:
                    return turns, end_reason
    except TimeoutError:
        return turns, "client_timer"


async def _talk(
    socket: aiohttp.ClientWebSocketResponse, setup: dict[str, Any], handle: str | None, turns: Turns, reply: Reply
) -> tuple[str | None, str | None]:
    """Talk over one connection; returns why the call is over, or the handle that resumes it."""
    resumption = {"handle": handle} if handle else {}
    await socket.send_json({"setup": {**setup["setup"], "sessionResumption": resumption}})
    async for frame in socket:
        message = json.loads(frame.data)
        if "setupComplete" in message and not turns:
            await socket.send_json({"realtimeInput": GREET})
        if message.get("sessionResumptionUpdate", {}).get("resumable"):
            handle = message["sessionResumptionUpdate"]["newHandle"]
        if "goAway" in message:
            return None, handle
        content = message.get("serverContent", {})
        stitch(turns, "user", content.get("inputTranscription", {}).get("text", ""))
        stitch(turns, "agent", content.get("outputTranscription", {}).get("text", ""))
        if content.get("turnComplete"):
            if (answer := reply(turns)) is None:
                return "completed", None
            stitch(turns, "user", answer.get("text", ""))  # what is typed comes back in no transcription
            await socket.send_json({"realtimeInput": answer})
    if handle and socket.close_code not in FINAL:
        await asyncio.sleep(1)
        return None, handle
    if not turns:
        raise ConnectionError(f"Gemini hung up with close code {socket.close_code}.")
    return "disconnected", None


def stitch(turns: Turns, role: str, fragment: str) -> None:
    """Add a fragment of a transcription: to the speaker's turn, or as a new one when the other had spoken."""
    if turns and turns[-1]["role"] == role:
        turns[-1]["text"] += fragment
    elif fragment:
        turns.append({"role": role, "text": fragment})

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


async def hold_call(session: dict[str, Any], reply: Reply) -> tuple[Turns, str]:
    """Hold a call until the caller hangs up or its cap is reached; returns the turns and why it ended."""
    live, turns, handle = session["connection"]["gemini_live"], Turns(), None
    try:
        async with asyncio.timeout(session["max_duration_seconds"]), aiohttp.ClientSession() as http:
            while True:  # a connection lives about ten minutes; each round is one
                async with http.ws_connect(f"{live['url']}?access_token={live['token']}", max_msg_size=0) as socket:
                    ended, handle = await _talk(socket, live["setup"], handle, turns, reply)
                if ended:
                    return turns, "completed"
    except TimeoutError:
        return turns, "client_timer"


async def _talk(
    socket: aiohttp.ClientWebSocketResponse, setup: dict[str, Any], handle: str | None, turns: Turns, reply: Reply
) -> tuple[bool, str | None]:
    """Talk over one connection; returns whether the call is over, and the handle that resumes it if not."""
    resumption = {"handle": handle} if handle else {}
    await socket.send_json({"setup": {**setup["setup"], "sessionResumption": resumption}})
    async for frame in socket:
        message = json.loads(frame.data)
        if "setupComplete" in message and not turns:
            await socket.send_json({"realtimeInput": GREET})
        if message.get("sessionResumptionUpdate", {}).get("resumable"):
            handle = message["sessionResumptionUpdate"]["newHandle"]
        if "goAway" in message:
            return False, handle
        content = message.get("serverContent", {})
        stitch(turns, "user", content.get("inputTranscription", {}).get("text", ""))
        stitch(turns, "agent", content.get("outputTranscription", {}).get("text", ""))
        if content.get("turnComplete"):
            if (answer := reply(turns)) is None:
                return True, None
            stitch(turns, "user", answer.get("text", ""))  # what is typed comes back in no transcription
            await socket.send_json({"realtimeInput": answer})
    if handle is None:
        raise ConnectionError(f"Gemini hung up with close code {socket.close_code}.")
    return False, handle


def stitch(turns: Turns, role: str, fragment: str) -> None:
    """Add a fragment of a transcription: to the speaker's turn, or as a new one when the other had spoken."""
    if turns and turns[-1]["role"] == role:
        turns[-1]["text"] += fragment
    elif fragment:
        turns.append({"role": role, "text": fragment})

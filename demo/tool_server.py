"""The server of an example's tools: a program beside the example, with a webhook endpoint of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.receivers import endpoint, free, running, until_listening
from demo.voice_api import VoiceApi


@dataclass(frozen=True, slots=True)
class ToolServer:
    """A running server, and the id of its endpoint."""

    url: str
    endpoint_id: str


@asynccontextmanager
async def tool_server(
    voice_api: VoiceApi, program: Path, command: str, *, is_shown: bool = True
) -> AsyncIterator[ToolServer]:
    """Run a program with an endpoint of its own; raises CannotStart and CallFailed.

    `command` marks the endpoint. What the program prints goes to the terminal if it `is_shown`.
    """
    port = free(0, command)
    url = f"http://127.0.0.1:{port}/"
    async with endpoint(voice_api, {"url": url, "description": f"{command}: {program.name}"}) as created:
        variables = {"PORT": str(port), "WEBHOOK_SECRET": created["secret"]}
        output = None if is_shown else asyncio.subprocess.DEVNULL
        async with running([sys.executable, str(program)], variables, output) as process:
            await until_listening(process, port, program.name)
            yield ToolServer(url, created["endpoint_id"])

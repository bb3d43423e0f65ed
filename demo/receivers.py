"""Programs on this machine that receive signed requests, each with a webhook endpoint of its own."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import IO, Any, Final

from demo.errors import CallFailed
from demo.voice_api import VoiceApi
from local.errors import CannotStart

_INHERITED: Final = ("PATH", "HOME", "LANG")
_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.05


def free(port: int, advice: str) -> int:
    """Return a port that can be listened on, any for 0; raises CannotStart if another program has it."""
    try:
        with socket.create_server(("127.0.0.1", port)) as listening:
            return int(listening.getsockname()[1])
    except OSError as error:
        raise CannotStart(f"Port {port} cannot be used ({error.strerror}): choose another, as in `{advice}`.") from None


@asynccontextmanager
async def endpoint(
    voice_api: VoiceApi, request: Mapping[str, Any], on_deleted: Callable[[], object] = lambda: None
) -> AsyncIterator[dict[str, Any]]:
    """Create a webhook endpoint, and delete it in the end.

    Those with the same description are deleted first: they are left if an earlier start was killed.
    """
    for left in await voice_api.webhook_endpoints():
        if left["description"] == request["description"]:
            await voice_api.delete_webhook_endpoint(left["endpoint_id"])
    created = await voice_api.create_webhook_endpoint(dict(request))
    try:
        yield created
    finally:
        with suppress(CallFailed):  # the API may have stopped before; with tables in memory nothing is left
            await voice_api.delete_webhook_endpoint(created["endpoint_id"])
            on_deleted()


@asynccontextmanager
async def running(
    command: Sequence[str], variables: Mapping[str, str], output: int | IO[bytes] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the time of the context."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command, env={**inherited, **variables}, stdin=asyncio.subprocess.DEVNULL, stdout=output
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # Ctrl-C in a terminal ends it too
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def until_listening(process: asyncio.subprocess.Process, port: int, name: str) -> None:
    """Wait until a program accepts connections on a port; raises CannotStart if it does not."""
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        raise CannotStart(f"{name} does not listen on port {port}.") from None
    raise CannotStart(f"{name} did not start, its status is {process.returncode}.")

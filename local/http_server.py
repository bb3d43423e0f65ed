"""HTTP servers on loopback."""

import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from local.errors import CannotStart

HOST: Final = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """Listen on a port, 0 for any free one; raises CannotStart if it is in use."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        what = "in use" if error.errno == errno.EADDRINUSE else "reserved for the system"
        raise CannotStart(f"Port {port} is {what}: choose another, as in `make run PORT=3100`.") from None


def address(listener: socket.socket) -> str:
    """Return the URL of a listener."""
    return f"http://{HOST}:{listener.getsockname()[1]}"


@asynccontextmanager
async def serving(
    app: web.Application, listener: socket.socket | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve an application, on any free port if no listener is given, and yield its URL."""
    listener = listener or listen(0)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, ssl_context=tls).start()
        yield address(listener).replace("http:", "https:" if tls else "http:")
    finally:
        await runner.cleanup()
        listener.close()

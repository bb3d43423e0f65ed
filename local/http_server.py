"""HTTP servers on loopback."""

import errno
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from local.errors import CannotStart
from local.loopback import is_local, is_loopback

HOST: Final = "127.0.0.1"

_logger: Final = logging.getLogger(__name__)


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
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=0.1,
        logger=_logger,
        auto_decompress=False,  # neither API Gateway nor Lambda decompresses bodies
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener, ssl_context=tls).start()
        yield address(listener).replace("http:", "https:" if tls else "http:")
    finally:
        await runner.cleanup()
        listener.close()


@web.middleware
async def loopback_host(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse requests to another host name: the keys of the stand-ins are public, so a web page knows them."""
    if not is_loopback(f"//{request.headers.get('Host', '')}"):
        raise _forbidden()
    return await handler(request)


def check_site(request: web.Request) -> None:
    """Refuse a request that needs no key if a web page of another site may have sent it; raises HTTPForbidden."""
    if not is_local(request.headers.get("Host", ""), request.headers.get("Origin")):
        raise _forbidden()


def _forbidden() -> web.HTTPForbidden:
    return web.HTTPForbidden(text="Send this request from this machine, to 127.0.0.1 or localhost.")


def _without_message(record: logging.LogRecord) -> bool:
    """Log an exception by its type and stack: its message may quote a URL with a token, or a header."""
    if record.exc_info and (error := record.exc_info[1]):
        stack = "".join(traceback.format_tb(error.__traceback__))
        record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}\n{stack}".rstrip(), ()
        record.exc_info = None
    return True


_logger.addFilter(_without_message)

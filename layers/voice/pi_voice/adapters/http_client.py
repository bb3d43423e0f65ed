"""HTTP session that the adapters of LiveKit and Gemini share."""

from typing import Final

import aiohttp

DEAD_CONNECTION: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""Errors of a reused connection that was closed, or reset, as NAT gateways do after minutes without traffic."""


class Redirected(ValueError):
    """The server redirected a request. Followed, it would take credentials and content to another address."""


class HttpClient:
    """One aiohttp session per container, created on first use, because it needs a running event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session; connections stay open between the requests of one container."""
        if self._session is None:
            # The adapters set the time limits: each covers a request with its retries.
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), trace_configs=[_without_redirects()]
            )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _without_redirects() -> aiohttp.TraceConfig:
    """Refuse redirects of every request; the SDKs of LiveKit and Gemini would follow them."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    return trace


async def _refuse_redirect(_session: object, _context: object, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    redirect.response.close()
    raise Redirected

"""HTTP session that the adapters of LiveKit and Gemini share."""

from typing import Final

import aiohttp

DEAD_CONNECTION: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""Errors of a reused connection that was closed, or reset, as NAT gateways do after minutes without traffic."""


class HttpClient:
    """One aiohttp session per container, created on first use, because it needs a running event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session; connections stay open between the requests of one container."""
        if self._session is None:
            # The adapters set the time limits: each covers a request with its retries.
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

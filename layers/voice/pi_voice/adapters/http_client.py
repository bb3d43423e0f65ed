"""The HTTP session that the adapters of both providers share."""

from typing import Final

import aiohttp

DEAD_CONNECTION: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""How a kept connection turns out to be dead: closed, or reset, as a NAT gateway does after minutes of silence."""


class HttpClient:
    """One aiohttp session per container, made at its first use, because it needs a running event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session; connections stay open between the requests of one container."""
        if self._session is None:
            # The time limits are the adapters': each bounds a whole exchange, retries included.
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

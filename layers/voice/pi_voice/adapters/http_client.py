"""HTTP session that the adapters of LiveKit and Gemini share."""

from typing import Final

import aiohttp

DEAD_CONNECTION: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""Errors of a reused connection that was closed, or reset, as NAT gateways do after minutes without traffic."""


MAX_RESPONSE_BYTES: Final = 2_097_152
"""Maximum size of a response: the model's longest answer takes about a tenth."""


class Redirected(ValueError):
    """The server redirected a request. Followed, it would take credentials and content to another address."""


class ResponseTooLarge(ValueError):
    """The server sent more than MAX_RESPONSE_BYTES."""


class _BoundedResponse(aiohttp.ClientResponse):
    """A response that is read up to MAX_RESPONSE_BYTES, whatever its Content-Length; `json` and `text` read it too."""

    async def read(self) -> bytes:
        """Read the whole response; raises ResponseTooLarge."""
        if self._body is None:
            body = bytearray()
            try:
                async for part in self.content.iter_any():
                    body += part
                    if len(body) > MAX_RESPONSE_BYTES:
                        raise ResponseTooLarge  # noqa: TRY301 (like any other failure, it closes the connection)
            except BaseException:
                self.close()
                raise
            self._body = bytes(body)
        return await super().read()


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
                timeout=aiohttp.ClientTimeout(total=None),
                trace_configs=[_without_redirects()],
                response_class=_BoundedResponse,
                headers={"Accept-Encoding": "identity"},  # a compressed response may be a thousand times larger
                auto_decompress=False,
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

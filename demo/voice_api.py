"""The voice-session API as a backend calls it: three requests make a call."""

from typing import Any, Final

import aiohttp

from demo.errors import CallFailed

Json = dict[str, Any]

_TIME_LIMIT: Final = aiohttp.ClientTimeout(total=60)
_REFUSED: Final = 400


class VoiceApi:
    """The API at one address, opened with one key."""

    def __init__(self, client: aiohttp.ClientSession, base_url: str, api_key: str) -> None:
        self._client = client
        self._base = f"{base_url}/api/v1/voice"
        self._headers = {"Authorization": f"Bearer {api_key}"}

    async def create_agent(self, agent: Json) -> Json:
        """Create an agent; raises CallFailed."""
        created: Json = (await self._post("/agents", agent))["data"]
        return created

    async def create_session(self, order: Json) -> Json:
        """Create a session and return it with both connections; raises CallFailed."""
        created: Json = (await self._post("/sessions", order))["data"]
        return created

    async def complete_session(self, session_id: str, ending: Json) -> Json:
        """End a session and return it with its results; raises CallFailed."""
        return await self._post(f"/sessions/{session_id}/complete", ending)

    async def _post(self, route: str, body: Json) -> Json:
        try:
            async with self._client.post(
                self._base + route, json=body, headers=self._headers, timeout=_TIME_LIMIT
            ) as response:
                answer: Json = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CallFailed(f"POST {route} was not answered: {str(error) or type(error).__name__}.") from None
        if response.status >= _REFUSED:
            refusal = answer.get("error", {})
            details = "".join(f" {fault['path']}: {fault['message']}" for fault in refusal.get("details") or ())
            raise CallFailed(f"POST {route} was refused, {refusal.get('code')}: {refusal.get('message')}{details}")
        return answer

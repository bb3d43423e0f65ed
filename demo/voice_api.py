"""A client of the voice-session API: agent and session as a backend, the rest as the session's client."""

from typing import Any, Final

import aiohttp

from demo.errors import CallFailed

Json = dict[str, Any]

_TIME_LIMIT: Final = aiohttp.ClientTimeout(total=60)
_REFUSED: Final = 400


class VoiceApi:
    """The API at one base URL, called with one API key."""

    def __init__(self, client: aiohttp.ClientSession, base_url: str, api_key: str) -> None:
        self._client = client
        self._base = f"{base_url}/api/v1/voice"
        self._api_key = api_key

    async def create_agent(self, agent: Json) -> Json:
        """Create an agent; raises CallFailed."""
        created: Json = (await self._post("/agents", agent))["data"]
        return created

    async def create_session(self, request: Json) -> Json:
        """Create a session and return it with both connections; raises CallFailed."""
        created: Json = (await self._post("/sessions", request))["data"]
        return created

    async def save_transcript(self, session: Json, at: int, turns: list[Json]) -> int:
        """Save turns during a call, as its client, and return how many are saved in all; raises CallFailed."""
        saved = await self._post(
            f"/sessions/{session['session_id']}/transcript", {"from": at, "turns": turns}, session["client_token"]
        )
        return int(saved["data"]["next"])

    async def complete_session(self, session: Json, request: Json) -> Json:
        """Complete a session, as its client, and return it with its results; raises CallFailed."""
        return await self._post(f"/sessions/{session['session_id']}/complete", request, session["client_token"])

    async def _post(self, route: str, body: Json, key: str | None = None) -> Json:
        headers = {"Authorization": f"Bearer {key or self._api_key}"}
        try:
            async with self._client.post(
                self._base + route, json=body, headers=headers, timeout=_TIME_LIMIT
            ) as response:
                answer: Json = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CallFailed(f"POST {route} was not answered: {str(error) or type(error).__name__}.") from None
        if response.status >= _REFUSED:
            refusal = answer.get("error", {})
            details = "".join(f" {fault['path']}: {fault['message']}" for fault in refusal.get("details") or ())
            raise CallFailed(f"POST {route} was refused, {refusal.get('code')}: {refusal.get('message')}{details}")
        return answer

"""The calls of a backend to the voice-session API: list and create agents, and create a session."""

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

    async def newest_agents(self) -> list[Json]:
        """Return the newest 100 agents; raises CallFailed."""
        agents: list[Json] = (await self._ask("GET", "/agents?limit=100"))["data"]
        return agents

    async def _post(self, route: str, body: Json) -> Json:
        return await self._ask("POST", route, body)

    async def _ask(self, method: str, route: str, body: Json | None = None) -> Json:
        headers, what = {"Authorization": f"Bearer {self._api_key}"}, f"{method} {route.partition('?')[0]}"
        try:
            async with self._client.request(
                method, self._base + route, json=body, headers=headers, timeout=_TIME_LIMIT
            ) as response:
                answer: Json = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CallFailed(f"{what} was not answered: {str(error) or type(error).__name__}.") from None
        if response.status >= _REFUSED:
            refusal = answer.get("error", {})
            details = "".join(f" {fault['path']}: {fault['message']}" for fault in refusal.get("details") or ())
            raise CallFailed(f"{what} was refused, {refusal.get('code')}: {refusal.get('message')}{details}")
        return answer

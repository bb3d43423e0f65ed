"""The requests of a backend to the voice-session API: agents, sessions and webhook endpoints."""

from typing import Any, Final

import aiohttp

from demo.errors import CallFailed

Json = dict[str, Any]

WEBHOOK_EVENTS: Final = (
    "session.started",
    "session.completed",
    "session.failed",
    "extraction.succeeded",
    "extraction.failed",
)
"""All events of sessions."""

_TIME_LIMIT: Final = aiohttp.ClientTimeout(total=60)
_REFUSED: Final = 400
_NO_CONTENT: Final = 204


class VoiceApi:
    """The API at one base URL, called with one API key."""

    def __init__(self, client: aiohttp.ClientSession, base_url: str, api_key: str) -> None:
        self._client = client
        self.base_url = base_url
        self._base = f"{base_url}/api/v1/voice"
        self._api_key = api_key

    async def create_agent(self, agent: Json) -> Json:
        """Create an agent; raises CallFailed."""
        created: Json = (await self._post("/agents", agent))["data"]
        return created

    async def update_agent(self, agent_id: str, patch: Json) -> None:
        """Change an agent by a merge patch; raises CallFailed."""
        await self._ask("PATCH", f"/agents/{agent_id}", patch)

    async def create_session(self, request: Json) -> Json:
        """Create a session and return it with both connections; raises CallFailed."""
        created: Json = (await self._post("/sessions", request))["data"]
        return created

    async def newest_agents(self) -> list[Json]:
        """Return the newest 100 agents; raises CallFailed."""
        agents: list[Json] = (await self._ask("GET", "/agents?limit=100"))["data"]
        return agents

    async def create_webhook_endpoint(self, request: Json) -> Json:
        """Create a webhook endpoint and return it with its secret; raises CallFailed."""
        created: Json = (await self._post("/webhook-endpoints", request))["data"]
        return created

    async def webhook_endpoints(self) -> list[Json]:
        """Return all webhook endpoints, of which there are at most 50; raises CallFailed."""
        endpoints: list[Json] = (await self._ask("GET", "/webhook-endpoints?limit=100"))["data"]
        return endpoints

    async def test_webhook_endpoint(self, endpoint_id: str) -> None:
        """Ask for a test event; raises CallFailed."""
        await self._post(f"/webhook-endpoints/{endpoint_id}/test", {})

    async def webhook_deliveries(self, endpoint_id: str, session_id: str) -> list[Json]:
        """Return the newest 100 deliveries of a session's events, newest first; raises CallFailed."""
        route = f"/webhook-endpoints/{endpoint_id}/deliveries?session_id={session_id}&limit=100"
        deliveries: list[Json] = (await self._ask("GET", route))["data"]
        return deliveries

    async def delete_webhook_endpoint(self, endpoint_id: str) -> None:
        """Delete a webhook endpoint; raises CallFailed."""
        await self._ask("DELETE", f"/webhook-endpoints/{endpoint_id}")

    async def _post(self, route: str, body: Json) -> Json:
        return await self._ask("POST", route, body)

    async def _ask(self, method: str, route: str, body: Json | None = None) -> Json:
        headers, what = {"Authorization": f"Bearer {self._api_key}"}, f"{method} {route.partition('?')[0]}"
        try:
            async with self._client.request(
                method, self._base + route, json=body, headers=headers, timeout=_TIME_LIMIT
            ) as response:
                answer: Json = {} if response.status == _NO_CONTENT else await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CallFailed(f"{what} was not answered: {str(error) or type(error).__name__}.") from None
        if response.status >= _REFUSED:
            refusal = answer.get("error", {})
            details = "".join(f" {fault['path']}: {fault['message']}" for fault in refusal.get("details") or ())
            raise CallFailed(f"{what} was refused, {refusal.get('code')}: {refusal.get('message')}{details}")
        return answer

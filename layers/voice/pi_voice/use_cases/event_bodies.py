"""Bodies of the requests to webhook endpoints, from the session as it is stored."""

from pi_voice.domain.webhook_bodies import TRANSCRIPT, endpoint_test_body, session_event_body
from pi_voice.domain.webhook_deliveries import Delivery
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.ports import Sessions
from pi_voice.use_cases.call_content import CallContent


class EventBodies:
    """Builds the body of an event when it is sent."""

    def __init__(self, sessions: Sessions, content: CallContent) -> None:
        self._sessions = sessions
        self._content = content

    async def body(self, delivery: Delivery, endpoint: WebhookEndpoint) -> bytes | None:
        """Return the body of an event for an endpoint; None if its session was deleted. Raises StorageError."""
        if delivery.session_id is None:
            return endpoint_test_body(delivery)
        session = await self._sessions.get(delivery.session_id)
        if session is None or session.workspace != endpoint.workspace:
            return None
        both = await self._content.both(session) if TRANSCRIPT in endpoint.include else (None, [])
        return session_event_body(delivery, endpoint, session, *both)

"""Webhook endpoints as stored."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from pi_voice.domain.ids import AgentId, EndpointId, WorkspaceId

MAX_ENDPOINTS: Final = 50
"""Maximum number of endpoints of a workspace, since each event may go to all of them."""

ROTATION_SECONDS: Final = 86_400
"""How long the secret before a rotation signs too."""


class SecretVersion(NamedTuple):
    """Which of an endpoint's secrets: they are derived from a master secret, and not stored."""

    master_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL that receives events and tool calls. All instants are Unix seconds."""

    endpoint_id: EndpointId
    workspace: WorkspaceId
    url: str
    secret: SecretVersion
    created_at: int
    updated_at: int
    """When its owner last changed it."""
    events: tuple[str, ...] = ()
    """Types of the events that it receives; none for an endpoint of tools alone."""
    include: tuple[str, ...] = ()
    """Parts of a session that its events contain: `transcript`, `results`."""
    agent_id: AgentId | None = None
    """Receives only the events of this agent's sessions."""
    description: str = ""
    active: bool = True
    previous_secret: SecretVersion | None = None
    """The secret before the last rotation, which signs too until `previous_secret_ends_at`."""
    previous_secret_ends_at: int | None = None
    failing_since: int | None = None
    """When the first of the deliveries failed that have failed without a success in between."""
    disabled_at: int | None = None
    disabled_reason: str | None = None
    """`gone`: it responded 410. `failing`: its deliveries failed for three days."""
    revision: int = 1
    """Number of the owner's changes, so that concurrent ones are noticed; deliveries and rotations do not count."""
    secret_made_by: str | None = None
    """Id of the request that made the secret: with an Idempotency-Key its hash. It recognizes a repeated request."""

    @property
    def receives(self) -> bool:
        """Whether it receives anything: it is active, and was not disabled."""
        return self.active and self.disabled_at is None

    def secrets_at(self, now: float) -> tuple[SecretVersion, ...]:
        """Return the secrets that sign: the current one, and the one before for a day after a rotation."""
        if self.previous_secret is None or now >= (self.previous_secret_ends_at or 0):
            return (self.secret,)
        return (self.secret, self.previous_secret)

    def is_subscribed(self, event_type: str, agent_id: AgentId) -> bool:
        """Return whether it receives an event of a session of an agent."""
        return self.receives and event_type in self.events and self.agent_id in (None, agent_id)

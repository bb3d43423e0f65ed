"""Webhook endpoints as stored."""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from pi_voice.domain.ids import AgentId, EndpointId, WorkspaceId

MAX_ENDPOINTS: Final = 50
"""Maximum number of endpoints of a workspace, since each event may go to all of them."""

ROTATION_SECONDS: Final = 86_400
"""How long the secret before a rotation signs too."""

TIMEOUTS_BEFORE_REST: Final = 2
"""Consecutive timeouts after which an endpoint rests. A single slow response delays no other event."""

RESTS: Final = (60, 120, 240, 300)
"""Seconds of each rest in a row; the last one repeats."""


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
    timeouts: int = 0
    """Number of its last events that timed out, one after the other."""
    resting_until: int | None = None
    """When it may be sent to again, because its last events timed out; None: it does not hang."""
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

    @property
    def hangs(self) -> bool:
        """Whether its last events timed out: after each rest it gets one event, until it responds."""
        return self.resting_until is not None

    def rests_at(self, now: float) -> bool:
        """Return whether it may not be sent to yet."""
        return self.resting_until is not None and now < self.resting_until

    def after_failure(self, now: int, *, timed_out: bool) -> "WebhookEndpoint":
        """Return it after an event failed. Consecutive timeouts let it rest; another failure shows that it responds."""
        timeouts = self.timeouts + 1 if timed_out else 0
        rests = timeouts - TIMEOUTS_BEFORE_REST + 1
        return replace(
            self,
            failing_since=self.failing_since or now,
            timeouts=timeouts,
            resting_until=now + RESTS[min(rests, len(RESTS)) - 1] if rests > 0 else None,
        )

    def awake(self) -> "WebhookEndpoint":
        """Return it as one that does not hang."""
        return replace(self, timeouts=0, resting_until=None)

    def secrets_at(self, now: float) -> tuple[SecretVersion, ...]:
        """Return the secrets that sign: the current one, and the one before for a day after a rotation."""
        if self.previous_secret is None or now >= (self.previous_secret_ends_at or 0):
            return (self.secret,)
        return (self.secret, self.previous_secret)

    def is_subscribed(self, event_type: str, agent_id: AgentId) -> bool:
        """Return whether it receives an event of a session of an agent."""
        return self.receives and event_type in self.events and self.agent_id in (None, agent_id)

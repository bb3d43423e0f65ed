"""Requests and responses of webhook endpoints."""

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints
from typing_extensions import TypeAliasType

from pi_voice.domain import webhook_endpoints
from pi_voice.domain.base import Document
from pi_voice.domain.ids import AgentId, EndpointId
from pi_voice.domain.pagination import PageQuery
from pi_voice.domain.webhook_events import SessionEventType

MAX_URL_CHARACTERS: Final = 2048
_MAX_NAMES: Final = 20
"""Maximum length of a list of events or of parts; there may be more of them later."""

WebhookInclude = TypeAliasType("WebhookInclude", Literal["transcript", "results"])
"""Part of a session that events contain on request.

`transcript`: turns and tool calls. `results`: the extracted results, with their evidence.
"""

WebhookDisabledReason = TypeAliasType("WebhookDisabledReason", Literal["gone", "failing"])
"""Why an endpoint was disabled. `gone`: it responded 410. `failing`: its events failed for three days."""

Name = TypeVar("Name", bound=str)


def _once_each(names: tuple[Name, ...]) -> tuple[Name, ...]:
    for number, name in enumerate(names):
        if name in names[:number]:
            message = f"Names {name} twice"
            raise ValueError(message)
    return names


class WebhookEndpointConfig(Document):
    """The fields of a webhook endpoint that its owner sets."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_CHARACTERS)]
    """URL that receives the events by POST: `https://`, with a public address; up to 2,048 characters."""
    events: Annotated[tuple[SessionEventType, ...], AfterValidator(_once_each), Field(max_length=_MAX_NAMES)] = ()
    """Types of the events that it receives, each once; none for an endpoint of tools alone."""
    include: Annotated[tuple[WebhookInclude, ...], AfterValidator(_once_each), Field(max_length=_MAX_NAMES)] = ()
    """Parts of the session that its events contain, each once; none: its events contain neither."""
    agent_id: AgentId | None = None
    """Agent whose sessions' events it receives; null: those of all agents."""
    description: Annotated[str, StringConstraints(max_length=200)] = ""
    """Your own note, up to 200 characters."""
    active: bool = True
    """Whether it receives anything. Setting it to true also enables an endpoint that was disabled."""


class CreateWebhookEndpointRequest(WebhookEndpointConfig):
    """Request body of POST /webhook-endpoints."""


class WebhookEndpoint(WebhookEndpointConfig):
    """A URL of yours that receives events."""

    endpoint_id: EndpointId
    """Endpoint id."""
    created_at: int
    """When it was created."""
    updated_at: int
    """When its fields or its secret were last changed by a request."""
    failing_since: int | None
    """When the first event failed of those that have failed without a success in between; null: the last one worked."""
    resting_until: int | None
    """Until when it gets no events, because its last ones timed out, and then one at a time; null: it does not hang."""
    disabled_at: int | None
    """When it was disabled, so that it receives nothing; null: it is not disabled."""
    disabled_reason: WebhookDisabledReason | None
    """Why it was disabled."""
    previous_secret_ends_at: int | None
    """Until when the secret before the last rotation signs too; null: only one secret signs."""

    @classmethod
    def of_stored(cls, stored: webhook_endpoints.WebhookEndpoint, now: float) -> "WebhookEndpoint":
        """Describe a stored endpoint; values that only a newer version knows are shown as they are."""
        return cls.model_construct(**_fields_of(stored, now))


class WebhookEndpointWithSecret(WebhookEndpoint):
    """A webhook endpoint with its secret, which no other response contains."""

    secret: str
    """Secret that signs its webhooks, `whsec_...` as in Standard Webhooks. Store it where your server verifies them."""

    @classmethod
    def of_secret(
        cls, stored: webhook_endpoints.WebhookEndpoint, now: float, secret: str
    ) -> "WebhookEndpointWithSecret":
        """Describe a stored endpoint with its secret."""
        return cls.model_construct(**_fields_of(stored, now), secret=secret)


class ListWebhookEndpointsQuery(PageQuery):
    """Query of GET /webhook-endpoints."""


def _fields_of(stored: webhook_endpoints.WebhookEndpoint, now: float) -> dict[str, Any]:
    fields = {name: getattr(stored, name) for name in WebhookEndpoint.model_fields}
    if len(stored.secrets_at(now)) == 1:
        fields["previous_secret_ends_at"] = None
    return fields

"""The request to a webhook endpoint that runs a tool, and its response."""

from typing import Literal

from pydantic import JsonValue
from pydantic_core import from_json

from pi_voice.domain.base import Document, JsonObject, Metadata
from pi_voice.domain.ids import AgentId, SessionId
from pi_voice.domain.json_text import without_lone_surrogates
from pi_voice.domain.row_limits import MAX_RESULT_DEPTH, is_deeper
from pi_voice.domain.sessions import Participant, Session
from pi_voice.domain.tool_calls import ToolCall


class ToolCallData(Document):
    """The call of a tool, with what your server may need to answer it."""

    session_id: SessionId
    """Session id."""
    agent_id: AgentId
    """Agent id."""
    agent_version: int
    """Version of the agent."""
    participant: Participant
    """The person for whom the session was created."""
    metadata: Metadata
    """Metadata of the session, which the page does not see."""
    variables: dict[str, JsonValue]
    """Values of the agent's variables in this session, defaults included."""
    call_id: str
    """Id of the function call, unique in its session."""
    name: str
    """Name of the tool."""
    arguments: JsonObject
    """Arguments, which are valid by the tool's `parameters`."""


class ToolCallEvent(Document):
    """Body of a request to a webhook endpoint: a tool call that waits for its answer."""

    type: Literal["tool.call"]
    """Type of the request."""
    timestamp: int
    """When the agent called the tool."""
    data: ToolCallData
    """The call."""


def tool_call_body(session: Session, call: ToolCall) -> bytes:
    """Return the body of a tool call, the same for each run of it."""
    data = ToolCallData.model_construct(
        session_id=session.session_id,
        agent_id=session.agent_id,
        agent_version=session.agent_version,
        participant=session.participant,
        metadata=session.metadata,
        variables=session.variables,
        call_id=call.call_id,
        name=call.name,
        arguments=call.arguments,
    )
    event = ToolCallEvent.model_construct(type="tool.call", timestamp=call.called_at, data=data)
    return event.model_dump_json().encode()


def json_object_in(body: bytes) -> JsonObject | None:
    """Return the JSON object that a response is; None if it is something else, or too deep.

    An empty response is an empty object.
    """
    if not body.strip():
        return {}
    try:
        value: JsonValue = from_json(without_lone_surrogates(body), allow_inf_nan=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) and not is_deeper(value, MAX_RESULT_DEPTH) else None

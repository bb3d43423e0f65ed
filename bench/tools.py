"""Server tools: record the second call of a session, by its page, with an endpoint that answers with an object."""

import json
from typing import TYPE_CHECKING, Any, Final

from events.samples import ENDPOINT_ID, event
from local.sample_call import SampleCall

if TYPE_CHECKING:
    from bench.world import World

SERVER_TOOL: Final = "CallTool, on a server"
"""The name of the record."""

_NAME: Final = "find_product"
_TTL_SECONDS: Final = 3_600
"""The longest time of a session, because the record is replayed for minutes."""

Json = Any


def record(world: "World") -> None:
    """Record a call; one before it makes the session look for an earlier record, as all but the first call do."""
    call = SampleCall(world.invoke)
    call.operate("CreateApiKey", workspace="server-tools")
    call.request("CreateWebhookEndpoint", changes={"url": world.tool_url, "events": []})
    tool = {
        "name": _NAME,
        "description": "Find a product and how many of it are in stock.",
        "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
        "run": {"where": "server", "endpoint_id": call.texts[ENDPOINT_ID]},
    }
    call.request("CreateAgent", changes={"tools": [tool]})
    session = call.request("CreateSession", changes={"ttl_seconds": _TTL_SECONDS})["data"]
    world.invoke("CallTool", _request(session, "function-call-1"))
    world.record(SERVER_TOOL, world.subject("CallTool"), _request(session, "function-call-2"))


def _request(session: Json, call_id: str) -> Json:
    """Return the sample event of CallTool with the client token of a session, as its page sends it."""
    sample, session_id = event("CallTool"), session["session_id"]
    sample["headers"]["authorization"] = f"Bearer {session['client_token']}"
    sample["pathParameters"] = {"session_id": session_id}
    sample["body"] = json.dumps({"call_id": call_id, "name": _NAME, "arguments": {"item": "brass hinges"}})
    return sample

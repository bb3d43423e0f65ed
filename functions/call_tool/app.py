"""POST /api/v1/voice/sessions/{session_id}/tool-calls."""

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.domain.tool_calls import CallToolRequest, ToolCall
from pi_voice.entrypoints.callers import SessionCaller

app = container.api()
call_tool = container.call_tool()


@app.post("/api/v1/voice/sessions/{session_id}/tool-calls", summary="Call a tool", raises=call_tool.ERRORS)
async def handle(session_id: SessionId, request: CallToolRequest, caller: SessionCaller) -> ToolCall:
    """Record what the page did when the agent called a tool, or run a tool on your server and return its answer.

    Each `call_id` is recorded once, and a repeat returns the recorded call. `status` and `response` say what the agent
    can be told: a tool that failed is a 200 as well.
    """
    return await call_tool(session_id, request, caller)


handler = app.handler

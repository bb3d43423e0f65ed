"""POST /api/v1/voice/sessions/{session_id}/tool-calls."""

from pi_voice import container
from pi_voice.domain.ids import SessionId
from pi_voice.domain.tool_calls import CallToolRequest, ToolCall
from pi_voice.entrypoints.callers import SessionCaller

app = container.api()
call_tool = container.call_tool()


@app.post("/api/v1/voice/sessions/{session_id}/tool-calls", summary="Record a tool call", raises=call_tool.ERRORS)
async def handle(session_id: SessionId, request: CallToolRequest, caller: SessionCaller) -> ToolCall:
    """Record what the page did when the agent called a tool, once per `call_id`. A repeat returns the recorded call."""
    return await call_tool(session_id, request, caller)


handler = app.handler

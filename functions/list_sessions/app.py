"""GET /api/v1/voice/sessions: the workspace's sessions, newest first."""

from pi_voice.documents import Page
from pi_voice.errors import InvalidCursor
from pi_voice.http import Caller, api
from pi_voice.sessions import SessionQuery, SessionSummary
from pi_voice.wiring import history

app = api()
sessions = history()


@app.get("/api/v1/voice/sessions", summary="List sessions", raises=(InvalidCursor,))
async def list_sessions(query: SessionQuery, caller: Caller) -> Page[SessionSummary]:
    """Return one page of sessions; a filtered page may be short, so follow `next_cursor` until it is null."""
    return await sessions.page(query, caller)


handler = app.handler

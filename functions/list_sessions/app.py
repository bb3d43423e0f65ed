"""GET /api/v1/voice/sessions."""

from pi_voice import container
from pi_voice.domain.errors import InvalidCursor
from pi_voice.domain.pagination import Page
from pi_voice.domain.session_api import ListSessionsQuery, SessionSummary
from pi_voice.entrypoints.callers import Caller

app = container.api()
read_sessions = container.read_sessions()


@app.get("/api/v1/voice/sessions", summary="List sessions", raises=(InvalidCursor,))
async def handle(query: ListSessionsQuery, caller: Caller) -> Page[SessionSummary]:
    """Return one page of sessions, newest first.

    A filtered page may have fewer items than `limit`; continue until `next_cursor` is null. A session whose status has
    just changed may be missing for a moment from a list by status.
    """
    return await read_sessions.list_sessions(query, caller)


handler = app.handler

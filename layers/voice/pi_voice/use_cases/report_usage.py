"""Report the usage of a session: tokens of Gemini Live, which only the client sees."""

import time

from pi_voice.domain.errors import SessionNotFound
from pi_voice.domain.ids import Clock, SessionId
from pi_voice.domain.session_api import Usage
from pi_voice.domain.usage_api import ReportUsageRequest
from pi_voice.ports import SessionCaller, Sessions
from pi_voice.use_cases.authorization import authorized_session


class ReportUsage:
    """Stores the running totals that clients report."""

    ERRORS = (SessionNotFound,)

    def __init__(self, sessions: Sessions, clock: Clock = time.time) -> None:
        self._sessions = sessions
        self._clock = clock

    async def __call__(self, session_id: SessionId, request: ReportUsageRequest, caller: SessionCaller) -> Usage:
        """Merge a report into a session's usage, whatever the session's status, and return the totals.

        The larger of each number counts, so that late and repeated reports change nothing. A report is no sign of
        life: it neither extends the session nor ends it. Raises SessionNotFound.
        """
        session = await authorized_session(caller, self._sessions, session_id)
        usage = await self._sessions.report_usage(session, request.reported(int(self._clock())))
        if usage is None:
            raise SessionNotFound
        return Usage.of(usage)

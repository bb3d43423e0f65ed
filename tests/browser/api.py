"""The whole local API, with a session of an example for each call."""

import json
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from demo.example import load
from tests.browser.python_client import PATIENCE_SECONDS
from tests.support.template import ROOT

BOOKING: Final = load(ROOT / "examples" / "booking.json")
AGENT: Final = BOOKING.without_server_tools().agent
SAYS: Final = [line.text for line in BOOKING.caller.lines]


@dataclass(frozen=True)
class Api:
    url: str
    key: str

    def ask(self, path: str, document: object = None, key: str | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"{self.url}/api/v1/voice{path}",
            data=None if document is None else json.dumps(document).encode(),
            headers={"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 (loopback)
            return json.load(answer)

    def session(self, agent: object = AGENT, **terms: object) -> Any:
        """Create a session of an agent, by default the one of the example."""
        agent = self.ask("/agents", agent)["data"]["agent_id"]
        order = {"agent_id": agent, "participant": {"identity": "guest"}, "ttl_seconds": 900, **terms}
        return self.ask("/sessions", order)["data"]

    def state(self, session: Any) -> Any:
        return self.ask(f"/sessions/{session['session_id']}", key=session["client_token"])["data"]

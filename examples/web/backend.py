"""A backend for a web page with a voice agent: it holds the API key, and creates a session for each call."""

import json
import os
import urllib.request

from server import serve

BASE, API_KEY, AGENT_ID = (os.environ[name] for name in ("BASE", "API_KEY", "AGENT_ID"))
MORE = json.loads(os.environ.get("SESSION", "{}"))  # other fields of POST /sessions


def create_session() -> object:
    """Create a session; all that is returned is safe for a browser."""
    body = {"agent_id": AGENT_ID, "participant": {"identity": "guest"}, **MORE}
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{BASE}/api/v1/voice/sessions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)["data"]


serve(create_session, BASE)  # POST /session, and the pages

"""GET /api/v1/voice/voices: the voices that an agent can have."""

from pi_voice.documents import Page
from pi_voice.http import Caller, api
from pi_voice.voices import VOICES, Voice
from pi_voice.wiring import key_ring

app = api()
key_ring()


@app.get("/api/v1/voice/voices", summary="List voices")
async def list_voices(caller: Caller) -> Page[Voice]:
    """Return the 30 prebuilt voices, all on one page."""
    await caller.workspace()
    return Page[Voice](data=list(VOICES))


handler = app.handler

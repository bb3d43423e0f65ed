"""GET /api/v1/voice/voices."""

from pi_voice import container
from pi_voice.domain.pagination import Page
from pi_voice.domain.voices import VOICES, Voice
from pi_voice.entrypoints.callers import Caller

app = container.api()


@app.get("/api/v1/voice/voices", summary="List voices")
async def handle(caller: Caller) -> Page[Voice]:
    """Return the prebuilt voices on one page."""
    await caller.authenticate()
    return Page[Voice](data=[Voice(name=name, style=style) for name, style in VOICES.items()])


handler = app.handler

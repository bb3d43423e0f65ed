"""POST /api/v1/voice/webhooks/livekit, and any path of the function URL."""

from pi_voice import container
from pi_voice.domain.livekit_webhooks import ReceivedWebhook
from pi_voice.entrypoints.callers import SignedWebhook

app = container.api()
receive_livekit_webhook = container.receive_livekit_webhook()


@app.post(
    "/api/v1/voice/webhooks/livekit",
    summary="Receive a LiveKit webhook",
    raises=receive_livekit_webhook.ERRORS,
)
async def handle(webhook: SignedWebhook) -> ReceivedWebhook:
    """Merge a signed LiveKit event into the session of its room. Other rooms and events are ignored."""
    return await receive_livekit_webhook(webhook)


handler = app.handler

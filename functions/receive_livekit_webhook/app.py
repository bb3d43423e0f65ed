"""POST /api/v1/voice/webhooks/livekit, and any path of the function URL: LiveKit tells what its rooms did."""

from pi_voice.errors import (
    InvalidRequest,
    InvalidWebhookSignature,
    LiveKitError,
    LiveKitUnavailable,
    UpstreamTimeout,
)
from pi_voice.http import Signed, api
from pi_voice.room_events import Receipt
from pi_voice.wiring import room_events, webhook_signature

app = api()
signature = webhook_signature()
events = room_events()


@app.post(
    "/api/v1/voice/webhooks/livekit",
    summary="Receive a LiveKit webhook",
    raises=(InvalidWebhookSignature, InvalidRequest, LiveKitError, LiveKitUnavailable, UpstreamTimeout),
)
async def receive_livekit_webhook(signed: Signed) -> Receipt:
    """Merge what LiveKit signed into the session of its room; other rooms and other events are dropped."""
    signature.verify(signed.token, signed.body)
    await events.apply(signed.body)
    return Receipt()


handler = app.handler

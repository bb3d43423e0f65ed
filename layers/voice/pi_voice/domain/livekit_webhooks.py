"""LiveKit webhooks: signature, event and room models."""

from contextlib import suppress
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from pi_voice.domain.base import Document, JsonObject
from pi_voice.domain.ids import SessionId
from pi_voice.domain.row_limits import MAX_ROOM_METADATA_BYTES, fitting_room_text, room_metadata_fits

_METADATA: Final[TypeAdapter[dict[str, JsonValue]]] = TypeAdapter(JsonObject)

Int64 = Annotated[int, BeforeValidator(lambda value: int(value) if isinstance(value, str) else value)]
"""An int64 in protobuf's JSON format: a string of digits."""


class _WebhookPart(BaseModel):
    """The fields we read of LiveKit's messages. Others, such as `turnPassword`, are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class WebhookRoom(_WebhookPart):
    """The room of an event."""

    sid: str = ""
    name: str = ""
    metadata: str = ""
    created_at: Annotated[Int64, Field(alias="creationTime", ge=0, lt=2**63)] = 0


class WebhookParticipant(_WebhookPart):
    """The participant of an event."""

    kind: str | int = "STANDARD"

    @property
    def is_person(self) -> bool:
        """Whether it is no recorder, agent, SIP bridge or other program of LiveKit's."""
        return self.kind in ("STANDARD", 0)


class WebhookEvent(_WebhookPart):
    """A LiveKit webhook event (livekit.WebhookEvent as JSON: camelCase, zero values absent)."""

    event: Annotated[str, Field(min_length=1)]
    room: WebhookRoom = WebhookRoom()
    participant: WebhookParticipant = WebhookParticipant()
    created_at: Annotated[Int64, Field(alias="createdAt", ge=0, lt=2**63)] = 0


class RoomEvent(NamedTuple):
    """The facts of one webhook about a session's room; all instants are Unix seconds."""

    session_id: SessionId
    room_sid: str
    started_at: int | None = None
    joined_at: int | None = None
    """When a person joined. A recorder, an agent or a SIP bridge starts no time limit."""
    is_join: bool = False
    """Whether anyone joined, which opens a closed room again."""
    finished_at: int | None = None
    metadata: dict[str, JsonValue] | str | None = None

    @classmethod
    def of(cls, event: WebhookEvent, now: int) -> "RoomEvent | None":
        """Translate a webhook event; None for the kinds that are not stored."""
        at = event.created_at or now
        session_id, sid = SessionId(event.room.name), event.room.sid
        match event.event:
            case "room_started":
                return cls(session_id, sid, started_at=at)
            case "participant_joined":
                if event.participant.is_person:
                    return cls(session_id, sid, joined_at=at, is_join=True)
                return cls(session_id, sid, started_at=event.room.created_at or at, is_join=True)
            case "room_finished":
                return cls(session_id, sid, finished_at=at, metadata=_metadata_of(event.room.metadata))
            case _:
                return None


class ReceivedWebhook(Document):
    """Response of POST /webhooks/livekit, for every event with a valid signature."""

    received: bool = True
    """Always true."""


def _metadata_of(text: str) -> dict[str, JsonValue] | str | None:
    """Return room metadata: a JSON object if it is one that fits the row, else its text, clipped; None if empty."""
    if len(text.encode()) <= MAX_ROOM_METADATA_BYTES:
        with suppress(ValidationError):
            parsed = _METADATA.validate_json(text)
            if room_metadata_fits(parsed):
                return parsed
    return fitting_room_text(text) or None

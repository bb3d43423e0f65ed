"""LiveKit webhooks: signature, event and room models."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final, NamedTuple

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from pi_voice.domain.base import Document, JsonObject
from pi_voice.domain.ids import SessionId
from pi_voice.domain.row_limits import (
    MAX_RECORDINGS,
    MAX_RECORDINGS_BYTES,
    MAX_ROOM_METADATA_BYTES,
    fitting_room_text,
    room_metadata_fits,
    size_of,
)
from pi_voice.domain.sessions import Recording

_FAILED: Final = ("EGRESS_FAILED", "EGRESS_ABORTED", 4, 5)
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


class WebhookPermission(_WebhookPart):
    """What a participant may do, as far as it tells a program from a person."""

    hidden: bool = False
    recorder: bool = False
    agent: bool = False


class WebhookParticipant(_WebhookPart):
    """The participant of an event."""

    kind: str | int = "STANDARD"
    permission: WebhookPermission = WebhookPermission()

    @property
    def is_person(self) -> bool:
        """Whether it is no recorder, agent, SIP bridge or other program of LiveKit's, and not hidden."""
        can = self.permission
        return self.kind in ("STANDARD", 0) and not (can.hidden or can.recorder or can.agent)


class WebhookFile(_WebhookPart):
    """A recorded file, or a playlist of segments; the duration is in nanoseconds."""

    file: str = Field(default="", validation_alias=AliasChoices("filename", "playlistName"))
    location: str = Field(default="", validation_alias=AliasChoices("location", "playlistLocation"))
    duration: Annotated[Int64, Field(ge=0, lt=2**63)] = 0


class WebhookEgress(_WebhookPart):
    """The recording, or another export, of an event."""

    room_name: Annotated[str, Field(alias="roomName")] = ""
    status: str | int = ""
    files: Annotated[list[WebhookFile], Field(alias="fileResults")] = []
    playlists: Annotated[list[WebhookFile], Field(alias="segmentResults")] = []

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """The files, without those that a failed recording did not store."""
        has_failed = self.status in _FAILED
        return tuple(
            Recording(
                file=each.file,
                location=each.location or None,
                duration_seconds=_seconds(each.duration) if each.duration else None,
            )
            for each in (*self.files, *self.playlists)
            if each.file and (each.location or not has_failed)
        )


class WebhookEvent(_WebhookPart):
    """A LiveKit webhook event (livekit.WebhookEvent as JSON: camelCase, zero values absent)."""

    event: Annotated[str, Field(min_length=1)]
    room: WebhookRoom = WebhookRoom()
    participant: WebhookParticipant = WebhookParticipant()
    egress: Annotated[WebhookEgress, Field(alias="egressInfo")] = WebhookEgress()
    created_at: Annotated[Int64, Field(alias="createdAt", ge=0, lt=2**63)] = 0


class RoomEvent(NamedTuple):
    """The facts of one webhook about a session's room; all instants are Unix seconds."""

    session_id: SessionId
    room_sid: str = ""
    """LiveKit's id of the room; not used for recordings, which may be of any room of this name."""
    started_at: int | None = None
    joined_at: int | None = None
    """When a person joined. A recorder, an agent or a SIP bridge starts no time limit."""
    is_join: bool = False
    """Whether anyone joined, which opens a closed room again."""
    finished_at: int | None = None
    metadata: dict[str, JsonValue] | str | None = None
    recordings: tuple[Recording, ...] = ()

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
            case "egress_ended" if recordings := event.egress.recordings:
                return cls(SessionId(event.egress.room_name), recordings=recordings)
            case _:
                return None

    def recordings_after(self, stored: Sequence[Recording]) -> list[Recording]:
        """Return the recordings of a session with those of the event: each file once, as many as fit its row.

        A file is the same if its name and its location are, so a repeated event changes nothing.
        """
        merged = {each.place: each for each in stored}
        size = sum(map(_size, stored))
        for each in self.recordings:
            if each.place not in merged and len(merged) < MAX_RECORDINGS and size + _size(each) <= MAX_RECORDINGS_BYTES:
                merged[each.place] = each
                size += _size(each)
        return list(merged.values())


class ReceivedWebhook(Document):
    """Response of POST /webhooks/livekit, for every event with a valid signature."""

    received: bool = True
    """Always true."""


def _size(recording: Recording) -> int:
    """Return the size of a recording in a list, with its comma."""
    return size_of(recording.model_dump()) + 1


def _seconds(nanoseconds: int) -> int | float:
    """Return seconds, rounded to milliseconds."""
    milliseconds = round(nanoseconds / 1_000_000)
    return milliseconds // 1_000 if milliseconds % 1_000 == 0 else milliseconds / 1_000


def _metadata_of(text: str) -> dict[str, JsonValue] | str | None:
    """Return room metadata: a JSON object if it is one that fits the row, else its text, clipped; None if empty."""
    if len(text.encode()) <= MAX_ROOM_METADATA_BYTES:
        with suppress(ValidationError):
            parsed = _METADATA.validate_json(text)
            if room_metadata_fits(parsed):
                return parsed
    return fitting_room_text(text) or None

"""Sessions as items of DynamoDB."""

import json
from dataclasses import fields
from typing import Final

from pi_voice.adapters.dynamodb.attributes import Item, from_json_text, to_json_text
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import SessionId
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.sessions import DAY_SECONDS, LiveKitRoom, Participant, ReopenedRoom, Session

DUE_SHARDS: Final = 16
"""Number of partitions of the index of due sessions."""

_UNLISTED: Final = {"results", "extraction", "transcript_id", "turns", "request_hash"}
LISTED: Final = sorted({field.name for field in fields(Session)} - _UNLISTED)
_SCALARS: Final = sorted(set(LISTED) - {"participant", "livekit", "metadata", "failure", "media"})


def session_item(session: Session) -> Item:
    """Return the item of a new session; attributes without a value are left out."""
    item = {
        **{name: value for name in _SCALARS if (value := getattr(session, name)) is not None},
        "participant": session.participant.model_dump(),
        "media": list(session.media),
        "livekit": session.livekit.model_dump(exclude_none=True) | {"other_rooms": {}},
        "metadata": session.metadata,
    }
    if session.failure is not None:
        item["failure"] = session.failure.model_dump()
    return item


def due_shard(session_id: SessionId) -> int:
    """Return the partition of a session in the index of due sessions, by the random end of its id."""
    return int(session_id[-2:], 16) % DUE_SHARDS


def due_attributes(session_id: SessionId, due_at: int | None) -> Item:
    """Return the attributes that make a session due; without a time it is not in the index."""
    return {"due_at": due_at, "due_shard": None if due_at is None else due_shard(session_id)}


def retained_until(session: Session, retention_seconds: int) -> int:
    """Return the TTL of a session: at least a day after its grace time, so that the sweeper can end it first."""
    return max(session.created_at + retention_seconds, session.abandoned_at + DAY_SECONDS)


def merge_event(room: Item, event: RoomEvent) -> Item:
    """Merge an event into the attributes of a room: existing values stay, the earliest join counts."""
    joins = [at for at in (room.get("first_joined_at"), event.joined_at) if at is not None]
    merged = {
        "started_at": room.get("started_at", event.started_at),
        "first_joined_at": min(joins, default=None),
        "finished_at": room.get("finished_at", event.finished_at),
        "metadata": room.get("metadata", to_json_text(event.metadata)),
    }
    return {name: value for name, value in merged.items() if value is not None}


def session_of(item: Item) -> Session:
    """Read a session from its item."""
    attributes = {field.name: item[field.name] for field in fields(Session) if field.name in item}
    return Session(
        **{
            **attributes,
            "participant": Participant(**item["participant"]),
            "livekit": _livekit_room(item["livekit"]),
            "max_duration_seconds": item.get("max_duration_seconds"),
            "media": tuple(item["media"]),
            "failure": ErrorInfo(**item["failure"]) if "failure" in item else None,
            "results": json.loads(item["results"]) if "results" in item else None,
            "extraction": Extraction.model_validate_json(item["extraction"]) if "extraction" in item else None,
        }
    )


def _livekit_room(item: Item) -> LiveKitRoom:
    rooms = sorted(item["other_rooms"].items(), key=lambda room: (room[1].get("started_at", 0), room[0]))
    return LiveKitRoom(
        **{**item, "metadata": from_json_text(item.get("metadata"))}
        | {
            "other_rooms": [
                ReopenedRoom(room_sid=sid, **{**room, "metadata": from_json_text(room.get("metadata"))})
                for sid, room in rooms
            ]
        }
    )

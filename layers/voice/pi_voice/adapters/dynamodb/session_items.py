"""Sessions and tombstones as items of DynamoDB.

Items are read leniently, because a newer or an older version of the code may have written them: unknown attributes are
ignored, and missing ones have defaults.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel

from pi_voice.adapters.dynamodb.attributes import Item, from_json_text, to_json_text
from pi_voice.domain.duties import Duties, Duty
from pi_voice.domain.extractions import ErrorInfo, Extraction
from pi_voice.domain.ids import EventId, SessionId
from pi_voice.domain.sessions import DAY_SECONDS, LiveKitRoom, Participant, Recording, ReopenedRoom, Session, Tombstone
from pi_voice.domain.usage import TokenUsage
from pi_voice.domain.webhook_events import OwedEvent

if TYPE_CHECKING:  # most functions do not need these models
    from pi_voice.domain.livekit_webhooks import RoomEvent

DUE_SHARDS: Final = 16
"""Number of partitions of the index of due sessions."""

DELETED: Final = "deleted"
"""Status of a tombstone."""

_TOMBSTONE_SECONDS: Final = 30 * DAY_SECONDS
"""TTL of a tombstone, longer than the tries of its duties."""

_UNLISTED: Final = {
    *("results", "extraction", "transcript_id", "turns", "request_hash", "recordings"),
    *("variables", "time_zone", "overrides", "usage", "started_at", "owed_events"),
}
Known = TypeVar("Known", bound=BaseModel)

_FIELDS: Final = {field.name for field in fields(Session)}
_COMPOSITE: Final = {"participant", "livekit", "metadata", "client_metadata", "failure", "media", "duties"}
_SCALARS: Final = sorted(_FIELDS - _UNLISTED - _COMPOSITE)
LISTED: Final = sorted((_FIELDS - _UNLISTED - {"participant"}) | {"participant_identity", "participant_name"})
"""Attributes of a session in a list."""


def session_item(session: Session) -> Item:
    """Return the item of a new session; attributes without a value are left out."""
    item = {
        **{name: value for name in _SCALARS if (value := getattr(session, name)) is not None},
        "participant_identity": session.participant.identity,
        "participant_name": session.participant.name,
        "media": list(session.media),
        "livekit": session.livekit.model_dump(exclude_none=True) | {"other_rooms": {}},
        "metadata": session.metadata,
        "client_metadata": session.client_metadata,
        "time_zone": session.time_zone,
        **_present({name: to_json_text(getattr(session, name) or None) for name in ("variables", "overrides")}),
        **_present(duty_attributes(session.session_id, session.duties)),
    }
    if session.failure is not None:
        item["failure"] = session.failure.model_dump()
    if session.owed_events:
        item["owed_events"] = [stored_event(event) for event in session.owed_events]
    return item


def tombstone_item(tombstone: Tombstone, now: int) -> Item:
    """Return the item of a tombstone."""
    return {
        "session_id": tombstone.session_id,
        "status": DELETED,
        "ttl": now + _TOMBSTONE_SECONDS,
        "tokens_end_at": tombstone.tokens_end_at,
        **_present(duty_attributes(tombstone.session_id, tombstone.duties)),
    }


def duty_attributes(session_id: SessionId, duties: Duties) -> Item:
    """Return the attributes of a session's duties. Without duties it is not in the index of due sessions."""
    due_at = duties.due_at
    return {
        "duties": stored_duties(duties),
        "due_at": due_at,
        "due_shard": None if due_at is None else int(session_id[-2:], 16) % DUE_SHARDS,
    }


def stored_duties(duties: Duties) -> Item:
    """Return duties as they are stored."""
    return {name: {"due_at": duty.due_at, "tries": duty.tries} for name, duty in duties.by_name.items()}


def duties_of(item: Item) -> Duties:
    """Read the duties of a session or a tombstone."""
    stored = item.get("duties", {})
    return Duties({name: Duty(int(duty["due_at"]), int(duty.get("tries", 0))) for name, duty in stored.items()})


def unchanged_duties(stored: Item | None) -> tuple[str, Item]:
    """Return the condition that the duties are stored as they were read, with its values; None if there were none."""
    if stored is None:
        return "attribute_exists(session_id) AND attribute_not_exists(#duties)", {}
    return "#duties = :duties_before", {":duties_before": stored}


def stored_event(event: OwedEvent) -> Item:
    """Return an owed event as it is stored."""
    return dict(event._asdict())


def owed_events_of(item: Item) -> tuple[OwedEvent, ...]:
    """Read the events that a session owes, without those that cannot be read: they must not break the session."""
    events = []
    for stored in item.get("owed_events", []):
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            events.append(OwedEvent(EventId(str(stored["event_id"])), str(stored["type"]), int(stored["at"])))
    return tuple(events)


def retained_until(session: Session, retention_seconds: int) -> int:
    """Return the TTL of a session: at least a day after its grace time, so that the sweeper can end it first."""
    return max(session.created_at + retention_seconds, session.abandoned_at + DAY_SECONDS)


def merge_event(room: Item, event: "RoomEvent") -> Item:
    """Merge an event into the attributes of a room: existing values stay, the earliest join counts."""
    joins = [at for at in (room.get("first_joined_at"), event.joined_at) if at is not None]
    merged = {
        "started_at": room.get("started_at", event.started_at),
        "first_joined_at": min(joins, default=None),
        "finished_at": room.get("finished_at", event.finished_at),
        "metadata": room.get("metadata", to_json_text(event.metadata)),
    }
    return _present(merged)


def recordings_text(recordings: Sequence[Recording]) -> str | None:
    """Return recordings as they are stored."""
    return to_json_text([each.model_dump(exclude_none=True) for each in recordings])


def usage_attribute(usage: TokenUsage) -> Item:
    """Return usage as it is stored; numbers that are unknown are left out."""
    known = {name: dict(tokens) for name, tokens in usage.by_modality.items() if tokens}
    return known | _present({"thinking_tokens": usage.thinking_tokens, "reported_at": usage.reported_at})


def row_of(item: Item) -> Session | Tombstone:
    """Read a session or a tombstone from its item."""
    if item["status"] == DELETED:
        return Tombstone(item["session_id"], duties_of(item), item.get("tokens_end_at", 0))
    return session_of(item)


def session_of(item: Item) -> Session:
    """Read a session from its item."""
    attributes = {name: item[name] for name in _FIELDS if name in item}
    return Session(
        **{
            **attributes,
            "participant": Participant.model_construct(
                identity=item["participant_identity"], name=item.get("participant_name", "")
            ),
            "livekit": _livekit_room(item.get("livekit", {}), item["session_id"]),
            "max_duration_seconds": item.get("max_duration_seconds"),
            "media": tuple(item.get("media", ["microphone"])),
            "variables": from_json_text(item.get("variables")) or {},
            "overrides": from_json_text(item.get("overrides")) or {},
            "duties": duties_of(item),
            "failure": _known(ErrorInfo, item["failure"]) if "failure" in item else None,
            "results": json.loads(item["results"]) if "results" in item else None,
            "extraction": (
                Extraction.model_validate_json(item["extraction"], extra="ignore") if "extraction" in item else None
            ),
            "recordings": tuple(_known(Recording, each) for each in from_json_text(item.get("recordings")) or ()),
            "usage": _usage(item["usage"]) if "usage" in item else None,
            "owed_events": owed_events_of(item),
        }
    )


def _livekit_room(item: Item, session_id: SessionId) -> LiveKitRoom:
    rooms = sorted(item.get("other_rooms", {}).items(), key=lambda room: (room[1].get("started_at", 0), room[0]))
    attributes = {"room_name": session_id, **item, "metadata": from_json_text(item.get("metadata"))}
    others = [
        _known(ReopenedRoom, {**room, "room_sid": sid, "metadata": from_json_text(room.get("metadata"))})
        for sid, room in rooms
    ]
    return _known(LiveKitRoom, {**attributes, "other_rooms": others})


def _usage(stored: Item) -> TokenUsage:
    thinking = stored.get("thinking_tokens")
    return TokenUsage(
        input_tokens=_tokens(stored, "input_tokens"),
        output_tokens=_tokens(stored, "output_tokens"),
        tool_use_tokens=_tokens(stored, "tool_use_tokens"),
        cached_tokens=_tokens(stored, "cached_tokens"),
        thinking_tokens=None if thinking is None else int(thinking),
        reported_at=int(stored["reported_at"]),
    )


def _tokens(stored: Item, name: str) -> dict[str, int]:
    return {modality: int(count) for modality, count in stored.get(name, {}).items()}


def _known(model: type[Known], attributes: Mapping[str, Any]) -> Known:
    """Build a nested document from the attributes that this version knows."""
    return model(**{name: attributes[name] for name in model.model_fields if name in attributes})


def _present(attributes: Item) -> Item:
    """Leave out attributes without a value."""
    return {name: value for name, value in attributes.items() if value is not None}

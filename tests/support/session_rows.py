"""Session rows as DynamoDB stores them."""

from typing import Any, Final

INSTANTS: Final = (
    "created_at",
    "expires_at",
    "due_at",
    "completed_at",
    "failed_at",
    "hung_up_at",
    "room_ends_at",
    "started_at",
    "tokens_end_at",
)
_ROOM_INSTANTS: Final = ("started_at", "first_joined_at", "finished_at")


def put_back(row: dict[str, Any], seconds: int) -> None:
    """Move all times of a session or a tombstone into the past, so that time has passed for it."""
    _put_back(row, INSTANTS, seconds)
    _put_back(row.get("livekit", {}).get("M", {}), _ROOM_INSTANTS, seconds)
    for duty in row.get("duties", {}).get("M", {}).values():
        _put_back(duty["M"], ("due_at",), seconds)


def _put_back(values: dict[str, Any], names: tuple[str, ...], seconds: int) -> None:
    for name in names:
        if name in values:
            values[name] = {"N": str(int(values[name]["N"]) - seconds)}

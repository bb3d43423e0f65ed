"""Names of the IANA time zone database."""

from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

DEFAULT: Final = "UTC"


@cache
def _names() -> frozenset[str]:
    """Return all names, from the database in the layer: the names that a system knows depend on the system."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def _require_known(name: str) -> str:
    if name != DEFAULT and name not in _names():
        message = "should be a name of the IANA time zone database, such as Europe/Berlin or UTC"
        raise ValueError(message)
    return name


TimeZone = Annotated[str, AfterValidator(_require_known)]
"""Name of the IANA time zone database."""


def date_in(zone: str, at: int) -> date:
    """Return the date of an instant in a time zone."""
    return datetime.fromtimestamp(at, UTC if zone == DEFAULT else ZoneInfo(zone)).date()

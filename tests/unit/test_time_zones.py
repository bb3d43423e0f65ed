import os
import subprocess
import sys
from datetime import date

import pytest
from pydantic import TypeAdapter, ValidationError

from pi_voice.domain.time_zones import TimeZone, date_in
from tests.support.template import ROOT

NOON: int = 1_800_014_400
"""Friday, 2027-01-15 12:00 UTC."""


@pytest.mark.parametrize(
    "name", ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "GMT", "EST5EDT"]
)
def test_a_name_of_the_iana_database_is_a_time_zone(name: str) -> None:
    assert TypeAdapter(TimeZone).validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "utc", "europe/berlin", "Europe", "Berlin", "UTC+1", "+01:00", "localtime", "posix/UTC", "zone.tab"),
        *("zones", "../tzdata/zones", "/etc/passwd", "Europe/Berlin\n", "Europe/Berlin ", "\x00", "é", "x" * 10_000),
    ],
)
def test_anything_else_is_none(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(TimeZone).validate_python(name)


@pytest.mark.parametrize(
    ("zone", "day"),
    [("UTC", 15), ("Pacific/Apia", 16), ("Pacific/Pago_Pago", 15), ("Pacific/Kiritimati", 16), ("Etc/GMT+12", 15)],
)
def test_the_date_of_an_instant_depends_on_the_zone(zone: str, day: int) -> None:
    assert date_in(zone, NOON) == date(2027, 1, day)


def test_every_name_has_a_time_zone_on_a_system_without_any() -> None:
    code = """
from pi_voice.domain import time_zones
names = time_zones._names()
assert len(names) > 500
for name in names:
    time_zones.date_in(name, 1_800_014_400)
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "layers" / "voice"), "PYTHONTZPATH": ""}

    subprocess.run([sys.executable, "-c", code], check=True, env=environment)

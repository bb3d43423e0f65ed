"""The product on DynamoDB Local, AWS's own engine: the tests of the store and of durability that also run on moto."""

import faulthandler
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from local import template
from local.dynamodb import client, make_tables
from local.real import parts
from local.real.dynamodb_local.server import PART, dynamodb_local

pytestmark = pytest.mark.real

SUITES: Mapping[str, Sequence[object]] = {
    "the store suite": sorted(parts.ROOT.glob("tests/integration/test_store_*.py")),
    "fifty completions at once": ["tests/local/test_race.py"],
    "races": ["-m", "durability", "tests/durability/test_races.py"],
    "the crash matrix": [
        *("-m", "durability", "tests/durability/test_crashes.py"),
        *("-k", "listed or (after and DynamoDB)"),  # where a write took effect, its conditions decide what comes next
    ],
}
SECONDS = 3_600
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same in IPv6, and ::1."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with dynamodb_local() as url:
        yield url


@pytest.mark.parametrize("suite", SUITES)
def test_suites_that_pass_on_moto_pass_on_it(endpoint: str, suite: str) -> None:
    faulthandler.cancel_dump_traceback_later()  # the crash matrix takes minutes; its tests have their own limits
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "loadfile", *map(str, SUITES[suite])],
        cwd=parts.ROOT,
        env={**os.environ, "AWS_ENDPOINT_URL_DYNAMODB": endpoint},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout[-5000:]
    [*_, summary] = ended.stdout.strip().splitlines()
    outcomes = dict(reversed(found) for found in re.findall(r"(\d+) ([a-z]+)", summary))
    assert outcomes.keys() == {"passed"}, summary
    parts.versions[PART] += f", {outcomes['passed']} passed"


def test_it_creates_the_tables_of_the_template(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "local")
    tables = template.load(parts.ROOT / "template.yaml", {"LIVEKIT_URL": "wss://livekit.example"}).tables
    dynamodb = client(endpoint)

    make_tables(dynamodb, tables)

    for table in tables:
        made = dynamodb.describe_table(TableName=table.name)["Table"]
        expiry = dynamodb.describe_time_to_live(TableName=table.name)["TimeToLiveDescription"]
        indexes = {
            (index["IndexName"], str(index["KeySchema"]), str(index["Projection"]))
            for index in made.get("GlobalSecondaryIndexes", [])
        }
        asked: Any = table.definition
        assert made["KeySchema"] == asked["KeySchema"]
        assert indexes == {
            (index["IndexName"], str(index["KeySchema"]), str(index["Projection"]))
            for index in asked.get("GlobalSecondaryIndexes", [])
        }
        assert expiry.get("AttributeName") == table.ttl_attribute


def test_it_listens_on_loopback_only(endpoint: str) -> None:
    addresses = listening_addresses(int(endpoint.rpartition(":")[2]))

    assert addresses
    assert addresses <= LOOPBACK


def listening_addresses(port: int) -> set[str]:
    """Return the addresses on which a TCP port of this machine is open, in the kernel's hex format."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    listening = "0A"
    places = [row[1].split(":") for row in rows if row[3] == listening]
    return {address for address, number in places if int(number, 16) == port}

"""Work: the requests of each function to its services for one event, counted on the wire, and their cost."""

from collections import Counter
from dataclasses import asdict
from typing import Any, Final

from bench.prices import (
    ACCESS_LOG_BYTES,
    GB,
    HTTP_API_REQUEST,
    LAMBDA_GB_SECOND,
    LAMBDA_REQUEST,
    LOG_GB,
    PLATFORM_LOG_BYTES,
    READ_UNIT,
    WRITE_UNIT,
)
from bench.report import Target, table
from bench.wire import DYNAMODB
from bench.world import World

Json = Any

CALL: Final = (
    # function, number per call, memory in GB, billed seconds
    ("CreateSession", 1, 1.0, 0.15),
    ("SaveTranscript", 4, 0.5, 0.03),
    ("ReceiveLivekitWebhook", 8, 0.5, 0.02),
    ("CompleteSession", 1, 1.0, 2.5),
    ("GetSession", 1, 0.5, 0.03),
)
"""One call of a few minutes: LiveKit reports two joins, tracks, leaves and the room; turns are saved four times.

The seconds are those of warm requests, rounded up; nearly all of complete is the model's time.
"""


def measure(world: World) -> Json:
    """Return the counts of the recording, with each function in a new container."""
    return {
        name: {"logged": recorded.logged, "exchanges": [asdict(exchange) for exchange in recorded.exchanges]}
        for name, recorded in world.recorded.items()
    }


def tables(counted: Json) -> dict[str, str]:
    """Return the tables of the requests of functions and of the cost of a thousand calls."""
    rows = []
    for name, function in counted.items():
        exchanges = function["exchanges"]
        rows.append(
            [
                name,
                _names([each["operation"] for each in exchanges if each["service"] == DYNAMODB]),
                _figure(_reads(function)),
                _figure(_writes(function)),
                f"{sum(each['bytes_out'] for each in exchanges):,}",
                f"{sum(each['bytes_in'] for each in exchanges):,}",
                _names([each["operation"] for each in exchanges if each["service"] != DYNAMODB]),
            ]
        )
    head = ["function", "DynamoDB", "read units", "write units", "bytes sent", "bytes read", "LiveKit, Gemini and SQS"]
    return {"work": table(head, rows), "cost": _costs(counted)}


LIMITS: Final = {
    "CreateSession": {"GetItem": 2, "UpdateItem": 1, "PutItem": 1},
    "GetSession": {"GetItem": 2, "Query": 1},
    "CompleteSession": {"GetItem": 3, "PutItem": 1, "UpdateItem": 3},
}
"""The requests to DynamoDB that a route may make in a new container; get has a transcript here."""


def targets(counted: Json) -> list[Target]:
    """Return the targets: no more and no fewer requests; tests/functions/test_calls.py asserts each by name."""
    found = []
    for name, allowed in LIMITS.items():
        made = Counter(each["operation"] for each in counted[name]["exchanges"] if each["service"] == DYNAMODB)
        wanted = ", ".join(f"{times} {operation}" for operation, times in allowed.items())
        others = (made - Counter(allowed)) + (Counter(allowed) - made)
        found.append(Target(f"{name}: DynamoDB requests other than {wanted}", 0, float(others.total())))
    return found


def _reads(function: Json) -> float:
    return float(sum(each["units"]["reads"] for each in function["exchanges"]))


def _writes(function: Json) -> float:
    return float(sum(each["units"]["writes"] for each in function["exchanges"]))


def _names(operations: list[str]) -> str:
    return ", ".join(f"{times} {name}" if times > 1 else name for name, times in Counter(operations).items())


def _figure(units: float) -> str:
    return f"{units:g}" if units else ""


def _costs(counted: Json) -> str:
    """Return dollars per thousand calls, with a row per kind of request and a column per billed item."""
    rows, sums = [], [0.0] * 5
    for name, times, gigabytes, seconds in CALL:
        function = counted[name]
        logged = function["logged"] + PLATFORM_LOG_BYTES + ACCESS_LOG_BYTES
        dollars = [
            1_000 * times * each
            for each in (
                HTTP_API_REQUEST,
                LAMBDA_REQUEST + gigabytes * seconds * LAMBDA_GB_SECOND,
                _reads(function) * READ_UNIT + _writes(function) * WRITE_UNIT,
                logged / GB * LOG_GB,
            )
        ]
        dollars.append(sum(dollars))
        sums = [before + more for before, more in zip(sums, dollars, strict=True)]
        rows.append([f"{times} {name}", *(f"{each:.4f}" for each in dollars)])
    rows.append(["**a thousand calls**", *(f"**{each:.4f}**" for each in sums)])
    return table(["per 1,000 calls, in dollars", "HTTP API", "Lambda", "DynamoDB", "logs", "sum"], rows)

"""Work: the requests of each function to its services for one event, counted on the wire, and their cost."""

from collections import Counter
from dataclasses import asdict
from typing import Any, Final

from bench.prices import (
    ACCESS_LOG_BYTES,
    GB,
    HTTP_API_REQUEST,
    IDLE_POLLS_PER_MINUTE,
    LAMBDA_GB_SECOND,
    LAMBDA_REQUEST,
    LOG_GB,
    MINUTES_PER_MONTH,
    PLATFORM_LOG_BYTES,
    READ_UNIT,
    SQS_FIFO_REQUEST,
    SQS_REQUEST,
    WRITE_UNIT,
)
from bench.report import Target, table
from bench.tools import SERVER_TOOL
from bench.webhooks import DELIVER, DELIVER_ALL, DISPATCH
from bench.wire import DYNAMODB, SQS
from bench.world import ROOM_FINISHED, World

Json = Any

CALL: Final = (
    # function, number per call, memory in GB, billed seconds
    ("CreateSession", 1, 1.0, 0.15),
    ("SaveTranscript", 4, 0.5, 0.03),
    ("ReceiveLivekitWebhook", 1, 0.5, 0.05),
    (ROOM_FINISHED, 7, 0.5, 0.02),
    ("CompleteSession", 1, 1.0, 2.5),
    ("GetSession", 1, 0.5, 0.03),
)
"""One call of a few minutes: LiveKit reports two joins, tracks, leaves and the room; turns are saved four times.

The seconds are those of warm requests, rounded up; nearly all of complete is the model's time.
"""

DISPATCHES: Final = {endpoints: (name, 0.5, 0.09) for endpoints, name in DISPATCH.items()}
DELIVERIES: Final = ((DELIVER, 1.0, 0.18), (DELIVER_ALL, 1.0, 0.18))
"""The functions of outgoing webhooks as above, without the number; 0.1 s of a delivery is the receiver's."""

SERVER_TOOL_CALL: Final = (SERVER_TOOL, 1.0, 0.16)
"""The call of a server tool as above; 0.1 s of it is the endpoint's."""

SCHEDULES: Final = (("SweepSessions", 1.0, 0.15), ("SweepDeliveries", 0.5, 0.15))
"""The schedules as above; each runs every minute. The seconds are an estimate: 16 queries, one after the other."""

POLLED: Final = (("ExtractionQueue", SQS_REQUEST), ("EventQueue", SQS_REQUEST), ("DeliveryQueue", SQS_FIFO_REQUEST))
"""The queues that Lambda polls, with the price of a request."""

FOR_EVENTS: Final = ("SweepDeliveries", "EventQueue", "DeliveryQueue")
"""Those of both that only outgoing webhooks need."""

EVENTS_A_MONTH: Final = 100_000
"""The number of events that share the cost of these."""


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
    head = ["function", "DynamoDB", "read units", "write units", "bytes sent", "bytes read", "other services"]
    return {
        "work": table(head, rows),
        "cost": _costs(counted),
        "tool_cost": _tool_costs(counted),
        "event_cost": _event_costs(counted),
        "idle_cost": _idle_costs(counted),
        "events_a_month": f"{EVENTS_A_MONTH:,}",
    }


LIMITS: Final = {
    "CreateSession": {"GetItem": 2, "UpdateItem": 1, "PutItem": 1},
    "GetSession": {"GetItem": 2, "Query": 1},
    "CompleteSession": {"GetItem": 3, "PutItem": 1, "UpdateItem": 3, "SendMessage": 2},
    "DispatchEvents": {"GetItem": 1, "Query": 1, "PutItem": 1, "SendMessage": 1, "UpdateItem": 1},
    "DeliverEvent": {"GetItem": 3, "UpdateItem": 2},
    SERVER_TOOL: {"GetItem": 4, "TransactWriteItems": 2, "PutItem": 1},
}
"""The requests to DynamoDB and SQS that a function may make in a new container.

Get has a transcript here, the event of the dispatch has one endpoint, and the delivery succeeds at once.
"""


def targets(counted: Json) -> list[Target]:
    """Return the targets: no more and no fewer requests; tests/functions/test_calls.py asserts each by name."""
    found = []
    for name, allowed in LIMITS.items():
        made = Counter(each["operation"] for each in counted[name]["exchanges"] if each["service"] in (DYNAMODB, SQS))
        wanted = ", ".join(f"{times} {operation}" for operation, times in allowed.items())
        others = (made - Counter(allowed)) + (Counter(allowed) - made)
        found.append(Target(f"{name}: requests to DynamoDB and SQS other than {wanted}", 0, float(others.total())))
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
        dollars = [times * each for each in _route_costs(counted[name], gigabytes, seconds)]
        sums = [before + more for before, more in zip(sums, dollars, strict=True)]
        rows.append([f"{times} {name}", *(f"{each:.4f}" for each in dollars)])
    rows.append(["**a thousand calls**", *(f"**{each:.4f}**" for each in sums)])
    return table(["per 1,000 calls, in dollars", *_SHARES], rows)


_SHARES: Final = ("HTTP API", "Lambda", "DynamoDB", "logs", "sum")


def _route_costs(function: Json, gigabytes: float, seconds: float) -> list[float]:
    """Return the dollars of a thousand requests of a route: a figure for each of `_SHARES`."""
    shares = HTTP_API_REQUEST, *_invocation(function, gigabytes, seconds, ACCESS_LOG_BYTES)
    return [1_000 * each for each in (*shares, sum(shares))]


def _tool_costs(counted: Json) -> str:
    """Return dollars per thousand calls of a server tool."""
    name, gigabytes, seconds = SERVER_TOOL_CALL
    row = [f"1 {name}", *(f"{each:.4f}" for each in _route_costs(counted[name], gigabytes, seconds))]
    return table(["per 1,000 tool calls, in dollars", *_SHARES], [row])


def _invocation(function: Json, gigabytes: float, seconds: float, more_bytes: int = 0) -> tuple[float, float, float]:
    """Return the dollars of one invocation: of Lambda, of DynamoDB, and of its logs with further bytes."""
    return (
        LAMBDA_REQUEST + gigabytes * seconds * LAMBDA_GB_SECOND,
        _reads(function) * READ_UNIT + _writes(function) * WRITE_UNIT,
        (function["logged"] + PLATFORM_LOG_BYTES + more_bytes) / GB * LOG_GB,
    )


def _event_costs(counted: Json) -> str:
    """Return dollars per thousand events: of each function's invocation with its message, and of whole events."""
    costs: dict[str, list[float]] = {}
    rows = []
    for (name, gigabytes, seconds), price in (
        *((each, SQS_REQUEST) for each in DISPATCHES.values()),
        *((each, SQS_FIFO_REQUEST) for each in DELIVERIES),
    ):
        # A message is sent, received and deleted. A delivery's is sent by DispatchEvents, and counts with the delivery.
        dollars = [3 * price, *_invocation(counted[name], gigabytes, seconds)]
        costs[name] = [1_000 * each for each in dollars]
        rows.append([f"1 {name}", f"{gigabytes * 1024:.0f} MB, {seconds:g} s", "3", *_dollars(costs[name])])
    for endpoints, (dispatch, _, _) in DISPATCHES.items():
        both = zip(costs[dispatch], costs[DELIVER], strict=True)
        whole = _dollars([of_dispatch + endpoints * of_delivery for of_dispatch, of_delivery in both])
        of = {0: "without an endpoint", 1: "to 1 endpoint"}.get(endpoints, f"to {endpoints} endpoints")
        rows.append([f"**a thousand events {of}**", "", f"{3 + 3 * endpoints}", *(f"**{each}**" for each in whole)])
    head = ["per 1,000 events, in dollars", "Lambda's size", "SQS requests of one", "SQS", "Lambda", "DynamoDB", "logs"]
    return table([*head, "sum"], rows)


def _dollars(parts: list[float]) -> list[str]:
    return [f"{each:.4f}" for each in (*parts, sum(parts))]


def _idle_costs(counted: Json) -> str:
    """Return dollars a month of what runs without any call, and the share of outgoing webhooks in a thousand events."""
    rows, months, shares = [], 0.0, 0.0
    lines = [
        *((name, "runs", 1.0, sum(_invocation(counted[name], memory, seconds))) for name, memory, seconds in SCHEDULES),
        *((queue, "polls", IDLE_POLLS_PER_MINUTE, IDLE_POLLS_PER_MINUTE * price) for queue, price in POLLED),
    ]
    for name, what, times, dollars in lines:
        month = MINUTES_PER_MONTH * dollars
        share = 1_000 * month / EVENTS_A_MONTH if name in FOR_EVENTS else 0.0
        months, shares = months + month, shares + share
        number = f"{times * MINUTES_PER_MONTH:,.0f} {what}"
        rows.append([name, number, f"{month:.3f}", f"{share:.4f}" if share else ""])
    rows.append(["**sum**", "", f"**{months:.3f}**", f"**{shares:.4f}**"])
    return table(["without any call", "a month", "dollars a month", "of 1,000 events"], rows)

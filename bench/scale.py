"""Scale: the load of 10, 10^3 and 10^5 calls started per second, beside AWS's limits, by arithmetic.

    .venv/bin/python -m bench.scale

Replace the numbers below with yours. The limits are AWS's defaults, checked on 2026-11-27, that of SQS on 2026-11-30,
against stored copies of the pages named beside them, not against the live pages. SSM's limit was not found.
docs/scale.md explains each limit.
"""

import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.prices import (
    GB,
    HTTP_API_REQUEST,
    LAMBDA_GB_SECOND,
    LAMBDA_REQUEST,
    LOG_GB,
    READ_UNIT,
    SQS_FIFO_REQUEST,
    SQS_REQUEST,
    WRITE_UNIT,
)
from bench.report import table

ROOT: Final = Path(__file__).parent.parent
RATES: Final = (10, 1_000, 100_000)
"""Calls started per second."""

CALL_SECONDS: Final = 180
SHARDS: Final = 16

# ---- The cost of one request, from docs/performance.md (work, and warm at 30/120/5 ms) ----


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: its number per call, the seconds that a container is busy, and its DynamoDB units."""

    name: str
    per_call: float
    seconds: float
    gigabytes: float
    reads: float
    writes: float
    index_writes: float
    """The part of the writes that goes to the index by workspace."""


KINDS: Final = (
    Kind("create", 1, 0.15, 1.0, 2, 4, 1),
    Kind("transcript", 4, 0.03, 0.5, 2, 4, 0),
    Kind("webhook", 8, 0.02, 0.5, 0, 1, 0),
    Kind("complete", 1, 2.5, 1.0, 3, 10, 1),
    Kind("get", 1, 0.03, 0.5, 3, 0, 0),
)

EVENTS: Final = 3
"""Events of a call: started, completed, and results extracted. Here each is delivered to one endpoint."""

DISPATCH: Final = Kind("dispatch", EVENTS, 0.09, 0.5, 2, 5, 0)
DELIVER: Final = Kind("deliver", EVENTS, 0.18, 1.0, 3, 5, 0)
"""What follows from an event. 0.1 s of a delivery is the endpoint's."""

ALL_KINDS: Final = (*KINDS, DISPATCH, DELIVER)

MESSAGE_REQUESTS: Final = 3
"""Requests to SQS for each message: it is sent, received and deleted."""

COLD_CREATE: Final = 1.0
"""Seconds that a new container is busy with its first create request."""

TRANSCRIPT_WRITES: Final = 4 * 2 + 1
"""The part of a call's writes that goes to the transcripts table."""

COUNTER_WRITES: Final = 2
"""The part of a call's writes that counts it for the rate limits of its workspace."""

DUE_WRITES: Final = 1 + 2 + 2 * 2 + 3 * 2 + 1
"""The part of a call's writes that goes to the index by due time.

It is put, moved by the start, by both writes of complete and by the dispatch of each event, and removed.
"""

DELIVERY_WRITES: Final = EVENTS * 3
"""The part of a call's writes that goes to the table of deliveries: put, begun, and ended."""

DELIVERY_DUE_WRITES: Final = EVENTS * 4
"""The part of a call's writes that goes to its index by due time: put, moved, and removed."""

LOG_BYTES: Final = 1_250
"""Log bytes per request: our line, Lambda's three, and the access log's."""

EVENT_LOG_BYTES: Final = 850
"""Log bytes of a dispatch or a delivery: our line, and Lambda's three."""

# ---- Limits: AWS's defaults for a region ----

# "Understanding DynamoDB warm throughput in different scenarios",
# docs.aws.amazon.com/amazondynamodb/latest/developerguide/warm-throughput-scenarios.html
PARTITION_WRITES: Final = 1_000
PARTITION_READS: Final = 3_000

# "Quotas in Amazon DynamoDB", docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
TABLE_UNITS: Final = 40_000
"""On-demand throughput per table, and per index, reads and writes each, until a higher quota is granted."""

# "DynamoDB on-demand capacity mode",
# docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
NEW_TABLE_WRITES: Final = 4_000
"""Throughput of a new on-demand table. Later it is twice the highest load so far, and more within half an hour."""

# "Amazon API Gateway quotas", docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
API_REQUESTS: Final = 10_000
"""For all APIs of an account in a region; 2,500 in some younger regions, which the page names."""

# "Lambda quotas", docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LAMBDA_CONCURRENCY: Final = 1_000
"""For all functions of an account in a region. A new account has less; AWS raises it with use."""

# "Understanding Lambda function scaling", docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html, as
# quoted in two public files.
LAMBDA_REQUESTS: Final = 10 * LAMBDA_CONCURRENCY
"""Requests per second to all functions. Requests under 100 ms reach this limit before the one of containers."""

# "Lambda scaling behavior", docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html
LAMBDA_SCALING: Final = 1_000
"""Containers that Lambda may add to one function in ten seconds."""

LAMBDA_REQUEST_SCALING: Final = 10_000
"""Requests per second that Lambda may add to one function in ten seconds."""

# "Amazon SQS message quotas",
# docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
FIFO_REQUESTS: Final = 70_000
"""Requests per second of one kind to a FIFO queue with high throughput; less in other regions, which the page names."""

DISPATCHES_AT_ONCE: Final = 50
DELIVERIES_AT_ONCE: Final = 50
"""`MaximumConcurrency` of both queues' functions in the template."""

# "Changing Parameter Store throughput",
# docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-throughput.html, has no figure. So this one is
# not checked against AWS's pages, nor against pages of 2025. It is from an article of dev.classmethod.jp of September
# 2022 and from advancedweb.hu/how-to-cache-ssm-getparameter-calls-in-a-lambda-function/, which has no date.
SSM_READS: Final = 40
"""Parameters per second from SSM for an account in a region, without higher throughput, which costs extra."""

SWEEP_SECONDS: Final = 45
SWEEP_PER_SECOND: Final = 100
"""Sessions that one sweep processes per second: about four round trips each, and 2.5 ms of CPU per round trip."""

# From an older page of LiveKit; its current plans may differ.
LIVEKIT_CLOUD_PER_MINUTE: Final = 1_000
"""Requests to the server API per minute and project of LiveKit Cloud. A server of your own has no such limit."""

LIVEKIT_REQUESTS: Final = 3
"""Server API requests of one call: create the room, close it, and close it once more when its tokens have expired."""

GEMINI_PER_MINUTE: Final = 1_000
"""An example: each project has its own quotas, which AI Studio shows."""


SWEPT_PER_SECOND: Final = SWEEP_PER_SECOND * SWEEP_SECONDS / 60


@dataclass(frozen=True, slots=True)
class Demand:
    """The load of one call per second on one limit."""

    what: str
    per_call: float
    limit: float
    setting: str

    def used(self, rate: int) -> float:
        """Return the used share of the limit."""
        return rate * self.per_call / self.limit

    @property
    def limit_reached_at(self) -> float:
        """Return the calls per second at which the limit is reached."""
        return self.limit / self.per_call


def demands() -> list[Demand]:
    """Return each limit with the load of a call on it."""
    requests = sum(kind.per_call for kind in KINDS)
    busy = sum(kind.per_call * kind.seconds for kind in ALL_KINDS)
    invocations = sum(kind.per_call for kind in ALL_KINDS)
    longest = max(kind.seconds for kind in KINDS)
    webhooks = max(kind.per_call for kind in KINDS)  # the most frequent kind
    by_workspace = sum(kind.per_call * kind.index_writes for kind in KINDS)
    sessions = (
        sum(kind.per_call * kind.writes for kind in ALL_KINDS)
        - DELIVERY_WRITES
        - DELIVERY_DUE_WRITES
        - TRANSCRIPT_WRITES
        - COUNTER_WRITES
        - by_workspace
        - DUE_WRITES
    )
    return [
        Demand("requests to the HTTP API", requests, API_REQUESTS, "quota, `ThrottleRate`, `ThrottleBurst`"),
        Demand("containers of all functions at once", busy, LAMBDA_CONCURRENCY, "quota of concurrent executions"),
        Demand("requests to all functions", invocations, LAMBDA_REQUESTS, "quota of concurrent executions, ten times"),
        Demand(
            "secrets that create-session reads from SSM, from none",
            COLD_CREATE,
            SSM_READS,
            "`SecretsStore`, throughput",
        ),
        Demand(
            "new containers of create-session in 10 s, from none",
            COLD_CREATE,
            LAMBDA_SCALING,
            "provisioned concurrency",
        ),
        Demand(
            "new containers of complete-session in 10 s, from none",
            longest,
            LAMBDA_SCALING,
            "`BUDGET_SECONDS`, the queue",
        ),
        Demand("new webhooks per second in 10 s, from none", webhooks, LAMBDA_REQUEST_SCALING, "LiveKit sends again"),
        Demand("write units of the sessions table when it is new", sessions, NEW_TABLE_WRITES, "its warm throughput"),
        Demand("write units of the sessions table", sessions, TABLE_UNITS, "quota of the table"),
        Demand(
            "write units of one workspace in its index", by_workspace, PARTITION_WRITES, "shards in the index's key"
        ),
        Demand("write units of one due shard", DUE_WRITES / SHARDS, PARTITION_WRITES, "`DUE_SHARDS`"),
        Demand("deliveries to one endpoint at once", EVENTS * DELIVER.seconds, 1, "several endpoints, a faster one"),
        Demand(
            "deliveries to all endpoints at once",
            EVENTS * DELIVER.seconds,
            DELIVERIES_AT_ONCE,
            "`MaximumConcurrency` of `DeliveryMessages`",
        ),
        Demand(
            "dispatches of events at once",
            EVENTS * DISPATCH.seconds,
            DISPATCHES_AT_ONCE,
            "`MaximumConcurrency` of `EventMessages`",
        ),
        Demand("messages of deliveries", EVENTS, FIFO_REQUESTS, "SQS's quota; several queues"),
        Demand(
            "write units of the index of due deliveries when it is new",
            DELIVERY_DUE_WRITES,
            NEW_TABLE_WRITES,
            "its warm throughput",
        ),
        Demand("write units of one shard of it", DELIVERY_DUE_WRITES / SHARDS, PARTITION_WRITES, "`DUE_SHARDS`"),
        Demand("read units of one agent", 2, PARTITION_READS, "a cache of agents in each container"),
        Demand(
            "read units of one API key",
            sum(kind.per_call * kind.seconds for kind in KINDS) / 60,
            PARTITION_READS,
            "several keys",
        ),
        Demand(
            "requests to LiveKit Cloud's server API a minute",
            60 * LIVEKIT_REQUESTS,
            LIVEKIT_CLOUD_PER_MINUTE,
            "LiveKit's plan, or your own server",
        ),
        Demand("Live tokens a minute (example)", 60, GEMINI_PER_MINUTE, "Google's quota"),
        Demand("extractions a minute (example)", 60, GEMINI_PER_MINUTE, "Google's quota; the queue waits longer"),
        Demand("abandoned calls (1 in 100)", 0.01, SWEPT_PER_SECOND, "a sweeper per shard"),
    ]


def dollars_per_call() -> float:
    """Return AWS's price of one call in dollars, without LiveKit and Gemini."""
    http = sum(kind.per_call * (HTTP_API_REQUEST + _work_of(kind) + LOG_BYTES / GB * LOG_GB) for kind in KINDS)
    return http + dollars_of_events()


def dollars_of_events() -> float:
    """Return the part of a call's price for its events and their deliveries."""
    messages = EVENTS * MESSAGE_REQUESTS * (SQS_REQUEST + SQS_FIFO_REQUEST)
    functions = (DISPATCH, DELIVER)
    return messages + sum(kind.per_call * (_work_of(kind) + EVENT_LOG_BYTES / GB * LOG_GB) for kind in functions)


def _work_of(kind: Kind) -> float:
    """Return the price of one invocation and of its requests to DynamoDB."""
    return (
        LAMBDA_REQUEST
        + kind.seconds * kind.gigabytes * LAMBDA_GB_SECOND
        + kind.reads * READ_UNIT
        + kind.writes * WRITE_UNIT
    )


def hottest_shard(sessions: int) -> float:
    """Return the fullest due shard's size relative to its share, by sampling that number of random ids."""
    dice = random.Random(1)  # noqa: S311 (no secret)
    counts = Counter(dice.getrandbits(8) % SHARDS for _ in range(sessions))
    return max(counts.values()) / (sessions / SHARDS)


def tables() -> dict[str, str]:
    """Return the tables of docs/scale.md."""
    limits = [
        [
            demand.what,
            f"{demand.limit:,.0f}",
            *(_share(demand.used(rate)) for rate in RATES),
            _rounded(demand.limit_reached_at),
            demand.setting,
        ]
        for demand in demands()
    ]
    busy = sum(kind.per_call * kind.seconds for kind in ALL_KINDS)
    at_once = [
        ["calls in progress", *(f"{rate * CALL_SECONDS:,}" for rate in RATES)],
        ["requests per second", *(f"{rate * sum(kind.per_call for kind in KINDS):,.0f}" for rate in RATES)],
        ["events delivered per second", *(f"{rate * EVENTS:,}" for rate in RATES)],
        ["containers at once", *(f"{rate * busy:,.0f}" for rate in RATES)],
        ["of these in complete-session", *(f"{rate * 2.5:,.0f}" for rate in RATES)],
        ["rows of sessions after a year", *(f"{rate * 31_536_000:,}" for rate in RATES)],
        ["fullest due shard, of its share", *(f"{hottest_shard(rate * 10):.2f}" for rate in RATES)],
        ["dollars per hour, AWS alone", *(f"{dollars_per_call() * rate * 3_600:,.2f}" for rate in RATES)],
    ]
    return {
        "limits": table(
            ["limit", "default", *(f"at {rate:,}/s" for rate in RATES), "limit reached at, calls/s", "setting"], limits
        ),
        "at_once": table(["", *(f"{rate:,}/s" for rate in RATES)], at_once),
        "per_call": f"{dollars_per_call() * 1_000:.3f}",
        "events_per_call": f"{dollars_of_events() * 1_000:.3f}",
    }


def _share(used: float) -> str:
    return f"{used:.0%}" if used <= 1 else f"**{used:,.1f} times**"


def _rounded(rate: float) -> str:
    """Return two significant digits: the estimate is not more precise."""
    digits = 1 - math.floor(math.log10(rate))
    return f"{round(rate, digits):,.0f}"


def main() -> None:
    """Write docs/scale.md."""
    text = (ROOT / "bench/pages/scale.md").read_text(encoding="utf-8")
    for name, value in tables().items():
        text = text.replace(f"{{{{ {name} }}}}", value)
    (ROOT / "docs/scale.md").write_text(text, encoding="utf-8")
    print("Written to docs/scale.md.")


if __name__ == "__main__":
    main()

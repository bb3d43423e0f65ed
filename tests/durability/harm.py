"""Random faults on all paths to the services."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.durability import faulty_path
from tests.durability.faulty_path import Exchange, FaultyPaths, Reply

FAILING: Final = 0.02
SURELY_FAILING: Final = 50


@dataclass
class Harm:
    """Two in a hundred requests fail, each in one way; writes of results are recorded."""

    paths: FaultyPaths
    chance: random.Random
    rate: float = FAILING
    seen: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    results_kept: Counter[str] = field(default_factory=Counter)
    """The number of writes of results into each session's row."""

    WAYS = (
        faulty_path.refuse,
        faulty_path.refuse,
        faulty_path.reset_half_way,
        faulty_path.reset_half_way,
        faulty_path.truncated,
        faulty_path.failing(500),
        faulty_path.failing(503),
    )

    @contextmanager
    def done_to(self) -> Iterator[None]:
        paths = self.paths
        with (
            paths.faulty(lambda name: name == "DynamoDB UpdateItem sessions", self._watch),
            paths.faulty(lambda _: True, self._perhaps),
        ):
            yield

    async def _watch(self, exchange: Exchange) -> Reply:
        reply = await exchange.forward(exchange.body)
        order = json.loads(exchange.body)
        if reply.status == 200 and ":results" in order["ExpressionAttributeValues"]:
            self.results_kept[order["Key"]["session_id"]["S"]] += 1
        return reply

    async def _perhaps(self, exchange: Exchange) -> Reply | None:
        service = exchange.name.partition(" ")[0]
        self.seen[service] += 1
        # At least one fault per service: a random draw could leave one out.
        if self.seen[service] != SURELY_FAILING and self.chance.random() >= self.rate:
            return await exchange.forward(exchange.body)
        self.done[service] += 1
        return await self.chance.choice(self.WAYS)(exchange)

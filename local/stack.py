"""The stack: everything that serves the template on this machine, started in order and ended together."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local import first_key
from local.dynamodb import client, dynamodb_stand_in, make_tables
from local.gateway import function_url, http_api
from local.http_server import address, listen, serving
from local.invoke_api import invoke_api
from local.reference import reference
from local.services import Gemini, LiveKit, Services, function_variables, machine_variables
from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.livekit import livekit_stand_in
from local.template import Template, load
from local.workers import Workers

TEMPLATE: Final = Path(__file__).parent.parent / "template.yaml"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the functions of the template find around them, whoever runs them, and a key that opens their API."""

    services: Services
    livekit: LiveKit
    gemini: Gemini
    dynamodb_url: str
    template: Template
    machine: Mapping[str, str]
    api_key: str


@dataclass(frozen=True, slots=True)
class Stack:
    """What is running, and what opens it."""

    around: Surroundings
    base_url: str
    webhook_url: str
    invoke_url: str


@asynccontextmanager
async def running_services(webhooks_go_to: str, environment: Mapping[str, str]) -> AsyncIterator[Surroundings]:
    """Run all that the functions need but the functions: stand-ins for what is not real, the tables, a first API key.

    Raises CannotStart.
    """
    services, live_times = Services.chosen_by(environment), LiveTimes.of(environment)
    async with AsyncExitStack() as running:
        enter = running.enter_async_context
        dynamodb_url = await enter(dynamodb_stand_in()) if services.dynamodb_url is None else services.dynamodb_url
        gemini = await enter(gemini_stand_in(live_times)) if services.gemini is None else services.gemini
        livekit = (
            await enter(livekit_stand_in(webhooks_go_to, services.webhook_keys))
            if services.livekit is None
            else services.livekit
        )

        template = load(TEMPLATE, function_variables(services, livekit, gemini, dynamodb_url))
        machine = machine_variables(environment, dynamodb_url)
        os.environ.clear()  # no profile or setting of the user's shall lead our own client elsewhere
        os.environ.update(machine)
        dynamodb = client(dynamodb_url)
        await asyncio.to_thread(make_tables, dynamodb, template.tables)
        api_key = await first_key.issue(template, dynamodb, services.api_key)
        yield Surroundings(services, livekit, gemini, dynamodb_url, template, machine, api_key)


@asynccontextmanager
async def running_stack(port: int, environment: Mapping[str, str]) -> AsyncIterator[Stack]:
    """Serve the template: the API on a port (0: any free one), and the webhook's own URL on the next.

    Raises CannotStart.
    """
    async with AsyncExitStack() as running:
        api_listener = running.enter_context(listen(port))
        url_listener = running.enter_context(listen(port + 1 if port else 0))
        enter = running.enter_async_context
        around = await enter(running_services(address(url_listener), environment))
        functions = around.template.functions
        workers = Workers(functions, around.machine)
        running.push_async_callback(workers.stop)
        [webhook] = [function for function in functions if function.has_url]
        yield Stack(
            around=around,
            base_url=await enter(serving(http_api(functions, workers, pages=reference()), api_listener)),
            webhook_url=await enter(serving(function_url(webhook, workers), url_listener)),
            invoke_url=await enter(serving(invoke_api(functions, workers))),
        )

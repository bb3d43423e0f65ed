"""The local stack: start everything that serves the template on this machine, in order, and stop it together."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from local import dynamodb, first_key, sqs
from local.aws import aws_stand_in
from local.gateway import function_url, http_api
from local.http_server import address, listen, serving
from local.invoke_api import invoke_api
from local.poller import Poller
from local.reference import reference
from local.scheduler import Scheduler, seconds_between
from local.services import Gemini, LiveKit, Services, function_variables, machine_variables
from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.gemini_answers import Answers
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_faults import live_faults
from local.stand_ins.livekit import livekit_stand_in
from local.template import Template, load
from local.workers import Workers

TEMPLATE: Final = Path(__file__).parent.parent / "template.yaml"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The services, the template and the environment of the functions, and an API key."""

    services: Services
    livekit: LiveKit
    gemini: Gemini
    dynamodb_url: str
    sqs_url: str
    queue_urls: Mapping[str, str]
    template: Template
    machine: Mapping[str, str]
    api_key: str


@dataclass(frozen=True, slots=True)
class Stack:
    """The running stack's URLs and schedulers."""

    around: Surroundings
    base_url: str
    webhook_url: str
    invoke_url: str
    schedulers: tuple[Scheduler, ...]


@asynccontextmanager
async def running_services(webhook_url: str, environment: Mapping[str, str]) -> AsyncIterator[Surroundings]:
    """Start the services that the functions need, without the functions.

    These are the stand-ins, the tables and queues, and a first API key. Raises CannotStart.
    """
    services, live_times = Services.chosen_by(environment), LiveTimes.of(environment)
    answers, faults = Answers.of(environment), live_faults(environment)
    async with AsyncExitStack() as running:
        enter = running.enter_async_context
        aws_url = "" if services.dynamodb_url and services.sqs_url else await enter(aws_stand_in())
        dynamodb_url, sqs_url = services.dynamodb_url or aws_url, services.sqs_url or aws_url
        gemini = (
            await enter(gemini_stand_in(live_times, answers, faults)) if services.gemini is None else services.gemini
        )
        livekit = (
            await enter(livekit_stand_in(webhook_url, services.webhook_keys))
            if services.livekit is None
            else services.livekit
        )

        variables = function_variables(services, livekit, gemini, dynamodb_url, sqs_url)
        template = load(TEMPLATE, variables, services.parameters)
        machine = machine_variables(environment, dynamodb_url, sqs_url)
        os.environ.clear()  # so that no AWS profile or setting redirects this process's clients
        os.environ.update(machine)
        await asyncio.to_thread(dynamodb.make_tables, dynamodb.client(dynamodb_url), template.tables)
        queue_urls = await asyncio.to_thread(sqs.make_queues, sqs.client(sqs_url), template.queues)
        template = load(TEMPLATE, variables, services.parameters, queue_urls)
        api_key = await first_key.issue(template, services.api_key)
        yield Surroundings(services, livekit, gemini, dynamodb_url, sqs_url, queue_urls, template, machine, api_key)


@asynccontextmanager
async def running_stack(port: int, environment: Mapping[str, str]) -> AsyncIterator[Stack]:
    """Serve the template: the API on a port (0: any free one), and the webhook's function URL on the next.

    Raises CannotStart.
    """
    seconds = seconds_between(environment)
    async with AsyncExitStack() as running:
        api_listener = running.enter_context(listen(port))
        url_listener = running.enter_context(listen(port + 1 if port else 0))
        enter = running.enter_async_context
        around = await enter(running_services(address(url_listener), environment))
        functions = around.template.functions
        workers = Workers(functions, around.machine)
        running.push_async_callback(workers.stop)
        [webhook] = [function for function in functions if function.has_url]
        queues = sqs.client(around.sqs_url)
        pollers = [
            Poller(queues, around.queue_urls[events.queue], events, function.logical_id, workers.invoke)
            for function in functions
            for events in function.queues
        ]
        schedulers = [
            Scheduler(schedule, seconds or schedule.minutes * 60, function.logical_id, workers.invoke)
            for function in functions
            for schedule in function.schedules
        ]
        cors = around.template.cors
        if cors and around.services.allows_loopback:
            cors = replace(cors, allows_loopback=True)
        api = http_api(functions, workers, cors, pages=reference())
        stack = Stack(
            around=around,
            base_url=await enter(serving(api, api_listener)),
            webhook_url=await enter(serving(function_url(webhook, workers), url_listener)),
            invoke_url=await enter(serving(invoke_api(functions, workers))),
            schedulers=tuple(schedulers),
        )
        await enter(
            background_tasks([*(poller.run() for poller in pollers), *(scheduler.run() for scheduler in schedulers)])
        )
        yield stack


@asynccontextmanager
async def background_tasks(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
    """Run coroutines in the background, and cancel them at the end."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

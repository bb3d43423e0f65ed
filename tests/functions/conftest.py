"""Fixtures that invoke the functions as Lambda does, with events of an HTTP API.

DynamoDB and SQS are moto behind HTTP, with the template's tables and queues; LiveKit and Gemini are the local
stand-ins, to which the genuine SDKs talk.
"""

import io
import json
import uuid
from collections.abc import Iterator
from typing import Final

import boto3
import pytest
from mypy_boto3_dynamodb.client import DynamoDBClient

from local import template
from local.sqs import make_queues
from pi_voice.logs import logger
from tests.functions.api import (
    CLIENT_TOKEN_SECRET,
    GRACE_SECONDS,
    SECRETS_PREFIX,
    WEBHOOK_KEY,
    WEBHOOK_MASTERS,
    WEBHOOK_SECRET,
    Api,
    Functions,
    caller,
)
from tests.functions.front import Front
from tests.functions.providers import Providers
from tests.functions.work import Work
from tests.support.moto_server import MotoServer
from tests.support.template import ROOT

WRONG: Final = (
    "LIVEKIT_API_KEY",
    "LIVEKIT_API_SECRET",
    "LIVEKIT_WEBHOOK_API_KEY",
    "LIVEKIT_WEBHOOK_API_SECRET",
    "GEMINI_API_KEY",
    "CLIENT_TOKEN_SECRET",
    *WEBHOOK_MASTERS,
)


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with Providers.running() as providers:
        yield providers


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    """DynamoDB and SQS."""
    with MotoServer.running() as moto:
        yield moto


@pytest.fixture(scope="module")
def dynamodb(providers: Providers, moto: MotoServer) -> Iterator[DynamoDBClient]:
    """The tables of the template, with the environment pointing to them and to the providers."""
    with pytest.MonkeyPatch.context() as environment:
        variables = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            **moto.variables,
            "POWERTOOLS_SERVICE_NAME": "pi-voice",
            "POWERTOOLS_LOG_LEVEL": "INFO",
            "GEMINI_LIVE_MODEL": "gemini-live-test",
            "GEMINI_EXTRACTION_MODEL": "gemini-extraction-test",
            "LIVEKIT_WEBHOOK_API_KEY": WEBHOOK_KEY,
            "LIVEKIT_WEBHOOK_API_SECRET": WEBHOOK_SECRET,
            "CLIENT_TOKEN_SECRET": CLIENT_TOKEN_SECRET,
            **WEBHOOK_MASTERS,
            "WEBHOOK_ALLOW_LOOPBACK": "true",
            "GRACE_SECONDS": str(GRACE_SECONDS),
            **providers.variables,
        }
        for name, value in variables.items():
            environment.setenv(name, value)
        client = boto3.client("dynamodb")
        read = template.load(ROOT / "template.yaml", variables)
        for table in read.tables:
            client.create_table(**table.definition)  # type: ignore[arg-type]
        queue_urls = make_queues(boto3.client("sqs"), read.queues)
        names = template.load(ROOT / "template.yaml", variables, queue_urls=queue_urls).functions[0].environment
        for name in names:
            if name.endswith(("_TABLE", "_QUEUE_URL")):
                environment.setenv(name, names[name])
        yield client


@pytest.fixture(scope="module")
def functions(dynamodb: DynamoDBClient) -> Iterator[Functions]:  # noqa: ARG001 (sets the environment of the functions)
    functions = Functions()
    yield functions
    functions.start_over()


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """The log lines of the functions during a test, as CloudWatch gets them."""
    handler, lines = logger.registered_handler, io.StringIO()
    stream = handler.setStream(lines)  # type: ignore[attr-defined]
    yield lines
    handler.setStream(stream)  # type: ignore[attr-defined]


@pytest.fixture
def api(functions: Functions) -> Api:
    """A caller in a workspace of its own."""
    return caller(functions)


@pytest.fixture
def stranger(functions: Functions) -> Api:
    """A caller of another workspace."""
    return caller(functions)


@pytest.fixture
def work(functions: Functions, dynamodb: DynamoDBClient) -> Iterator[Work]:
    """Queue worker and sweeper, with a queue of their own and nothing due."""
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex}", Attributes={"VisibilityTimeout": "540"})["QueueUrl"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EXTRACTION_QUEUE_URL", url)
        functions.start_over()
        work = Work(functions, dynamodb, sqs, url)
        work.sweep()  # what other tests left due
        functions.start_over()
        yield work
    functions.start_over()


@pytest.fixture
def secrets(providers: Providers, functions: Functions) -> Iterator[None]:
    """Secrets in SSM, and others in the environment, which are wrong."""
    groups = {
        "livekit": {name: providers.variables[name] for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")},
        "livekit-webhook": {
            "LIVEKIT_WEBHOOK_API_KEY": "APInew",
            "LIVEKIT_WEBHOOK_API_SECRET": "another-secret-of-more-than-thirty-two-bytes",
            "LIVEKIT_WEBHOOK_PREVIOUS_API_KEY": WEBHOOK_KEY,
            "LIVEKIT_WEBHOOK_PREVIOUS_API_SECRET": WEBHOOK_SECRET,
        },
        "gemini": {"GEMINI_API_KEY": providers.variables["GEMINI_API_KEY"]},
        "client-token": {"CLIENT_TOKEN_SECRET": CLIENT_TOKEN_SECRET},
        "webhooks": WEBHOOK_MASTERS,
    }
    ssm = boto3.client("ssm")
    for group, values in groups.items():
        ssm.put_parameter(
            Name=f"{SECRETS_PREFIX}/{group}", Value=json.dumps(values), Type="SecureString", Overwrite=True
        )
    with pytest.MonkeyPatch.context() as environment:
        for name in WRONG:
            environment.setenv(name, "wrong-" * 8)
        environment.setenv("PI_VOICE_SECRETS", f"ssm:{SECRETS_PREFIX}")
        functions.start_over()
        yield
    functions.start_over()


@pytest.fixture
def front(providers: Providers) -> Front:
    return Front(providers)

"""Modules each function imports at its cold start. A function that only reads must not import a provider's SDK."""

import os
import subprocess
import sys
from typing import Final

import pytest

from tests.support.template import FUNCTIONS, ROOT, SECRET, rights_of, snake_case

PARAMETERS: Final = "aws_lambda_powertools.utilities.parameters"

HEAVY: Final = {
    "aiohttp",
    "aws_lambda_powertools.utilities.idempotency",  # imported by the first request with an Idempotency-Key
    "aws_lambda_powertools.event_handler.openapi.models",  # Powertools' own validation
    PARAMETERS,
    "boto3",
    "boto3.dynamodb.conditions",  # boto3's resources, which no store uses
    "boto3.s3.inject",
    "google.genai",
    "google.protobuf",
    "jsonschema",
    "jwt",
    "livekit",
    "pydantic",
    "re2",
}

READS: Final = {"boto3", "pydantic"}

LIVEKIT: Final = READS | {"aiohttp", "livekit", "google.protobuf", "jwt"}

GENAI: Final = READS | {"aiohttp", "google.genai"}

EXCEPTIONS: Final = {
    "CallTool": READS | {"aiohttp"},  # asks the endpoints of tools on a server
    "CompleteSession": GENAI,  # closes the room after the extraction, and imports LiveKit's SDK then
    "DeliverEvent": READS | {"aiohttp"},
    "ReceiveLivekitWebhook": READS | {"jwt"},  # calls LiveKit only after a hang-up
}


def expected(function: str) -> set[str]:
    """Return what a function may import, by the secrets that it may read: those of LiveKit, or of Gemini only."""
    groups = rights_of(FUNCTIONS[function]).keys()
    by_secret = LIVEKIT if f"LiveKit{SECRET}" in groups else GENAI if f"Gemini{SECRET}" in groups else READS
    return EXCEPTIONS.get(function, by_secret)


ENVIRONMENT: Final = {
    "PATH": os.environ["PATH"],
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "POWERTOOLS_SERVICE_NAME": "pi-voice",
    "VOICE_AGENTS_TABLE": "agents",
    "VOICE_SESSIONS_TABLE": "sessions",
    "VOICE_TRANSCRIPTS_TABLE": "transcripts",
    "VOICE_API_KEYS_TABLE": "api-keys",
    "VOICE_WEBHOOK_ENDPOINTS_TABLE": "webhook-endpoints",
    "VOICE_WEBHOOK_DELIVERIES_TABLE": "webhook-deliveries",
    "VOICE_IDEMPOTENCY_TABLE": "idempotency",
    "CLIENT_TOKEN_SECRET": "a-client-token-secret-of-more-than-32-bytes",
    "EXTRACTION_QUEUE_URL": "https://sqs.test/extractions",
    "DELIVERY_QUEUE_URL": "https://sqs.test/deliveries.fifo",
    "EVENT_QUEUE_URL": "https://sqs.test/events",
    "LIVEKIT_URL": "wss://livekit.test",
    "LIVEKIT_API_KEY": "APItest",
    "LIVEKIT_API_SECRET": "a-secret-of-more-than-thirty-two-bytes",
    "GEMINI_API_KEY": "test",
    "GEMINI_LIVE_MODEL": "live",
    "GEMINI_EXTRACTION_MODEL": "lite",
}

AT_ONCE: Final = {f"{group}{SECRET}" for group in ("LiveKit", "LiveKitWebhook", "Gemini", "Webhooks")}

IMPORT_EACH: Final = """
import os, sys
sys.modules["cryptography"] = None  # the layer does not contain it
import pi_voice.entrypoints.http  # imported by every function; done once before the forks
for name in os.environ["SHARED"].split():
    __import__(name)

def running_to(limit):
    global running
    while running > limit:
        os.wait()
        running -= 1

running = 0
for folder in sys.argv[1:]:
    running_to(os.cpu_count() - 1)
    running += 1
    if os.fork() == 0:
        sys.path.insert(0, folder)
        import app
        assert callable(app.handler)
        heavy = sys.modules.keys() & os.environ["HEAVY"].split()
        os.write(1, " ".join([os.path.basename(folder), *heavy]).encode() + b"\\n")
        os._exit(0)
running_to(0)
"""


def import_each(shared: str = "", **variables: str) -> dict[str, set[str]]:
    """Import each function in its own process, like Lambda, and return the heavy modules it imported.

    All processes start with the shared modules, which are imported once.
    """
    told = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            IMPORT_EACH,
            *(str(ROOT / "functions" / snake_case(name)) for name in FUNCTIONS),
        ],
        env={
            **ENVIRONMENT,
            **variables,
            "HEAVY": " ".join(HEAVY),
            "SHARED": shared,
            "PYTHONPATH": str(ROOT / "layers" / "voice"),
        },
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,  # bounds a hang
    )
    return {name: set(modules) for name, *modules in map(str.split, told.stdout.splitlines())}


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    return import_each()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_imports_what_it_needs_and_nothing_heavy_besides(
    function: str, imported: dict[str, set[str]]
) -> None:
    assert imported[snake_case(function)] == expected(function)


def test_secrets_are_imported_where_each_request_needs_them_and_for_client_tokens_only_at_the_first_one() -> None:
    imported = import_each("boto3 aiohttp google.genai livekit.api", PI_VOICE_SECRETS="ssm:/pi-voice")

    at_once = {snake_case(name) for name, function in FUNCTIONS.items() if rights_of(function).keys() & AT_ONCE}
    assert {name for name, modules in imported.items() if PARAMETERS in modules} == at_once


def test_a_cold_start_builds_only_the_validators_of_its_own_route() -> None:
    code = """
import app
from pi_voice.domain.connection_api import CreatedSession
from pi_voice.domain.session_api import Session
assert Session.__pydantic_complete__
assert not CreatedSession.__pydantic_complete__
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT / "functions" / "get_session",
        env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT / 'layers' / 'voice'}"},
    )


def test_garbage_collection_is_off_during_a_cold_start_and_ignores_its_objects() -> None:
    code = """
import gc
import pi_voice
assert not gc.isenabled()
from pi_voice.entrypoints.runner import run
async def nothing(): pass
run(nothing())
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000
"""
    path = f"{ROOT / 'layers' / 'voice'}"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**ENVIRONMENT, "AWS_LAMBDA_FUNCTION_NAME": "any", "PYTHONPATH": path},
    )


def test_garbage_collection_is_on_outside_lambda() -> None:
    code = "import gc, pi_voice.entrypoints.http; assert gc.isenabled()"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT / 'layers' / 'voice'}"}
    )

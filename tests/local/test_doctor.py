"""`make doctor`: it passes where a call can be held, and names what is wrong and what to do."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from typing import Any, Final

import boto3
import pytest
from aiohttp import web

from deploy import write_secrets
from doctor.aws import GROUPS
from doctor.checks import Check, Passed, Result, redacted, run_checks
from doctor.gemini import GeminiChecks, Patience
from doctor.livekit import LiveKitChecks
from doctor.target import PARAMETERS, Target
from doctor.webhook import webhook_check
from local.http_server import serving
from local.running import LocalApi, running_api
from local.stack import TEMPLATE
from local.stand_ins import gemini as gemini_stand_ins
from local.stand_ins import livekit as livekit_stand_ins
from local.stand_ins.gemini import gemini_stand_in
from local.stand_ins.gemini_live import LiveTimes
from local.stand_ins.gemini_live_faults import FAULTS, Faults
from local.stand_ins.livekit import livekit_stand_in
from local.template import load
from pi_voice.adapters.http_client import HttpClient
from tests.support.moto_server import MotoServer
from tests.support.template import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")  # google-genai's own

CLEAN: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
SECONDS: Final = 600
FAST: Final = LiveTimes(pace=20)
NOWHERE: Final = "ws://127.0.0.1:9"
WEBHOOK_KEYS: Final = {"LIVEKIT_WEBHOOK_API_KEY": "webhook-key", "LIVEKIT_WEBHOOK_API_SECRET": "secret-of-webhooks" * 2}
SECRETS: Final = {
    "LIVEKIT_API_KEY": livekit_stand_ins.API_KEY,
    "LIVEKIT_API_SECRET": livekit_stand_ins.API_SECRET,
    "GEMINI_API_KEY": gemini_stand_ins.API_KEY,
    "CLIENT_TOKEN_SECRET": "the-secret-of-client-tokens-in-tests",
    **WEBHOOK_KEYS,
    "WEBHOOK_MASTER_ID": "a1",
    "WEBHOOK_MASTER_A1": "the-master-of-webhook-secrets-in-tests",
}
OTHER_SECRETS: Final = {"GEMINI_API_KEY", "WEBHOOK_MASTER_A1"}
MODELS: Final = {
    "GEMINI_LIVE_MODEL": "gemini-3.8-live",
    "GEMINI_EXTRACTION_MODEL": "gemini-3.5-flash-lite",
}

Results = dict[str, Result]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def target(**variables: str) -> Target:
    return Target({**SECRETS, **MODELS, "LIVEKIT_URL": NOWHERE, **variables}, "", has_real_livekit=False)


async def results_of(checks: list[Check]) -> Results:
    results: list[Result] = []
    await run_checks(checks, results.append)
    return {result.name: result for result in results}


def verdicts(results: Results, verdict: str) -> list[str]:
    return [name for name, result in results.items() if result.verdict == verdict]


@asynccontextmanager
async def http_client() -> AsyncIterator[HttpClient]:
    http = HttpClient()
    try:
        yield http
    finally:
        await http.close()


# ---- How checks run ----


async def passes() -> Passed:
    return Passed("Well.")


async def breaks() -> Passed:
    raise LookupError("a-message-with-a-key")


@pytest.mark.anyio
async def test_a_check_whose_need_failed_is_skipped_and_says_so() -> None:
    results = await results_of([Check("first", breaks), Check("second", passes, needs=("first",)), Check("3", passes)])

    assert [result.verdict for result in results.values()] == ["failed", "skipped", "ok"]
    assert "first" in results["second"].text


@pytest.mark.anyio
async def test_an_unexpected_error_is_reported_without_its_message() -> None:
    results = await results_of([Check("first", breaks)])

    assert "LookupError" in results["first"].text
    assert "a-message-with-a-key" not in results["first"].text


@pytest.mark.anyio
async def test_a_check_that_hangs_fails_at_its_time_limit() -> None:
    async def hangs() -> Passed:
        await asyncio.Event().wait()
        return Passed("Well.")

    results = await results_of([Check("first", hangs, seconds=0.1)])

    assert results["first"].verdict == "failed"
    assert "0.1 s" in results["first"].text


def application(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app


def test_secrets_are_removed_from_a_line_the_longer_ones_first() -> None:
    assert redacted("a key-and-more, a key-and", ["key-and", "key-and-more", ""]) == "a ***, a ***"


@pytest.mark.parametrize("token", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-1", "auth_tokens/0123abcd"])
def test_tokens_are_removed_from_a_line(token: str) -> None:
    assert redacted(f"wss://example.com/?access_token={token} failed.", []) == (
        "wss://example.com/?access_token=*** failed."
    )


# ---- Gemini ----


@asynccontextmanager
async def gemini_checks(
    faults: Faults = frozenset(), patience: Patience | None = None, **variables: str
) -> AsyncIterator[list[Check]]:
    """Serve the stand-in with faults, and yield the checks of Gemini with it."""
    async with gemini_stand_in(FAST, faults=faults) as gemini, http_client() as http:
        variables = {"GOOGLE_GEMINI_BASE_URL": gemini.base_url or "", **variables}
        checks = GeminiChecks(target(**variables), http, patience or Patience())
        yield checks.checks()
        await checks.close()


async def checked(faults: Faults = frozenset(), patience: Patience | None = None, **variables: str) -> Results:
    async with gemini_checks(faults, patience, **variables) as checks:
        return await results_of(checks)


@pytest.mark.anyio
@pytest.mark.parametrize("version", ["v1alpha", "v1beta"])
@pytest.mark.parametrize(
    "model", ["gemini-3.1-flash-live-preview", "gemini-3.8-live", "gemini-3.8-live-extended-thinking"]
)
async def test_a_call_is_held_with_each_live_model_in_both_versions(model: str, version: str) -> None:
    results = await checked(GEMINI_LIVE_MODEL=model, GEMINI_API_VERSION=version)

    assert verdicts(results, "failed") + verdicts(results, "skipped") == []
    assert results["Live second turn"].verdict == "ok"


BORNE: Final = {"sentences", "late_speech", "doubled_speech", "late_text", "bundled", "tool_cancelled", "claims_tool"}
"""Faults in transcriptions, which clients have to bear in every deployment, and of functions, which no check calls."""

NAMED: Final[Mapping[str, tuple[str, str, str]]] = {
    "silent_greeting": ("warning", "Live greeting", "sent again"),
    "go_away": ("warning", "Live second turn", "goAway, 50s left"),
    "go_away_now": ("warning", "Live second turn", "goAway, 5s left"),
    "drop": ("failed", "Live second turn", "without a close code"),
    "hang_up": ("failed", "Live second turn", "1011 (The service is currently unavailable)"),
    "resume_1011": ("warning", "Live resumption", "1011 (Internal error encountered)"),
    "resume_1007": ("failed", "Live resumption", "1007 (Request contains an invalid argument)"),
}


def test_each_fault_of_the_stand_in_is_named_or_borne() -> None:
    assert NAMED.keys() | BORNE == FAULTS.keys()


@pytest.mark.anyio
@pytest.mark.parametrize("fault", NAMED)
async def test_a_fault_of_the_live_api_is_named(fault: str) -> None:
    verdict, name, words = NAMED[fault]

    results = await checked(frozenset({fault}))

    assert results[name].verdict == verdict, results[name].text
    assert words in results[name].text
    assert verdicts(results, "failed") == ([name] if verdict == "failed" else [])


@pytest.mark.anyio
@pytest.mark.parametrize("fault", sorted(BORNE))
async def test_a_fault_that_a_client_bears_does_not_fail(fault: str) -> None:
    assert verdicts(await checked(frozenset({fault})), "failed") == []


@pytest.mark.anyio
async def test_a_wrong_key_is_named_and_the_calls_are_skipped() -> None:
    results = await checked(GEMINI_API_KEY="another-key-of-gemini")

    assert verdicts(results, "failed") == ["Gemini key"]
    assert "GEMINI_API_KEY" in results["Gemini key"].text
    assert "Live setup" in verdicts(results, "skipped")


@pytest.mark.anyio
async def test_a_live_model_that_is_gone_is_named_with_the_one_to_use() -> None:
    results = await checked(GEMINI_LIVE_MODEL="gemini-9-gone")

    assert verdicts(results, "failed") == ["Live setup"]
    assert "1008" in results["Live setup"].text
    assert "export GEMINI_LIVE_MODEL=gemini-3.8-live" in results["Live setup"].text
    assert results["Live model"].verdict == "warning"  # its id is unknown


@pytest.mark.anyio
async def test_an_extraction_model_that_is_gone_is_named_with_the_one_to_use() -> None:
    results = await checked(GEMINI_EXTRACTION_MODEL="gone")

    assert verdicts(results, "failed") == ["Extraction model"]
    assert "export GEMINI_EXTRACTION_MODEL=" in results["Extraction model"].text


@pytest.mark.anyio
async def test_a_thinking_level_that_the_extraction_model_refuses_is_named() -> None:
    results = await checked(GEMINI_EXTRACTION_MODEL="gemini-3.8-flash", GEMINI_EXTRACTION_THINKING_LEVEL="minimal")

    assert verdicts(results, "failed") == ["Extraction model"]
    assert "export GEMINI_EXTRACTION_THINKING_LEVEL=auto" in results["Extraction model"].text


@pytest.mark.anyio
async def test_a_gemini_that_cannot_be_reached_is_named() -> None:
    results = await checked(GOOGLE_GEMINI_BASE_URL="http://127.0.0.1:9")

    assert verdicts(results, "failed") == ["Gemini key"]
    assert "http://127.0.0.1:9 cannot be reached" in results["Gemini key"].text


@pytest.mark.anyio
async def test_an_agent_that_does_not_greet_is_named() -> None:
    async def set_up_and_stay_silent(request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and "Upgrade" not in request.headers:
            return web.json_response({"models": []})
        if request.method == "POST":
            return web.json_response({"name": "auth_tokens/1"})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            await socket.send_json({"setupComplete": {}})
        return socket

    async with serving(application(set_up_and_stay_silent)) as url:
        patience = Patience(prompt=0.1, greeting=0.5)
        results = await checked(patience=patience, GOOGLE_GEMINI_BASE_URL=url)

    assert "Live greeting" in verdicts(results, "failed")
    assert "The agent said nothing" in results["Live greeting"].text
    assert "Live resumption" in verdicts(results, "skipped")


@pytest.mark.anyio
async def test_hints_for_the_transcription_that_google_refuses_are_named() -> None:
    async def without_hints(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"models": []})
        setup = (await request.json()).get("bidiGenerateContentSetup", {})
        if setup.get("inputAudioTranscription"):
            return web.json_response({"error": {"code": 400}}, status=400)
        return web.json_response({"name": "auth_tokens/1"})

    async with serving(application(without_hints)) as url:
        results = await checked(GOOGLE_GEMINI_BASE_URL=url)

    assert results["Token in v1alpha"].verdict == "failed"
    assert "export GEMINI_TRANSCRIPTION_HINTS=none" in results["Token in v1alpha"].text
    assert results["Token in v1beta"].verdict == "warning"  # not the version of the clients


@pytest.mark.anyio
@pytest.mark.parametrize(("status", "words"), [(403, "billing"), (429, "quota"), (500, "500")])
async def test_a_project_that_google_refuses_is_named(status: int, words: str) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": status, "message": "key secret-key"}}, status=status)

    async with serving(application(refuse)) as url:
        results = await checked(GOOGLE_GEMINI_BASE_URL=url)

    assert verdicts(results, "failed") == ["Gemini key"]
    assert words in results["Gemini key"].text
    assert "secret-key" not in results["Gemini key"].text


@pytest.mark.anyio
@pytest.mark.parametrize(("day", "verdict"), [(date(2026, 11, 16), "ok"), (date(2026, 11, 30), "warning")])
async def test_a_live_model_past_its_shutdown_date_is_named(day: date, verdict: str) -> None:
    variables = target(GEMINI_LIVE_MODEL="gemini-3.1-flash-live-preview").variables
    deployed = Target(variables, "", stack="pi-voice")
    async with http_client() as http:
        checks = GeminiChecks(deployed, http, today=day).checks()
        results = await results_of([check for check in checks if check.name == "Live model"])

    assert results["Live model"].verdict == verdict
    command = "make deploy STACK=pi-voice PARAMETERS=GeminiLiveModel=gemini-3.8-live"
    assert (command in results["Live model"].text) == (verdict == "warning")


# ---- LiveKit ----


async def livekit_results(**variables: str) -> Results:
    async with livekit_stand_in("http://127.0.0.1:9", None) as livekit, http_client() as http:
        there = target(**{"LIVEKIT_URL": livekit.url, **variables})
        return await results_of(LiveKitChecks(there, http).checks())


@pytest.mark.anyio
async def test_a_room_is_made_and_deleted() -> None:
    results = await livekit_results()

    assert verdicts(results, "ok") == ["LiveKit server", "LiveKit room", "LiveKit token", "LiveKit room closed"]
    assert "cannot be joined" in results["LiveKit join"].text  # a stand-in's


@pytest.mark.anyio
async def test_a_wrong_secret_of_livekit_is_named() -> None:
    results = await livekit_results(LIVEKIT_API_SECRET="another-secret-of-livekit-of-32-characters")

    assert verdicts(results, "failed") == ["LiveKit room"]
    assert "LIVEKIT_API_KEY and LIVEKIT_API_SECRET" in results["LiveKit room"].text
    assert verdicts(results, "skipped") == ["LiveKit token", "LiveKit join", "LiveKit room closed"]


@pytest.mark.anyio
async def test_a_livekit_that_cannot_be_reached_is_named() -> None:
    results = await livekit_results(LIVEKIT_URL=NOWHERE)

    assert verdicts(results, "failed") == ["LiveKit server"]
    assert f"{NOWHERE} cannot be reached" in results["LiveKit server"].text


@pytest.mark.anyio
async def test_an_url_that_is_no_url_of_livekit_is_named() -> None:
    results = await livekit_results(LIVEKIT_URL="example.com")

    assert verdicts(results, "failed") == ["LiveKit server"]
    assert "LIVEKIT_URL" in results["LiveKit server"].text


# ---- The webhook ----


@pytest.fixture(scope="module")
def api() -> Iterator[LocalApi]:
    """Run the API with keys of its own for the webhook."""
    with running_api({**CLEAN, **WEBHOOK_KEYS, "GEMINI_STAND_IN_PACE": "20"}) as running:
        yield running


async def webhook_results(url: str, **variables: str) -> Results:
    async with http_client() as http:
        return await results_of([webhook_check(replace(target(**variables), webhook_url=url), http)])


@pytest.mark.anyio
async def test_the_webhook_accepts_the_signature_of_its_key(api: LocalApi) -> None:
    assert verdicts(await webhook_results(api.webhook_url), "ok") == ["Webhook"]


@pytest.mark.anyio
async def test_a_webhook_with_another_secret_is_named(api: LocalApi) -> None:
    results = await webhook_results(api.webhook_url, LIVEKIT_WEBHOOK_API_SECRET="another-secret-of-webhooks" * 2)

    assert verdicts(results, "failed") == ["Webhook"]
    assert "another key or secret" in results["Webhook"].text


@pytest.mark.anyio
async def test_a_url_that_accepts_any_signature_is_named() -> None:
    async def accept(_: web.Request) -> web.StreamResponse:
        return web.Response()

    async with serving(application(accept)) as url:
        results = await webhook_results(url)

    assert "accepts a webhook with a wrong signature" in results["Webhook"].text


@pytest.mark.anyio
async def test_a_webhook_that_cannot_be_reached_is_named() -> None:
    results = await webhook_results("http://127.0.0.1:9/")

    assert "cannot be reached" in results["Webhook"].text


# ---- The command ----


def doctor(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "doctor", *arguments],
        cwd=ROOT,
        env={**CLEAN, "PYTHONPATH": str(ROOT / "layers/voice"), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def lines_of(ended: "subprocess.CompletedProcess[str]", verdict: str) -> list[str]:
    return [line for line in ended.stdout.splitlines() if line.startswith(verdict)]


def assert_no_secrets(ended: "subprocess.CompletedProcess[str]") -> None:
    shown = ended.stdout + ended.stderr
    secret = {name: value for name, value in SECRETS.items() if "SECRET" in name or name in OTHER_SECRETS}
    assert [name for name, value in secret.items() if value in shown] == []
    assert [part for part in ("auth_tokens/", "eyJ", "access_token") if part in shown] == []


def test_make_doctor_without_keys_says_that_it_checks_the_stand_ins_and_passes() -> None:
    ended = doctor()

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert ended.stdout.startswith("No keys of LiveKit and Gemini are set, so the stand-ins are checked.")
    assert "A call can be held." in ended.stdout
    assert "Webhook" in "".join(lines_of(ended, "ok"))
    assert_no_secrets(ended)


def test_make_doctor_checks_the_services_of_the_environments_keys(api: LocalApi) -> None:
    ended = doctor(**services_of(api), WEBHOOK_URL=api.webhook_url)

    assert ended.stdout.startswith("Checking the services of the environment's keys.")
    # The stand-in's rooms cannot be joined, which the doctor does not know here.
    assert [line.split("  ")[1].strip() for line in lines_of(ended, "failed")] == ["LiveKit join"]
    assert ended.returncode == 1
    assert_no_secrets(ended)


def test_incomplete_keys_end_the_command_with_a_sentence() -> None:
    ended = doctor(LIVEKIT_URL="wss://example.livekit.cloud")

    assert ended.returncode == 1
    assert "LIVEKIT_API_KEY and LIVEKIT_API_SECRET must be set too" in ended.stderr


def services_of(api: LocalApi) -> dict[str, str]:
    urls = {"LIVEKIT_URL": api.livekit_url, "GOOGLE_GEMINI_BASE_URL": api.gemini_url}
    return {**SECRETS, **MODELS, **urls}


# ---- A stack ----


@pytest.mark.parametrize(
    ("argument", "ending"), [("STACK=pi-voice", '-m doctor "pi-voice"'), ("PORT=3000", "-m doctor")]
)
def test_make_doctor_checks_a_stack_only_if_it_is_named(argument: str, ending: str) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "doctor", argument],  # noqa: S607 (as a user types it)
        cwd=ROOT,
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )

    assert printed.stdout.splitlines()[-1].strip().endswith(ending)


@pytest.fixture
def aws(api: LocalApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Run moto with a stack whose outputs lead to the local API, and with its secrets; yield the variables for AWS."""
    credentials = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "eu-west-1"}
    with MotoServer.running() as moto:
        variables = {**credentials, "AWS_ENDPOINT_URL": moto.url}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        deploy(api)
        for group, names in GROUPS.items():
            all_names = (*names, "WEBHOOK_MASTER_A1") if group == "webhooks" else names
            text = json.dumps({name: SECRETS[name] for name in all_names})
            boto3.client("ssm").put_parameter(Name=f"/pi-voice/{group}", Value=text, Type="SecureString")
        yield variables


def deploy(api: LocalApi) -> None:
    services = services_of(api)
    values = {parameter: services[name] for name, parameter in PARAMETERS.items() if name in services}
    values |= {"SecretsStore": "ssm", "SecretsPrefix": "/pi-voice"}
    outputs = {"ApiUrl": f"{api.base_url}/api/v1/voice", "WebhookUrl": api.webhook_url}
    template: dict[str, Any] = {
        "Parameters": {name: {"Type": "String", "Default": value} for name, value in values.items()},
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    boto3.client("cloudformation").create_stack(StackName="pi-voice", TemplateBody=json.dumps(template))


def test_each_parameter_sets_the_variable_that_the_doctor_names() -> None:
    [function, *_] = load(
        TEMPLATE, {}, {parameter: f"value-of-{name}" for name, parameter in PARAMETERS.items()}
    ).functions

    assert {name: function.environment[name] for name in PARAMETERS} == {
        name: f"value-of-{name}" for name in PARAMETERS
    }


def test_the_doctor_reads_the_secrets_that_make_secrets_writes() -> None:
    assert GROUPS.keys() == set(write_secrets.GROUPS)
    names = {name for group in GROUPS.values() for name in group}
    assert names == {*write_secrets.KEYS, write_secrets.MASTER_ID}


def failed(ended: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line[9:29].strip() for line in lines_of(ended, "failed")]


def test_make_doctor_checks_a_stack(aws: dict[str, str]) -> None:
    ended = doctor("pi-voice", **aws)

    assert ended.stdout.startswith("Checking the stack pi-voice."), ended.stderr
    assert [line[9:29].strip() for line in lines_of(ended, "ok")][:5] == [
        "AWS account",
        "Stack",
        "Secrets",
        "API",
        "Webhook",
    ]
    assert failed(ended) == ["LiveKit join"]  # a stand-in's rooms cannot be joined
    assert_no_secrets(ended)


@pytest.mark.parametrize("group", GROUPS)
def test_a_secret_that_cannot_be_read_is_named_with_the_command_that_stores_it(aws: dict[str, str], group: str) -> None:
    boto3.client("ssm").delete_parameter(Name=f"/pi-voice/{group}")

    ended = doctor("pi-voice", **aws)

    assert (failed(ended), ended.returncode) == (["Secrets"], 1)
    [line] = lines_of(ended, "failed")
    assert f"/pi-voice/{group}" in line
    assert "make secrets STACK=pi-voice" in line
    assert_no_secrets(ended)


def test_a_secret_without_one_of_its_keys_is_named(aws: dict[str, str]) -> None:
    text = json.dumps({"LIVEKIT_API_KEY": SECRETS["LIVEKIT_API_KEY"]})
    boto3.client("ssm").put_parameter(Name="/pi-voice/livekit", Value=text, Type="SecureString", Overwrite=True)

    ended = doctor("pi-voice", **aws)

    assert "The secret livekit has no LIVEKIT_API_SECRET." in ended.stdout


def test_a_webhook_master_that_is_missing_is_named(aws: dict[str, str]) -> None:
    text = json.dumps({"WEBHOOK_MASTER_ID": "b2", "WEBHOOK_MASTER_A1": SECRETS["WEBHOOK_MASTER_A1"]})
    boto3.client("ssm").put_parameter(Name="/pi-voice/webhooks", Value=text, Type="SecureString", Overwrite=True)

    ended = doctor("pi-voice", **aws)

    assert "The secret webhooks is not complete: WEBHOOK_MASTER_B2 is not set." in ended.stdout
    assert_no_secrets(ended)


def test_a_stack_that_does_not_exist_is_named_with_the_region(aws: dict[str, str]) -> None:
    ended = doctor("another", **aws)

    assert failed(ended) == ["Stack"]
    assert "There is no stack another in eu-west-1." in ended.stdout
    assert "make deploy STACK=another" in ended.stdout


def test_a_missing_region_is_named(aws: dict[str, str]) -> None:
    del aws["AWS_DEFAULT_REGION"]

    ended = doctor("pi-voice", **aws, AWS_CONFIG_FILE=os.devnull)

    assert failed(ended) == ["AWS account"]
    assert "export AWS_DEFAULT_REGION=" in ended.stdout


def test_missing_credentials_are_named(aws: dict[str, str]) -> None:
    del aws["AWS_ACCESS_KEY_ID"], aws["AWS_SECRET_ACCESS_KEY"]
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}

    ended = doctor("pi-voice", **aws, **nowhere, AWS_EC2_METADATA_DISABLED="true")

    assert failed(ended) == ["AWS account"]
    assert "NoCredentialsError" in ended.stdout

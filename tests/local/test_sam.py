"""`make sam-invoke` and `make sam-api` without Docker; tests/real tests them with Docker."""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import sam, template
from local.aws import aws_stand_in
from local.containers import Docker, forward_to_service, seen_from_containers
from local.dynamodb import client, make_tables
from local.errors import CannotStart
from local.first_key import WORKSPACE
from local.relay_process import forward_to_socket
from local.sample_records import save_samples
from local.services import Gemini, LiveKit, Services, function_variables, machine_variables
from local.stack import TEMPLATE, Surroundings
from pi_voice.adapters.aws import AwsClient
from pi_voice.adapters.dynamodb.agents import DynamoAgents
from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys
from pi_voice.adapters.dynamodb.sessions import DynamoSessions
from pi_voice.adapters.dynamodb.webhook_endpoints import DynamoWebhookEndpoints
from pi_voice.adapters.livekit_webhook import LiveKitWebhookVerifier
from pi_voice.domain.ids import AgentId, EndpointId, SessionId, WorkspaceId
from pi_voice.ports import SignedWebhook
from pi_voice.settings import KeyPair, TableNames, WebhookSettings
from tests.local.conftest import Background
from tests.support.template import ROOT, environment

KEYS = LiveKit("ws://127.0.0.1:7880", "livekit-key", "livekit-secret-that-is-long-enough"), Gemini("gemini-key", None)
IMAGE = "public.ecr.aws/lambda/python:3.13-arm64"


@pytest.fixture(scope="module")
def dynamodb_url(background: Background) -> str:
    return background.enter(aws_stand_in())


@pytest.fixture(scope="module")
def around(dynamodb_url: str) -> Surroundings:
    services = Services.chosen_by({})
    variables = function_variables(services, *KEYS, dynamodb_url, dynamodb_url)
    return Surroundings(
        services=services,
        livekit=KEYS[0],
        gemini=KEYS[1],
        dynamodb_url=dynamodb_url,
        sqs_url=dynamodb_url,
        queue_urls={},
        template=template.load(TEMPLATE, variables),
        machine=machine_variables({}, dynamodb_url),
        api_key="pi_live_of_this_test",
    )


# ---- Inputs of sam ----


@pytest.fixture
def built() -> dict[str, Any]:
    """The relevant parts of a built template."""
    return {
        "Parameters": {"Architecture": {"Default": "arm64"}},
        "Globals": {"Function": {"Runtime": "python3.13", "Environment": {"Variables": {"A": {"Ref": "Secret"}}}}},
        "Resources": {
            "CreateSession": {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "CreateSession"}},
            "VoiceLayer": {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "VoiceLayer"}},
            "Logs": {"Type": "AWS::Logs::LogGroup"},
        },
    }


def test_functions_run_in_awss_image_for_their_runtime_and_architecture(built: dict[str, Any]) -> None:
    assert sam.image_of(built) == IMAGE


def test_the_local_template_finds_the_build_from_any_folder(built: dict[str, Any], around: Surroundings) -> None:
    resources = sam.local_template(built, Path("build"), around.template, {})["Resources"]

    assert resources["CreateSession"]["Properties"]["CodeUri"] == str(Path("build/CreateSession").resolve())
    assert resources["VoiceLayer"]["Properties"]["ContentUri"] == str(Path("build/VoiceLayer").resolve())


def test_a_functions_timeout_is_extended_by_its_start(built: dict[str, Any], around: Surroundings) -> None:
    resources = sam.local_template(built, Path("build"), around.template, {})["Resources"]
    [own] = [each.timeout_seconds for each in around.template.functions if each.logical_id == "CreateSession"]

    assert resources["CreateSession"]["Properties"]["Timeout"] > own


def test_the_local_template_has_the_local_tables_and_no_secrets(built: dict[str, Any], around: Surroundings) -> None:
    variables = sam.variables_for_containers(around)

    template = sam.local_template(built, Path("build"), around.template, dict.fromkeys(variables, ""))

    given = template["Resources"]["CreateSession"]["Properties"]["Environment"]["Variables"]
    assert given["VOICE_SESSIONS_TABLE"] == "pi-voice-local-voice_sessions"
    assert given["LIVEKIT_API_SECRET"] == given["GEMINI_API_KEY"] == given["PI_VOICE_SECRETS"] == ""
    assert template["Globals"]["Function"] == {"Runtime": "python3.13"}
    assert not [text for text in (KEYS[0].api_secret, KEYS[1].api_key) if text in yaml.safe_dump(template)]


def test_containers_get_the_keys_in_their_environment(around: Surroundings) -> None:
    variables = sam.variables_for_containers(around)

    assert variables["LIVEKIT_API_SECRET"] == KEYS[0].api_secret
    assert variables["LIVEKIT_URL"] == "ws://pi-voice.localhost:7880"
    assert variables["AWS_ENDPOINT_URL_DYNAMODB"].startswith("http://pi-voice.localhost:")
    assert "GOOGLE_GEMINI_BASE_URL" not in variables


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://127.0.0.1:8000", "http://pi-voice.localhost:8000"),
        ("ws://localhost:7880/path", "ws://pi-voice.localhost:7880/path"),
        ("http://[::1]", "http://pi-voice.localhost:80"),
        ("wss://mine.livekit.cloud", "wss://mine.livekit.cloud"),
        ("https://dynamodb.eu-west-1.amazonaws.com", "https://dynamodb.eu-west-1.amazonaws.com"),
    ],
)
def test_only_loopback_urls_change_for_containers(url: str, seen: str) -> None:
    assert seen_from_containers(url) == seen


# ---- Events ----


def test_a_sample_gets_a_valid_api_key(around: Surroundings) -> None:
    event = sam.with_credentials(sam.sample_of("ListVoices"), around)

    assert event["headers"]["authorization"] == f"Bearer {around.api_key}"
    assert event["headers"]["host"]


def test_another_authorization_header_is_unchanged(around: Surroundings, tmp_path: Path) -> None:
    own = tmp_path / "event.json"
    own.write_text('{"headers": {"authorization": "Bearer mine"}}')

    assert sam.with_credentials(sam.event_named(str(own)), around) == {"headers": {"authorization": "Bearer mine"}}


def test_a_webhook_is_signed_with_the_functions_key(around: Surroundings) -> None:
    event = sam.with_credentials(sam.sample_of("ReceiveLivekitWebhook"), around)
    others = replace(
        around, services=replace(around.services, webhook_keys=("webhook", "a-secret-of-webhooks-alone-of-32-letters"))
    )

    for keys, signed in (
        ((KEYS[0].api_key, KEYS[0].api_secret), event),
        (("webhook", "a-secret-of-webhooks-alone-of-32-letters"), sam.with_credentials(event, others)),
    ):
        LiveKitWebhookVerifier(partial(WebhookSettings, (KeyPair(*keys),))).verify(
            SignedWebhook(signed["headers"]["authorization"], base64.b64decode(signed["body"]))
        )


def test_an_operators_event_is_unchanged(around: Surroundings) -> None:
    assert sam.with_credentials(sam.sample_of("RevokeApiKey"), around) == sam.sample_of("RevokeApiKey")


def test_the_samples_records_are_saved_before_one_is_invoked(
    around: Surroundings, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in around.machine.items():
        monkeypatch.setenv(name, value)
    make_tables(client(around.dynamodb_url), around.template.tables)
    tables = TableNames.of(around.template.functions[0].environment)
    agent_id = AgentId(sam.sample_of("GetAgent")["pathParameters"]["agent_id"])
    session_id = SessionId(sam.sample_of("GetSession")["pathParameters"]["session_id"])
    endpoint_id = EndpointId(sam.sample_of("GetWebhookEndpoint")["pathParameters"]["endpoint_id"])
    key = sam.sample_of("RevokeApiKey")

    background.run(save_samples(around))

    aws = AwsClient(client(around.dynamodb_url))
    agent = background.run(DynamoAgents(aws, tables.agents).current(agent_id))
    session = background.run(DynamoSessions(aws, tables.sessions).get(session_id))
    endpoints = DynamoWebhookEndpoints(aws, tables.webhook_endpoints)
    endpoint = background.run(endpoints.find(WorkspaceId(WORKSPACE), endpoint_id))
    keys = background.run(DynamoApiKeys(aws, tables.api_keys).in_workspace(WorkspaceId(key["workspace"])))
    assert agent
    assert session
    assert agent.workspace == session.workspace == WORKSPACE
    assert session.agent_id == agent_id
    assert endpoint
    assert endpoint.url == json.loads(sam.sample_of("CreateWebhookEndpoint")["body"])["url"]
    assert [each.key_id for each in keys] == [key["key_id"]]


def test_nothing_is_saved_to_the_users_own_database(around: Surroundings, background: Background) -> None:
    own = replace(around.services, dynamodb_url="http://127.0.0.1:1")  # a write would fail

    background.run(save_samples(replace(around, services=own, dynamodb_url="http://127.0.0.1:1")))


# ---- A fake docker command ----


class FakeDocker:
    """A docker command that records its arguments and runs a script."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environment = {"PATH": f"{folder}:{os.environ['PATH']}"}

    def answers(self, script: str) -> Docker:
        command = self._folder / "docker"
        command.write_text(f'#!/bin/sh\necho "$@" >> {self._folder}/asked\n{script}\n')
        command.chmod(0o755)
        return Docker(self.environment)

    @property
    def asked(self) -> list[str]:
        return (self._folder / "asked").read_text().splitlines()


@pytest.fixture
def docker() -> Iterator[FakeDocker]:
    with tempfile.TemporaryDirectory() as folder:  # its path is short enough for sockets
        yield FakeDocker(Path(folder))


def test_missing_docker_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"^This needs Docker, and there is no docker on PATH: .*\.$"):
        Docker.chosen_by({"PATH": str(tmp_path)})


def test_an_unreachable_engine_is_reported_with_dockers_message(docker: FakeDocker) -> None:
    docker.answers("echo 'Cannot connect to the Docker daemon.' >&2; exit 1")

    with pytest.raises(CannotStart, match=r"^This needs Docker, and .*: Cannot connect to the Docker daemon\.$"):
        Docker.chosen_by(docker.environment)


def test_sam_gets_only_the_docker_settings_of_the_users_environment() -> None:
    settings = {"DOCKER_HOST": "unix:///x", "XDG_RUNTIME_DIR": "/run/user/1000"}

    assert Docker({**settings, "AWS_PROFILE": "mine", "PATH": "/bin"}).settings == settings


def test_a_local_image_is_not_pulled(docker: FakeDocker) -> None:
    docker.answers("").get(IMAGE)

    assert docker.asked == [f"image inspect {IMAGE}"]


def test_an_image_that_cannot_be_pulled_is_reported_in_one_sentence(docker: FakeDocker) -> None:
    with pytest.raises(CannotStart, match=r"cannot be pulled, and it is not on this machine\.$"):
        docker.answers("exit 1").get(IMAGE)


def test_a_network_is_removed_with_its_remaining_containers(docker: FakeDocker) -> None:
    engine = docker.answers('if [ "$1" = ps ]; then echo one; echo two; fi')
    with engine.network() as name:
        pass

    assert docker.asked == [
        f"network create {name}",
        f"ps --all --quiet --filter network={name}",
        "rm --force one two",
        f"network rm {name}",
    ]


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="on other systems Docker runs in a virtual machine")


@on_linux
def test_docker_desktop_needs_no_relay(docker: FakeDocker, background: Background, tmp_path: Path) -> None:
    engine = docker.answers("echo Docker Desktop")

    assert background.enter(engine.relay_to(["http://127.0.0.1:1"], IMAGE, "network", tmp_path)) == "host-gateway"


@on_linux
def test_a_relay_forwards_a_port_in_the_network_to_a_service_on_loopback(docker: FakeDocker) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async def scenario() -> bytes:
        service = await asyncio.start_server(shout, "127.0.0.1", 0)
        port = service.sockets[0].getsockname()[1]
        engine = docker.answers('if [ "$1" = run ]; then echo 10.0.0.2; cat; else echo Debian; fi')
        folder = Path(docker.environment["PATH"].partition(":")[0])
        async with engine.relay_to(
            [f"http://127.0.0.1:{port}", "wss://elsewhere"], IMAGE, "network", folder
        ) as address:
            assert address == "10.0.0.2"
            entrance = await asyncio.start_server(partial(forward_to_socket, folder / str(port)), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*entrance.sockets[0].getsockname())
            writer.write(b"hello " * 100_000)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            entrance.close()
        service.close()
        assert docker.asked[-1].endswith(f"/relay {port}")
        return answer

    assert asyncio.run(scenario()) == b"HELLO " * 100_000


@on_linux
def test_a_path_too_long_for_a_socket_is_reported_in_one_sentence(docker: FakeDocker, background: Background) -> None:
    relay = docker.answers("echo Debian").relay_to(["http://127.0.0.1:1"], IMAGE, "network", Path("/", "x" * 120))

    with pytest.raises(CannotStart, match=r"^/x+ cannot hold a Unix socket, so set TMPDIR: .*\.$"):
        background.enter(relay)


def test_a_connection_to_a_stopped_service_is_closed() -> None:
    async def scenario(port: int) -> bytes:
        entrance = await asyncio.start_server(partial(forward_to_service, "127.0.0.1", port), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*entrance.sockets[0].getsockname())
        answer = await reader.read()
        writer.close()
        entrance.close()
        return answer

    with socket.socket() as holder:  # reserves the port without listening
        holder.bind(("127.0.0.1", 0))
        assert asyncio.run(scenario(holder.getsockname()[1])) == b""


# ---- The command ----


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("api", "--port", "x"), "'x' is not a port:"),
        (("invoke",), "FUNCTION is '': it should be one of AddParticipant, "),
        (("invoke", "--function", "Nothing"), "FUNCTION is 'Nothing': it should be one of AddParticipant, "),
        (
            ("invoke", "--function", "GetAgent", "--event", "nowhere.json"),
            "EVENT is 'nowhere.json', which is not ",
        ),
        (("invoke", "--function", "GetAgent"), "This needs Docker, and there is no docker on PATH"),
    ],
)
def test_an_error_at_start_is_reported_in_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "local.sam", *arguments, "--build", "nowhere"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "layers/voice")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith(sentence)
    assert ended.stderr.count("\n") == 1


def test_a_build_is_repeated_only_if_its_sources_have_changed(tmp_path: Path) -> None:
    def steps() -> str:
        return subprocess.run(
            ["make", "--dry-run", "sam-invoke", "FUNCTION=GetAgent", f"LOCAL_BUILD_DIR={tmp_path}"],  # noqa: S607
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        ).stdout

    built = tmp_path / "template.yaml"
    built.touch()
    with_a_new_one = steps()
    os.utime(built, (0, 0))
    with_an_old_one = steps()

    assert "sam build" not in with_a_new_one
    assert f"sam build --build-dir {tmp_path}" in with_an_old_one

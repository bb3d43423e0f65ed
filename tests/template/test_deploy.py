"""The scripts behind `make secrets`, `make api-key` and `make build`."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from mypy_boto3_lambda import LambdaClient
from mypy_boto3_secretsmanager import SecretsManagerClient
from mypy_boto3_ssm import SSMClient

from deploy import create_api_key, write_secrets
from pi_voice.adapters import secrets
from pi_voice.settings import GeminiSettings, LiveKitSettings, WebhookSettings, client_token_secret
from tests.moto_server import MotoServer
from tests.template.conftest import ROOT, environment

NAME = "/pi-voice/secrets"
KEYS = {"LIVEKIT_API_KEY": "lk", "LIVEKIT_API_SECRET": "lk-secret", "GEMINI_API_KEY": "gemini"}
SIGNS = {"CLIENT_TOKEN_SECRET": "s" * write_secrets.FEWEST_CHARACTERS}


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with MotoServer.running() as moto:
        for name, url in moto.variables.items():
            monkeypatch.setenv(name, url)
        yield


def read(location: str) -> dict[str, str]:
    """Return the stored secrets, read as by the functions."""
    return secrets.read(location)


@pytest.fixture
def ssm() -> SSMClient:
    return boto3.client("ssm")


@pytest.fixture
def manager() -> SecretsManagerClient:
    return boto3.client("secretsmanager")


@pytest.fixture
def functions() -> LambdaClient:
    return boto3.client("lambda")


def test_the_stack_names_the_place_of_its_keys() -> None:
    cloudformation = boto3.client("cloudformation")
    stack = {
        "StackName": "pi-voice",
        "CreationTime": "2026-11-22T00:00:00Z",
        "StackStatus": "CREATE_COMPLETE",
        "Parameters": [
            {"ParameterKey": "SecretsName", "ParameterValue": "/elsewhere"},
            {"ParameterKey": "SecretsStore", "ParameterValue": "secretsmanager"},
        ],
    }
    with Stubber(cloudformation) as stub:
        stub.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "pi-voice"})

        assert write_secrets.place(cloudformation, "pi-voice") == ("secretsmanager", "/elsewhere")


def test_keys_in_ssm_are_encrypted_and_the_functions_read_them(ssm: SSMClient) -> None:
    write_secrets.write_to_ssm(ssm, NAME, {**KEYS, **SIGNS, "PATH": "/bin"})

    assert ssm.get_parameter(Name=NAME)["Parameter"]["Type"] == "SecureString"
    assert read(f"ssm:{NAME}") == KEYS | SIGNS


def test_the_functions_read_keys_in_secrets_manager(manager: SecretsManagerClient) -> None:
    write_secrets.write_to_secrets_manager(manager, NAME, KEYS | SIGNS)

    assert read(f"secretsmanager:{NAME}") == KEYS | SIGNS


def test_all_secrets_of_the_settings_are_stored(ssm: SSMClient) -> None:
    webhook = {"LIVEKIT_WEBHOOK_API_KEY": "wh", "LIVEKIT_WEBHOOK_API_SECRET": "wh-secret"}
    write_secrets.write_to_ssm(ssm, NAME, KEYS | webhook)

    stored = read(f"ssm:{NAME}")
    models = {"GEMINI_LIVE_MODEL": "live", "GEMINI_EXTRACTION_MODEL": "extraction"}
    assert LiveKitSettings.of({"LIVEKIT_URL": "wss://livekit.invalid", **stored}).api_secret == "lk-secret"
    assert GeminiSettings.of({**models, **stored}).api_key == "gemini"
    assert WebhookSettings.of(stored).api_secret == "wh-secret"
    assert len(client_token_secret(stored)) == 64


def test_one_key_can_be_replaced_without_giving_the_others(ssm: SSMClient, manager: SecretsManagerClient) -> None:
    write_secrets.write_to_ssm(ssm, NAME, KEYS | SIGNS)
    write_secrets.write_to_ssm(ssm, NAME, {"GEMINI_API_KEY": "newer", "LIVEKIT_API_KEY": ""})
    write_secrets.write_to_secrets_manager(manager, NAME, KEYS | SIGNS)
    write_secrets.write_to_secrets_manager(manager, NAME, {"GEMINI_API_KEY": "newer"})

    assert read(f"ssm:{NAME}") == KEYS | SIGNS | {"GEMINI_API_KEY": "newer"}
    assert read(f"secretsmanager:{NAME}") == KEYS | SIGNS | {"GEMINI_API_KEY": "newer"}


def test_the_secret_of_client_tokens_is_generated_once_per_stack(ssm: SSMClient) -> None:
    write_secrets.write_to_ssm(ssm, NAME, KEYS)
    made_up = read(f"ssm:{NAME}")["CLIENT_TOKEN_SECRET"]
    write_secrets.write_to_ssm(ssm, NAME, KEYS)
    write_secrets.write_to_ssm(ssm, "/another", KEYS)

    assert read(f"ssm:{NAME}")["CLIENT_TOKEN_SECRET"] == made_up
    assert read("ssm:/another")["CLIENT_TOKEN_SECRET"] != made_up


def test_a_stack_from_before_client_tokens_gets_their_secret_without_its_other_keys(
    ssm: SSMClient, manager: SecretsManagerClient
) -> None:
    ssm.put_parameter(Name=NAME, Value=json.dumps(KEYS), Type="SecureString")
    manager.create_secret(Name=NAME, SecretString=json.dumps(KEYS))

    write_secrets.write_to_ssm(ssm, NAME, {})
    write_secrets.write_to_secrets_manager(manager, NAME, {})

    for store in ("ssm", "secretsmanager"):
        stored = read(f"{store}:{NAME}")
        assert stored == KEYS | {"CLIENT_TOKEN_SECRET": client_token_secret(stored)}


def test_a_given_secret_of_client_tokens_replaces_the_stored_one(ssm: SSMClient) -> None:
    write_secrets.write_to_ssm(ssm, NAME, KEYS)
    write_secrets.write_to_ssm(ssm, NAME, SIGNS)

    assert read(f"ssm:{NAME}") == KEYS | SIGNS


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "Set LIVEKIT_API_KEY, LIVEKIT_API_SECRET, GEMINI_API_KEY in the environment"),
        ({"LIVEKIT_API_KEY": "lk", "GEMINI_API_KEY": "gemini"}, "Set LIVEKIT_API_SECRET in the environment"),
        (KEYS | {"LIVEKIT_WEBHOOK_API_KEY": "wh"}, "together, or neither"),
        (KEYS | {"CLIENT_TOKEN_SECRET": "short"}, "CLIENT_TOKEN_SECRET is too short: it needs 32 characters or more"),
    ],
)
def test_an_incomplete_set_of_keys_is_refused_and_nothing_is_stored(
    ssm: SSMClient, environment: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        write_secrets.write_to_ssm(ssm, NAME, environment)

    assert ssm.describe_parameters()["Parameters"] == []


def test_storing_nothing_is_refused(ssm: SSMClient) -> None:
    write_secrets.write_to_ssm(ssm, NAME, KEYS)

    with pytest.raises(ValueError, match="Nothing to store"):
        write_secrets.write_to_ssm(ssm, NAME, {"PATH": "/bin"})


def test_the_first_key_comes_from_the_stack_s_own_function(functions: LambdaClient) -> None:
    answer = json.dumps({"data": {"key_id": "1", "api_key": "pi_live_new"}}).encode()
    with Stubber(functions) as stub:
        stub.add_response(
            "invoke",
            {"Payload": StreamingBody(io.BytesIO(answer), len(answer))},
            {"FunctionName": "pi-voice-create-api-key", "Payload": b'{"workspace": "acme", "name": "backend"}'},
        )

        assert create_api_key.create(functions, "pi-voice", "acme", "backend") == "pi_live_new"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (
            {"error": {"message": "Mend it.", "details": [{"path": "workspace", "message": "Too long."}]}},
            "workspace: Too long.",
        ),
        ({"error": {"message": "Try again."}}, "Try again."),
        ({"errorMessage": "Task timed out", "errorType": "Sandbox.Timedout"}, "its log says why"),
    ],
)
def test_a_refused_key_shows_the_function_s_message(
    functions: LambdaClient, document: dict[str, object], complaint: str
) -> None:
    answer = json.dumps(document).encode()
    with Stubber(functions) as stub:
        stub.add_response(
            "invoke",
            {"Payload": StreamingBody(io.BytesIO(answer), len(answer))},
            {"FunctionName": ANY, "Payload": ANY},
        )

        with pytest.raises(ValueError, match=complaint):
            create_api_key.create(functions, "pi-voice", "acme", "backend")


def test_a_built_template_deploys_only_its_own_architecture(tmp_path: Path) -> None:
    built = tmp_path / "template.yaml"
    architecture = {"Type": "String", "Default": "arm64", "AllowedValues": ["arm64", "x86_64"]}
    built.write_text(yaml.safe_dump({"Parameters": {"LogLevel": {"Type": "String"}, "Architecture": architecture}}))

    subprocess.run([sys.executable, ROOT / "deploy/pin_architecture.py", built, "x86_64"], check=True)

    assert yaml.safe_load(built.read_text()) == {
        "Parameters": {
            "LogLevel": {"Type": "String"},
            "Architecture": {"Type": "String", "Default": "x86_64", "AllowedValues": ["x86_64"]},
        }
    }


def test_make_deploy_passes_sam_the_project_s_settings_file() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "deploy"],  # noqa: S607 (as a user types it)
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    ).stdout

    assert f'--config-file "{ROOT}/samconfig.toml"' in planned

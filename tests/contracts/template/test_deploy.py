"""The scripts behind `make secrets`, `make api-key`, `make redrive` and `make build`."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
import yaml
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from mypy_boto3_lambda import LambdaClient
from mypy_boto3_secretsmanager import SecretsManagerClient
from mypy_boto3_sqs import SQSClient
from mypy_boto3_ssm import SSMClient

from deploy import check_live_model, create_api_key, redrive, write_secrets
from deploy.write_secrets import SecretsManagerStore, SsmStore, Store
from pi_voice.adapters.secrets import MAX_AGE_SECONDS, Secrets
from pi_voice.settings import KeyPair, WebhookSettings, client_token_secrets, webhook_masters
from tests.support.moto_server import MotoServer
from tests.support.template import ROOT, environment

PREFIX = "/pi-voice"
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
            {"ParameterKey": "SecretsPrefix", "ParameterValue": "/elsewhere"},
            {"ParameterKey": "SecretsStore", "ParameterValue": "secretsmanager"},
        ],
    }
    with Stubber(cloudformation) as stub:
        stub.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "pi-voice"})

        assert write_secrets.place(cloudformation, "pi-voice") == ("secretsmanager", "/elsewhere")


@pytest.fixture(params=["ssm", "secretsmanager"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, ssm: SSMClient, manager: SecretsManagerClient) -> Store:
    return SsmStore(ssm) if kind == "ssm" else SecretsManagerStore(manager)


def write(store: Store, environment: Mapping[str, str]) -> list[str]:
    """Run `make secrets` with these variables, and return the names that were written."""
    before = write_secrets.stored_groups(store, PREFIX)
    return write_secrets.write(store, PREFIX, before, write_secrets.updated(before, environment))


def read(kind: str) -> Mapping[str, str]:
    """Return all secrets but the generated masters, read as by the functions."""
    return {name: value for name, value in read_all(kind).items() if not name.startswith("WEBHOOK_MASTER_")}


def read_all(kind: str) -> Mapping[str, str]:
    """Return all secrets, read as by the functions."""
    secrets = Secrets(f"{kind}:{PREFIX}")
    secrets.add(*write_secrets.GROUPS)
    return secrets.read()


WEBHOOK = {"LIVEKIT_WEBHOOK_API_KEY": "wh", "LIVEKIT_WEBHOOK_API_SECRET": "wh-secret"}
COPY = {"LIVEKIT_WEBHOOK_API_KEY": "lk", "LIVEKIT_WEBHOOK_API_SECRET": "lk-secret"}


def test_keys_in_ssm_are_encrypted(ssm: SSMClient) -> None:
    write(SsmStore(ssm), KEYS)

    described = ssm.describe_parameters()["Parameters"]
    assert {each["Name"] for each in described} == {f"{PREFIX}/{group}" for group in write_secrets.GROUPS}
    assert {each["Type"] for each in described} == {"SecureString"}


def test_the_functions_read_what_was_stored(store: Store, kind: str) -> None:
    write(store, KEYS | SIGNS | WEBHOOK | {"PATH": "/bin"})

    assert read(kind) == KEYS | SIGNS | WEBHOOK


def test_a_webhook_without_a_key_of_its_own_gets_a_copy_of_livekit_s(store: Store, kind: str) -> None:
    write(store, KEYS | SIGNS)

    assert read(kind) == KEYS | SIGNS | COPY


def test_only_the_group_that_changes_is_written(store: Store, kind: str) -> None:
    write(store, KEYS | SIGNS)

    assert write(store, {"GEMINI_API_KEY": "newer", "LIVEKIT_API_KEY": ""}) == [f"{PREFIX}/gemini"]
    assert read(kind) == KEYS | SIGNS | COPY | {"GEMINI_API_KEY": "newer"}
    assert write(store, KEYS | {"GEMINI_API_KEY": "newer"}) == []


@pytest.mark.parametrize(
    ("given", "current"),
    [
        (WEBHOOK, WEBHOOK),
        (
            {"LIVEKIT_API_KEY": "lk2", "LIVEKIT_API_SECRET": "lk2-secret"},
            {"LIVEKIT_WEBHOOK_API_KEY": "lk2", "LIVEKIT_WEBHOOK_API_SECRET": "lk2-secret"},
        ),
    ],
    ids=["its own", "the copy of LiveKit's"],
)
def test_the_previous_webhook_key_stays_valid(given: dict[str, str], current: dict[str, str]) -> None:
    store = SsmStore(boto3.client("ssm"))
    write(store, KEYS)

    write(store, given)
    write(store, given)  # a repetition changes nothing

    settings = WebhookSettings.of(read("ssm"))
    assert settings.pairs == (KeyPair(*current.values()), KeyPair("lk", "lk-secret"))


@pytest.mark.parametrize("writes", [1, 2])
def test_an_interrupted_replacement_of_livekit_s_key_can_be_repeated(store: Store, kind: str, writes: int) -> None:
    class Interrupted:
        def __init__(self) -> None:
            self.left = writes

        def get(self, name: str) -> str | None:
            return store.get(name)

        def put(self, name: str, text: str) -> None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            store.put(name, text)

    changed = {"LIVEKIT_API_KEY": "lk2", "LIVEKIT_API_SECRET": "lk2-secret", "GEMINI_API_KEY": "newer"}
    write(store, KEYS | SIGNS)
    with pytest.raises(KeyboardInterrupt):
        write(Interrupted(), changed)

    write(store, changed)

    settings = WebhookSettings.of(read(kind))
    assert settings.pairs == (KeyPair("lk2", "lk2-secret"), KeyPair("lk", "lk-secret"))


def test_livekit_s_key_does_not_change_a_webhook_s_own(store: Store, kind: str) -> None:
    write(store, KEYS | WEBHOOK | SIGNS)

    write(store, {"LIVEKIT_API_KEY": "lk2", "LIVEKIT_API_SECRET": "lk2-secret"})

    assert read(kind) == KEYS | WEBHOOK | SIGNS | {"LIVEKIT_API_KEY": "lk2", "LIVEKIT_API_SECRET": "lk2-secret"}


def test_the_secret_of_client_tokens_is_generated_once(store: Store, kind: str) -> None:
    write(store, KEYS)
    generated = read(kind)["CLIENT_TOKEN_SECRET"]
    write(store, KEYS | {"GEMINI_API_KEY": "newer"})

    assert len(generated) == 64
    assert read(kind)["CLIENT_TOKEN_SECRET"] == generated


def test_a_rotated_secret_of_client_tokens_is_accepted_before_it_signs(store: Store, kind: str) -> None:
    write(store, KEYS | SIGNS)
    waiting: list[tuple[float, tuple[str, ...]]] = []

    write_secrets.rotate(store, PREFIX, {}, lambda seconds: waiting.append((seconds, client_token_secrets(read(kind)))))

    [(seconds, meanwhile)] = waiting
    old, new = meanwhile
    assert seconds == 360  # functions use a secret for 300 s, and retry a failed refresh after 30 s
    assert old == SIGNS["CLIENT_TOKEN_SECRET"]
    assert client_token_secrets(read(kind)) == (new, old)


def test_an_interrupted_rotation_is_finished_by_the_next(store: Store, kind: str) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    write(store, KEYS | SIGNS)
    with pytest.raises(KeyboardInterrupt):
        write_secrets.rotate(store, PREFIX, {}, interrupt)
    _, new = client_token_secrets(read(kind))

    write_secrets.rotate(store, PREFIX, {}, lambda _: None)

    assert client_token_secrets(read(kind)) == (new, SIGNS["CLIENT_TOKEN_SECRET"])


def test_the_first_master_of_webhook_secrets_is_generated_once(store: Store, kind: str) -> None:
    write(store, KEYS)
    first = webhook_masters(read_all(kind))
    write(store, KEYS | {"GEMINI_API_KEY": "newer"})

    assert [len(secret) for secret in first.secrets.values()] == [43]
    assert webhook_masters(read_all(kind)) == first


def test_a_rotated_master_is_known_before_it_makes_secrets_and_earlier_ones_stay(store: Store, kind: str) -> None:
    write(store, KEYS)
    states = [webhook_masters(read_all(kind))]
    seconds: list[float] = []

    def wait(pause: float) -> None:
        seconds.append(pause)
        states.append(webhook_masters(read_all(kind)))

    for _ in range(2):
        write_secrets.rotate_master(store, PREFIX, wait)
        states.append(webhook_masters(read_all(kind)))

    first, adding, second, adding_again, third = states
    assert seconds == [360, 360]
    assert [len(state.secrets) for state in states] == [1, 2, 2, 3, 3]
    assert (adding.current, adding_again.current) == (first.current, second.current)
    assert len({first.current, second.current, third.current}) == 3
    assert third.secrets.items() >= second.secrets.items() >= first.secrets.items()
    assert "WEBHOOK_MASTER_NEXT_ID" not in read_all(kind)


def test_an_interrupted_rotation_of_the_master_is_finished_by_the_next(store: Store, kind: str) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    write(store, KEYS)
    with pytest.raises(KeyboardInterrupt):
        write_secrets.rotate_master(store, PREFIX, interrupt)
    interrupted = read_all(kind)

    write_secrets.rotate_master(store, PREFIX, lambda _: None)

    masters = webhook_masters(read_all(kind))
    assert masters.current == interrupted["WEBHOOK_MASTER_NEXT_ID"]
    assert masters.secrets == webhook_masters(interrupted).secrets


def test_a_rotation_stores_the_first_master_of_a_stack_without_one_at_once(store: Store, kind: str) -> None:
    def refuse(_: float) -> None:
        raise AssertionError("no function can have another master yet")

    write(store, KEYS)
    store.put(f"{PREFIX}/webhooks", "{}")

    write_secrets.rotate_master(store, PREFIX, refuse)

    assert len(webhook_masters(read_all(kind)).secrets) == 1


def test_masters_of_fifty_rotations_fit_into_a_parameter(ssm: SSMClient) -> None:
    store = SsmStore(ssm)
    for _ in range(50):
        write_secrets.rotate_master(store, PREFIX, lambda _: None)

    assert len(store.get(f"{PREFIX}/webhooks") or "") <= 4096


def test_an_unknown_secret_is_not_rotated() -> None:
    asked = subprocess.run(
        [sys.executable, ROOT / "deploy/write_secrets.py", "pi-voice", "gemini"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )

    assert asked.returncode == 1
    assert asked.stderr.startswith("ROTATE is client-token or webhooks.")


def test_a_secret_of_client_tokens_is_not_replaced_without_rotation(store: Store, kind: str) -> None:
    write(store, KEYS | SIGNS)

    with pytest.raises(ValueError, match="ROTATE=client-token"):
        write(store, {"CLIENT_TOKEN_SECRET": "t" * 32})
    assert read(kind)["CLIENT_TOKEN_SECRET"] == SIGNS["CLIENT_TOKEN_SECRET"]


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
        write(SsmStore(ssm), environment)

    assert ssm.describe_parameters()["Parameters"] == []


def test_without_keys_in_the_environment_they_are_asked_for_before_anything_of_aws() -> None:
    asked = subprocess.run(
        [sys.executable, ROOT / "deploy/write_secrets.py", "pi-voice"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )

    assert asked.returncode == 1
    assert asked.stderr.startswith("Set LIVEKIT_API_KEY, LIVEKIT_API_SECRET, GEMINI_API_KEY in the environment.")


def test_a_rotation_needs_a_stored_secret(store: Store) -> None:
    with pytest.raises(ValueError, match="run make secrets first"):
        write_secrets.rotate(store, PREFIX, {}, lambda _: None)


def test_the_script_waits_as_long_as_functions_use_a_secret() -> None:
    assert (write_secrets.MAX_AGE_SECONDS, MAX_AGE_SECONDS) == (300, 300)


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


@pytest.fixture
def dead_letters() -> tuple[SQSClient, str]:
    """The client of the queues, and the URL of a dead-letter queue."""
    queues = boto3.client("sqs")
    queues.create_queue(QueueName="pi-voice-events-dead")
    return queues, queues.create_queue(QueueName="pi-voice-extractions-dead")["QueueUrl"]


def test_a_redrive_moves_all_messages_of_the_stack_s_dead_letter_queue(dead_letters: tuple[SQSClient, str]) -> None:
    queues, url = dead_letters
    arn = "arn:aws:sqs:eu-west-1:123456789012:pi-voice-extractions-dead"
    with Stubber(queues) as stub:  # moto has no message move tasks
        stub.add_response("get_queue_url", {"QueueUrl": url}, {"QueueName": "pi-voice-extractions-dead"})
        stub.add_response(
            "get_queue_attributes",
            {"Attributes": {"QueueArn": arn, "ApproximateNumberOfMessages": "3"}},
            {"QueueUrl": url, "AttributeNames": ["QueueArn", "ApproximateNumberOfMessages"]},
        )
        stub.add_response("start_message_move_task", {"TaskHandle": "1"}, {"SourceArn": arn})

        assert redrive.redrive(queues, "pi-voice", "extractions") == 3
        stub.assert_no_pending_responses()


@pytest.mark.usefixtures("dead_letters")
def test_make_redrive_without_dead_letters_says_so() -> None:
    """Without a message it starts no task, which SQS would refuse for a minute after another one."""
    redriven = subprocess.run(
        [sys.executable, ROOT / "deploy/redrive.py", "pi-voice"], capture_output=True, text=True, check=True
    )

    assert redriven.stdout == ("Extractions that are tried again: 0.\nSessions whose events are tried again: 0.\n")


def test_make_redrive_of_a_stack_that_does_not_exist_shows_the_error_of_aws() -> None:
    redriven = subprocess.run(
        [sys.executable, ROOT / "deploy/redrive.py", "unknown"], capture_output=True, text=True, check=False
    )

    assert (redriven.returncode, redriven.stdout) == (1, "")
    assert "NonExistentQueue" in redriven.stderr


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


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gemini-3.1-flash-live-preview", ["2026-11-17", "make deploy PARAMETERS=GeminiLiveModel=gemini-3.8-live"]),
        ("gemini-3.8-live", []),
        ("gemini-3.9-live", ["gemini-3.9-live is not a Live model that Pi Voice knows"]),
    ],
)
def test_make_deploy_warns_about_the_live_model_of_the_stack(model: str, words: list[str]) -> None:
    cloudformation = boto3.client("cloudformation")
    stack = {
        "StackName": "pi-voice",
        "CreationTime": "2026-11-22T00:00:00Z",
        "StackStatus": "CREATE_COMPLETE",
        "Parameters": [{"ParameterKey": "GeminiLiveModel", "ParameterValue": model}],
    }
    with Stubber(cloudformation) as stub:
        stub.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "pi-voice"})

        warnings = check_live_model.warnings(cloudformation, "pi-voice", date(2026, 11, 30))

    assert len(warnings) == bool(words)
    assert all(word in warning and "\n" not in warning for warning in warnings for word in words)


def test_a_live_model_that_cannot_be_read_does_not_fail_the_deploy() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "deploy/check_live_model.py", "pi-voice"],
        env={"PYTHONPATH": str(ROOT / "layers/voice"), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert checked.stdout.startswith("The Live model of the stack was not checked: ")


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


SAM_PYTHON: Final = str(ROOT / ".venv-sam/bin/python")
TRANSFORM: Final = """
import json, sys, unittest.mock, yaml
from samtranslator.translator.transform import transform
template = yaml.safe_load(open(sys.argv[1]))
template["Globals"] = {"Function": {"Runtime": "python3.13", "Handler": "app.handler"}}
with unittest.mock.patch("boto3.session.Session.region_name", "us-east-1"):
    print(json.dumps(transform(template, {}, unittest.mock.Mock(load=lambda: {}))["Resources"]))
"""


def built_with_tool_calls(folder: Path, layer: str, containers: str = "2") -> subprocess.CompletedProcess[str]:
    """Write what the build makes of one function and its layer, and provision it."""
    for part, content in (("CallTool", "import pi_voice"), ("VoiceLayer/python", layer)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "app.py").write_text(content)
    api = {"Type": "HttpApi", "Properties": {"ApiId": {"Ref": "Api"}, "Method": "POST", "Path": "/tool-calls"}}
    resources = {
        "Api": {"Type": "AWS::Serverless::HttpApi"},
        "VoiceLayer": {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "s3://bucket/layer"}},
        "CallTool": {
            "Type": "AWS::Serverless::Function",
            "Properties": {"CodeUri": "s3://bucket/code", "Layers": [{"Ref": "VoiceLayer"}], "Events": {"Api": api}},
        },
    }
    (folder / "template.yaml").write_text(yaml.safe_dump({"Resources": resources}))
    command = [SAM_PYTHON, str(ROOT / "deploy/provision_tool_calls.py"), str(folder), containers]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def transformed(folder: Path) -> dict[str, Any]:
    """Return the resources that CloudFormation makes of a template."""
    command = [SAM_PYTHON, "-c", TRANSFORM, str(folder / "template.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    resources: dict[str, Any] = json.loads(done.stdout)
    return resources


def test_provisioned_tool_calls_are_those_of_the_deployed_code(tmp_path: Path) -> None:
    versions = []
    for layer in ("first", "second", "first"):
        assert built_with_tool_calls(tmp_path, layer).returncode == 0
        resources = transformed(tmp_path)
        [alias] = [each for each in resources.values() if each["Type"] == "AWS::Lambda::Alias"]
        assert alias["Properties"]["ProvisionedConcurrencyConfig"] == {"ProvisionedConcurrentExecutions": 2}
        version, _ = alias["Properties"]["FunctionVersion"]["Fn::GetAtt"]
        assert resources[version]["Type"] == "AWS::Lambda::Version"
        versions.append(version)

    first, second, again = versions
    assert first != second  # although only the layer has changed
    assert first == again


def test_the_api_calls_the_provisioned_containers(tmp_path: Path) -> None:
    built_with_tool_calls(tmp_path, "first")

    resources = transformed(tmp_path)
    [alias] = [name for name, each in resources.items() if each["Type"] == "AWS::Lambda::Alias"]
    [permission] = [each for each in resources.values() if each["Type"] == "AWS::Lambda::Permission"]
    assert permission["Properties"]["FunctionName"] == {"Ref": alias}
    assert alias in json.dumps(resources["Api"]["Properties"]["Body"])


@pytest.mark.parametrize("containers", ["0", "1001", "two", "-1", "\u0662"])
def test_a_wrong_number_of_containers_ends_the_build(containers: str, tmp_path: Path) -> None:
    done = built_with_tool_calls(tmp_path, "first", containers)

    assert done.returncode == 1
    assert "TOOL_CALL_CONCURRENCY" in done.stderr
    assert "AutoPublishAlias" not in (tmp_path / "template.yaml").read_text()

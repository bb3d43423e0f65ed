"""A deploy by the README's own commands to an AWS emulator on loopback, and an invocation of every function there.

The emulator lacks the following, so it is not tested here (the last tests fail once the emulator supports it):

* The routes of the HTTP API, its name and its throttling. SAM writes them into the stage and into an OpenAPI document,
  the API's `Body`. The emulator's CloudFormation reads neither, so no request reaches a function by a route.
* Expiry, point-in-time recovery and encryption of the tables, which its CloudFormation does not read either.
* Names like x.lambda-url.eu-west-1.on.aws, which lead to AWS. The tests use the emulator's path of the function URL.
* Lambda's own paths and boto3: it unpacks the layer elsewhere and gives the functions its own boto3. test_runtime.py
  tests these.
"""

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from events.samples import event
from local.real import parts
from local.running import LocalApi, running_api
from local.sample_call import STATUSES, SampleCall, webhook
from local.stack import TEMPLATE
from local.stand_ins import gemini, livekit
from local.template import STACK_NAME, Template, load
from tests.real.aws_emulator import REGION, Aws, installed, running_aws
from tests.real.conftest import ARCHITECTURE
from tests.support.template import ROUTES, RUNTIME, snake_case

pytestmark = pytest.mark.real

STACK: Final = "pi-voice-seen"
KEYS: Final = {
    "LIVEKIT_API_KEY": livekit.API_KEY,
    "LIVEKIT_API_SECRET": livekit.API_SECRET,
    "GEMINI_API_KEY": gemini.API_KEY,
}
CREATED: Final = {"CREATE_COMPLETE"}

Json = Any


def name_of(function: str) -> str:
    return f"{STACK}-{snake_case(function).replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Deployed:
    """The stack after the README's three commands."""

    aws: Aws
    services: LocalApi
    printed: str
    api_key: str

    @property
    def stack(self) -> Json:
        return self.aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]

    @property
    def outputs(self) -> Mapping[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.stack["Outputs"]}

    @property
    def hashes(self) -> Mapping[str, tuple[str, str]]:
        """The hash of each function's code, and its layer version."""
        listed = self.aws.client("lambda").list_functions()["Functions"]
        return {one["FunctionName"]: (one["CodeSha256"], one["Layers"][0]["Arn"]) for one in listed}

    def invoke(self, function: str, event: Json) -> Json:
        return self.aws.invoke(name_of(function), event)


def deploy(aws: Aws, services: LocalApi, folder: str) -> str:
    return aws.make(
        "deploy",
        f"STACK={STACK}",
        f"ARCH={ARCHITECTURE}",
        f"BUILD_DIR={parts.FOLDER / folder}",
        f"LIVEKIT_URL={services.livekit_url}",
        f"PARAMETERS=GeminiBaseUrl={services.gemini_url}",
        typed="y\n",
    )


def read_in_batches(aws: Aws) -> None:
    """Let the policies of the secrets cover all parameters.

    The emulator compares a request for several parameters with `*`, and AWS with the name of each. Functions without
    such a policy still cannot read any.
    """
    iam = aws.client("iam")
    for policy in iam.list_policies(Scope="Local")["Policies"]:
        read = {"PolicyArn": policy["Arn"], "VersionId": policy["DefaultVersionId"]}
        document = iam.get_policy_version(**read)["PolicyVersion"]["Document"]
        [statement] = document["Statement"]
        assert statement["Action"] == "ssm:GetParameters"
        assert statement["Resource"].startswith(f"arn:aws:ssm:{REGION}:")
        wider = {**document, "Statement": [{**statement, "Resource": "*"}]}
        iam.create_policy_version(PolicyArn=policy["Arn"], PolicyDocument=json.dumps(wider), SetAsDefault=True)


def accept_loopback(aws: Aws, function: str) -> None:
    """Let a function take a webhook's URL on this machine, as in `make run`."""
    lambdas, name = aws.client("lambda"), name_of(function)
    variables = lambdas.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    changed = {"Variables": {**variables, "WEBHOOK_ALLOW_LOOPBACK": "true"}}
    lambdas.update_function_configuration(FunctionName=name, Environment=changed)


def post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 (on loopback)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=300) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture(scope="module")
def aws(python: Path) -> Iterator[Aws]:
    with running_aws(installed(python)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def services(aws: Aws) -> Iterator[LocalApi]:
    """The local stack, for its LiveKit and Gemini."""
    clean = {name: value for name, value in aws.environment.items() if not name.startswith("AWS_")}
    with running_api(clean) as stack:
        yield stack


@pytest.fixture(scope="module")
def deployed(aws: Aws, services: LocalApi) -> Deployed:
    """The stack, deployed by the three commands of the README."""
    printed = deploy(aws, services, "deploy")
    read_in_batches(aws)
    aws.make("secrets", f"STACK={STACK}", **KEYS)
    api_key = aws.make("api-key", f"STACK={STACK}", "WORKSPACE=acme", "NAME=backend").strip()
    return Deployed(aws, services, printed, api_key)


@pytest.fixture(scope="module")
def call(deployed: Deployed) -> SampleCall:
    """A whole call through every function."""
    accept_loopback(deployed.aws, "CreateWebhookEndpoint")
    call = SampleCall(deployed.invoke)
    call.hold()
    return call


@pytest.fixture(scope="module")
def template() -> Template:
    """The template, with a LiveKit URL that is required and not used."""
    return load(TEMPLATE, {"LIVEKIT_URL": "wss://livekit.invalid"})


def test_make_deploy_asks_once_and_ends_with_the_stack_complete(deployed: Deployed) -> None:
    resources = deployed.aws.client("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]

    assert deployed.printed.count("Deploy this changeset? [y/N]") == 1
    assert deployed.stack["StackStatus"] == "CREATE_COMPLETE"
    assert {resource["ResourceStatus"] for resource in resources} == CREATED


def test_make_deploy_checks_the_live_model_of_the_stack(deployed: Deployed) -> None:
    parameters = {each["ParameterKey"]: each["ParameterValue"] for each in deployed.stack["Parameters"]}

    assert parameters["GeminiLiveModel"] == "gemini-3.1-flash-live-preview"
    assert "was not checked" not in deployed.printed
    assert "make deploy PARAMETERS=GeminiLiveModel=gemini-3.8-live" in deployed.printed.splitlines()[-1]


def test_every_function_has_the_properties_of_the_template(deployed: Deployed, template: Template) -> None:
    listed = {one["FunctionName"]: one for one in deployed.aws.client("lambda").list_functions()["Functions"]}

    assert listed.keys() == {name_of(function.logical_id) for function in template.functions}
    for function in template.functions:
        one = listed[name_of(function.logical_id)]
        assert one["Runtime"] == RUNTIME
        assert one["Handler"] == "app.handler"
        assert one["Architectures"] == [ARCHITECTURE]
        assert one["MemorySize"] == function.memory_mb
        assert one["Timeout"] == function.timeout_seconds
        assert [layer["Arn"].rpartition(":layer:")[2] for layer in one["Layers"]] == [f"{STACK}-voice:1"]
        assert one["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{STACK}"}
        variables = one["Environment"]["Variables"]
        assert variables["VOICE_SESSIONS_TABLE"] == deployed.outputs["SessionsTableName"]
        assert variables["PI_VOICE_SECRETS"] == "ssm:/pi-voice"
        assert variables["LIVEKIT_URL"] == deployed.services.livekit_url
        assert variables["GOOGLE_GEMINI_BASE_URL"] == deployed.services.gemini_url


def test_the_tables_have_the_keys_and_indexes_of_the_template(deployed: Deployed, template: Template) -> None:
    database = deployed.aws.client("dynamodb")
    described = ("IndexName", "KeySchema", "Projection")

    assert len(database.list_tables()["TableNames"]) == len(template.tables) == 9
    for expected in template.tables:
        name = expected.name.replace(STACK_NAME, STACK)
        table = database.describe_table(TableName=name)["Table"]
        indexes = [{key: index[key] for key in described} for index in table.get("GlobalSecondaryIndexes", [])]
        assert table["KeySchema"] == expected.definition["KeySchema"]
        assert table["BillingModeSummary"]["BillingMode"] == expected.definition["BillingMode"]
        assert indexes == expected.definition.get("GlobalSecondaryIndexes", [])


def test_logs_have_the_retention_of_the_template(deployed: Deployed) -> None:
    groups = deployed.aws.client("logs").describe_log_groups()["logGroups"]
    retention = {group["logGroupName"]: group["retentionInDays"] for group in groups}

    assert retention == {f"/aws/lambda/{STACK}": 30, f"/aws/vendedlogs/apis/{STACK}": 30}


def test_make_secrets_stores_the_keys_encrypted(deployed: Deployed) -> None:
    stored = deployed.aws.client("ssm").get_parameter(Name="/pi-voice/livekit")["Parameter"]

    assert stored["Type"] == "SecureString"
    assert livekit.API_SECRET not in stored["Value"]


def test_the_key_that_make_api_key_printed_opens_the_api(deployed: Deployed) -> None:
    sample = event("ListVoices")
    sample["headers"]["authorization"] = f"Bearer {deployed.api_key}"

    assert re.fullmatch(r"pi_live_\w+", deployed.api_key)
    assert deployed.invoke("ListVoices", event("ListVoices"))["statusCode"] == 401
    assert deployed.invoke("ListVoices", sample)["statusCode"] == 200


def test_every_function_does_its_work_with_the_rights_that_the_template_gives_it(
    call: SampleCall, template: Template
) -> None:
    completed = call.documents["CompleteSession"]

    assert call.statuses == STATUSES
    assert call.documents.keys() == {function.logical_id for function in template.functions}
    assert completed["extraction"]["status"] == "succeeded"
    assert completed["end_reason"] == "stopped"
    assert call.documents["ExtractResults"] == {"batchItemFailures": []}
    assert call.documents["SweepSessions"]["data"]["errors"] == 0
    assert completed["results"].keys() == {"item", "quantity", "needed_by"}


def test_a_function_without_its_policy_fails(deployed: Deployed, call: SampleCall) -> None:
    del call  # has to come first
    rights, lambdas = deployed.aws.client("iam"), deployed.aws.client("lambda")
    role = lambdas.get_function_configuration(FunctionName=name_of("GetAgent"))["Role"].rpartition("/")[2]
    [policy] = rights.list_role_policies(RoleName=role)["PolicyNames"]
    sample = event("GetAgent")
    sample["headers"]["authorization"] = f"Bearer {deployed.api_key}"

    assert deployed.invoke("GetAgent", sample)["statusCode"] == 404
    rights.delete_role_policy(RoleName=role, PolicyName=policy)
    assert deployed.invoke("GetAgent", sample)["statusCode"] == 500


def test_the_function_url_accepts_a_webhook_only_with_a_signature(deployed: Deployed) -> None:
    url = urlsplit(deployed.outputs["WebhookUrl"])
    host = url.hostname or ""
    on_the_emulator = f"{deployed.aws.url}/_aws/lambda-url/{host.partition('.')[0]}/"
    sample = webhook("01a20285-7376-7c68-a5d2-71e4f09b8c36")
    body = base64.b64decode(sample["body"])
    headers = {"Content-Type": "application/webhook+json"}

    assert host.endswith(f".lambda-url.{REGION}.on.aws")
    signed = post(on_the_emulator, body, {**headers, "Authorization": sample["headers"]["authorization"]})
    assert signed[0] == 200, signed
    assert post(on_the_emulator, body, headers)[0] == 401


def test_a_second_deploy_without_changes_changes_nothing(deployed: Deployed) -> None:
    before = deployed.hashes

    printed = deploy(deployed.aws, deployed.services, "deploy-again")

    assert "No changes to deploy" in printed
    assert deployed.stack["StackStatus"] == "CREATE_COMPLETE"
    assert deployed.hashes == before


# ---- What the emulator lacks ----------------------------------------------------------------------------------------


def test_missing_in_the_emulator_are_routes_of_the_http_api(deployed: Deployed) -> None:
    gateway = deployed.aws.client("apigatewayv2")
    [api] = gateway.get_apis()["Items"]
    path = ROUTES["ListVoices"].partition(" ")[2]

    assert gateway.get_routes(ApiId=api["ApiId"])["Items"] == []
    assert gateway.get_stage(ApiId=api["ApiId"], StageName="$default")["DefaultRouteSettings"] == {}
    assert post(f"{deployed.aws.url}/_aws/execute-api/{api['ApiId']}/$default{path}", b"", {})[0] == 404


def test_missing_in_the_emulator_are_expiry_and_recovery_of_tables(deployed: Deployed) -> None:
    database, table = deployed.aws.client("dynamodb"), deployed.outputs["SessionsTableName"]
    backups = database.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]

    assert database.describe_time_to_live(TableName=table)["TimeToLiveDescription"] == {"TimeToLiveStatus": "DISABLED"}
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "DISABLED"
    assert "SSEDescription" not in database.describe_table(TableName=table)["Table"]

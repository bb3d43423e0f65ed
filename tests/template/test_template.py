"""The rules that template.yaml keeps."""

import re
import subprocess
from collections.abc import Mapping

import pytest

from tests.template.conftest import ROOT, RUNTIME, Node, environment
from tests.template.rights import RIGHTS
from tests.template.routes import BASE, ROUTES, snake_case

READ_SECRET = {"Fn::If": ["SecretsAreInSsm", "ssm:GetParameter", "secretsmanager:GetSecretValue"]}
SECRET_ARN = {
    "Fn::If": [
        "SecretsAreInSsm",
        {"Fn::Sub": "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter${SecretsName}"},
        {
            "Fn::Sub": "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}"
            ":secret:${SecretsName}-??????"
        },
    ]
}

INDEXES = {
    "AgentsTable": {"by_workspace": ("workspace S", "agent_id S", {"ProjectionType": "ALL"})},
    "SessionsTable": {
        "by_workspace": (
            "workspace S",
            "session_id S",
            {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["status", "agent_id"]},
        ),
        "by_due": ("due_shard N", "due_at N", {"ProjectionType": "KEYS_ONLY"}),
    },
    "TranscriptsTable": {},
    "ApiKeysTable": {"by_workspace": ("workspace S", "key_id S", {"ProjectionType": "ALL"})},
}
KEYS = {
    "AgentsTable": ["agent_id S", "version N"],
    "SessionsTable": ["session_id S"],
    "TranscriptsTable": ["transcript_id S", "piece N"],
    "ApiKeysTable": ["key_hash S"],
}


def of_type(resources: Node, kind: str) -> dict[str, Node]:
    return {name: resource for name, resource in resources.items() if resource["Type"] == kind}


def rights(function: Node) -> dict[str, set[str]]:
    """Return which actions of DynamoDB a function may use on what, and whether it may read the secret."""
    found: dict[str, set[str]] = {}
    assert function["Policies"]["Version"] == "2012-10-17"
    for statement in function["Policies"]["Statement"]:
        assert statement["Effect"] == "Allow"
        if statement["Resource"] == SECRET_ARN:
            assert statement["Action"] == READ_SECRET
            found["the secret"] = {"read"}
            continue
        match statement["Resource"]:
            case {"Fn::GetAtt": [table, "Arn"]}:
                resource = table
            case {"Fn::Sub": text}:
                resource = re.sub(r"^\$\{(\w+)\.Arn\}", r"\1", text)
            case other:
                pytest.fail(f"{other} is neither a table nor an index")
        actions = {action.removeprefix("dynamodb:") for action in statement["Action"]}
        found[resource] = found.get(resource, set()) | actions
    return found


def keys_of(table: Node, schema: Node) -> list[str]:
    types = {item["AttributeName"]: item["AttributeType"] for item in table["AttributeDefinitions"]}
    assert [part["KeyType"] for part in schema] == ["HASH", "RANGE"][: len(schema)]
    return [f"{part['AttributeName']} {types[part['AttributeName']]}" for part in schema]


def test_sam_finds_nothing_to_say_about_the_template() -> None:
    checked = subprocess.run(
        [ROOT / ".venv-sam/bin/sam", "validate", "--lint"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.strip().endswith("is a valid SAM Template")


def test_every_folder_of_functions_is_a_function_and_every_function_is_a_folder(functions: Mapping[str, Node]) -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}

    assert {snake_case(name) for name in functions} == folders


def test_folder_and_physical_name_follow_the_logical_id(functions: Mapping[str, Node]) -> None:
    for name, function in functions.items():
        assert function["CodeUri"] == f"functions/{snake_case(name)}"
        assert function["FunctionName"] == {"Fn::Sub": "${AWS::StackName}-" + snake_case(name).replace("_", "-")}


def test_the_api_has_exactly_the_routes_of_the_contract(functions: Mapping[str, Node]) -> None:
    routes = {}
    for name, function in functions.items():
        for event in function.get("Events", {}).values():
            assert event["Type"] == "HttpApi"
            assert event["Properties"]["ApiId"] == {"Ref": "VoiceApi"}
            routes[name] = f"{event['Properties']['Method']} {event['Properties']['Path']}"

    assert routes == ROUTES


def test_only_the_webhook_has_an_address_of_its_own(functions: Mapping[str, Node]) -> None:
    addresses = {name: item["FunctionUrlConfig"] for name, item in functions.items() if "FunctionUrlConfig" in item}

    assert addresses == {"ReceiveLivekitWebhook": {"AuthType": "NONE"}}


def test_every_function_may_do_what_it_does_and_nothing_else(functions: Mapping[str, Node]) -> None:
    assert {name: rights(function) for name, function in functions.items()} == RIGHTS


def test_no_function_shares_its_role(template: Node, functions: Mapping[str, Node]) -> None:
    assert not [name for name, function in functions.items() if "Role" in function]
    assert "Role" not in template["Globals"]["Function"]


def test_functions_end_before_api_gateway_gives_up_on_them(template: Node, functions: Mapping[str, Node]) -> None:
    timeouts = {name: item["Timeout"] for name, item in functions.items() if "Timeout" in item}

    assert template["Globals"]["Function"]["Timeout"] == 10
    assert timeouts == {"CreateSession": 15, "CompleteSession": 29}


def test_functions_that_work_with_the_sdks_get_more_than_half_a_processor(functions: Mapping[str, Node]) -> None:
    memory = {name: item["MemorySize"] for name, item in functions.items() if "MemorySize" in item}

    assert memory == {"CreateSession": 1024, "CompleteSession": 1024, "AddParticipant": 1024}


def test_functions_run_on_the_runtime_that_the_layer_is_built_for(template: Node, resources: Node) -> None:
    common = template["Globals"]["Function"]

    assert common["Runtime"] == RUNTIME
    assert common["Layers"] == [{"Ref": "VoiceLayer"}]
    assert resources["VoiceLayer"]["Properties"]["CompatibleRuntimes"] == [RUNTIME]
    for makefile in ("Makefile", "layers/voice/Makefile"):
        assert re.search(rf":= {re.escape(RUNTIME)}$", (ROOT / makefile).read_text(), re.MULTILINE)


def test_functions_and_layer_take_their_architecture_from_one_parameter(template: Node, resources: Node) -> None:
    architecture = {"Ref": "Architecture"}
    layer = resources["VoiceLayer"]

    assert template["Parameters"]["Architecture"]["Default"] == "arm64"
    assert template["Parameters"]["Architecture"]["AllowedValues"] == ["arm64", "x86_64"]
    assert template["Globals"]["Function"]["Architectures"] == [architecture]
    assert layer["Properties"]["CompatibleArchitectures"] == [architecture]
    assert layer["Metadata"] == {"BuildMethod": "makefile", "BuildArchitecture": architecture}


def test_every_setting_reaches_every_function_and_no_secret_does(template: Node, functions: Mapping[str, Node]) -> None:
    variables = template["Globals"]["Function"]["Environment"]["Variables"]

    assert set(variables) == {
        "VOICE_AGENTS_TABLE",
        "VOICE_SESSIONS_TABLE",
        "VOICE_TRANSCRIPTS_TABLE",
        "VOICE_API_KEYS_TABLE",
        "PI_VOICE_SECRETS",
        "LIVEKIT_URL",
        "GEMINI_LIVE_MODEL",
        "GEMINI_EXTRACTION_MODEL",
        "GEMINI_API_VERSION",
        "GOOGLE_GEMINI_BASE_URL",
        "RETENTION_DAYS",
        "POWERTOOLS_SERVICE_NAME",
        "POWERTOOLS_LOG_LEVEL",
    }
    assert variables["PI_VOICE_SECRETS"] == {"Fn::Sub": "${SecretsStore}:${SecretsName}"}
    assert not [name for name, function in functions.items() if "Environment" in function]


def test_every_parameter_is_described_used_and_held_to_its_values(template: Node) -> None:
    used = (ROOT / "template.yaml").read_text(encoding="utf-8")

    for name, parameter in template["Parameters"].items():
        assert parameter["Description"], name
        assert {"AllowedValues", "AllowedPattern", "MinValue"} & set(parameter), name
        assert re.search(rf"!(Ref {name}\b|Equals \[!Ref {name}\b)|\$\{{{name}\}}", used), name


@pytest.mark.parametrize(
    ("parameter", "value", "fits"),
    [
        ("LiveKitUrl", "wss://example.livekit.cloud", True),
        ("LiveKitUrl", "ws://[::1]:7880", True),
        ("LiveKitUrl", "https://example.livekit.cloud", False),
        ("LiveKitUrl", "wss://example.livekit.cloud?token=1", False),
        ("GeminiLiveModel", "gemini-3.1-flash-live-preview", True),
        ("GeminiLiveModel", "models/gemini-3.1-flash-live-preview", False),
        ("GeminiBaseUrl", "https://generativelanguage.googleapis.com", True),
        ("GeminiBaseUrl", "https://generativelanguage.googleapis.com/", False),
        ("SecretsName", "/pi-voice/secrets", True),
        ("SecretsName", "pi-voice/secrets", False),
        ("SecretsName", "/pi-voice/*", False),
    ],
)
def test_a_parameter_refuses_what_could_not_work(template: Node, parameter: str, value: str, *, fits: bool) -> None:
    assert bool(re.search(template["Parameters"][parameter]["AllowedPattern"], value)) is fits


def test_every_log_is_a_resource_with_the_retention_that_was_asked_for(resources: Node) -> None:
    logs = of_type(resources, "AWS::Logs::LogGroup")

    assert set(logs) == {"ApiLogs", "FunctionLogs"}
    assert all(log["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"} for log in logs.values())
    assert resources["VoiceApi"]["Properties"]["AccessLogSettings"]["DestinationArn"] == {
        "Fn::GetAtt": ["ApiLogs", "Arn"]
    }


def test_no_library_gets_to_log_more_than_warnings(template: Node) -> None:
    """In Lambda's JSON format libraries would log at LogLevel too, and at DEBUG botocore quotes what it reads."""
    assert template["Globals"]["Function"]["LoggingConfig"] == {
        "LogGroup": {"Ref": "FunctionLogs"},
        "LogFormat": "Text",
    }


def test_the_access_log_is_json_and_quotes_no_header_and_no_query(resources: Node) -> None:
    line = resources["VoiceApi"]["Properties"]["AccessLogSettings"]["Format"]

    assert "\n" not in line
    assert re.fullmatch(r'\{("\w+": "\$context\.[\w.]+"(, )?)+\}', line)
    assert not re.search(r"(?i)header|authorization|authorizer|query", line)


def test_the_api_is_throttled_by_parameters(resources: Node) -> None:
    assert resources["VoiceApi"]["Properties"]["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "ThrottleRate"},
        "ThrottlingBurstLimit": {"Ref": "ThrottleBurst"},
    }


def test_tables_have_their_keys_and_all_their_indexes(resources: Node) -> None:
    tables = {name: table["Properties"] for name, table in of_type(resources, "AWS::DynamoDB::Table").items()}

    assert {name: keys_of(table, table["KeySchema"]) for name, table in tables.items()} == KEYS
    assert {
        name: {
            index["IndexName"]: (*keys_of(table, index["KeySchema"]), index["Projection"])
            for index in table.get("GlobalSecondaryIndexes", [])
        }
        for name, table in tables.items()
    } == INDEXES


def test_tables_are_kept_encrypted_recoverable_and_paid_by_use(resources: Node) -> None:
    for table in of_type(resources, "AWS::DynamoDB::Table").values():
        properties = table["Properties"]
        assert table["DeletionPolicy"] == "RetainExceptOnCreate"
        assert table["UpdateReplacePolicy"] == "Retain"
        assert properties["BillingMode"] == "PAY_PER_REQUEST"
        assert properties["SSESpecification"] == {"SSEEnabled": True}
        assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_what_is_personal_can_expire(resources: Node) -> None:
    expiring = {
        name: table["Properties"]["TimeToLiveSpecification"]
        for name, table in of_type(resources, "AWS::DynamoDB::Table").items()
        if "TimeToLiveSpecification" in table["Properties"]
    }

    ttl = {"AttributeName": "ttl", "Enabled": True}
    assert expiring == {"SessionsTable": ttl, "TranscriptsTable": ttl}


def test_two_stacks_fit_into_one_account(resources: Node, functions: Mapping[str, Node]) -> None:
    names = [
        *(table["Properties"]["TableName"] for table in of_type(resources, "AWS::DynamoDB::Table").values()),
        *(log["Properties"]["LogGroupName"] for log in of_type(resources, "AWS::Logs::LogGroup").values()),
        *(function["FunctionName"] for function in functions.values()),
        resources["VoiceLayer"]["Properties"]["LayerName"],
    ]

    assert all("${AWS::StackName}" in name["Fn::Sub"] for name in names)


def test_the_outputs_say_where_everything_is(template: Node) -> None:
    outputs = {name: output["Value"] for name, output in template["Outputs"].items()}

    assert outputs == {
        "ApiUrl": {"Fn::Sub": "https://${VoiceApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}" + BASE},
        "WebhookUrl": {"Fn::GetAtt": ["ReceiveLivekitWebhookUrl", "FunctionUrl"]},
        "AgentsTableName": {"Ref": "AgentsTable"},
        "SessionsTableName": {"Ref": "SessionsTable"},
        "TranscriptsTableName": {"Ref": "TranscriptsTable"},
        "ApiKeysTableName": {"Ref": "ApiKeysTable"},
    }

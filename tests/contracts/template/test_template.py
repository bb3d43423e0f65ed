"""The rules for template.yaml."""

import json
import re
import subprocess
from collections.abc import Mapping
from typing import get_args

import pytest

from pi_voice import metrics, settings
from pi_voice.adapters import aws, gemini_live, livekit
from pi_voice.domain import sessions, webhook_deliveries
from pi_voice.domain.errors import Misconfiguration
from pi_voice.entrypoints import events
from pi_voice.use_cases import extract_results, extractor, sweep_deliveries, sweep_sessions
from tests.support.template import (
    BASE,
    ROOT,
    ROUTES,
    RUNTIME,
    SECRET,
    SECRETS,
    Node,
    environment,
    rights_of,
    snake_case,
)

LISTED = [
    "status",
    "agent_id",
    "participant_identity",
    "created_at",
    "expires_at",
    "hung_up_at",
    "completed_at",
    "failed_at",
    "duration_seconds",
    "end_reason",
]
BY_DUE = ("due_shard N", "due_at N", {"ProjectionType": "KEYS_ONLY"})
INDEXES = {
    "AgentsTable": {"by_workspace": ("workspace S", "agent_id S", {"ProjectionType": "ALL"})},
    "SessionsTable": {
        "by_workspace": (
            "workspace S",
            "session_id S",
            {"ProjectionType": "INCLUDE", "NonKeyAttributes": LISTED},
        ),
        "by_due": BY_DUE,
    },
    "TranscriptsTable": {},
    "ApiKeysTable": {"by_workspace": ("workspace S", "key_id S", {"ProjectionType": "ALL"})},
    "WebhookEndpointsTable": {},
    "WebhookDeliveriesTable": {"by_due": BY_DUE},
    "UsageTable": {},
    "LimitsTable": {},
    "IdempotencyTable": {},
}
KEYS = {
    "AgentsTable": ["agent_id S", "version N"],
    "SessionsTable": ["session_id S"],
    "TranscriptsTable": ["session_id S", "piece S"],
    "ApiKeysTable": ["key_hash S"],
    "WebhookEndpointsTable": ["workspace S", "endpoint_id S"],
    "WebhookDeliveriesTable": ["endpoint_id S", "delivery_id S"],
    "UsageTable": ["workspace_day S", "session_id S"],
    "LimitsTable": ["workspace S"],
    "IdempotencyTable": ["id S"],
}
GATEWAY_SECONDS = 30
HALF_A_PROCESSOR_MB = 885
"""Lambda gives a whole processor with 1,769 MB."""

STORING_SECONDS = 8
"""Seconds left beside a budget for reading and writing, which take milliseconds without retries."""


def of_type(resources: Node, kind: str) -> dict[str, Node]:
    found = {name: resource for name, resource in resources.items() if resource["Type"] == kind}
    assert found, "a test would check nothing"
    return found


def test_each_group_of_secrets_has_one_policy(resources: Node) -> None:
    account = "${AWS::Partition}:%s:${AWS::Region}:${AWS::AccountId}"
    policies = of_type(resources, "AWS::IAM::ManagedPolicy")

    assert policies.keys() == {f"Read{group}Secret" for group in SECRETS}
    for group, name in SECRETS.items():
        [statement] = policies[f"Read{group}Secret"]["Properties"]["PolicyDocument"]["Statement"]
        in_ssm = {"Fn::Sub": f"arn:{account % 'ssm'}:parameter${{SecretsPrefix}}/{name}"}
        in_manager = {"Fn::Sub": f"arn:{account % 'secretsmanager'}:secret:${{SecretsPrefix}}/{name}-??????"}
        assert statement == {
            "Effect": "Allow",
            "Action": {"Fn::If": ["SecretsAreInSsm", "ssm:GetParameters", "secretsmanager:GetSecretValue"]},
            "Resource": {"Fn::If": ["SecretsAreInSsm", in_ssm, in_manager]},
        }


def keys_of(table: Node, schema: Node) -> list[str]:
    types = {item["AttributeName"]: item["AttributeType"] for item in table["AttributeDefinitions"]}
    assert [part["KeyType"] for part in schema] == ["HASH", "RANGE"][: len(schema)]
    return [f"{part['AttributeName']} {types[part['AttributeName']]}" for part in schema]


def test_sam_validates_the_template_without_warnings() -> None:
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


def test_every_function_has_a_folder_and_every_folder_a_function(functions: Mapping[str, Node]) -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}

    assert {snake_case(name) for name in functions} == folders


def test_folder_and_physical_name_follow_the_logical_id(functions: Mapping[str, Node]) -> None:
    for name, function in functions.items():
        assert function["CodeUri"] == f"functions/{snake_case(name)}"
        assert function["FunctionName"] == {"Fn::Sub": "${AWS::StackName}-" + snake_case(name).replace("_", "-")}


def test_a_function_has_at_most_one_route_of_the_one_api(functions: Mapping[str, Node]) -> None:
    for name, function in functions.items():
        routes = [event for event in function.get("Events", {}).values() if event["Type"] == "HttpApi"]
        assert len(routes) <= 1, name
        assert all(route["Properties"]["ApiId"] == {"Ref": "VoiceApi"} for route in routes), name


def test_a_function_without_a_route_has_a_queue_a_schedule_or_an_operator(
    resources: Node, functions: Mapping[str, Node]
) -> None:
    callers = {
        name: [event["Type"] for event in function.get("Events", {}).values()]
        for name, function in functions.items()
        if name not in ROUTES
    }
    for mapping in of_type(resources, "AWS::Lambda::EventSourceMapping").values():
        callers[mapping["Properties"]["FunctionName"]["Ref"]].append("messages")

    assert callers == {
        "ExtractResults": ["messages"],
        "SweepSessions": ["Schedule"],
        "DispatchEvents": ["messages"],
        "DeliverEvent": ["messages"],
        "SweepDeliveries": ["Schedule"],
        "CreateApiKey": [],
        "ListApiKeys": [],
        "RevokeApiKey": [],
    }


def test_only_the_webhook_has_a_function_url(functions: Mapping[str, Node]) -> None:
    addresses = {name: item["FunctionUrlConfig"] for name, item in functions.items() if "FunctionUrlConfig" in item}

    assert addresses == {"ReceiveLivekitWebhook": {"AuthType": "NONE"}}


def test_a_policy_allows_named_actions_on_named_resources_only(functions: Mapping[str, Node]) -> None:
    """That these are the ones that a function uses is tested in tests/functions/test_rights.py."""
    for name, function in functions.items():
        actions = [action for actions in rights_of(function).values() for action in actions]
        assert actions, name
        assert all(re.fullmatch("[A-Za-z]+", action) for action in actions), name


def test_no_function_shares_its_role(template: Node, functions: Mapping[str, Node]) -> None:
    assert not [name for name, function in functions.items() if "Role" in function]
    assert "Role" not in template["Globals"]["Function"]


def test_functions_time_out_before_api_gateway(template: Node, functions: Mapping[str, Node]) -> None:
    usual = template["Globals"]["Function"]["Timeout"]

    for name in ROUTES:
        assert functions[name].get("Timeout", usual) < GATEWAY_SECONDS, name


def test_a_slow_function_has_a_time_budget_well_below_its_timeout(functions: Mapping[str, Node]) -> None:
    worker = (ROOT / "functions/extract_results/app.py").read_text(encoding="utf-8")
    budget = re.search(r"^SECONDS: Final = ([0-9.]+)", worker, re.MULTILINE)
    assert budget

    # The provider hangs, then the write of the session, then the write of the failure.
    providers = max(livekit.TIME_LIMIT_SECONDS, gemini_live.TIME_LIMIT_SECONDS)
    assert providers + 2 * STORING_SECONDS <= functions["CreateSession"]["Timeout"] < 30
    for name in ("CompleteSession", "RerunExtraction", "PreviewExtraction"):
        assert extractor.BUDGET_SECONDS + extractor.RESERVE_SECONDS < functions[name]["Timeout"] < 30, name
    assert float(budget[1]) + STORING_SECONDS <= functions["ExtractResults"]["Timeout"]
    assert sweep_sessions.BUDGET_SECONDS + STORING_SECONDS <= functions["SweepSessions"]["Timeout"] < 60


def test_functions_that_call_out_get_more_than_half_a_processor(template: Node, functions: Mapping[str, Node]) -> None:
    usual = template["Globals"]["Function"]["MemorySize"]

    for name, function in functions.items():
        calls_out = bool(rights_of(function).keys() & {f"LiveKit{SECRET}", f"Gemini{SECRET}"})
        calls_out |= name in ("CallTool", "DeliverEvent")
        if name != "ReceiveLivekitWebhook":  # it calls LiveKit only after a hang-up
            assert (function.get("MemorySize", usual) >= HALF_A_PROCESSOR_MB) is calls_out, name


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
        "VOICE_WEBHOOK_ENDPOINTS_TABLE",
        "VOICE_WEBHOOK_DELIVERIES_TABLE",
        "VOICE_IDEMPOTENCY_TABLE",
        "PI_VOICE_SECRETS",
        "LIVEKIT_URL",
        "GEMINI_LIVE_MODEL",
        "GEMINI_LIVE_THINKING_LEVEL",
        "GEMINI_TRANSCRIPTION_HINTS",
        "GEMINI_EXTRACTION_MODEL",
        "GEMINI_EXTRACTION_THINKING_LEVEL",
        "GEMINI_API_VERSION",
        "GOOGLE_GEMINI_BASE_URL",
        "RETENTION_DAYS",
        "GRACE_SECONDS",
        "EXTRACTION_PRICES",
        "COMPLETES_PER_MINUTE",
        "CREATES_PER_MINUTE",
        "EXTRACTIONS_PER_MINUTE",
        "EXTRACTION_QUEUE_URL",
        "EVENT_QUEUE_URL",
        "DELIVERY_QUEUE_URL",
        "WEBHOOK_ALLOWED_PORTS",
        "WEBHOOK_ALLOWED_HOSTS",
        "POWERTOOLS_SERVICE_NAME",
        "POWERTOOLS_LOG_LEVEL",
        "PYDANTIC_DISABLE_PLUGINS",
    }
    assert variables["PI_VOICE_SECRETS"] == {"Fn::Sub": "${SecretsStore}:${SecretsPrefix}"}
    assert not [name for name, function in functions.items() if "Environment" in function]


def test_every_parameter_is_described_used_and_validated(template: Node) -> None:
    used = (ROOT / "template.yaml").read_text(encoding="utf-8")

    for name, parameter in template["Parameters"].items():
        assert parameter["Description"], name
        assert {"AllowedValues", "AllowedPattern", "MinValue"} & set(parameter), name
        assert re.search(rf"!(Ref {name}\b|Equals \[!Ref {name}\b)|\$\{{{name}\}}", used), name


def test_every_parameter_is_shown_in_one_group(template: Node) -> None:
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    assert [name for group in groups for name in group["Parameters"]] == list(template["Parameters"])


def test_the_default_grace_period_is_that_of_the_product(template: Node) -> None:
    assert template["Parameters"]["GraceSeconds"]["Default"] == settings.grace_seconds({})
    assert settings.grace_seconds({}) == sessions.DEFAULT_GRACE_SECONDS


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
        ("SecretsPrefix", "/pi-voice/test", True),
        ("SecretsPrefix", "pi-voice", False),
        ("SecretsPrefix", "/pi-voice/*", False),
        ("CorsAllowOrigins", "", True),
        ("CorsAllowOrigins", "https://app.example.com", True),
        ("CorsAllowOrigins", "http://localhost:5173", True),
        ("CorsAllowOrigins", "https://app.example.com/", False),
        ("CorsAllowOrigins", "app.example.com", False),
        ("CorsAllowOrigins", "*", False),
        ("AlarmTopicArn", "", True),
        ("AlarmTopicArn", "arn:aws:sns:eu-west-1:123456789012:alarms", True),
        ("AlarmTopicArn", "alarms", False),
    ],
)
def test_a_parameter_refuses_invalid_values(template: Node, parameter: str, value: str, *, fits: bool) -> None:
    assert bool(re.search(template["Parameters"][parameter]["AllowedPattern"], value)) is fits


def test_every_log_is_a_resource_with_the_retention_of_the_parameter(resources: Node) -> None:
    logs = of_type(resources, "AWS::Logs::LogGroup")

    assert set(logs) == {"ApiLogs", "FunctionLogs"}
    assert all(log["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"} for log in logs.values())
    assert resources["VoiceApi"]["Properties"]["AccessLogSettings"]["DestinationArn"] == {
        "Fn::GetAtt": ["ApiLogs", "Arn"]
    }


def test_libraries_log_warnings_only(template: Node) -> None:
    """In Lambda's JSON format libraries would log at LogLevel too, and at DEBUG botocore logs the data it reads."""
    assert template["Globals"]["Function"]["LoggingConfig"] == {
        "LogGroup": {"Ref": "FunctionLogs"},
        "LogFormat": "Text",
    }


def test_the_access_log_is_json_without_headers_and_queries(resources: Node) -> None:
    line = resources["VoiceApi"]["Properties"]["AccessLogSettings"]["Format"]

    assert "\n" not in line
    assert re.fullmatch(r'\{("\w+": "\$context\.[\w.]+"(, )?)+\}', line)
    assert not re.search(r"(?i)header|authorization|authorizer|query", line)


def test_the_api_is_throttled_by_parameters(resources: Node) -> None:
    assert resources["VoiceApi"]["Properties"]["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "ThrottleRate"},
        "ThrottlingBurstLimit": {"Ref": "ThrottleBurst"},
    }


def test_a_browser_may_call_only_from_a_named_origin(template: Node, resources: Node) -> None:
    cors = resources["VoiceApi"]["Properties"]["CorsConfiguration"]
    condition, configured, otherwise = cors["Fn::If"]
    origins = {"Ref": "CorsAllowOrigins"}

    assert otherwise == {"Ref": "AWS::NoValue"}
    assert template["Parameters"]["CorsAllowOrigins"]["Default"] == ""
    assert template["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", origins]}, ""]}]}
    assert configured["AllowOrigins"] == origins
    assert "AllowCredentials" not in configured


def test_browsers_may_send_and_read_all_headers_of_the_contract(resources: Node) -> None:
    _, cors, _ = resources["VoiceApi"]["Properties"]["CorsConfiguration"]["Fn::If"]
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    sent = {
        each["name"] for operation in operations for each in operation.get("parameters", []) if each["in"] == "header"
    }
    read = {
        name for operation in operations for answer in operation["responses"].values() for name in answer["headers"]
    }

    assert set(cors["AllowMethods"]) == {route.split(" ")[0] for route in ROUTES.values()}
    assert set(cors["AllowHeaders"]) == {"authorization", "content-type", *map(str.lower, sent)}
    assert set(cors["ExposeHeaders"]) == {*map(str.lower, read)} - {"www-authenticate"}


def test_the_queue_has_the_visibility_timeout_that_aws_advises_and_the_worker_s_limit_of_deliveries(
    resources: Node, functions: Mapping[str, Node]
) -> None:
    queue = resources["ExtractionQueue"]["Properties"]
    hidden_seconds = queue["VisibilityTimeout"]

    assert hidden_seconds == 6 * functions["ExtractResults"]["Timeout"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["ExtractionDeadLetters", "Arn"]},
        "maxReceiveCount": events.MAX_DELIVERIES,
    }
    # Even if the worker crashes each time, the deliveries end before the sweeper treats the message as lost.
    assert events.MAX_DELIVERIES * hidden_seconds <= extract_results.QUEUED_SECONDS


def test_a_worker_gets_few_messages_at_a_time_and_reports_failed_ones(resources: Node) -> None:
    mappings = of_type(resources, "AWS::Lambda::EventSourceMapping").values()

    for mapping in mappings:
        assert mapping["Properties"].keys() == {
            "FunctionName",
            "EventSourceArn",
            "BatchSize",
            "FunctionResponseTypes",
            "ScalingConfig",
        }
        assert mapping["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert {
        mapping["Properties"]["FunctionName"]["Ref"]: (
            mapping["Properties"]["EventSourceArn"]["Fn::GetAtt"][0],
            mapping["Properties"]["BatchSize"],
            mapping["Properties"]["ScalingConfig"]["MaximumConcurrency"],
        )
        for mapping in mappings
    } == {
        "ExtractResults": ("ExtractionQueue", 1, 10),
        "DispatchEvents": ("EventQueue", 10, 50),
        "DeliverEvent": ("DeliveryQueue", 1, 50),
    }


def test_queues_are_encrypted_and_have_the_longest_retention_of_sqs(resources: Node) -> None:
    queues = {name: queue["Properties"] for name, queue in of_type(resources, "AWS::SQS::Queue").items()}

    assert queues.keys() == {
        *("ExtractionQueue", "ExtractionDeadLetters"),
        *("EventQueue", "EventDeadLetters"),
        *("DeliveryQueue", "DeliveryDeadLetters"),
    }
    assert all(queue["SqsManagedSseEnabled"] for queue in queues.values())
    for name, queue in queues.items():
        if name != "DeliveryQueue":
            assert queue["MessageRetentionPeriod"] == 14 * 86_400, name


def test_the_queue_of_deliveries_keeps_the_order_of_each_endpoint(resources: Node) -> None:
    queue, dead = (resources[name]["Properties"] for name in ("DeliveryQueue", "DeliveryDeadLetters"))

    for each in (queue, dead):
        assert each["FifoQueue"] is True
        assert each["QueueName"]["Fn::Sub"].endswith(".fifo")
    assert (queue["DeduplicationScope"], queue["FifoThroughputLimit"]) == ("messageGroup", "perMessageGroupId")
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["DeliveryDeadLetters", "Arn"]},
        "maxReceiveCount": events.MAX_DELIVERIES,
    }


def test_the_schedule_queues_a_delivery_again_when_the_queue_has_deleted_its_message(resources: Node) -> None:
    """Otherwise messages of a slow endpoint would pile up in the queue, and SQS would find no other ones."""
    assert resources["DeliveryQueue"]["Properties"]["MessageRetentionPeriod"] <= sweep_deliveries.QUEUED_SECONDS


def test_endpoints_that_hang_leave_twenty_workers_to_the_others(resources: Node) -> None:
    workers = resources["DeliveryMessages"]["Properties"]["ScalingConfig"]["MaximumConcurrency"]

    assert workers - sweep_deliveries.MAX_PROBES == 20


def test_a_try_ends_before_its_function_and_its_message_is_hidden_for_six_times_as_long(resources: Node) -> None:
    timeout = resources["DeliverEvent"]["Properties"]["Timeout"]

    assert (
        timeout >= webhook_deliveries.TRY_SECONDS + 3 * aws.DEADLINE_SECONDS
    )  # reads before the try, and writes after it
    assert resources["DeliveryQueue"]["Properties"]["VisibilityTimeout"] == 6 * timeout
    assert timeout < webhook_deliveries.SHORTEST_PAUSE * webhook_deliveries.PAUSES[0]


def test_the_messages_of_a_batch_end_before_their_function_and_are_hidden_for_six_times_as_long(
    resources: Node,
) -> None:
    handler = (ROOT / "functions/dispatch_events/app.py").read_text(encoding="utf-8")
    seconds = re.search(r"^SECONDS: Final = ([0-9.]+)", handler, re.MULTILINE)
    function, queue = (resources[name]["Properties"] for name in ("DispatchEvents", "EventQueue"))
    assert seconds

    assert resources["EventMessages"]["Properties"]["BatchSize"] * float(seconds[1]) < function["Timeout"]
    assert queue["VisibilityTimeout"] == 6 * function["Timeout"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["EventDeadLetters", "Arn"]},
        "maxReceiveCount": events.MAX_DELIVERIES,
    }


def test_events_that_are_not_dispatched_raise_an_alarm(template: Node, resources: Node) -> None:
    alarm = resources["EventsNotDispatched"]["Properties"]

    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["EventDeadLetters", "QueueName"]}}]
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
    assert alarm["TreatMissingData"] == "notBreaching"
    assert_alarm_notifies_the_topic(template, alarm)


def test_deliveries_that_fail_raise_alarms(template: Node, resources: Node) -> None:
    dead, fails = (resources[name]["Properties"] for name in ("DeliveriesGivenUp", "DeliverySweeperFails"))
    [disabled] = of_metric(resources, "WebhookEndpointsDisabled")

    assert dead["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["DeliveryDeadLetters", "QueueName"]}}]
    assert fails["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": "SweepDeliveries"}}]
    assert (fails["ComparisonOperator"], fails["TreatMissingData"]) == ("GreaterThanOrEqualToThreshold", "breaching")
    assert (dead["ComparisonOperator"], dead["Threshold"]) == ("GreaterThanThreshold", 0)
    assert dead["TreatMissingData"] == "notBreaching"
    assert_alarm_rings_at_the_first_event(template, disabled)
    for alarm in (dead, disabled, fails):
        assert_alarm_notifies_the_topic(template, alarm)


def test_make_redrive_knows_the_names_of_the_dead_letter_queues(resources: Node) -> None:
    names = [resources[queue]["Properties"]["QueueName"] for queue in ("ExtractionDeadLetters", "EventDeadLetters")]

    assert names == [{"Fn::Sub": f"${{AWS::StackName}}-{queue}-dead"} for queue in ("extractions", "events")]


def test_one_dead_letter_raises_an_alarm(template: Node, resources: Node) -> None:
    alarm = resources["ExtractionsGivenUp"]["Properties"]

    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    assert alarm["Dimensions"] == [
        {"Name": "QueueName", "Value": {"Fn::GetAtt": ["ExtractionDeadLetters", "QueueName"]}}
    ]
    assert (alarm["Statistic"], alarm["ComparisonOperator"], alarm["Threshold"], alarm["EvaluationPeriods"]) == (
        "Maximum",
        "GreaterThanThreshold",
        0,
        1,
    )
    assert alarm["TreatMissingData"] == "notBreaching"
    assert_alarm_notifies_the_topic(template, alarm)


def test_a_sweeper_that_fails_or_does_not_run_raises_an_alarm(template: Node, resources: Node) -> None:
    """Lambda writes the metric at each run, so missing data means that there was none."""
    alarm = resources["SweeperFails"]["Properties"]

    assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]) == ("AWS/Lambda", "Errors", "Sum")
    assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": "SweepSessions"}}]
    assert (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("GreaterThanOrEqualToThreshold", "breaching")
    assert 1 <= alarm["Threshold"] <= alarm["Period"] / 60
    assert_alarm_notifies_the_topic(template, alarm)


def test_each_refusal_of_the_deployment_raises_an_alarm_of_its_own(template: Node, resources: Node) -> None:
    alarms = of_metric(resources, "ExtractionsMisconfigured")

    dimensions = {tuple(sorted((each["Name"], str(each["Value"])) for each in alarm["Dimensions"])) for alarm in alarms}
    assert dimensions == {
        (("cause", cause), ("service", "{'Ref': 'AWS::StackName'}")) for cause in get_args(Misconfiguration)
    }
    for alarm in alarms:
        assert_alarm_rings_at_the_first_event(template, alarm)


def test_a_duty_that_is_given_up_raises_an_alarm(template: Node, resources: Node) -> None:
    [alarm] = of_metric(resources, "DutiesGivenUp")

    assert alarm["Dimensions"] == [{"Name": "service", "Value": {"Ref": "AWS::StackName"}}]
    assert_alarm_rings_at_the_first_event(template, alarm)


def test_the_stack_is_a_dimension_of_the_functions_metrics(template: Node) -> None:
    variables = template["Globals"]["Function"]["Environment"]["Variables"]

    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


def of_metric(resources: Node, name: str) -> list[Node]:
    """Return the alarms of a metric that the functions write."""
    alarms = [alarm["Properties"] for alarm in of_type(resources, "AWS::CloudWatch::Alarm").values()]
    return [alarm for alarm in alarms if alarm.get("MetricName") == name]


def assert_alarm_rings_at_the_first_event(template: Node, alarm: Node) -> None:
    assert (alarm["Namespace"], alarm["Statistic"], alarm["EvaluationPeriods"]) == (metrics.NAMESPACE, "Sum", 1)
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
    assert alarm["TreatMissingData"] == "notBreaching"
    assert_alarm_notifies_the_topic(template, alarm)


def assert_alarm_notifies_the_topic(template: Node, alarm: Node) -> None:
    condition, notified, otherwise = alarm["AlarmActions"]["Fn::If"]
    assert (notified, otherwise) == ([{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"})
    assert template["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]}


def test_the_sweeper_starts_every_minute_and_is_never_retried(functions: Mapping[str, Node]) -> None:
    """EventBridge retries a failed start. Lambda retries a failed run, twice by default."""
    sweeper = functions["SweepSessions"]
    [schedule] = sweeper["Events"].values()

    assert schedule["Properties"] == {
        "Schedule": "rate(1 minute)",
        "RetryPolicy": {"MaximumRetryAttempts": 0},
    }
    assert sweeper["EventInvokeConfig"] == {"MaximumRetryAttempts": 0}


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


def test_tables_are_encrypted_and_on_demand(resources: Node) -> None:
    for table in of_type(resources, "AWS::DynamoDB::Table").values():
        assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
        assert table["Properties"]["SSESpecification"] == {"SSEEnabled": True}


def test_tables_are_retained_and_recoverable_except_those_with_nothing_to_restore(resources: Node) -> None:
    tables = of_type(resources, "AWS::DynamoDB::Table")

    for table in (tables.pop("IdempotencyTable"), tables.pop("LimitsTable")):
        assert not {"DeletionPolicy", "UpdateReplacePolicy"} & table.keys()
        assert "PointInTimeRecoverySpecification" not in table["Properties"]
    for table in tables.values():
        assert table["DeletionPolicy"] == "RetainExceptOnCreate"
        assert table["UpdateReplacePolicy"] == "Retain"
        assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_personal_data_can_expire(resources: Node) -> None:
    expiring = {
        name: table["Properties"]["TimeToLiveSpecification"]
        for name, table in of_type(resources, "AWS::DynamoDB::Table").items()
        if "TimeToLiveSpecification" in table["Properties"]
    }

    ttl = {"AttributeName": "ttl", "Enabled": True}
    assert expiring == {
        "SessionsTable": ttl,
        "TranscriptsTable": ttl,
        "WebhookDeliveriesTable": ttl,
        "UsageTable": ttl,
        "IdempotencyTable": {"AttributeName": "expiration", "Enabled": True},  # Powertools' name
    }


def test_two_stacks_can_share_one_account(resources: Node, functions: Mapping[str, Node]) -> None:
    names = [
        *(table["Properties"]["TableName"] for table in of_type(resources, "AWS::DynamoDB::Table").values()),
        *(log["Properties"]["LogGroupName"] for log in of_type(resources, "AWS::Logs::LogGroup").values()),
        *(queue["Properties"]["QueueName"] for queue in of_type(resources, "AWS::SQS::Queue").values()),
        *(alarm["Properties"]["AlarmName"] for alarm in of_type(resources, "AWS::CloudWatch::Alarm").values()),
        *(function["FunctionName"] for function in functions.values()),
        resources["VoiceLayer"]["Properties"]["LayerName"],
    ]

    assert all("${AWS::StackName}" in name["Fn::Sub"] for name in names)


def test_the_outputs_name_the_urls_and_tables(template: Node) -> None:
    outputs = {name: output["Value"] for name, output in template["Outputs"].items()}

    assert outputs == {
        "ApiUrl": {"Fn::Sub": "https://${VoiceApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}" + BASE},
        "WebhookUrl": {"Fn::GetAtt": ["ReceiveLivekitWebhookUrl", "FunctionUrl"]},
        "AgentsTableName": {"Ref": "AgentsTable"},
        "SessionsTableName": {"Ref": "SessionsTable"},
        "TranscriptsTableName": {"Ref": "TranscriptsTable"},
        "ApiKeysTableName": {"Ref": "ApiKeysTable"},
        "WebhookEndpointsTableName": {"Ref": "WebhookEndpointsTable"},
        "WebhookDeliveriesTableName": {"Ref": "WebhookDeliveriesTable"},
        "UsageTableName": {"Ref": "UsageTable"},
    }

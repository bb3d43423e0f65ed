"""The template reader reads what runs locally, and refuses what it does not support."""

import textwrap
from pathlib import Path

import pytest

from local.errors import CannotStart
from local.template import Cors, Queue, QueueEvents, Route, Schedule, load

TEMPLATE = """
    Parameters:
      Model: {Type: String, Default: flash}
      Days: {Type: Number, Default: 30}
      Url: {Type: String}
      Origins: {Type: CommaDelimitedList, Default: ""}
    Conditions:
      Never: !Equals [!Ref Model, other]
      Always: !Equals [!Ref Days, "30"]
      BrowsersMayCall: !Not [!Equals [!Join ["", !Ref Origins], ""]]
    Globals:
      Function:
        Handler: app.handler
        MemorySize: 512
        Layers: [!Ref Code]
        Environment:
          Variables:
            TABLE: !Ref Things
            MODEL: !Sub "models/${Model}"
            DAYS: !Ref Days
            URL: !Ref Url
            CHOSEN: !If [Always, "yes", "no"]
            ARN: !GetAtt Things.Arn
            QUEUE: !Ref Work
            JOINED: !Join ["-", [a, !Ref Days, !If [Never, b, !Ref AWS::NoValue], !GetAtt Work.QueueName]]
            LITERAL: !Sub "${!Kept} ${Things.Arn}"
    Resources:
      Code:
        Type: AWS::Serverless::LayerVersion
        Properties: {ContentUri: code}
      Api:
        Type: AWS::Serverless::HttpApi
        Properties:
          StageName: $default
          CorsConfiguration: !If
            - BrowsersMayCall
            - {AllowOrigins: !Ref Origins, AllowMethods: [GET, POST], AllowHeaders: [a], ExposeHeaders: [b], MaxAge: 60}
            - !Ref AWS::NoValue
      Logs:
        Type: AWS::Logs::LogGroup
      Hello:
        Type: AWS::Serverless::Function
        Properties:
          FunctionName: !Sub "${AWS::StackName}-hello"
          CodeUri: hello
          Timeout: 20
          Events:
            One: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: get, Path: "/hello/{name}"}}
            Two: {Type: HttpApi, Properties: {Method: ANY, Path: /any}}
            Clock: {Type: Schedule, Properties: {Schedule: rate(1 minute), RetryPolicy: {MaximumRetryAttempts: 0}}}
          FunctionUrlConfig: {AuthType: NONE}
          Environment: {Variables: {MODEL: own}}
          Policies: [{Statement: [{Effect: Allow, Resource: !Unheard Of}]}]
      Messages:
        Type: AWS::Lambda::EventSourceMapping
        Properties:
          FunctionName: !Ref Hello
          EventSourceArn: !GetAtt Work.Arn
          BatchSize: 2
          FunctionResponseTypes: [ReportBatchItemFailures]
          ScalingConfig: {MaximumConcurrency: 10}
      Absent:
        Condition: Never
        Type: AWS::Nothing::AtAll
      Things:
        Type: AWS::DynamoDB::Table
        DeletionPolicy: RetainExceptOnCreate
        Properties:
          TableName: !Sub "${AWS::StackName}-things"
          BillingMode: PAY_PER_REQUEST
          AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
          KeySchema: [{AttributeName: id, KeyType: HASH}]
          TimeToLiveSpecification: {AttributeName: ttl, Enabled: true}
          SSESpecification: {SSEEnabled: true}
      Work:
        Type: AWS::SQS::Queue
        Properties:
          QueueName: !Sub "${AWS::StackName}-work"
          VisibilityTimeout: 540
          SqsManagedSseEnabled: true
          RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 6}
      Dead:
        Type: AWS::SQS::Queue
      SomeAlarm:
        Type: AWS::CloudWatch::Alarm
        Properties: {AlarmActions: !If [Never, [!Unheard Of], !Ref AWS::NoValue]}
"""
QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:pi-voice-local-work"


def write(folder: Path, text: str = TEMPLATE) -> Path:
    for name in ("code", "hello"):
        (folder / name).mkdir(exist_ok=True)
    path = folder / "template.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def test_a_function_is_read_with_its_globals(tmp_path: Path) -> None:
    [hello] = load(write(tmp_path), {"URL": "wss://here", "EXTRA": "1"}).functions

    assert (hello.logical_id, hello.name, hello.handler) == ("Hello", "pi-voice-local-hello", "app.handler")
    assert (hello.timeout_seconds, hello.memory_mb) == (20, 512)
    assert (hello.code, hello.layers) == (tmp_path / "hello", (tmp_path / "code",))
    assert hello.routes == (Route("GET", "/hello/{name}"), Route("ANY", "/any"))
    assert hello.queues == (
        QueueEvents("pi-voice-local-work", batch_size=2, reports_failures=True, max_concurrency=10),
    )
    assert hello.queues[0].queue_arn == QUEUE_ARN
    assert hello.schedules == (Schedule("HelloClock", minutes=1),)
    assert hello.schedules[0].arn == "arn:aws:events:us-east-1:000000000000:rule/pi-voice-local-HelloClock"
    assert hello.has_url


def test_variables_are_resolved_and_may_be_overridden(tmp_path: Path) -> None:
    [hello] = load(write(tmp_path), {"URL": "wss://here", "EXTRA": "1"}).functions

    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/pi-voice-local-things"
    assert hello.environment == {
        "TABLE": "pi-voice-local-things",
        "MODEL": "own",
        "DAYS": "30",
        "URL": "wss://here",
        "CHOSEN": "yes",
        "ARN": arn,
        "QUEUE": "https://sqs.us-east-1.amazonaws.com/000000000000/pi-voice-local-work",
        "JOINED": "a-30-pi-voice-local-work",
        "LITERAL": f"${{Kept}} {arn}",
        "EXTRA": "1",
    }


def test_a_table_is_read_as_the_arguments_of_createtable(tmp_path: Path) -> None:
    [things] = load(write(tmp_path), {"URL": ""}).tables

    assert things.definition == {
        "TableName": "pi-voice-local-things",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    }
    assert (things.name, things.ttl_attribute) == ("pi-voice-local-things", "ttl")


def test_a_queue_is_read_with_its_dead_letter_queue(tmp_path: Path) -> None:
    work, dead = load(write(tmp_path), {"URL": ""}).queues

    attributes = {"SqsManagedSseEnabled": "true", "VisibilityTimeout": "540"}
    assert work == Queue("pi-voice-local-work", attributes, dead_letters="pi-voice-local-Dead", max_receives=6)
    assert dead == Queue("pi-voice-local-Dead", {}, None, 0)


def test_a_reference_to_a_queue_resolves_to_its_local_url(tmp_path: Path) -> None:
    here = "http://127.0.0.1:1/000000000000/pi-voice-local-work"
    [hello] = load(write(tmp_path), {"URL": ""}, queue_urls={"pi-voice-local-work": here}).functions

    assert hello.environment["QUEUE"] == here


def test_without_origins_there_is_no_cors_configuration(tmp_path: Path) -> None:
    assert load(write(tmp_path), {"URL": ""}).cors is None


def test_allowed_origins_come_from_a_parameter(tmp_path: Path) -> None:
    cors = load(write(tmp_path), {"URL": ""}, {"Origins": "https://a.example, https://b.example"}).cors

    assert cors == Cors(("https://a.example", "https://b.example"), ("GET", "POST"), ("a",), ("b",), 60)


@pytest.mark.parametrize(("rate", "minutes"), [("rate(5 minutes)", 5), ("rate(10 minutes)", 10)])
def test_a_schedule_is_a_rate_of_minutes(tmp_path: Path, rate: str, minutes: int) -> None:
    [hello] = load(write(tmp_path, TEMPLATE.replace("rate(1 minute)", rate)), {"URL": ""}).functions

    assert [schedule.minutes for schedule in hello.schedules] == [minutes]


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("!Ref Days", "!Base64 x", "uses Fn::Base64 in a way that is not supported locally"),
        ("!Ref Days", "!Ref Nothing", "uses Ref of Nothing, which is not supported locally"),
        ("!Ref Days", "!GetAtt Things.StreamArn", "uses StreamArn of Things, which is not supported locally"),
        ("!Ref Days", "[1]", "has [1] where a text belongs"),
        ("!If [Always", "!If [Unheard", "depends on the condition 'Unheard', which does not exist"),
        ("CodeUri: hello", "CodeUri: nowhere", "which is not a folder"),
        ("Timeout: 20", "Timeout: soon", "has 'soon' where a number belongs"),
        ("Type: HttpApi, Properties: {Method", "Type: SNS, Properties: {Method", "an event of the type SNS"),
        ("rate(1 minute)", "rate(1 hour)", "has the schedule 'rate(1 hour)'"),
        ("rate(1 minute)", "rate(0 minutes)", "has the schedule 'rate(0 minutes)'"),
        ("rate(1 minute)", "cron(0 12 1 1 2 2026)", "has the schedule 'cron(0 12 1 1 2 2026)'"),
        ("rate(1 minute), Retry", "rate(1 minute), Input: x, Retry", "has the property Input"),
        ("BatchSize: 2", "BatchSize: 11", "has a BatchSize of 11: from 1 to 10 runs locally"),
        ("BatchSize: 2", "MaximumBatchingWindowInSeconds: 2", "has the property MaximumBatchingWindowInSeconds"),
        ("[ReportBatchItemFailures]", "[Other]", "has the FunctionResponseTypes ['Other']"),
        ("SourceArn: !GetAtt Work.Arn", "SourceArn: arn:aws:sqs:x", "a queue that is not the !GetAtt Arn"),
        ("SourceArn: !GetAtt Work.Arn", "SourceArn: !GetAtt Things.Arn", "uses QueueName of Things"),
        (
            "FunctionName: !Ref Hello",
            "FunctionName: hello",
            "a function that is not a !Ref to one of the template's own",
        ),
        ("VisibilityTimeout: 540", "DelaySeconds: 5", "Work has the property DelaySeconds"),
        ("maxReceiveCount: 6", "maxReceiveCount: six", "Work has 'six' where a number belongs"),
        ('!Not [!Equals [!Join ["", !Ref Origins], ""]]', "!Or [a, b]", "depends on the condition {'Fn::Or'"),
        ("{Method: ANY, Path", "{Auth: {}, Method: ANY, Path", "has the property Auth"),
        ("{AuthType: NONE}", "{AuthType: AWS_IAM}", "more than AuthType NONE"),
        ("StageName: $default", "Tags: {}", "Api has the property Tags"),
        ("- !Ref AWS::NoValue", "- {AllowCredentials: true}", "Api has the property AllowCredentials"),
        ("AWS::Logs::LogGroup", "AWS::SNS::Topic", "Logs is of the type AWS::SNS::Topic, which does not run locally"),
        ("SSESpecification", "StreamSpecification", "Things has the property StreamSpecification"),
        ("[!Ref Code]", "[arn:aws:lambda:x]", "a layer that is not a !Ref"),
    ],
)
def test_unsupported_parts_are_refused_in_one_sentence(tmp_path: Path, there: str, instead: str, said: str) -> None:
    assert there in TEMPLATE

    with pytest.raises(CannotStart, match=r"^\w+ .*\.$") as caught:
        load(write(tmp_path, TEMPLATE.replace(there, instead)), {"URL": ""})

    assert said in str(caught.value)


def test_a_parameter_without_default_or_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="Hello needs the parameter Url"):
        load(write(tmp_path), {})


@pytest.mark.parametrize("text", ["a: [", None])
def test_an_unreadable_template_is_refused_in_one_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "template.yaml"
    if text:
        path.write_text(text)

    with pytest.raises(CannotStart, match=r"^template.yaml cannot be read: [^\n]+\.$"):
        load(path, {})

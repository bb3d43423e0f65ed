"""What is read of a template, and that what is not understood is said and never skipped."""

import textwrap
from pathlib import Path

import pytest

from local.errors import CannotStart
from local.template import Route, load

TEMPLATE = """
    Parameters:
      Model: {Type: String, Default: flash}
      Days: {Type: Number, Default: 30}
      Url: {Type: String}
    Conditions:
      Never: !Equals [!Ref Model, other]
      Always: !Equals [!Ref Days, "30"]
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
            LITERAL: !Sub "${!Kept} ${Things.Arn}"
    Resources:
      Code:
        Type: AWS::Serverless::LayerVersion
        Properties: {ContentUri: code}
      Api:
        Type: AWS::Serverless::HttpApi
        Properties: {StageName: $default}
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
          FunctionUrlConfig: {AuthType: NONE}
          Environment: {Variables: {MODEL: own}}
          Policies: [{Statement: [{Effect: Allow, Resource: !Unheard Of}]}]
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
"""


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
        "LITERAL": f"${{Kept}} {arn}",
        "EXTRA": "1",
    }


def test_a_table_is_read_as_createtable_wants_it(tmp_path: Path) -> None:
    [things] = load(write(tmp_path), {"URL": ""}).tables

    assert things.definition == {
        "TableName": "pi-voice-local-things",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    }
    assert (things.name, things.ttl_attribute) == ("pi-voice-local-things", "ttl")


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("!Ref Days", "!Base64 x", "uses Fn::Base64 in a way that is not understood locally"),
        ("!Ref Days", "!Ref Nothing", "uses Ref of Nothing, which is not understood locally"),
        ("!Ref Days", "!GetAtt Things.StreamArn", "uses StreamArn of Things, which is not understood locally"),
        ("!Ref Days", "[1]", "has [1] where a text belongs"),
        ("!If [Always", "!If [Unheard", "depends on the condition 'Unheard', which is not there"),
        ("CodeUri: hello", "CodeUri: nowhere", "which is not a folder"),
        ("Timeout: 20", "Timeout: soon", "has 'soon' where a number belongs"),
        ("Type: HttpApi, Properties: {Method", "Type: Schedule, Properties: {Method", "an event of the type Schedule"),
        ("{Method: ANY, Path", "{Auth: {}, Method: ANY, Path", "has the property Auth"),
        ("{AuthType: NONE}", "{AuthType: AWS_IAM}", "more than AuthType NONE"),
        ("{StageName: $default}", "{CorsConfiguration: true}", "Api has the property CorsConfiguration"),
        ("AWS::Logs::LogGroup", "AWS::SQS::Queue", "Logs is of the type AWS::SQS::Queue, which does not run locally"),
        ("SSESpecification", "StreamSpecification", "Things has the property StreamSpecification"),
        ("[!Ref Code]", "[arn:aws:lambda:x]", "a layer that is not a !Ref"),
    ],
)
def test_what_is_not_understood_is_said_in_a_sentence(tmp_path: Path, there: str, instead: str, said: str) -> None:
    assert there in TEMPLATE

    with pytest.raises(CannotStart, match=r"^\w+ .*\.$") as caught:
        load(write(tmp_path, TEMPLATE.replace(there, instead)), {"URL": ""})

    assert said in str(caught.value)


def test_a_parameter_without_default_or_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="Hello needs the parameter Url"):
        load(write(tmp_path), {})


@pytest.mark.parametrize("text", ["a: [", None])
def test_a_template_that_cannot_be_read_is_one_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "template.yaml"
    if text:
        path.write_text(text)

    with pytest.raises(CannotStart, match=r"^template.yaml cannot be read: [^\n]+\.$"):
        load(path, {})

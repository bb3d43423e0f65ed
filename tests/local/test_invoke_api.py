"""Lambda's Invoke API, as boto3 and the AWS CLI use it."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from mypy_boto3_lambda.client import LambdaClient

from local.http_server import serving
from local.invoke_api import invoke_api
from local.workers import Workers
from tests.local.conftest import Background, Project

DOUBLE = """
    def handler(event, context):
        return {"twice": 2 * event["number"]}
"""


@pytest.fixture(scope="module")
def awslambda(background: Background, project: Project) -> Iterator[LambdaClient]:
    project.function("Double", DOUBLE, FunctionName="pi-voice-double")
    functions = project.template().functions
    workers = Workers(functions, {})
    url = background.enter(serving(invoke_api(functions, workers)))
    client = boto3.client(
        "lambda", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    yield client
    client.close()
    background.run(workers.stop())


def invoke(awslambda: LambdaClient, name: str, event: Any) -> tuple[Any, str | None]:
    answer = awslambda.invoke(FunctionName=name, Payload=json.dumps(event).encode())
    with answer["Payload"] as payload:
        return json.loads(payload.read()), answer.get("FunctionError")


@pytest.mark.parametrize(
    "name", ["Double", "pi-voice-double", "arn:aws:lambda:us-east-1:000000000000:function:pi-voice-double"]
)
def test_a_function_is_invoked_by_any_of_its_names(awslambda: LambdaClient, name: str) -> None:
    assert invoke(awslambda, name, {"number": 21}) == ({"twice": 42}, None)


def test_a_functions_error_is_returned_in_lambdas_format(awslambda: LambdaClient) -> None:
    details, error = invoke(awslambda, "Double", {})

    assert error == "Unhandled"
    assert (details["errorType"], details["errorMessage"]) == ("KeyError", "'number'")


def test_an_unknown_function_is_not_found(awslambda: LambdaClient) -> None:
    with pytest.raises(awslambda.exceptions.ResourceNotFoundException):
        invoke(awslambda, "Nothing", {})


def test_an_event_that_is_not_json_is_refused(awslambda: LambdaClient) -> None:
    with pytest.raises(awslambda.exceptions.InvalidRequestContentException):
        awslambda.invoke(FunctionName="Double", Payload=b"{")


def test_an_event_over_6_mb_is_refused(awslambda: LambdaClient) -> None:
    with pytest.raises(ClientError, match="must be smaller than"):
        invoke(awslambda, "Double", "x" * (6 * 1024 * 1024))

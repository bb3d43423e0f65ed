"""Warn about the Live model of a deployed stack, if Google may have shut it down, or if Pi Voice does not know it.

    check_live_model.py <stack>

It never fails: the stack is deployed, and the model may work.
"""

import sys
from datetime import UTC, date, datetime

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_cloudformation import CloudFormationClient

from pi_voice.domain.live_models import shutdown_notice, unknown_model_notice


def warnings(cloudformation: CloudFormationClient, stack: str, today: date) -> list[str]:
    """Return the warnings about the parameter GeminiLiveModel of a stack, each in one line."""
    described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in described["Parameters"]}
    model, setting = parameters["GeminiLiveModel"], "make deploy PARAMETERS=GeminiLiveModel="
    notices = unknown_model_notice(model), shutdown_notice(model, today, setting)
    return [f"Warning: {notice}" for notice in notices if notice]


def main() -> None:
    """Print the warnings."""
    try:
        for warning in warnings(boto3.client("cloudformation"), sys.argv[1], datetime.now(UTC).date()):
            print(warning)
    except (BotoCoreError, ClientError) as fault:
        print(f"The Live model of the stack was not checked: {fault}")


if __name__ == "__main__":
    main()

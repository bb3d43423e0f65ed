"""Create an API key for a workspace and print it, alone on standard output.

    create_api_key.py <stack> <workspace> <name>

The key is shown once and not stored. The caller needs permission to invoke the stack's create-api-key function, and no
API key, so this also creates a deployment's first key.
"""

import json
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_lambda import LambdaClient


def create(functions: LambdaClient, stack: str, workspace: str, name: str) -> str:
    """Return a new key; raises ValueError with the function's message if it refuses."""
    answer = functions.invoke(
        FunctionName=f"{stack}-create-api-key",
        Payload=json.dumps({"workspace": workspace, "name": name}).encode(),
    )
    document = json.loads(answer["Payload"].read())
    if "data" in document:
        key: str = document["data"]["api_key"]
        return key
    error = document.get("error", {})
    faults = "; ".join(f"{fault['path']}: {fault['message']}" for fault in error.get("details", []))
    raise ValueError(faults or error.get("message") or "The function failed; its log says why.")


def main() -> str | None:
    """Print a new key; return an error message, if any."""
    stack, workspace, name = sys.argv[1:]
    if not workspace or not name:
        return "Say whose key it is and what for: make api-key WORKSPACE=acme NAME=backend"
    try:
        print(create(boto3.client("lambda"), stack, workspace, name))
    except (BotoCoreError, ClientError, ValueError) as fault:
        return str(fault)
    return None


if __name__ == "__main__":
    sys.exit(main())

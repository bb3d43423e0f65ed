"""Store the keys of LiveKit and Gemini, and the client-token secret, where a stack's functions read them.

    LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=... GEMINI_API_KEY=... write_secrets.py <stack>

The keys are read from the environment, so they never appear in a command line or a process list. Keys that are not in
the environment stay as stored, so one can be replaced without knowing the others. CLIENT_TOKEN_SECRET is generated if
there is none; replacing it invalidates all client tokens. The template does not create the parameter, because
CloudFormation cannot create a SecureString.
"""

import json
import os
import secrets
import sys
from collections.abc import Mapping

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_cloudformation import CloudFormationClient
from mypy_boto3_secretsmanager import SecretsManagerClient
from mypy_boto3_ssm import SSMClient

REQUIRED = ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "GEMINI_API_KEY")

# A separate key for LiveKit's webhooks. Without this pair the functions verify webhooks with LIVEKIT_API_KEY.
OPTIONAL = ("LIVEKIT_WEBHOOK_API_KEY", "LIVEKIT_WEBHOOK_API_SECRET")

# Signs client tokens; the functions refuse shorter secrets.
GENERATED = "CLIENT_TOKEN_SECRET"
FEWEST_CHARACTERS = 32


def place(cloudformation: CloudFormationClient, stack: str) -> tuple[str, str]:
    """Return the parameters SecretsStore and SecretsName of a deployed stack."""
    described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in described["Parameters"]}
    return parameters["SecretsStore"], parameters["SecretsName"]


def merged(stored: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the stored keys, updated from the environment; raises ValueError if one is missing."""
    known = (*REQUIRED, *OPTIONAL, GENERATED)
    given = {name: environment[name] for name in known if environment.get(name)}
    if GENERATED not in {**stored, **given}:
        given[GENERATED] = secrets.token_urlsafe(48)
    keys = {**stored, **given}
    if missing := [name for name in REQUIRED if name not in keys]:
        raise ValueError(f"Set {', '.join(missing)} in the environment: nothing is stored for them yet.")
    if sum(name in keys for name in OPTIONAL) == 1:
        raise ValueError(f"Set {' and '.join(OPTIONAL)} together, or neither.")
    if not given:
        raise ValueError(f"Nothing to store: set one of {', '.join(known)} in the environment.")
    if len(keys[GENERATED]) < FEWEST_CHARACTERS:
        raise ValueError(f"{GENERATED} is too short: it needs {FEWEST_CHARACTERS} characters or more.")
    return keys


def write_to_ssm(ssm: SSMClient, name: str, environment: Mapping[str, str]) -> None:
    """Store the keys as one SecureString."""
    try:
        stored = json.loads(ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        stored = {}
    keys = merged(stored, environment)
    ssm.put_parameter(Name=name, Value=json.dumps(keys), Type="SecureString", Overwrite=True)


def write_to_secrets_manager(manager: SecretsManagerClient, name: str, environment: Mapping[str, str]) -> None:
    """Store the keys as one secret."""
    try:
        stored = json.loads(manager.get_secret_value(SecretId=name)["SecretString"])
    except manager.exceptions.ResourceNotFoundException:
        manager.create_secret(Name=name, SecretString=json.dumps(merged({}, environment)))
        return
    manager.put_secret_value(SecretId=name, SecretString=json.dumps(merged(stored, environment)))


def main() -> str | None:
    """Store the keys and print where; return an error message, if any."""
    try:
        store, name = place(boto3.client("cloudformation"), sys.argv[1])
    except (BotoCoreError, ClientError) as fault:
        return str(fault)
    try:
        if store == "ssm":
            write_to_ssm(boto3.client("ssm"), name, os.environ)
        else:
            write_to_secrets_manager(boto3.client("secretsmanager"), name, os.environ)
    except ClientError as refusal:  # its message may quote the request with the keys
        return f"AWS refused {refusal.operation_name} for {name}: {refusal.response['Error']['Code']}."
    except (BotoCoreError, ValueError) as fault:
        return str(fault)
    print(f"Stored in {store}:{name}. Containers that are running keep the keys they have read; new ones read these.")
    return None


if __name__ == "__main__":
    sys.exit(main())

"""template.yaml as data: tests derive from it what they need to know of each function, instead of listing it again."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
RUNTIME: Final = "python3.13"
BASE: Final = "/api/v1/voice"
SECRET: Final = " secret"
"""End of the name of a group of secrets, as a resource in `rights_of`."""

SECRETS: Final = {
    "LiveKit": "livekit",
    "LiveKitWebhook": "livekit-webhook",
    "Gemini": "gemini",
    "ClientTokens": "client-token",
    "Webhooks": "webhooks",
}
"""Groups of secrets, and the end of the name of each."""

Node = Any
"""A part of the template; its structure is CloudFormation's."""


class _Loader(yaml.CSafeLoader):
    """Reads CloudFormation's short forms (`!Ref Name`) as the long ones (`{"Ref": "Name"}`)."""

    def long_form(self, tag: str, node: yaml.Node) -> Node:
        """Return one intrinsic function with its arguments."""
        name = tag if tag in ("Ref", "Condition") else f"Fn::{tag}"
        match node:
            case yaml.ScalarNode():
                value: Node = self.construct_scalar(node)
                return {name: value.split(".", 1) if tag == "GetAtt" else value}
            case yaml.SequenceNode():
                return {name: self.construct_sequence(node, deep=True)}
        raise AssertionError(f"!{tag} with a mapping")


_Loader.add_multi_constructor("!", _Loader.long_form)

TEMPLATE: Final[Node] = yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)

FUNCTIONS: Final[Mapping[str, Node]] = {
    name: resource["Properties"]
    for name, resource in TEMPLATE["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
}
"""The properties of the functions by logical id."""

ROUTES: Final[Mapping[str, str]] = {
    name: f"{event['Properties']['Method']} {event['Properties']['Path']}"
    for name, function in FUNCTIONS.items()
    for event in function.get("Events", {}).values()
    if event["Type"] == "HttpApi"
}
"""The routes, such as `GET /api/v1/voice/agents`, by the logical id of their function."""


def snake_case(logical_id: str) -> str:
    """Return the folder of a function."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", logical_id).lower()


def rights_of(function: Node) -> dict[str, set[str]]:
    """Return the allowed actions of a function by table, index or queue, and the secrets that it may read.

    Raises AssertionError for a statement that allows more than these.
    """
    policies = function["Policies"]
    *shared, own = policies if isinstance(policies, list) else [policies]
    found = {re.sub("^Read(.*)Secret$", rf"\1{SECRET}", policy["Ref"]): {"read"} for policy in shared}
    assert own["Version"] == "2012-10-17"
    for statement in own["Statement"]:
        assert statement["Effect"] == "Allow"
        match statement["Resource"]:
            case {"Fn::GetAtt": [table, "Arn"]}:
                resource = table
            case {"Fn::Sub": text}:
                resource = re.sub(r"^\$\{(\w+)\.Arn\}", r"\1", text)
            case other:
                raise AssertionError(f"{other} is neither a table nor an index nor a queue")
        services, actions = zip(*(action.split(":") for action in statement["Action"]), strict=True)
        assert set(services) == {"sqs" if resource.endswith("Queue") else "dynamodb"}
        found[resource] = found.get(resource, set()) | set(actions)
    return found


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a `make`, without the variables of an outer `make test`."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return {**inherited, "SAM_CLI_TELEMETRY": "0", **changes}

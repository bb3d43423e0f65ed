"""Checks of a deployed stack: the region and the credentials, the stack with its outputs, and its secrets."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from doctor.checks import Check, Fault, Passed
from doctor.target import PARAMETERS, Target
from pi_voice.adapters.secrets import Secrets
from pi_voice.domain.errors import SettingsError
from pi_voice.settings import webhook_masters

ACCOUNT: Final = "AWS account"
STACK: Final = "Stack"
SECRETS: Final = "Secrets"

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "livekit": ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"),
    "livekit-webhook": ("LIVEKIT_WEBHOOK_API_KEY", "LIVEKIT_WEBHOOK_API_SECRET"),
    "gemini": ("GEMINI_API_KEY",),
    "client-token": ("CLIENT_TOKEN_SECRET",),
    "webhooks": ("WEBHOOK_MASTER_ID",),
}
"""The groups of secrets that `make secrets` writes, with what each has to contain."""

_OUTPUTS: Final = ("ApiUrl", "WebhookUrl")
_SECONDS: Final = 60.0
_CONFIG: Final = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
_REGION: Final = "Set the region of the stack, for example: export AWS_DEFAULT_REGION=eu-west-1"


@dataclass(slots=True)
class StackChecks:
    """Checks of one stack, which collect what the other checks use."""

    name: str
    outputs: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    _location: str = ""

    def checks(self) -> list[Check]:
        """Return the checks in order."""
        return [
            Check(ACCOUNT, self.account, _SECONDS),
            Check(STACK, self.stack, _SECONDS, (ACCOUNT,)),
            Check(SECRETS, self.secrets, 2 * _SECONDS, (STACK,)),
        ]

    @property
    def target(self) -> Target:
        """What the other checks need; complete after these checks have passed."""
        return Target(self.variables, self.outputs["WebhookUrl"], self.name)

    async def account(self) -> Passed:
        """Ask AWS who calls it."""
        region = boto3.Session().region_name
        if not region:
            raise Fault(f"No region is set. {_REGION}")
        try:
            caller = await asyncio.to_thread(lambda: boto3.client("sts", config=_CONFIG).get_caller_identity())
        except (BotoCoreError, ClientError) as error:
            raise Fault(
                f"AWS does not accept this shell's credentials ({_cause(error)}). Sign in again, or set AWS_PROFILE."
            ) from None
        return Passed(f"{caller['Account']}, {region}.")

    async def stack(self) -> Passed:
        """Read the stack's state, parameters and outputs."""
        try:
            described = await asyncio.to_thread(
                lambda: boto3.client("cloudformation", config=_CONFIG).describe_stacks(StackName=self.name)["Stacks"][0]
            )
        except (BotoCoreError, ClientError) as error:
            if _cause(error) == "ValidationError":
                raise Fault(
                    f"There is no stack {self.name} in {boto3.Session().region_name}. {_REGION} Or deploy it: "
                    f"make deploy STACK={self.name} LIVEKIT_URL=wss://your-project.livekit.cloud"
                ) from None
            raise Fault(
                f"The stack {self.name} cannot be read ({_cause(error)}). Your credentials need the right "
                "cloudformation:DescribeStacks."
            ) from None
        status = described["StackStatus"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        parameters = {each["ParameterKey"]: each["ParameterValue"] for each in described.get("Parameters", [])}
        if missing := [name for name in _OUTPUTS if name not in self.outputs]:
            raise Fault(
                f"The stack is in the state {status}, without the output {' and '.join(missing)}. Deploy it: "
                f"make deploy STACK={self.name}"
            )
        self.variables = {
            variable: parameters[parameter] for variable, parameter in PARAMETERS.items() if parameter in parameters
        }
        self._location = f"{parameters.get('SecretsStore', 'ssm')}:{parameters.get('SecretsPrefix', '/pi-voice')}"
        if status not in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
            warning = f"Its last deployment did not end well: make deploy STACK={self.name}"
            return Passed(f"{self.name} is in the state {status}.", (warning,))
        return Passed(f"{self.name} is deployed.")

    async def secrets(self) -> Passed:
        """Read all groups of secrets, as the functions do, each for itself to name what is missing."""
        faults = [fault for group in GROUPS if (fault := await asyncio.to_thread(self._read, group))]
        if faults:
            raise Fault(
                f"{' '.join(faults)} Set LIVEKIT_API_KEY, LIVEKIT_API_SECRET and GEMINI_API_KEY in the environment, "
                f"and run: make secrets STACK={self.name}. Your credentials need the right to read and decrypt them."
            )
        return Passed(f"{len(GROUPS)} can be read, in {self._location}.")

    def _read(self, group: str) -> str | None:
        """Read one group; return what is wrong with it."""
        secrets = Secrets(self._location)
        secrets.add(group)
        try:
            values = secrets.read()
        except SettingsError as error:
            return str(error).replace(" Run make secrets.", "")
        if missing := [name for name in GROUPS[group] if not values.get(name)]:
            return f"The secret {group} has no {' and no '.join(missing)}."
        if group == "webhooks":
            try:
                webhook_masters(values)
            except SettingsError as error:
                return f"The secret {group} is not complete: {error}"
        self.variables.update(values)
        return None


def _cause(error: BotoCoreError | ClientError) -> str:
    """Return AWS's error code, or the type of another error."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__

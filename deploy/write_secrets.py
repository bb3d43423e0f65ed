"""Store the keys of LiveKit and Gemini, and secrets of the deployment's own, where a stack's functions read them.

    LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=... GEMINI_API_KEY=... write_secrets.py <stack> [client-token|webhooks]

The keys are read from the environment, so they never appear in a command line or a process list. There is one parameter
or secret per group of readers. Groups that do not change are not written, so one key can be replaced without the
others. `client-token` rotates the client-token secret, `webhooks` the master of the webhook endpoints' secrets. The
template does not create the parameters, because CloudFormation cannot create a SecureString.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_cloudformation import CloudFormationClient
from mypy_boto3_secretsmanager import SecretsManagerClient
from mypy_boto3_ssm import SSMClient

MAX_AGE_SECONDS: Final = 300
"""How long the functions use a secret before they read it again (`pi_voice.adapters.secrets`)."""

ROTATION_SECONDS: Final = MAX_AGE_SECONDS + 60
"""Pause until all functions know the next secret, also those whose first refresh failed."""

FEWEST_CHARACTERS: Final = 32
"""Length of the client-token secret; the functions refuse shorter ones."""

_MASTER_BYTES: Final = 32
_MASTER_ID_BYTES: Final = 4

LIVEKIT: Final = ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
WEBHOOK: Final = ("LIVEKIT_WEBHOOK_API_KEY", "LIVEKIT_WEBHOOK_API_SECRET")
PREVIOUS_WEBHOOK: Final = ("LIVEKIT_WEBHOOK_PREVIOUS_API_KEY", "LIVEKIT_WEBHOOK_PREVIOUS_API_SECRET")
GEMINI: Final = ("GEMINI_API_KEY",)
SIGNS: Final = "CLIENT_TOKEN_SECRET"
KEYS: Final = (*LIVEKIT, *WEBHOOK, *GEMINI, SIGNS)
PREVIOUS: Final = "CLIENT_TOKEN_PREVIOUS_SECRET"
NEXT: Final = "CLIENT_TOKEN_NEXT_SECRET"
MASTER_ID: Final = "WEBHOOK_MASTER_ID"
NEXT_MASTER_ID: Final = "WEBHOOK_MASTER_NEXT_ID"

CLIENT_TOKENS: Final = "client-token"
"""Not "tokens": Secrets Manager advises against a hyphen and six characters at the end of a name, as ARNs have them."""

WEBHOOKS: Final = "webhooks"
ROTATED: Final = (CLIENT_TOKENS, WEBHOOKS)
"""The groups that have secrets of the deployment's own, which it generates and rotates."""

GROUPS: Final = ("livekit-webhook", "livekit", "gemini", CLIENT_TOKENS, WEBHOOKS)
"""In the order of writing: the webhook's copy of LiveKit's pair first, so that an interrupted run can be repeated."""

Group = Mapping[str, str]
Groups = Mapping[str, Group]


class Store(Protocol):
    """Where the groups are stored, by name."""

    def get(self, name: str) -> str | None:
        """Return a stored text."""
        ...

    def put(self, name: str, text: str) -> None:
        """Store a text, encrypted."""
        ...


class SsmStore:
    """SSM Parameter Store: SecureStrings."""

    def __init__(self, ssm: SSMClient) -> None:
        self._ssm = ssm

    def get(self, name: str) -> str | None:
        """Return a stored text."""
        try:
            return self._ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        except self._ssm.exceptions.ParameterNotFound:
            return None

    def put(self, name: str, text: str) -> None:
        """Store a text, encrypted."""
        self._ssm.put_parameter(Name=name, Value=text, Type="SecureString", Overwrite=True)


class SecretsManagerStore:
    """Secrets Manager."""

    def __init__(self, manager: SecretsManagerClient) -> None:
        self._manager = manager

    def get(self, name: str) -> str | None:
        """Return a stored text."""
        try:
            return self._manager.get_secret_value(SecretId=name)["SecretString"]
        except self._manager.exceptions.ResourceNotFoundException:
            return None

    def put(self, name: str, text: str) -> None:
        """Store a text, encrypted."""
        try:
            self._manager.put_secret_value(SecretId=name, SecretString=text)
        except self._manager.exceptions.ResourceNotFoundException:
            self._manager.create_secret(Name=name, SecretString=text)


def place(cloudformation: CloudFormationClient, stack: str) -> tuple[str, str]:
    """Return the parameters SecretsStore and SecretsPrefix of a deployed stack."""
    described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in described["Parameters"]}
    return parameters["SecretsStore"], parameters["SecretsPrefix"]


def stored_groups(store: Store, prefix: str) -> Groups:
    """Return all groups as they are stored; empty where there is none yet."""
    return {group: json.loads(store.get(f"{prefix}/{group}") or "{}") for group in GROUPS}


def write(store: Store, prefix: str, before: Groups, after: Groups) -> list[str]:
    """Store the groups that changed, and return their names."""
    changed = [group for group in GROUPS if after[group] != before[group]]
    for group in changed:
        store.put(f"{prefix}/{group}", json.dumps(after[group]))
    return [f"{prefix}/{group}" for group in changed]


def updated(stored: Groups, environment: Mapping[str, str]) -> Groups:
    """Return the groups with the keys of the environment; raises ValueError if one is missing or not complete."""
    given = {name: environment[name] for name in KEYS if environment.get(name)}
    livekit = {**stored["livekit"], **_of(given, LIVEKIT)}
    gemini = {**stored["gemini"], **_of(given, GEMINI)}
    if missing := [name for name in (*LIVEKIT, *GEMINI) if name not in {**livekit, **gemini}]:
        raise ValueError(f"Set {', '.join(missing)} in the environment: nothing is stored for them yet.")
    for pair in (LIVEKIT, WEBHOOK):
        if sum(name in given for name in pair) == 1:
            raise ValueError(f"Set {' and '.join(pair)} together, or neither.")
    signs = given.get(SIGNS)
    if signs is not None and len(signs) < FEWEST_CHARACTERS:
        raise ValueError(f"{SIGNS} is too short: it needs {FEWEST_CHARACTERS} characters or more.")
    tokens = stored[CLIENT_TOKENS]
    if tokens and signs not in (None, tokens[SIGNS]):
        raise ValueError(f"{SIGNS} is stored already. To replace it, run make secrets ROTATE={CLIENT_TOKENS}.")
    return {
        "livekit": livekit,
        "livekit-webhook": _webhook(stored, livekit, given),
        "gemini": gemini,
        CLIENT_TOKENS: tokens or {SIGNS: signs or secrets.token_urlsafe(48)},
        WEBHOOKS: stored[WEBHOOKS] or _first_master(),
    }


def rotate(store: Store, prefix: str, environment: Mapping[str, str], wait: Callable[[float], None]) -> None:
    """Replace the client-token secret; it can be repeated after an interruption. Raises ValueError.

    All functions accept the next secret before the first one signs with it. The previous one stays valid, until the
    next rotation.
    """
    tokens = stored_groups(store, prefix)[CLIENT_TOKENS]
    if not tokens:
        raise ValueError("There is no client-token secret to rotate: run make secrets first.")
    name = f"{prefix}/{CLIENT_TOKENS}"
    if NEXT not in tokens:
        new = environment.get(SIGNS) or secrets.token_urlsafe(48)
        if len(new) < FEWEST_CHARACTERS:
            raise ValueError(f"{SIGNS} is too short: it needs {FEWEST_CHARACTERS} characters or more.")
        tokens = {**tokens, NEXT: new}
        store.put(name, json.dumps(tokens))
    wait(ROTATION_SECONDS)
    store.put(name, json.dumps({SIGNS: tokens[NEXT], PREVIOUS: tokens[SIGNS]}))


def rotate_master(store: Store, prefix: str, wait: Callable[[float], None]) -> None:
    """Add a master for new secrets of webhook endpoints; it can be repeated after an interruption.

    All earlier masters stay, because the endpoints that have their secrets keep them. All functions know the next
    master before the first one makes a secret with it. Without a master, the first one is stored.
    """
    name = f"{prefix}/{WEBHOOKS}"
    masters = stored_groups(store, prefix)[WEBHOOKS]
    if not masters:
        store.put(name, json.dumps(_first_master()))
        return
    if NEXT_MASTER_ID not in masters:
        master_id, master = _new_master()
        masters = {**masters, **master, NEXT_MASTER_ID: master_id}
        store.put(name, json.dumps(masters))
    wait(ROTATION_SECONDS)
    rotated = {**masters, MASTER_ID: masters[NEXT_MASTER_ID]}
    del rotated[NEXT_MASTER_ID]
    store.put(name, json.dumps(rotated))


def _first_master() -> Group:
    master_id, master = _new_master()
    return {MASTER_ID: master_id, **master}


def _new_master() -> tuple[str, Group]:
    """Return the id of a new master, and the master under the name that holds the id."""
    master_id = secrets.token_hex(_MASTER_ID_BYTES)
    return master_id, {f"WEBHOOK_MASTER_{master_id.upper()}": secrets.token_urlsafe(_MASTER_BYTES)}


def _webhook(stored: Groups, livekit: Group, given: Group) -> Group:
    """Return the webhook's key pair and the previous one, which LiveKit signs with until it is switched over.

    Without a pair of its own the webhook has LiveKit's.
    """
    before = stored["livekit-webhook"]
    own = _of(given, WEBHOOK)
    is_copy = not before or list(_of(before, WEBHOOK).values()) == list(_of(stored["livekit"], LIVEKIT).values())
    if not own and is_copy:
        own = dict(zip(WEBHOOK, (livekit[name] for name in LIVEKIT), strict=True))
    current = own or _of(before, WEBHOOK)
    if not before or current == _of(before, WEBHOOK):
        return {**before, **current}
    return current | dict(zip(PREVIOUS_WEBHOOK, (before[name] for name in WEBHOOK), strict=True))


def _of(group: Group, names: tuple[str, ...]) -> dict[str, str]:
    return {name: group[name] for name in names if name in group}


def _wait(seconds: float) -> None:
    print(f"Waiting {seconds:.0f} seconds, until all functions know the next secret ...", flush=True)
    time.sleep(seconds)


def _mistake(to_rotate: list[str]) -> str | None:
    if to_rotate and (len(to_rotate) > 1 or to_rotate[0] not in ROTATED):
        names = " or ".join(ROTATED)
        return f"ROTATE is {names}. To replace another key, set it in the environment and run make secrets."
    if not to_rotate and not any(os.environ.get(name) for name in KEYS):
        return f"Set {', '.join((*LIVEKIT, *GEMINI))} in the environment. Later, set those that you want to replace."
    return None


def main() -> str | None:
    """Store the keys and print where; return an error message, if any."""
    stack, to_rotate = sys.argv[1], sys.argv[2:]
    if mistake := _mistake(to_rotate):
        return mistake
    try:
        kind, prefix = place(boto3.client("cloudformation"), stack)
        store: Store = SsmStore(boto3.client("ssm"))
        if kind != "ssm":
            store = SecretsManagerStore(boto3.client("secretsmanager"))
    except (BotoCoreError, ClientError) as fault:
        return str(fault)
    try:
        if to_rotate:
            if to_rotate == [WEBHOOKS]:
                rotate_master(store, prefix, _wait)
            else:
                rotate(store, prefix, os.environ, _wait)
            written = [f"{prefix}/{to_rotate[0]}"]
        else:
            before = stored_groups(store, prefix)
            written = write(store, prefix, before, updated(before, os.environ))
    except ClientError as refusal:  # its message may quote the request with the keys
        return f"AWS refused {refusal.operation_name} under {prefix}: {refusal.response['Error']['Code']}."
    except (BotoCoreError, ValueError) as fault:
        return str(fault)
    if not written:
        return f"Nothing to store: {kind} has these keys under {prefix}."
    print(f"Stored in {kind}: {', '.join(written)}. Running functions use them within {MAX_AGE_SECONDS // 60} minutes.")
    return None


if __name__ == "__main__":
    sys.exit(main())

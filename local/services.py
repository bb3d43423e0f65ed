"""Choose between real services and stand-ins by environment variables.

A service's ordinary variables select the real one: LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET;
GEMINI_API_KEY, and GOOGLE_GEMINI_BASE_URL for another base URL; AWS_ENDPOINT_URL_DYNAMODB;
AWS_ENDPOINT_URL_SQS.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from local.errors import CannotStart
from local.loopback import is_loopback
from local.template import REGION

_LIVEKIT: Final = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
_WEBHOOK: Final = ("LIVEKIT_WEBHOOK_API_KEY", "LIVEKIT_WEBHOOK_API_SECRET")
_GEMINI: Final = ("GEMINI_API_KEY",)
_SETTINGS: Final = (
    "COMPLETES_PER_MINUTE",
    "CREATES_PER_MINUTE",
    "EXTRACTIONS_PER_MINUTE",
    "EXTRACTION_PRICES",
    "GEMINI_API_VERSION",
    "GEMINI_EXTRACTION_MODEL",
    "GEMINI_EXTRACTION_THINKING_LEVEL",
    "GEMINI_LIVE_MODEL",
    "GEMINI_LIVE_THINKING_LEVEL",
    "GEMINI_TRANSCRIPTION_HINTS",
    "GRACE_SECONDS",
    "POWERTOOLS_LOG_LEVEL",
    "RETENTION_DAYS",
)
_ORIGINS: Final = "CORS_ALLOW_ORIGINS"
_LOOPBACK_ORIGIN: Final = "http://localhost"

_MASTER: Final = "WEBHOOK_MASTER_"
_MASTER_ID: Final = "WEBHOOK_MASTER_ID"
_SECRET_CHARACTERS: Final = 32
_INHERITED: Final = (
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "PATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
)


@dataclass(frozen=True, slots=True)
class LiveKit:
    """A LiveKit server and its API key."""

    url: str
    api_key: str
    api_secret: str


@dataclass(frozen=True, slots=True)
class Gemini:
    """The Gemini API and its key; without a base URL the template's is used."""

    api_key: str
    base_url: str | None


@dataclass(frozen=True, slots=True)
class Services:
    """The services that the environment selects; None means a stand-in or a generated value."""

    livekit: LiveKit | None
    webhook_keys: tuple[str, str] | None
    gemini: Gemini | None
    dynamodb_url: str | None
    sqs_url: str | None
    api_key: str | None
    client_token_secret: str | None
    webhook_masters: Mapping[str, str]
    """Variables of the masters of the webhook endpoints' secrets; none: one is generated."""
    settings: Mapping[str, str]
    origins: str
    """Origins of pages that may call the API, separated by commas."""
    allows_loopback: bool
    """Whether all pages on loopback may call the API, because no origins were given."""

    @property
    def parameters(self) -> dict[str, str]:
        """The template's parameters that are not variables of the functions."""
        return {"CorsAllowOrigins": self.origins}

    @classmethod
    def chosen_by(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment; raises CannotStart if a service's variables are incomplete."""
        given = {name: value for name, value in environment.items() if value}
        livekit = _all_or_none("LiveKit", given, _LIVEKIT)
        webhook = _all_or_none("the LiveKit webhook", given, _WEBHOOK)
        base_url = given.get("GOOGLE_GEMINI_BASE_URL")
        if base_url:
            _all_or_none("Gemini", given, ("GOOGLE_GEMINI_BASE_URL", *_GEMINI))
        token_secret = given.get("CLIENT_TOKEN_SECRET")
        if token_secret and len(token_secret) < _SECRET_CHARACTERS:
            raise CannotStart(f"CLIENT_TOKEN_SECRET is too short: it needs {_SECRET_CHARACTERS} characters or more.")
        return cls(
            livekit=LiveKit(*livekit) if livekit else None,
            webhook_keys=(webhook[0], webhook[1]) if webhook else None,
            gemini=Gemini(given["GEMINI_API_KEY"], base_url) if "GEMINI_API_KEY" in given else None,
            dynamodb_url=given.get("AWS_ENDPOINT_URL_DYNAMODB"),
            sqs_url=given.get("AWS_ENDPOINT_URL_SQS"),
            api_key=given.get("PI_VOICE_API_KEY"),
            client_token_secret=token_secret,
            webhook_masters=_webhook_masters(given),
            settings={name: given[name] for name in _SETTINGS if name in given},
            origins=given.get(_ORIGINS, _LOOPBACK_ORIGIN),
            allows_loopback=_ORIGINS not in given,
        )


def _webhook_masters(given: Mapping[str, str]) -> Mapping[str, str]:
    """Return the masters of the environment; raises CannotStart if the current one is missing or one is too short."""
    masters = {name: value for name, value in given.items() if name.startswith(_MASTER)}
    if masters and f"{_MASTER}{masters.get(_MASTER_ID, '').upper()}" not in masters:
        raise CannotStart("WEBHOOK_MASTER_ID should be the id of a master: with the id a1, set WEBHOOK_MASTER_A1 too.")
    short = [name for name in masters if not name.endswith("_ID") and len(masters[name]) < _SECRET_CHARACTERS]
    if short:
        raise CannotStart(f"{short[0]} is too short: it needs {_SECRET_CHARACTERS} characters or more.")
    return masters


def _new_webhook_master() -> Mapping[str, str]:
    """Return a master under a new id, so that a stored endpoint of an earlier start is never signed with another."""
    master_id = secrets.token_hex(4)
    return {_MASTER_ID: master_id, f"{_MASTER}{master_id.upper()}": secrets.token_urlsafe(48)}


def _all_or_none(what: str, given: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
    missing = [name for name in names if name not in given]
    if missing and len(missing) < len(names):
        present = ", ".join(name for name in names if name in given)
        raise CannotStart(
            f"The configuration of {what} is incomplete: with {present} set, {' and '.join(missing)} must be set too."
        )
    return tuple(given[name] for name in names if name in given)


def function_variables(
    services: Services, livekit: LiveKit, gemini: Gemini, dynamodb_url: str, sqs_url: str
) -> dict[str, str]:
    """Return the functions' environment variables for their services, with the secrets as plain values."""
    webhook_key, webhook_secret = services.webhook_keys or (livekit.api_key, livekit.api_secret)
    return {
        **services.settings,
        "PI_VOICE_SECRETS": "",
        "LIVEKIT_URL": livekit.url,
        "LIVEKIT_API_KEY": livekit.api_key,
        "LIVEKIT_API_SECRET": livekit.api_secret,
        "LIVEKIT_WEBHOOK_API_KEY": webhook_key,
        "LIVEKIT_WEBHOOK_API_SECRET": webhook_secret,
        "CLIENT_TOKEN_SECRET": services.client_token_secret or secrets.token_urlsafe(48),
        **(services.webhook_masters or _new_webhook_master()),
        "GEMINI_API_KEY": gemini.api_key,
        **({"GOOGLE_GEMINI_BASE_URL": gemini.base_url} if gemini.base_url else {}),
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb_url,
        "AWS_ENDPOINT_URL_SQS": sqs_url,
        "WEBHOOK_ALLOW_LOOPBACK": "true",  # receivers run on the same machine
    }


def machine_variables(environment: Mapping[str, str], *aws_urls: str) -> dict[str, str]:
    """Return the environment of a child process: a few of the machine's variables, and AWS credentials.

    If all AWS services are on loopback, the credentials are fake, so that no profile can reach a real account.
    Otherwise they are the user's, as variables, because Lambda passes them that way. Raises CannotStart if there are
    none.
    """
    inherited = {name: environment[name] for name in _INHERITED if name in environment}
    inherited["NO_PROXY"] = ",".join(filter(None, (environment.get("NO_PROXY"), "127.0.0.1,localhost,::1")))
    if not all(map(is_loopback, aws_urls)):
        own = {name: value for name, value in environment.items() if name.startswith("AWS_")}
        region = own.get("AWS_REGION") or own.get("AWS_DEFAULT_REGION") or REGION
        both = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}  # Lambda sets both; boto3 reads the second
        return {**inherited, **own, **both, **_credentials(environment)}
    return {
        **inherited,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Look up the user's credentials in variables, in a profile, or in the provider that a profile names."""
    if environment.get("AWS_ACCESS_KEY_ID"):
        return {}
    try:
        found = boto3.Session(profile_name=environment.get("AWS_PROFILE")).get_credentials()
        frozen = found and found.get_frozen_credentials()  # may call the provider that the profile names
    except (BotoCoreError, ClientError) as error:
        raise CannotStart(f"There are no AWS credentials: {str(error).rstrip('.')}.") from None
    if frozen is None:
        raise CannotStart("There are no AWS credentials: set AWS_ACCESS_KEY_ID or AWS_PROFILE.")
    variables = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
    }
    return {name: value for name, value in variables.items() if value}

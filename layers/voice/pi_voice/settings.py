"""Settings of a deployment, from environment variables and one secret."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

GOOGLE: Final = "https://generativelanguage.googleapis.com"
_SECRET_CHARACTERS: Final = 32


class SettingsError(Exception):
    """A setting is missing or not valid; the message says what to set."""


@dataclass(frozen=True, slots=True)
class TableNames:
    """Names of the DynamoDB tables, and the retention of sessions in days (0: no expiry)."""

    agents: str
    sessions: str
    transcripts: str
    api_keys: str
    idempotency: str
    retention_days: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the names of the tables and the retention; raises SettingsError."""
        return cls(
            agents=_required(environment, "VOICE_AGENTS_TABLE"),
            sessions=_required(environment, "VOICE_SESSIONS_TABLE"),
            transcripts=_required(environment, "VOICE_TRANSCRIPTS_TABLE"),
            api_keys=_required(environment, "VOICE_API_KEYS_TABLE"),
            idempotency=_required(environment, "VOICE_IDEMPOTENCY_TABLE"),
            retention_days=_days(environment.get("RETENTION_DAYS") or "0"),
        )


def grace_seconds(environment: Mapping[str, str]) -> int:
    """Return how long after a session's expiry its transcript may still arrive, in seconds; raises SettingsError."""
    text = environment.get("GRACE_SECONDS") or "86400"
    if not text.isdecimal():
        raise SettingsError("GRACE_SECONDS should be a number of seconds.")
    return int(text)


def client_token_secret(environment: Mapping[str, str]) -> str:
    """Return the secret that signs client tokens; raises SettingsError if it is missing or too short."""
    secret = _required(environment, "CLIENT_TOKEN_SECRET")
    if len(secret) < _SECRET_CHARACTERS:
        raise SettingsError(f"CLIENT_TOKEN_SECRET should have at least {_SECRET_CHARACTERS} characters.")
    return secret


def queue_url(environment: Mapping[str, str]) -> str:
    """Return the URL of the extraction queue; raises SettingsError."""
    return _required(environment, "EXTRACTION_QUEUE_URL")


@dataclass(frozen=True, slots=True)
class ExtractionSettings:
    """Manual extractions per minute and workspace, and the model's prices.

    Prices are US dollars per million input and output tokens; None if the model is not in the price table.
    """

    per_minute: int
    price: tuple[float, float] | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings of extraction; raises SettingsError."""
        return cls(
            per_minute=_number(environment, "EXTRACTIONS_PER_MINUTE", "60"),
            price=_price(environment.get("EXTRACTION_PRICES") or "{}", environment.get("GEMINI_EXTRACTION_MODEL", "")),
        )


@dataclass(frozen=True, slots=True)
class LiveKitSettings:
    """URL of LiveKit (`wss://`, or `ws://` for a local server), with its API key and secret."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read LiveKit's settings; raises SettingsError."""
        url = urlsplit(_required(environment, "LIVEKIT_URL").rstrip("/"))
        scheme = {"https": "wss", "http": "ws"}.get(url.scheme, url.scheme)
        if scheme not in ("wss", "ws") or not url.netloc:
            message = "LIVEKIT_URL should look like wss://your-project.livekit.cloud."
            raise SettingsError(message)
        return cls(
            url=url._replace(scheme=scheme).geturl(),
            api_key=_required(environment, "LIVEKIT_API_KEY"),
            api_secret=_required(environment, "LIVEKIT_API_SECRET"),
        )


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """API key and secret that sign LiveKit's webhooks; if either is empty, every webhook is refused."""

    api_key: str
    api_secret: str = field(repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the webhook key pair, LiveKit's own if the webhook has none."""
        webhook_pair = environment.get("LIVEKIT_WEBHOOK_API_KEY"), environment.get("LIVEKIT_WEBHOOK_API_SECRET")
        if any(webhook_pair):
            return cls(webhook_pair[0] or "", webhook_pair[1] or "")
        return cls(environment.get("LIVEKIT_API_KEY", ""), environment.get("LIVEKIT_API_SECRET", ""))


@dataclass(frozen=True, slots=True)
class GeminiSettings:
    """API key, models and endpoint of Gemini.

    `api_version` applies to ephemeral tokens and to the WebSocket; both must use the same.
    """

    api_key: str = field(repr=False)
    live_model: str
    extraction_model: str
    api_version: str
    base_url: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read Gemini's settings; raises SettingsError."""
        return cls(
            api_key=_required(environment, "GEMINI_API_KEY"),
            live_model=_required(environment, "GEMINI_LIVE_MODEL"),
            extraction_model=_required(environment, "GEMINI_EXTRACTION_MODEL"),
            api_version=environment.get("GEMINI_API_VERSION") or "v1alpha",
            base_url=(environment.get("GOOGLE_GEMINI_BASE_URL") or GOOGLE).rstrip("/"),
        )

    @property
    def live_url(self) -> str:
        """WebSocket URL that accepts ephemeral tokens."""
        url = urlsplit(self.base_url)
        service = f"google.ai.generativelanguage.{self.api_version}.GenerativeService"
        return url._replace(
            scheme="ws" if url.scheme == "http" else "wss",
            path=f"{url.path}/ws/{service}.BidiGenerateContentConstrained",
        ).geturl()


def _days(text: str) -> int:
    if not text.isdecimal():
        raise SettingsError("RETENTION_DAYS should be a number of days; 0 means no expiry.")
    return int(text)


def _number(environment: Mapping[str, str], name: str, default: str) -> int:
    text = environment.get(name) or default
    if not text.isdecimal() or int(text) == 0:
        message = f"{name} should be a whole number above 0."
        raise SettingsError(message)
    return int(text)


def _price(table: str, model: str) -> tuple[float, float] | None:
    try:
        prices = json.loads(table)
        price = prices.get(model)
        return (float(price["input"]), float(price["output"])) if price is not None else None
    except (ValueError, AttributeError, KeyError, TypeError):
        example = '{"model": {"input": 0.30, "output": 2.50}}'
        message = f"EXTRACTION_PRICES should be JSON such as {example}, in dollars per million tokens."
        raise SettingsError(message) from None


def _required(environment: Mapping[str, str], name: str) -> str:
    if value := environment.get(name):
        return value
    message = f"{name} is not set."
    raise SettingsError(message)

"""Settings of a deployment, from environment variables and one secret."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Self, TypeVar, get_args
from urllib.parse import urlsplit

from pi_voice.domain.errors import SettingsError
from pi_voice.domain.webhook_secrets import Masters, variable
from pi_voice.domain.webhook_urls import DEFAULT_PORTS, UrlPolicy

GOOGLE: Final = "https://generativelanguage.googleapis.com"
_SECRET_CHARACTERS: Final = 32
_HIGHEST_PORT: Final = 65_535
Choice = TypeVar("Choice", bound=str)


class TableNames(NamedTuple):
    """Names of the DynamoDB tables, and the retention of sessions in days (0: no expiry)."""

    agents: str
    sessions: str
    transcripts: str
    api_keys: str
    webhook_endpoints: str
    webhook_deliveries: str
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
            webhook_endpoints=_required(environment, "VOICE_WEBHOOK_ENDPOINTS_TABLE"),
            webhook_deliveries=_required(environment, "VOICE_WEBHOOK_DELIVERIES_TABLE"),
            idempotency=_required(environment, "VOICE_IDEMPOTENCY_TABLE"),
            retention_days=_days(environment.get("RETENTION_DAYS") or "0"),
        )


def grace_seconds(environment: Mapping[str, str]) -> int:
    """Return how long after a session's expiry its transcript may still arrive, in seconds; raises SettingsError."""
    text = environment.get("GRACE_SECONDS") or "86400"
    if not text.isdecimal():
        raise SettingsError("GRACE_SECONDS should be a number of seconds.")
    return int(text)


def client_token_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets of client tokens, the one that signs first; raises SettingsError if one is too short."""
    secrets = [_required(environment, "CLIENT_TOKEN_SECRET")]
    others = map(environment.get, ("CLIENT_TOKEN_PREVIOUS_SECRET", "CLIENT_TOKEN_NEXT_SECRET"))
    secrets += filter(None, others)
    if min(map(len, secrets)) < _SECRET_CHARACTERS:
        raise SettingsError(f"CLIENT_TOKEN_SECRET should have at least {_SECRET_CHARACTERS} characters.")
    return tuple(secrets)


def webhook_masters(environment: Mapping[str, str]) -> Masters:
    """Return the masters of the webhook endpoints' secrets, the current one by its id; raises SettingsError."""
    current = _required(environment, "WEBHOOK_MASTER_ID")
    masters = {
        found[1].lower(): secret
        for name, secret in environment.items()
        if name != "WEBHOOK_MASTER_ID" and (found := re.fullmatch("WEBHOOK_MASTER_([0-9A-Z]{1,32})", name))
    }
    if current not in masters:
        message = f"{variable(current)} is not set. WEBHOOK_MASTER_ID names the current master, in lowercase."
        raise SettingsError(message)
    for master_id, secret in masters.items():
        if len(secret) < _SECRET_CHARACTERS:
            message = f"{variable(master_id)} should have at least {_SECRET_CHARACTERS} characters."
            raise SettingsError(message)
    return Masters(current, masters)


def extraction_model(environment: Mapping[str, str]) -> str:
    """Return the model that extracts results; raises SettingsError."""
    return _required(environment, "GEMINI_EXTRACTION_MODEL")


def extraction_queue_url(environment: Mapping[str, str]) -> str:
    """Return the URL of the extraction queue; raises SettingsError."""
    return _required(environment, "EXTRACTION_QUEUE_URL")


def event_queue_url(environment: Mapping[str, str]) -> str:
    """Return the URL of the queue of sessions that owe events; raises SettingsError."""
    return _required(environment, "EVENT_QUEUE_URL")


def delivery_queue_url(environment: Mapping[str, str]) -> str:
    """Return the URL of the queue of deliveries to webhook endpoints; raises SettingsError."""
    return _required(environment, "DELIVERY_QUEUE_URL")


def webhook_url_policy(environment: Mapping[str, str]) -> UrlPolicy:
    """Return what is accepted as the URL of a webhook endpoint; raises SettingsError."""
    ports = _items(environment, "WEBHOOK_ALLOWED_PORTS")
    if not all(port.isdecimal() and 0 < int(port) <= _HIGHEST_PORT for port in ports):
        raise SettingsError("WEBHOOK_ALLOWED_PORTS should be comma-separated port numbers such as 443,8443.")
    return UrlPolicy(
        ports=frozenset(map(int, ports)) or DEFAULT_PORTS,
        hosts=tuple(host.lower() for host in _items(environment, "WEBHOOK_ALLOWED_HOSTS")),
        allows_loopback=environment.get("WEBHOOK_ALLOW_LOOPBACK") == "true",
    )


LiveThinkingLevel = Literal["low", "medium", "high"]
ExtractionThinkingLevel = Literal["auto", "none", "minimal", "low", "medium", "high"]
TranscriptionHints = Literal["all", "language", "none"]
RatedOperation = Literal["creates", "completes", "extractions"]

_PER_MINUTE: Final[Mapping[RatedOperation, int]] = {"creates": 600, "completes": 600, "extractions": 60}


def per_minute(environment: Mapping[str, str], operation: RatedOperation) -> int:
    """Return how many requests of an operation are accepted per minute; raises SettingsError."""
    name = f"{operation.upper()}_PER_MINUTE"
    text = environment.get(name) or str(_PER_MINUTE[operation])
    if not text.isdecimal() or int(text) == 0:
        message = f"{name} should be a whole number above 0."
        raise SettingsError(message)
    return int(text)


def extraction_price(environment: Mapping[str, str]) -> tuple[float, float] | None:
    """Return the extraction model's prices in US dollars per million input and output tokens; raises SettingsError.

    None if the model is not in the price table.
    """
    try:
        prices = json.loads(environment.get("EXTRACTION_PRICES") or "{}")
        price = prices.get(environment.get("GEMINI_EXTRACTION_MODEL", ""))
        return (float(price["input"]), float(price["output"])) if price is not None else None
    except (ValueError, AttributeError, KeyError, TypeError):
        example = '{"model": {"input": 0.30, "output": 2.50}}'
        message = f"EXTRACTION_PRICES should be JSON such as {example}, in dollars per million tokens."
        raise SettingsError(message) from None


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
class KeyPair:
    """An API key of LiveKit with its secret."""

    api_key: str
    api_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Key pairs that sign LiveKit's webhooks, the current one first; without one, every webhook is refused."""

    pairs: tuple[KeyPair, ...]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the webhook's key pair and the previous one, or LiveKit's own if the webhook has none."""
        current, previous = _pair(environment, "LIVEKIT_WEBHOOK"), _pair(environment, "LIVEKIT_WEBHOOK_PREVIOUS")
        own = _pair(environment, "LIVEKIT") if current is None else None
        found = (current or own, previous)
        return cls(tuple(pair for pair in found if pair is not None and pair.api_key and pair.api_secret))


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
    live_thinking_level: LiveThinkingLevel = "low"
    """Thinking level of Live models that need one."""
    transcription_hints: TranscriptionHints = "all"
    """What the transcription of the caller is told: languages and vocabulary, languages only, or nothing."""
    extraction_thinking_level: ExtractionThinkingLevel = "auto"
    """Thinking level of the extraction model; `auto` depends on the model, `none` sends none."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read Gemini's settings; raises SettingsError."""
        return cls(
            api_key=_required(environment, "GEMINI_API_KEY"),
            live_model=_required(environment, "GEMINI_LIVE_MODEL"),
            extraction_model=extraction_model(environment),
            api_version=environment.get("GEMINI_API_VERSION") or "v1alpha",
            base_url=(environment.get("GOOGLE_GEMINI_BASE_URL") or GOOGLE).rstrip("/"),
            live_thinking_level=_one_of(get_args(LiveThinkingLevel), environment, "GEMINI_LIVE_THINKING_LEVEL", "low"),
            transcription_hints=_one_of(get_args(TranscriptionHints), environment, "GEMINI_TRANSCRIPTION_HINTS", "all"),
            extraction_thinking_level=_one_of(
                get_args(ExtractionThinkingLevel), environment, "GEMINI_EXTRACTION_THINKING_LEVEL", "auto"
            ),
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


def _items(environment: Mapping[str, str], name: str) -> list[str]:
    """Return the items of a comma-separated list, without empty ones."""
    return [item for item in map(str.strip, environment.get(name, "").split(",")) if item]


def _pair(environment: Mapping[str, str], prefix: str) -> KeyPair | None:
    """Return a key pair, even if one half is missing; None if both are."""
    api_key, api_secret = environment.get(f"{prefix}_API_KEY", ""), environment.get(f"{prefix}_API_SECRET", "")
    return KeyPair(api_key, api_secret) if api_key or api_secret else None


def _one_of(values: tuple[Choice, ...], environment: Mapping[str, str], name: str, default: Choice) -> Choice:
    text = environment.get(name) or default
    for value in values:
        if value == text:
            return value
    message = f"{name} should be {', '.join(values[:-1])} or {values[-1]}."
    raise SettingsError(message)


def _required(environment: Mapping[str, str], name: str) -> str:
    if value := environment.get(name):
        return value
    message = f"{name} is not set."
    raise SettingsError(message)

from collections.abc import Callable

import pytest

from pi_voice.domain.errors import SettingsError
from pi_voice.domain.webhook_secrets import Masters
from pi_voice.domain.webhook_urls import UrlPolicy
from pi_voice.settings import (
    GeminiSettings,
    LiveKitSettings,
    RatedOperation,
    TableNames,
    WebhookSettings,
    client_token_secrets,
    event_queue_url,
    extraction_price,
    extraction_queue_url,
    grace_seconds,
    per_minute,
    webhook_masters,
    webhook_url_policy,
)

TABLES = {
    "VOICE_AGENTS_TABLE": "a",
    "VOICE_SESSIONS_TABLE": "s",
    "VOICE_TRANSCRIPTS_TABLE": "t",
    "VOICE_API_KEYS_TABLE": "k",
    "VOICE_WEBHOOK_ENDPOINTS_TABLE": "w",
    "VOICE_WEBHOOK_DELIVERIES_TABLE": "d",
    "VOICE_IDEMPOTENCY_TABLE": "i",
}
LIVEKIT = {"LIVEKIT_URL": "wss://x.livekit.cloud", "LIVEKIT_API_KEY": "APIkey", "LIVEKIT_API_SECRET": "hush-4711"}
SERVICE_V1ALPHA = "google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained"
SERVICE_V1BETA = "google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContentConstrained"
GEMINI = {"GEMINI_API_KEY": "hush-4711", "GEMINI_LIVE_MODEL": "live", "GEMINI_EXTRACTION_MODEL": "lite"}


@pytest.mark.parametrize(
    ("environment", "days"), [({}, 0), ({"RETENTION_DAYS": ""}, 0), ({"RETENTION_DAYS": "30"}, 30)]
)
def test_rows_expire_only_if_a_number_of_retention_days_is_set(environment: dict[str, str], days: int) -> None:
    assert TableNames.of({**TABLES, **environment}) == TableNames("a", "s", "t", "k", "w", "d", "i", days)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [({}, 86_400), ({"GRACE_SECONDS": ""}, 86_400), ({"GRACE_SECONDS": "60"}, 60), ({"GRACE_SECONDS": "0"}, 0)],
)
def test_the_grace_time_is_a_day_by_default(environment: dict[str, str], seconds: int) -> None:
    assert grace_seconds(environment) == seconds


@pytest.mark.parametrize("text", ["a day", "-1", "1.5", " 60"])
def test_a_grace_time_that_is_not_a_number_of_seconds_is_rejected(text: str) -> None:
    with pytest.raises(SettingsError, match="GRACE_SECONDS should be a number of seconds"):
        grace_seconds({"GRACE_SECONDS": text})


def test_client_tokens_are_signed_with_the_current_secret_and_accepted_with_others() -> None:
    old, new, signs = "o" * 32, "n" * 32, {"CLIENT_TOKEN_SECRET": "s" * 32}

    assert client_token_secrets(signs) == ("s" * 32,)
    assert client_token_secrets({**signs, "CLIENT_TOKEN_PREVIOUS_SECRET": old}) == ("s" * 32, old)
    assert client_token_secrets({**signs, "CLIENT_TOKEN_NEXT_SECRET": new}) == ("s" * 32, new)


@pytest.mark.parametrize("name", ["CLIENT_TOKEN_SECRET", "CLIENT_TOKEN_PREVIOUS_SECRET", "CLIENT_TOKEN_NEXT_SECRET"])
def test_a_secret_of_client_tokens_has_at_least_32_characters(name: str) -> None:
    with pytest.raises(SettingsError, match="at least 32 characters"):
        client_token_secrets({"CLIENT_TOKEN_SECRET": "s" * 32, name: "s" * 31})


def test_a_secret_of_client_tokens_is_required() -> None:
    with pytest.raises(SettingsError, match="CLIENT_TOKEN_SECRET is not set"):
        client_token_secrets({})


def test_webhook_masters_have_ids_and_one_of_them_is_the_current_one() -> None:
    old, new = "o" * 32, "n" * 32
    environment = {"WEBHOOK_MASTER_ID": "1f", "WEBHOOK_MASTER_1F": new, "WEBHOOK_MASTER_A0": old}

    assert webhook_masters(environment) == Masters("1f", {"1f": new, "a0": old})


def test_a_webhook_master_that_will_be_the_next_one_is_known_already() -> None:
    old, new = "o" * 32, "n" * 32
    environment = {"WEBHOOK_MASTER_ID": "a0", "WEBHOOK_MASTER_NEXT_ID": "1f", "WEBHOOK_MASTER_A0": old}

    assert webhook_masters({**environment, "WEBHOOK_MASTER_1F": new}) == Masters("a0", {"1f": new, "a0": old})


@pytest.mark.parametrize("master_id", ["1F", "id", "next_id", "1f ", "é"])
def test_the_current_webhook_master_must_be_known(master_id: str) -> None:
    with pytest.raises(
        SettingsError, match=r"is not set\. WEBHOOK_MASTER_ID names the current master, in lowercase\.$"
    ):
        webhook_masters({"WEBHOOK_MASTER_ID": master_id, "WEBHOOK_MASTER_1F": "s" * 32})


def test_a_current_webhook_master_is_required() -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_MASTER_ID is not set"):
        webhook_masters({"WEBHOOK_MASTER_1F": "s" * 32})


def test_each_webhook_master_has_at_least_32_characters() -> None:
    masters = {"WEBHOOK_MASTER_ID": "1f", "WEBHOOK_MASTER_1F": "s" * 32, "WEBHOOK_MASTER_A0": "hush" * 7 + "hus"}

    with pytest.raises(SettingsError, match=r"^WEBHOOK_MASTER_A0 should have at least 32 characters\.$"):
        webhook_masters(masters)


@pytest.mark.parametrize(
    ("read", "name"), [(extraction_queue_url, "EXTRACTION_QUEUE_URL"), (event_queue_url, "EVENT_QUEUE_URL")]
)
def test_the_url_of_a_queue_is_required(read: Callable[[dict[str, str]], str], name: str) -> None:
    assert read({name: "https://sqs.test/queue"}) == "https://sqs.test/queue"
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        read({name: ""})


@pytest.mark.parametrize(
    ("environment", "policy"),
    [
        ({}, UrlPolicy(frozenset({443, 8443}), (), allows_loopback=False)),
        ({"WEBHOOK_ALLOWED_PORTS": "", "WEBHOOK_ALLOWED_HOSTS": "", "WEBHOOK_ALLOW_LOOPBACK": ""}, UrlPolicy()),
        ({"WEBHOOK_ALLOWED_PORTS": "443, 9443"}, UrlPolicy(frozenset({443, 9443}))),
        ({"WEBHOOK_ALLOWED_HOSTS": "A.example.com,*.example.org"}, UrlPolicy(hosts=("a.example.com", "*.example.org"))),
        ({"WEBHOOK_ALLOW_LOOPBACK": "true"}, UrlPolicy(allows_loopback=True)),
        ({"WEBHOOK_ALLOW_LOOPBACK": "1"}, UrlPolicy()),
    ],
)
def test_a_deployment_sets_ports_and_hosts_of_webhook_urls(environment: dict[str, str], policy: UrlPolicy) -> None:
    assert webhook_url_policy(environment) == policy


@pytest.mark.parametrize("ports", ["https", "0", "65536", "-1", "443;8443"])
def test_a_port_of_webhook_urls_is_a_number_of_a_port(ports: str) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_ALLOWED_PORTS should be comma-separated port numbers"):
        webhook_url_policy({"WEBHOOK_ALLOWED_PORTS": ports})


@pytest.mark.parametrize(("operation", "default"), [("creates", 600), ("completes", 600), ("extractions", 60)])
def test_each_rate_limit_has_a_default_and_can_be_set(operation: RatedOperation, default: int) -> None:
    name = f"{operation.upper()}_PER_MINUTE"

    assert per_minute({}, operation) == default
    assert per_minute({name: ""}, operation) == default
    assert per_minute({name: "1"}, operation) == 1


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "many", " 60"])
def test_a_rate_limit_that_is_not_a_whole_number_above_0_is_rejected(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^EXTRACTIONS_PER_MINUTE should be a whole number above 0\.$"):
        per_minute({"EXTRACTIONS_PER_MINUTE": text}, "extractions")


PRICES = '{"lite": {"input": 0.3, "output": 2.5}, "pro": {"input": 2, "output": 12}}'


@pytest.mark.parametrize(
    ("model", "price"),
    [("lite", (0.3, 2.5)), ("pro", (2.0, 12.0)), ("another", None), ("", None)],
)
def test_the_price_of_the_extraction_model_is_taken_from_the_price_table(
    model: str, price: tuple[float, float] | None
) -> None:
    assert extraction_price({"EXTRACTION_PRICES": PRICES, "GEMINI_EXTRACTION_MODEL": model}) == price


@pytest.mark.parametrize("prices", [{}, {"EXTRACTION_PRICES": ""}, {"EXTRACTION_PRICES": "{}"}], ids=str)
def test_the_price_is_unknown_without_a_price_table(prices: dict[str, str]) -> None:
    assert extraction_price({**prices, "GEMINI_EXTRACTION_MODEL": "lite"}) is None


@pytest.mark.parametrize(
    "table",
    [
        "lite: 0.3", "[]", "7", "null", '{"lite": 0.3}', '{"lite": [0.3, 2.5]}', '{"lite": {"input": 0.3}}',
        '{"lite": {"input": "cheap", "output": 2.5}}', '{"lite": {"input": null, "output": 2.5}}',
    ],
)  # fmt: skip
def test_a_malformed_price_table_is_rejected_with_an_example(table: str) -> None:
    with pytest.raises(SettingsError, match=r"^EXTRACTION_PRICES should be JSON such as .*per million tokens\.$"):
        extraction_price({"EXTRACTION_PRICES": table, "GEMINI_EXTRACTION_MODEL": "lite"})


@pytest.mark.parametrize(
    ("url", "websocket_url"),
    [
        ("wss://x.livekit.cloud", "wss://x.livekit.cloud"),
        ("wss://x.livekit.cloud/", "wss://x.livekit.cloud"),
        ("https://x.livekit.cloud", "wss://x.livekit.cloud"),
        ("ws://127.0.0.1:7880", "ws://127.0.0.1:7880"),
        ("http://127.0.0.1:7880", "ws://127.0.0.1:7880"),
        ("wss://example.com/livekit/", "wss://example.com/livekit"),
    ],
)
def test_the_livekit_url_is_normalized_to_a_websocket_url(url: str, websocket_url: str) -> None:
    assert LiveKitSettings.of({**LIVEKIT, "LIVEKIT_URL": url}).url == websocket_url


@pytest.mark.parametrize("url", ["x.livekit.cloud", "ftp://x.livekit.cloud", "wss://", "localhost:7880"])
def test_an_invalid_livekit_url_is_rejected(url: str) -> None:
    with pytest.raises(SettingsError, match="should look like wss://"):
        LiveKitSettings.of({**LIVEKIT, "LIVEKIT_URL": url})


@pytest.mark.parametrize(
    ("settings", "environment", "name"),
    [
        *((TableNames, TABLES, name) for name in TABLES),
        *((LiveKitSettings, LIVEKIT, name) for name in LIVEKIT),
        *((GeminiSettings, GEMINI, name) for name in GEMINI),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_a_missing_setting_is_named_in_the_error(
    settings: type[TableNames | LiveKitSettings | GeminiSettings],
    environment: dict[str, str],
    name: str,
    value: str | None,
) -> None:
    incomplete = {key: text for key, text in environment.items() if key != name}
    if value is not None:
        incomplete[name] = value

    with pytest.raises(SettingsError, match=f"^{name} is not set.$"):
        settings.of(incomplete)


OWN = {"LIVEKIT_WEBHOOK_API_KEY": "own", "LIVEKIT_WEBHOOK_API_SECRET": "sec"}
PREVIOUS = {"LIVEKIT_WEBHOOK_PREVIOUS_API_KEY": "old", "LIVEKIT_WEBHOOK_PREVIOUS_API_SECRET": "old-sec"}


@pytest.mark.parametrize(
    ("environment", "pairs"),
    [
        (LIVEKIT, [("APIkey", "hush-4711")]),
        ({**LIVEKIT, **OWN}, [("own", "sec")]),
        ({**LIVEKIT, **dict.fromkeys(OWN, "")}, [("APIkey", "hush-4711")]),
        ({**OWN, **PREVIOUS}, [("own", "sec"), ("old", "old-sec")]),
        # an incomplete pair verifies no webhook
        ({**LIVEKIT, "LIVEKIT_WEBHOOK_API_KEY": "own"}, []),
        ({**LIVEKIT, "LIVEKIT_WEBHOOK_API_SECRET": "sec"}, []),
        ({**OWN, "LIVEKIT_WEBHOOK_PREVIOUS_API_KEY": "old"}, [("own", "sec")]),
        ({}, []),
    ],
)
def test_webhooks_have_their_own_key_pairs_or_else_livekit_s(
    environment: dict[str, str], pairs: list[tuple[str, str]]
) -> None:
    settings = WebhookSettings.of(environment)

    assert [(pair.api_key, pair.api_secret) for pair in settings.pairs] == pairs


def test_gemini_is_reached_at_google_by_default() -> None:
    assert GeminiSettings.of(GEMINI).base_url == "https://generativelanguage.googleapis.com"
    assert GeminiSettings.of(GEMINI).api_version == "v1alpha"
    assert GeminiSettings.of({**GEMINI, "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9/"}).base_url == (
        "http://127.0.0.1:9"
    )


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, f"wss://generativelanguage.googleapis.com/ws/{SERVICE_V1ALPHA}"),
        ({"GEMINI_API_VERSION": "v1beta"}, f"wss://generativelanguage.googleapis.com/ws/{SERVICE_V1BETA}"),
        ({"GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9"}, f"ws://127.0.0.1:9/ws/{SERVICE_V1ALPHA}"),
        (
            {"GOOGLE_GEMINI_BASE_URL": "https://proxy.example.com/gemini/"},
            f"wss://proxy.example.com/gemini/ws/{SERVICE_V1ALPHA}",
        ),
    ],
)
def test_the_websocket_url_has_the_api_version_and_the_base_url(changes: dict[str, str], url: str) -> None:
    assert GeminiSettings.of({**GEMINI, **changes}).live_url == url


def test_thinking_levels_and_transcription_hints_have_defaults_and_can_be_set() -> None:
    chosen = {
        "GEMINI_LIVE_THINKING_LEVEL": "high",
        "GEMINI_TRANSCRIPTION_HINTS": "none",
        "GEMINI_EXTRACTION_THINKING_LEVEL": "medium",
    }

    def levels(environment: dict[str, str]) -> tuple[str, str, str]:
        settings = GeminiSettings.of({**GEMINI, **environment})
        return settings.live_thinking_level, settings.transcription_hints, settings.extraction_thinking_level

    assert levels({}) == levels(dict.fromkeys(chosen, "")) == ("low", "all", "auto")
    assert levels(chosen) == ("high", "none", "medium")


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("GEMINI_LIVE_THINKING_LEVEL", "minimal", "low, medium or high"),
        ("GEMINI_TRANSCRIPTION_HINTS", "yes", "all, language or none"),
        ("GEMINI_EXTRACTION_THINKING_LEVEL", "LOW", "auto, none, minimal, low, medium or high"),
    ],
)
def test_an_unknown_choice_is_rejected_with_those_that_exist(name: str, text: str, values: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} should be {values}\\.$"):
        GeminiSettings.of({**GEMINI, name: text})


def test_secrets_are_not_in_the_representation() -> None:
    settings = [
        LiveKitSettings.of(LIVEKIT),
        GeminiSettings.of(GEMINI),
        WebhookSettings.of(LIVEKIT),
    ]

    assert "hush-4711" not in repr(settings)

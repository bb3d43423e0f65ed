import pytest

from pi_voice.settings import (
    AwsSettings,
    ExtractionSettings,
    GeminiSettings,
    LiveKitSettings,
    SettingsError,
    TableNames,
    WebhookSettings,
    client_token_secret,
    grace_seconds,
    queue_url,
)

TABLES = {
    "VOICE_AGENTS_TABLE": "a",
    "VOICE_SESSIONS_TABLE": "s",
    "VOICE_TRANSCRIPTS_TABLE": "t",
    "VOICE_API_KEYS_TABLE": "k",
    "VOICE_IDEMPOTENCY_TABLE": "i",
}
LIVEKIT = {"LIVEKIT_URL": "wss://x.livekit.cloud", "LIVEKIT_API_KEY": "APIkey", "LIVEKIT_API_SECRET": "hush-4711"}
SERVICE_V1ALPHA = "google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained"
SERVICE_V1BETA = "google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContentConstrained"
GEMINI = {"GEMINI_API_KEY": "hush-4711", "GEMINI_LIVE_MODEL": "live", "GEMINI_EXTRACTION_MODEL": "lite"}


@pytest.mark.parametrize(("days", "kept_for"), [({}, 0), ({"RETENTION_DAYS": ""}, 0), ({"RETENTION_DAYS": "30"}, 30)])
def test_tables_are_kept_for_good_unless_a_number_of_days_is_set(days: dict[str, str], kept_for: int) -> None:
    assert TableNames.of({**TABLES, **days}) == TableNames("a", "s", "t", "k", "i", kept_for)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [({}, 86_400), ({"GRACE_SECONDS": ""}, 86_400), ({"GRACE_SECONDS": "60"}, 60), ({"GRACE_SECONDS": "0"}, 0)],
)
def test_a_late_transcript_is_waited_for_a_day_unless_it_is_said_otherwise(
    environment: dict[str, str], seconds: int
) -> None:
    assert grace_seconds(environment) == seconds


@pytest.mark.parametrize("text", ["a day", "-1", "1.5", " 60"])
def test_a_grace_that_is_no_number_of_seconds_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="GRACE_SECONDS should be a number of seconds"):
        grace_seconds({"GRACE_SECONDS": text})


def test_client_tokens_are_signed_by_a_secret_that_nobody_guesses() -> None:
    assert client_token_secret({"CLIENT_TOKEN_SECRET": "s" * 32}) == "s" * 32
    with pytest.raises(SettingsError, match="at least 32 characters"):
        client_token_secret({"CLIENT_TOKEN_SECRET": "s" * 31})
    with pytest.raises(SettingsError, match="CLIENT_TOKEN_SECRET is not set"):
        client_token_secret({})


def test_a_queue_is_named_by_its_url() -> None:
    assert queue_url({"EXTRACTION_QUEUE_URL": "https://sqs.test/extractions"}) == "https://sqs.test/extractions"
    with pytest.raises(SettingsError, match="EXTRACTION_QUEUE_URL is not set"):
        queue_url({"EXTRACTION_QUEUE_URL": ""})


def test_extractions_are_limited_to_60_a_minute_by_default() -> None:
    assert ExtractionSettings.of({}) == ExtractionSettings(per_minute=60, price=None)
    assert ExtractionSettings.of({"EXTRACTIONS_PER_MINUTE": ""}) == ExtractionSettings(60, None)


def test_the_rate_limit_of_extractions_can_be_set() -> None:
    assert ExtractionSettings.of({"EXTRACTIONS_PER_MINUTE": "1"}).per_minute == 1


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "many", " 60"])
def test_a_rate_limit_that_is_no_whole_number_above_0_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^EXTRACTIONS_PER_MINUTE should be a whole number above 0\.$"):
        ExtractionSettings.of({"EXTRACTIONS_PER_MINUTE": text})


PRICES = '{"lite": {"input": 0.3, "output": 2.5}, "pro": {"input": 2, "output": 12}}'


@pytest.mark.parametrize(
    ("model", "price"),
    [("lite", (0.3, 2.5)), ("pro", (2.0, 12.0)), ("another", None), ("", None)],
)
def test_the_extraction_model_s_price_is_looked_up_in_the_table(model: str, price: tuple[float, float] | None) -> None:
    told = ExtractionSettings.of({"EXTRACTION_PRICES": PRICES, "GEMINI_EXTRACTION_MODEL": model})

    assert told.price == price


@pytest.mark.parametrize("prices", [{}, {"EXTRACTION_PRICES": ""}, {"EXTRACTION_PRICES": "{}"}], ids=str)
def test_without_a_table_there_is_no_price(prices: dict[str, str]) -> None:
    assert ExtractionSettings.of({**prices, "GEMINI_EXTRACTION_MODEL": "lite"}).price is None


@pytest.mark.parametrize(
    "table",
    [
        "lite: 0.3", "[]", "7", "null", '{"lite": 0.3}', '{"lite": [0.3, 2.5]}', '{"lite": {"input": 0.3}}',
        '{"lite": {"input": "cheap", "output": 2.5}}', '{"lite": {"input": null, "output": 2.5}}',
    ],
)  # fmt: skip
def test_a_price_table_that_is_none_is_refused_with_an_example(table: str) -> None:
    with pytest.raises(SettingsError, match=r"^EXTRACTION_PRICES should be JSON such as .*per million tokens\.$"):
        ExtractionSettings.of({"EXTRACTION_PRICES": table, "GEMINI_EXTRACTION_MODEL": "lite"})


@pytest.mark.parametrize(
    ("url", "read_as"),
    [
        ("wss://x.livekit.cloud", "wss://x.livekit.cloud"),
        ("wss://x.livekit.cloud/", "wss://x.livekit.cloud"),
        ("https://x.livekit.cloud", "wss://x.livekit.cloud"),
        ("ws://127.0.0.1:7880", "ws://127.0.0.1:7880"),
        ("http://127.0.0.1:7880", "ws://127.0.0.1:7880"),
        ("wss://example.com/livekit/", "wss://example.com/livekit"),
    ],
)
def test_livekit_is_reached_by_websocket_however_its_url_is_written(url: str, read_as: str) -> None:
    assert LiveKitSettings.of({**LIVEKIT, "LIVEKIT_URL": url}).url == read_as


@pytest.mark.parametrize("url", ["x.livekit.cloud", "ftp://x.livekit.cloud", "wss://", "localhost:7880"])
def test_what_is_no_url_of_livekit_s_is_refused(url: str) -> None:
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
def test_a_setting_that_is_missing_is_named(
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


@pytest.mark.parametrize(
    ("environment", "pair"),
    [
        (LIVEKIT, ("APIkey", "hush-4711")),
        ({**LIVEKIT, "LIVEKIT_WEBHOOK_API_KEY": "own", "LIVEKIT_WEBHOOK_API_SECRET": "sec"}, ("own", "sec")),
        ({**LIVEKIT, "LIVEKIT_WEBHOOK_API_KEY": "", "LIVEKIT_WEBHOOK_API_SECRET": ""}, ("APIkey", "hush-4711")),
        # half a pair is nobody's key: nothing is believed then
        ({**LIVEKIT, "LIVEKIT_WEBHOOK_API_KEY": "own"}, ("own", "")),
        ({**LIVEKIT, "LIVEKIT_WEBHOOK_API_SECRET": "sec"}, ("", "sec")),
        ({}, ("", "")),
    ],
)
def test_webhooks_are_signed_with_a_key_of_their_own_or_with_livekit_s(
    environment: dict[str, str], pair: tuple[str, str]
) -> None:
    settings = WebhookSettings.of(environment)

    assert (settings.api_key, settings.api_secret) == pair


def test_gemini_is_google_s_unless_it_is_reached_another_way() -> None:
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
def test_one_version_serves_tokens_and_the_websocket_that_they_open(changes: dict[str, str], url: str) -> None:
    assert GeminiSettings.of({**GEMINI, **changes}).live_url == url


AWS = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "hush-4711"}


def test_aws_is_reached_in_the_region_that_lambda_tells() -> None:
    told = AwsSettings.of({**AWS, "AWS_DEFAULT_REGION": "us-east-1"})

    assert told.endpoint("dynamodb") == "https://dynamodb.eu-west-1.amazonaws.com"
    assert (told.access_key_id, told.secret_access_key, told.session_token) == ("AKID", "hush-4711", "")


def test_elsewhere_the_region_is_the_one_that_boto3_reads() -> None:
    elsewhere = {"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-east-1", "AWS_SESSION_TOKEN": "for an hour"}
    told = AwsSettings.of({**AWS, **elsewhere})

    assert (told.region, told.session_token) == ("us-east-1", "for an hour")


def test_aws_s_addresses_end_in_what_the_template_says() -> None:
    told = AwsSettings.of({**AWS, "AWS_REGION": "cn-north-1", "URL_SUFFIX": "amazonaws.com.cn"})

    assert told.endpoint("sqs") == "https://sqs.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("dynamodb", "AWS_ENDPOINT_URL_DYNAMODB"),
        ("sqs", "AWS_ENDPOINT_URL_SQS"),
        ("ssm", "AWS_ENDPOINT_URL_SSM"),
        ("secretsmanager", "AWS_ENDPOINT_URL_SECRETS_MANAGER"),
    ],
)
def test_a_service_is_led_elsewhere_by_boto3_s_own_variables(service: str, name: str) -> None:
    own, for_all = "http://127.0.0.1:1", "http://127.0.0.1:2"

    assert AwsSettings.of({**AWS, name: own, "AWS_ENDPOINT_URL": for_all}).endpoint(service) == own
    assert AwsSettings.of({**AWS, "AWS_ENDPOINT_URL": for_all}).endpoint(service) == for_all


@pytest.mark.parametrize("address", ["localhost:8000", "127.0.0.1", "ftp://here", "http://", "http://here/and/there"])
def test_an_address_that_cannot_be_asked_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL"):
        AwsSettings.of({**AWS, "AWS_ENDPOINT_URL_DYNAMODB": address})


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
        ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_without_a_region_or_credentials_aws_cannot_be_reached(missing: str, named: str) -> None:
    with pytest.raises(SettingsError, match=f"{named} is not set"):
        AwsSettings.of({**AWS, missing: ""})


def test_no_secret_is_shown() -> None:
    shown = [
        AwsSettings.of({**AWS, "AWS_SESSION_TOKEN": "hush-4711"}),
        LiveKitSettings.of(LIVEKIT),
        GeminiSettings.of(GEMINI),
        WebhookSettings.of(LIVEKIT),
    ]

    assert "hush-4711" not in repr(shown)

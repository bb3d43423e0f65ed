"""The environment selects real services or stand-ins, and an incomplete configuration is refused."""

import os
from pathlib import Path

import pytest

from local.errors import CannotStart
from local.services import Gemini, LiveKit, Services, function_variables, machine_variables
from pi_voice.settings import webhook_masters

LIVEKIT = {"LIVEKIT_URL": "wss://mine", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "secret"}
STAND_INS = LiveKit("ws://127.0.0.1:1", "stand-in", "nothing"), Gemini("nothing", "http://127.0.0.1:2")
LOOPBACK = "http://127.0.0.1:3"
AWS = LOOPBACK, "http://127.0.0.1:4"


def test_without_variables_all_services_are_stand_ins() -> None:
    services = Services.chosen_by({"HOME": "/home/me", "LIVEKIT_URL": "", "GEMINI_API_KEY": ""})

    assert (services.livekit, services.gemini, services.api_key) == (None, None, None)
    assert (services.dynamodb_url, services.sqs_url) == (None, None)


def test_each_service_is_replaced_by_its_own_variables() -> None:
    services = Services.chosen_by(
        {
            **LIVEKIT,
            "GEMINI_API_KEY": "g",
            "GOOGLE_GEMINI_BASE_URL": "https://proxy",
            "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000",
            "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9324",
            "PI_VOICE_API_KEY": "pi_live_x",
        }
    )

    assert services.livekit == LiveKit("wss://mine", "key", "secret")
    assert services.gemini == Gemini("g", "https://proxy")
    assert (services.dynamodb_url, services.sqs_url) == ("http://127.0.0.1:8000", "http://127.0.0.1:9324")
    assert services.api_key == "pi_live_x"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LIVEKIT_URL": "wss://mine"}, "LIVEKIT_API_KEY and LIVEKIT_API_SECRET must be set too"),
        ({**LIVEKIT, "LIVEKIT_API_SECRET": ""}, "LIVEKIT_API_SECRET must be set too"),
        ({"LIVEKIT_WEBHOOK_API_KEY": "k"}, "LIVEKIT_WEBHOOK_API_SECRET must be set too"),
        ({"LIVEKIT_WEBHOOK_API_SECRET": "s"}, "LIVEKIT_WEBHOOK_API_KEY must be set too"),
        ({"GOOGLE_GEMINI_BASE_URL": "https://proxy"}, "GEMINI_API_KEY must be set too"),
    ],
)
def test_an_incomplete_configuration_is_refused_in_one_sentence(environment: dict[str, str], said: str) -> None:
    with pytest.raises(CannotStart, match=r"^The configuration of [^\n]+ is incomplete: [^\n]+\.$") as caught:
        Services.chosen_by(environment)

    assert said in str(caught.value)


def test_functions_get_their_services_as_plain_variables() -> None:
    signs = "s" * 32
    masters = {"WEBHOOK_MASTER_ID": "a1", "WEBHOOK_MASTER_A1": "m" * 32}
    services = Services.chosen_by(
        {"RETENTION_DAYS": "7", "GRACE_SECONDS": "1", "CLIENT_TOKEN_SECRET": signs, "SECRET_OF_MINE": "x", **masters}
    )

    assert function_variables(services, *STAND_INS, *AWS) == {
        "RETENTION_DAYS": "7",
        "GRACE_SECONDS": "1",
        "CLIENT_TOKEN_SECRET": signs,
        **masters,
        "PI_VOICE_SECRETS": "",
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": "stand-in",
        "LIVEKIT_API_SECRET": "nothing",
        "LIVEKIT_WEBHOOK_API_KEY": "stand-in",
        "LIVEKIT_WEBHOOK_API_SECRET": "nothing",
        "GEMINI_API_KEY": "nothing",
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:2",
        "AWS_ENDPOINT_URL_DYNAMODB": LOOPBACK,
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:4",
        "WEBHOOK_ALLOW_LOOPBACK": "true",
    }


def test_the_generated_client_token_secret_differs_at_every_start() -> None:
    services = Services.chosen_by({})
    generated = {function_variables(services, *STAND_INS, *AWS)["CLIENT_TOKEN_SECRET"] for _ in range(2)}

    assert len(generated) == 2
    assert {len(secret) for secret in generated} == {64}


def test_a_short_client_token_secret_is_refused_in_one_sentence() -> None:
    with pytest.raises(CannotStart, match=r"^CLIENT_TOKEN_SECRET is too short: it needs 32 characters or more\.$"):
        Services.chosen_by({"CLIENT_TOKEN_SECRET": "s" * 31})


def test_the_generated_master_of_webhook_secrets_and_its_id_differ_at_every_start() -> None:
    services = Services.chosen_by({})
    masters = [webhook_masters(function_variables(services, *STAND_INS, *AWS)) for _ in range(2)]

    assert len({each.current for each in masters}) == 2
    assert {len(each.secrets[each.current]) for each in masters} == {64}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WEBHOOK_MASTER_A1": "m" * 32}, "WEBHOOK_MASTER_ID should be the id of a master"),
        ({"WEBHOOK_MASTER_ID": "a1"}, "with the id a1, set WEBHOOK_MASTER_A1 too"),
        ({"WEBHOOK_MASTER_ID": "a1", "WEBHOOK_MASTER_A1": "m" * 31}, "WEBHOOK_MASTER_A1 is too short"),
    ],
)
def test_incomplete_masters_of_webhook_secrets_are_refused_in_one_sentence(
    environment: dict[str, str], said: str
) -> None:
    with pytest.raises(CannotStart, match=r"^[^\n]+\.$") as caught:
        Services.chosen_by(environment)

    assert said in str(caught.value)


def test_allowed_origins_are_passed_as_the_templates_parameter() -> None:
    services = Services.chosen_by({"CORS_ALLOW_ORIGINS": "https://a,https://b"})

    assert services.parameters == {"CorsAllowOrigins": "https://a,https://b"}
    assert not services.allows_loopback


def test_without_allowed_origins_pages_on_loopback_may_call_the_api() -> None:
    assert Services.chosen_by({}).allows_loopback


def test_a_separate_webhook_key_is_passed_to_the_functions() -> None:
    services = Services.chosen_by({"LIVEKIT_WEBHOOK_API_KEY": "k", "LIVEKIT_WEBHOOK_API_SECRET": "s"})
    variables = function_variables(services, *STAND_INS, *AWS)

    assert (variables["LIVEKIT_WEBHOOK_API_KEY"], variables["LIVEKIT_WEBHOOK_API_SECRET"]) == ("k", "s")
    assert variables["LIVEKIT_API_KEY"] == "stand-in"


def test_the_templates_gemini_url_is_used_unless_another_is_set() -> None:
    services = Services.chosen_by({"GEMINI_API_KEY": "g"})
    assert services.gemini

    assert "GOOGLE_GEMINI_BASE_URL" not in function_variables(services, STAND_INS[0], services.gemini, *AWS)


@pytest.mark.parametrize("url", [LOOPBACK, "http://localhost:8000", "http://[::1]:8000"])
def test_on_loopback_credentials_are_fake_and_profiles_are_ignored(url: str) -> None:
    variables = machine_variables({"PATH": "/bin", "AWS_PROFILE": "work", "AWS_ACCESS_KEY_ID": "real"}, url)

    assert (variables["PATH"], variables["AWS_ACCESS_KEY_ID"]) == ("/bin", "local")
    assert variables["AWS_CONFIG_FILE"] == os.devnull
    assert "AWS_PROFILE" not in variables


def test_one_remote_service_needs_the_users_credentials() -> None:
    variables = machine_variables({"AWS_ACCESS_KEY_ID": "real"}, LOOPBACK, "https://sqs.us-east-1.amazonaws.com")

    assert variables["AWS_ACCESS_KEY_ID"] == "real"


REMOTE = "https://dynamodb.eu-west-1.amazonaws.com"


@pytest.fixture
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide this machine's AWS credentials, and return a credentials file that a test may write."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


def test_remote_services_get_the_users_credentials() -> None:
    own = {"AWS_ACCESS_KEY_ID": "real", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1", "OTHER": "x"}
    variables = machine_variables(own, REMOTE)

    assert (variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]) == ("real", "secret")
    assert variables["AWS_REGION"] == "eu-west-1"
    assert "OTHER" not in variables


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_for_remote_services_both_region_variables_are_set(name: str) -> None:
    variables = machine_variables({"AWS_ACCESS_KEY_ID": "real", name: "eu-west-1"}, REMOTE)

    assert (variables["AWS_REGION"], variables["AWS_DEFAULT_REGION"]) == ("eu-west-1", "eu-west-1")


def test_a_profile_without_credentials_is_reported_in_one_sentence(no_credentials: Path) -> None:
    no_credentials.write_text(
        "[sso]\nsso_start_url = https://example.test\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = x\n"
    )

    with pytest.raises(CannotStart, match=r"^There are no AWS credentials: [^\n]+[^.]\.$"):
        machine_variables({"AWS_PROFILE": "sso"}, REMOTE)


@pytest.mark.parametrize("token", ["", "for an hour"])
def test_a_profiles_credentials_are_passed_to_the_functions_as_variables(no_credentials: Path, token: str) -> None:
    lines = ["[work]", "aws_access_key_id = real", "aws_secret_access_key = secret"]
    no_credentials.write_text("\n".join([*lines, *([f"aws_session_token = {token}"] if token else [])]))
    variables = machine_variables({"AWS_PROFILE": "work"}, REMOTE)

    assert (variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]) == ("real", "secret")
    assert variables.get("AWS_SESSION_TOKEN", "") == token


@pytest.mark.parametrize("own", [{}, {"AWS_PROFILE": "unknown"}])
def test_missing_credentials_are_reported_in_one_sentence(no_credentials: Path, own: dict[str, str]) -> None:
    del no_credentials

    with pytest.raises(CannotStart, match=r"^There are no AWS credentials: [^\n]+[^.]\.$"):
        machine_variables(own, REMOTE)


def test_a_proxy_is_used_except_for_loopback() -> None:
    variables = machine_variables({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "intranet"}, LOOPBACK)

    assert variables["HTTPS_PROXY"] == "http://proxy"
    assert variables["NO_PROXY"].split(",") == ["intranet", "127.0.0.1", "localhost", "::1"]

"""The Gemini stand-in mints ephemeral tokens as Google does, and refuses what Google refuses."""

import asyncio
import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from local.http_server import serving
from local.stand_ins.gemini import gemini_app
from local.stand_ins.gemini_errors import GeminiError
from local.stand_ins.gemini_tokens import Tokens
from tests.local.conftest import Answer, Background, Site

pytestmark = [
    pytest.mark.filterwarnings("ignore:The SDK's token creation implementation is experimental"),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),  # the SDK's own
]

KEY = "some-key"
MASK = (
    "model,generationConfig,systemInstruction,tools,inputAudioTranscription,outputAudioTranscription,"
    "contextWindowCompression"
)
SETUP = {
    "model": "models/gemini-3.1-flash-live-preview",
    "generationConfig": {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Puck"}}},
    },
    "systemInstruction": {"parts": [{"text": "Be kind."}]},
    "inputAudioTranscription": {},
    "outputAudioTranscription": {},
    "contextWindowCompression": {"slidingWindow": {}},
}


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture(scope="module")
def site(background: Background, tokens: Tokens) -> Site:
    return Site(background.enter(serving(gemini_app(tokens, KEY))))


def soon(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def token_request(**fields: Any) -> dict[str, Any]:
    times = {"expireTime": soon(minutes=10), "newSessionExpireTime": soon(minutes=10)}
    return {"uses": 1, **times, "bidiGenerateContentSetup": copy.deepcopy(SETUP), "fieldMask": MASK, **fields}


def mint(site: Site, body: Any, version: str = "v1alpha") -> Answer:
    return site.post(f"/{version}/auth_tokens", body, ("x-goog-api-key", KEY))


def refused(answer: Answer, status: int = 400) -> str:
    """Assert that an answer is an error in Google's format, and return its message."""
    error = answer.json["error"]
    status_name = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED"}[status]
    assert (answer.status, error["code"], error["status"]) == (status, status, status_name)
    return str(error["message"])


# ---- Valid requests ----


@pytest.mark.parametrize("version", ["v1alpha", "v1beta"])
def test_the_answer_is_the_tokens_name_only(site: Site, version: str) -> None:
    answer = mint(site, token_request(), version)

    assert answer.status == 200
    assert answer.json.keys() == {"name"}
    assert answer.json["name"].startswith("auth_tokens/")


def test_a_token_stores_the_setup_that_it_locks(site: Site, tokens: Tokens) -> None:
    asked = token_request(uses=3)
    token = tokens.find(mint(site, asked).json["name"])

    assert token
    assert (token.version, token.uses, token.setup, token.mask) == ("v1alpha", 3, SETUP, tuple(MASK.split(",")))
    assert token.expires_at == datetime.fromisoformat(asked["expireTime"])
    assert token.start_before == datetime.fromisoformat(asked["newSessionExpireTime"])


def test_an_empty_request_gets_googles_defaults(site: Site, tokens: Tokens) -> None:
    before = datetime.now(UTC)
    token = tokens.find(mint(site, {}).json["name"])
    after = datetime.now(UTC)

    assert token
    assert (token.uses, token.setup, token.mask) == (1, None, ())
    assert before <= token.expires_at - timedelta(minutes=30) <= after
    assert before <= token.start_before - timedelta(seconds=60) <= after


def test_snake_case_is_accepted_like_camel_case(site: Site, tokens: Tokens) -> None:
    body = {
        "expire_time": soon(minutes=5),
        "bidi_generate_content_setup": {
            "model": SETUP["model"],
            "generation_config": {"speech_config": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}}},
        },
        "field_mask": "model,generation_config.speech_config",
    }
    token = tokens.find(mint(site, body).json["name"])

    assert token
    assert token.mask == ("model", "generationConfig.speechConfig")
    assert token.setup == {
        "model": SETUP["model"],
        "generationConfig": {"speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}}},
    }


def test_googles_sdk_gets_a_token(site: Site, tokens: Tokens) -> None:
    async def create() -> types.AuthToken:
        options = types.HttpOptions(base_url=site.url, api_version="v1alpha", extra_body={"fieldMask": MASK})
        live = types.LiveConnectConfig(
            response_modalities=[types.Modality.AUDIO],
            speech_config=types.SpeechConfig(
                voice_config=types.VoiceConfig(
                    prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Puck"),
                )
            ),
            system_instruction="Be kind.",
            input_audio_transcription=types.AudioTranscriptionConfig(),
            output_audio_transcription=types.AudioTranscriptionConfig(),
            context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
        )
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=site.url, api_version="v1alpha"))
        async with client.aio as gemini:
            token: types.AuthToken = await gemini.auth_tokens.create(
                config=types.CreateAuthTokenConfig(
                    uses=1,
                    expire_time=datetime.now(UTC) + timedelta(minutes=10),
                    live_connect_constraints=types.LiveConnectConstraints(model=str(SETUP["model"]), config=live),
                    http_options=options,
                )
            )
            return token

    token = tokens.find(asyncio.run(create()).name or "")

    assert token
    assert token.setup
    assert token.setup["generationConfig"] == SETUP["generationConfig"]


# ---- Refused requests ----


def test_v1_has_no_tokens(site: Site) -> None:
    answer = mint(site, token_request(), "v1")

    assert (answer.status, answer.header("content-type")) == (404, "text/html; charset=utf-8")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_another_method_is_404(site: Site, method: str) -> None:
    assert site.call(method, "/v1alpha/auth_tokens", headers=[("x-goog-api-key", KEY)]).status == 404


def test_a_missing_key_is_403(site: Site) -> None:
    assert "Please use API Key" in refused(site.post("/v1alpha/auth_tokens", token_request()), 403)


def test_a_wrong_key_is_400_with_its_reason(site: Site) -> None:
    answer = site.post("/v1alpha/auth_tokens", token_request(), ("x-goog-api-key", "wrong"))

    assert refused(answer) == "API key not valid. Please pass a valid API key."
    assert answer.json["error"]["details"][0]["reason"] == "API_KEY_INVALID"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": 1}, "Unknown name \"x\" at 'auth_token': Cannot find field."),
        ({"lockAdditionalFields": []}, "Unknown name \"lockAdditionalFields\" at 'auth_token': Cannot find field."),
        (
            {"bidiGenerateContentSetup": {"voice": "Puck"}},
            "Unknown name \"voice\" at 'auth_token.bidi_generate_content_setup': Cannot find field.",
        ),
        (
            {"bidiGenerateContentSetup": {"systemInstruction": {"parts": [{"text": "a"}, {"txt": "b"}]}}},
            "Unknown name \"txt\" at 'auth_token.bidi_generate_content_setup.system_instruction.parts[1]'",
        ),
        (
            {"bidiGenerateContentSetup": {"generationConfig": {"responseModalities": ["SMELL"]}}},
            "Invalid value at 'auth_token.bidi_generate_content_setup.generation_config.response_modalities[0]'",
        ),
        ({"uses": "many"}, "Invalid value at 'auth_token.uses' (TYPE_INT32), \"many\""),
        ({"uses": 1.5}, "Invalid value at 'auth_token.uses' (TYPE_INT32), 1.5"),
        ({"uses": -1}, "uses must not be negative."),
        ({"fieldMask": ["model"]}, "Invalid value at 'auth_token.field_mask'"),
        ({"bidiGenerateContentSetup": "all"}, "Invalid value at 'auth_token.bidi_generate_content_setup'"),
    ],
)
def test_unknown_names_and_wrong_values_are_refused_at_any_depth(site: Site, change: dict[str, Any], said: str) -> None:
    assert said in refused(mint(site, token_request(**change)))


def test_all_violations_are_reported_together(site: Site) -> None:
    answer = mint(site, token_request(x=1, y=2))

    assert refused(answer).count("Cannot find field.") == 2
    [details] = answer.json["error"]["details"]
    assert [violation["field"] for violation in details["fieldViolations"]] == ["auth_token", "auth_token"]


@pytest.mark.parametrize("name", ["expireTime", "newSessionExpireTime"])
@pytest.mark.parametrize("time", ["2030-01-01T00:00:00", "2030-01-01", "2030-13-01T00:00:00Z", 1_900_000_000, "soon"])
def test_a_time_without_an_offset_is_refused(site: Site, name: str, time: object) -> None:
    assert "timestamps must end with 'Z' or have a valid timezone offset" in refused(
        mint(site, token_request(**{name: time}))
    )


@pytest.mark.parametrize("name", ["expireTime", "newSessionExpireTime"])
def test_a_time_must_be_in_the_future_and_less_than_20_hours_ahead(site: Site, name: str) -> None:
    assert "must be in the future" in refused(mint(site, token_request(**{name: soon(seconds=-5)})))
    assert "less than 20 hours" in refused(mint(site, token_request(**{name: soon(hours=20.1)})))
    assert mint(site, token_request(**{name: soon(hours=19.9)})).status == 200


@pytest.mark.parametrize("name", ["expireTime", "newSessionExpireTime"])
def test_the_limits_of_a_time_are_exact(name: str) -> None:
    now, instant = datetime.now(UTC), timedelta(microseconds=1)

    def take(ahead: timedelta) -> object:
        return Tokens().mint({name: (now + ahead).isoformat()}, "v1alpha", now)

    assert take(instant)
    assert take(timedelta(hours=20) - instant)
    for refused_time in (timedelta(), timedelta(hours=20)):
        with pytest.raises(GeminiError):
            take(refused_time)


@pytest.mark.parametrize(
    "mask",
    ["systemInstruction.parts", "tools.0", "contextWindowCompression.slidingWindow", "voice", "model;tools", "*"],
)
def test_a_mask_with_unknown_fields_is_refused(site: Site, mask: str) -> None:
    assert refused(mint(site, token_request(fieldMask=mask))) == "field_mask is invalid for BidiGenerateContentSetup"


@pytest.mark.parametrize(
    ("mask", "outside"),
    [(MASK.replace("tools,", ""), ""), ("model", "system_instruction"), ("generationConfig.topK", "speech_config")],
)
def test_a_setup_with_fields_outside_its_mask_is_refused(site: Site, mask: str, outside: str) -> None:
    answer = mint(site, token_request(fieldMask=mask))

    assert answer.status == (400 if outside else 200)
    assert outside in (refused(answer) if outside else "")


def test_the_sdks_way_of_locking_fields_is_refused_as_by_google(site: Site) -> None:
    async def create() -> None:
        live = types.LiveConnectConfig(system_instruction="Be kind.")
        constraints = types.LiveConnectConstraints(model=str(SETUP["model"]), config=live)
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=site.url, api_version="v1alpha"))
        async with client.aio as gemini:
            config = types.CreateAuthTokenConfig(live_connect_constraints=constraints, lock_additional_fields=[])
            await gemini.auth_tokens.create(config=config)

    with pytest.raises(errors.ClientError, match="field_mask is invalid for BidiGenerateContentSetup"):
        asyncio.run(create())


@pytest.mark.parametrize(("body", "said"), [("{", "Invalid JSON payload"), ("[]", "Root element must be a message")])
def test_a_body_that_is_no_json_object_is_refused(site: Site, body: str, said: str) -> None:
    assert said in refused(site.call("POST", "/v1alpha/auth_tokens", body, [("x-goog-api-key", KEY)]))

"""Gemini Live tokens: requests equal to those of Google's SDK, responses and errors."""

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from google import genai
from google.genai import types

from local.stand_ins.gemini import API_KEY, gemini_stand_in
from local.stand_ins.gemini_messages import read
from pi_voice.adapters.gemini_live import LOCKED_FIELDS, GeminiLiveTokens, token_request
from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, ProviderError, UpstreamTimeout
from pi_voice.domain.tools import Tool
from pi_voice.ports import LiveTokenRequest
from pi_voice.settings import GeminiSettings, LiveThinkingLevel, TranscriptionHints
from tests.integration.provider import (
    FLOOD_BYTES,
    Answer,
    Flood,
    Provider,
    breaks_off,
    hangs,
    hangs_up,
    redirects,
    resets,
    says,
    stalls,
)
from tests.integration.samples import NOW
from tests.support.patience import LONG

KEY = "AIza-the-key-of-the-tests"
MODEL = "gemini-3.1-flash-live-preview"
PROVIDER_TEXT = "what-google-says-and-perhaps-echoes"
REQUEST = LiveTokenRequest(
    instruction='Speak "Português" 🎙️\nand <listen>.\t\\',
    voice="Kore",
    expires_at=NOW + 600,
    languages=("pt-BR", "en-US"),
    vocabulary=("Padaria São João", "broa"),
)
MODELS = ("gemini-3.1-flash-live-preview", "gemini-3.8-live", "gemini-3.8-live-extended-thinking")
BOOK = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "format": "date"},
        "guests": {"type": ["integer", "null"]},
        "where": {"enum": ["inside", "outside"]},
    },
    "required": ["day"],
}
TOOLS = tuple(
    Tool.model_validate({"run": {"where": "client"}, **fields})
    for fields in (
        {"name": "book", "description": "Book a table.", "parameters": BOOK, "speaks": "when_idle"},
        {"name": "wave", "description": "Wave."},
    )
)
TOKEN = says('{"name": "auth_tokens/abc"}')


def settings(base_url: str, api_version: str = "v1alpha", live_model: str = MODEL) -> GeminiSettings:
    return GeminiSettings(
        api_key=KEY,
        live_model=live_model,
        extraction_model="gemini-3.5-flash-lite",
        api_version=api_version,
        base_url=base_url,
    )


def tokens_at(url: str, web: HttpClient) -> GeminiLiveTokens:
    return GeminiLiveTokens(lambda: settings(url), web, LONG)


@pytest.fixture
def tokens(provider: Provider, web: HttpClient) -> GeminiLiveTokens:
    return tokens_at(provider.url, web)


# ---- Requests ---------------------------------------------------------------------------------------


def hints_of_the_sdk(api_version: str, request: LiveTokenRequest) -> types.AudioTranscriptionConfig:
    languages = list(request.languages)
    if api_version == "v1alpha":
        return types.AudioTranscriptionConfig(language_hints=types.LanguageHints(language_codes=languages))
    return types.AudioTranscriptionConfig(language_codes=languages, custom_vocabulary=list(request.vocabulary))


def tools_of_the_sdk(model: str) -> list[types.Tool | Callable[..., Any]]:
    """Return TOOLS and the built-in hang-up as an integrator writes them with the SDK."""
    blocking, going_on = (None, None) if model == MODEL else (types.Behavior.BLOCKING, types.Behavior.NON_BLOCKING)
    text = partial(types.Schema, type=types.Type.STRING)
    book = types.FunctionDeclaration(
        name="book",
        description="Book a table.",
        parameters=types.Schema(
            type=types.Type.OBJECT,
            properties={
                "day": text(description="a date, as in 2026-05-01"),
                "guests": types.Schema(type=types.Type.INTEGER, nullable=True),
                "where": text(enum=["inside", "outside"]),
            },
            required=["day"],
        ),
        behavior=going_on,
    )
    wave = types.FunctionDeclaration(name="wave", description="Wave.", behavior=blocking)
    hang_up = types.FunctionDeclaration(
        name="hang_up",
        description="End the call. Call it once, after you have said goodbye.",
        parameters=types.Schema(
            type=types.Type.OBJECT,
            properties={"reason": text(description="Why the call ends, in a few words")},
            required=["reason"],
        ),
        behavior=blocking,
    )
    return [types.Tool(function_declarations=[book, wave, hang_up])]


async def token_from_the_sdk(base_url: str, api_version: str, model: str, request: LiveTokenRequest) -> str | None:
    """Request the same token with google-genai."""
    thinks = model.endswith("thinking")
    expiry = datetime.fromtimestamp(request.expires_at, UTC)
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=base_url, api_version=api_version))
    config = types.CreateAuthTokenConfig(
        uses=1,
        expire_time=expiry,
        new_session_expire_time=expiry,
        live_connect_constraints=types.LiveConnectConstraints(
            model=model,
            config=types.LiveConnectConfig(
                thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW) if thinks else None,
                response_modalities=[types.Modality.AUDIO],
                speech_config=types.SpeechConfig(
                    voice_config=types.VoiceConfig(
                        prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name=request.voice)
                    )
                ),
                system_instruction=request.instruction,
                input_audio_transcription=hints_of_the_sdk(api_version, request),
                output_audio_transcription=types.AudioTranscriptionConfig(),
                context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
                tools=tools_of_the_sdk(model) if request.tools else None,
            ),
        ),
        http_options=types.HttpOptions(extra_body={"fieldMask": LOCKED_FIELDS}),
    )
    token: types.AuthToken = await client.aio.auth_tokens.create(config=config)
    await client.aio.aclose()
    client.close()
    return token.name


@pytest.mark.filterwarnings("ignore:The SDK's token creation implementation is experimental")
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changes", [
    {}, {"instruction": "x"}, {"instruction": "é" * 20_000}, {"tools": TOOLS, "may_hang_up": True},
], ids=["usual", "short", "long", "tools"])  # fmt: skip
def test_the_request_is_byte_for_byte_that_of_googles_sdk(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, api_version: str, model: str, changes: dict[str, Any]
) -> None:
    provider.answers(TOKEN)
    request = REQUEST._replace(**changes)

    assert runner.run(token_from_the_sdk(provider.url, api_version, model, request)) == "auth_tokens/abc"
    runner.run(GeminiLiveTokens(lambda: settings(provider.url, api_version, model), web, LONG).issue(request))

    theirs, ours = provider.received
    assert json.loads(ours.body) == json.loads(theirs.body)
    assert ours.body == theirs.body or request.tools  # the SDK orders the fields of a declaration by name
    assert (ours.method, ours.path) == (theirs.method, theirs.path) == ("POST", f"/{api_version}/auth_tokens")
    for header in ("x-goog-api-key", "Content-Type"):
        assert ours.headers.getall(header) == theirs.headers.getall(header)
    assert ours.headers.getall("x-goog-api-key") == [KEY]


def test_the_api_key_is_sent_only_in_its_header(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens
) -> None:
    provider.answers(TOKEN)

    runner.run(tokens.issue(REQUEST))

    (sent,) = provider.received
    assert KEY not in sent.path
    assert KEY.encode() not in sent.body
    assert [name for name, value in sent.headers.items() if KEY in value] == ["x-goog-api-key"]


def test_a_token_locks_what_it_sets_and_what_a_browser_could_add_and_not_session_resumption() -> None:
    request = token_request(REQUEST, settings("https://gemini.test"))

    locked = set(request["fieldMask"].split(","))
    assert request["bidiGenerateContentSetup"].keys() < locked
    assert locked >= {"tools", "realtimeInputConfig", "historyConfig"}
    assert "sessionResumption" not in locked
    assert "sessionResumption" not in request["bidiGenerateContentSetup"]
    assert request["uses"] == 1


def transcription(api_version: str, hints: TranscriptionHints, request: LiveTokenRequest = REQUEST) -> dict[str, Any]:
    """Return the configuration of the caller's transcription, as Google reads it."""
    known = replace(settings("https://gemini.test", api_version), transcription_hints=hints)
    setup = read("AuthToken", api_version, token_request(request, known))["bidiGenerateContentSetup"]
    assert setup["outputAudioTranscription"] == {}
    config: dict[str, Any] = setup["inputAudioTranscription"]
    return config


def test_v1beta_gets_the_languages_and_the_vocabulary_as_hints() -> None:
    assert transcription("v1beta", "all") == {
        "languageCodes": ["pt-BR", "en-US"],
        "customVocabulary": ["Padaria São João", "broa"],
    }


def test_v1alpha_gets_the_languages_in_its_own_field_and_no_vocabulary() -> None:
    assert transcription("v1alpha", "all") == {"languageHints": {"languageCodes": ["pt-BR", "en-US"]}}


def test_hints_can_be_limited_to_the_language_and_switched_off() -> None:
    assert transcription("v1beta", "language") == {"languageCodes": ["pt-BR", "en-US"]}
    assert transcription("v1beta", "none") == transcription("v1alpha", "none") == {}


def test_a_request_without_hints_leaves_the_transcription_as_it_is() -> None:
    for api_version in ("v1alpha", "v1beta"):
        assert transcription(api_version, "all", REQUEST._replace(languages=(), vocabulary=())) == {}
    assert "customVocabulary" not in transcription("v1beta", "all", REQUEST._replace(vocabulary=()))


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_only_a_model_that_needs_it_gets_the_thinking_level_of_the_settings(level: LiveThinkingLevel) -> None:
    configs = {}
    for model in MODELS:
        known = replace(settings("https://gemini.test", live_model=model), live_thinking_level=level)
        setup = read("AuthToken", "v1alpha", token_request(REQUEST, known))["bidiGenerateContentSetup"]
        configs[model] = setup["generationConfig"].get("thinkingConfig")

    assert configs == {
        "gemini-3.1-flash-live-preview": None,
        "gemini-3.8-live": None,
        "gemini-3.8-live-extended-thinking": {"thinkingLevel": level.upper()},
    }


@pytest.mark.parametrize(
    ("model", "ends_at"),
    [
        ("gemini-3.1-flash-live-preview", "turnComplete"),
        ("gemini-3.8-live", "turnComplete"),
        ("gemini-3.8-live-extended-thinking", "idle"),
        ("models/gemini-3.8-live-extended-thinking", "idle"),
    ],
)
def test_the_connection_says_what_ends_a_turn_of_its_model(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, model: str, ends_at: str
) -> None:
    provider.answers(TOKEN)
    tokens = GeminiLiveTokens(lambda: settings(provider.url, live_model=model), web, LONG)

    connection = runner.run(tokens.issue(REQUEST))

    assert (connection.model, connection.turn_ends_at) == (model.removeprefix("models/"), ends_at)


@pytest.mark.parametrize("expires_at", [0, NOW, 1_772_334_000, 4_102_444_799])
def test_both_expiries_are_the_requested_one_with_a_utc_offset(expires_at: int) -> None:
    request = token_request(LiveTokenRequest("x", "Puck", expires_at), settings("https://gemini.test"))

    for field in ("expireTime", "newSessionExpireTime"):
        written = datetime.fromisoformat(request[field])
        assert written.tzinfo is not None
        assert written == datetime.fromtimestamp(expires_at, UTC)


# ---- Responses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
@pytest.mark.parametrize("live_model", [MODEL, f"models/{MODEL}"])
def test_the_connection_has_the_url_the_token_and_the_first_message(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, api_version: str, live_model: str
) -> None:
    provider.answers(TOKEN)

    tokens = GeminiLiveTokens(lambda: settings(provider.url, api_version, live_model), web, LONG)
    connection = runner.run(tokens.issue(REQUEST))

    service = f"google.ai.generativelanguage.{api_version}.GenerativeService.BidiGenerateContentConstrained"
    assert connection.model_dump() == {
        "url": f"ws://{provider.authority}/ws/{service}",
        "token": "auth_tokens/abc",
        "model": MODEL,
        "setup": {"setup": {"model": f"models/{MODEL}", "sessionResumption": {}}},
        "turn_ends_at": "turnComplete",
        "tools": [],
    }
    assert json.loads(provider.received[0].body)["bidiGenerateContentSetup"]["model"] == f"models/{MODEL}"


@pytest.mark.parametrize("model", MODELS)
def test_the_connection_names_the_tools_and_when_the_agent_speaks_where_its_model_takes_that(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, model: str
) -> None:
    provider.answers(TOKEN)

    tokens = GeminiLiveTokens(lambda: settings(provider.url, live_model=model), web, LONG)
    connection = runner.run(tokens.issue(REQUEST._replace(tools=TOOLS, may_hang_up=True)))

    assert [tool.model_dump() for tool in connection.tools] == [
        {"name": "book", "where": "client", "speaks": "when_idle" if model == "gemini-3.8-live" else None},
        {"name": "wave", "where": "client", "speaks": None},
        {"name": "hang_up", "where": "client", "speaks": None},
    ]


def test_other_fields_of_googles_response_are_ignored(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens
) -> None:
    provider.answers(says('{"name": "auth_tokens/é", "expireTime": "2026-11-22T00:00:00Z", "new": [1]}'))

    assert runner.run(tokens.issue(REQUEST)).token == "auth_tokens/é"


# ---- Errors -----------------------------------------------------------------------------------------


def google(status: int, name: str, **detail: Any) -> Answer:
    error = {"code": status, "message": PROVIDER_TEXT, "status": name, "details": [detail] if detail else []}
    return says(json.dumps({"error": error}), status)


def failure(runner: asyncio.Runner, tokens: GeminiLiveTokens) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        runner.run(tokens.issue(REQUEST))
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    assert PROVIDER_TEXT not in repr(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (google(400, "INVALID_ARGUMENT"), GeminiError),
        (google(401, "UNAUTHENTICATED"), GeminiError),
        (google(403, "PERMISSION_DENIED"), GeminiError),
        (google(404, "NOT_FOUND"), GeminiError),
        (says(f"<html>{PROVIDER_TEXT}", 404, "text/html"), GeminiError),
        (says("", 204), GeminiError),
        (google(408, "DEADLINE_EXCEEDED"), GeminiUnavailable),
        (google(429, "RESOURCE_EXHAUSTED"), GeminiUnavailable),
        (google(500, "INTERNAL"), GeminiUnavailable),
        (says(f"<html>{PROVIDER_TEXT}", 502, "text/html"), GeminiUnavailable),
        (google(503, "UNAVAILABLE"), GeminiUnavailable),
        (google(504, "DEADLINE_EXCEEDED"), GeminiUnavailable),
        (hangs_up, GeminiUnavailable),
        (resets, GeminiUnavailable),
        (breaks_off, GeminiUnavailable),
    ],
)
def test_refusals_and_outages_raise_different_errors_without_googles_text(
    runner: asyncio.Runner,
    provider: Provider,
    tokens: GeminiLiveTokens,
    logged: io.StringIO,
    answer: Answer,
    error: type[ProviderError],
) -> None:
    provider.answers(answer)

    assert type(failure(runner, tokens)) is error
    assert "gemini" in logged.getvalue()
    for secret in (PROVIDER_TEXT, KEY, "Português"):
        assert secret not in logged.getvalue()


def test_a_redirect_is_not_followed(runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens) -> None:
    provider.answers(redirects(provider.url), TOKEN)

    assert type(failure(runner, tokens)) is GeminiError
    assert len(provider.received) == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_a_response_without_end_is_not_read_to_its_end(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, *, chunked: bool
) -> None:
    flood = Flood(chunked=chunked)
    provider.answers(flood)

    assert type(failure(runner, tokens)) is GeminiError
    assert flood.sent < FLOOD_BYTES


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "[]",
        "null",
        '"auth_tokens/abc"',
        '{"name": ""}',
        '{"name": null}',
        '{"name": 7}',
        '{"name": "auth_tokens/abc"',
        "<html>captive portal</html>",
        b"\xff\xfe",
    ],
)
def test_a_response_without_a_token_is_a_gemini_error(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, body: str | bytes
) -> None:
    provider.answers(says(body))

    assert type(failure(runner, tokens)) is GeminiError


def test_the_token_is_not_logged(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, logged: io.StringIO
) -> None:
    provider.answers(TOKEN, says('{"name": ["auth_tokens/abc"]}'))

    runner.run(tokens.issue(REQUEST))
    failure(runner, tokens)

    assert logged.getvalue()
    assert "auth_tokens" not in logged.getvalue()


def test_a_refused_connection_is_unavailable(runner: asyncio.Runner, web: HttpClient, closed_port: int) -> None:
    assert type(failure(runner, tokens_at(f"http://127.0.0.1:{closed_port}", web))) is GeminiUnavailable


@pytest.mark.parametrize("silence", [hangs, stalls])
def test_a_server_that_never_responds_times_out(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, silence: Answer
) -> None:
    provider.answers(silence)

    assert type(failure(runner, tokens)) is UpstreamTimeout
    assert len(provider.received) == 1


@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_request_on_a_dead_connection_is_repeated_once_without_an_error(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, end: Answer
) -> None:
    provider.answers(TOKEN, end, TOKEN)
    runner.run(tokens.issue(REQUEST))

    assert runner.run(tokens.issue(REQUEST)).token == "auth_tokens/abc"
    assert len(provider.received) == 3


@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_request_is_repeated_at_most_once(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, end: Answer
) -> None:
    provider.answers(end)

    assert type(failure(runner, tokens)) is GeminiUnavailable
    assert len(provider.received) == 2


# ---- The stand-in -----------------------------------------------------------------------------------


@pytest.fixture
def stand_in(runner: asyncio.Runner) -> Iterator[str]:
    stack = AsyncExitStack()
    gemini = runner.run(stack.enter_async_context(gemini_stand_in()))
    assert gemini.base_url is not None
    yield gemini.base_url
    runner.run(stack.aclose())


def issue_token(runner: asyncio.Runner, web: HttpClient, base_url: str, **changes: Any) -> str:
    known = replace(settings(base_url), api_key=API_KEY)
    request = REQUEST._replace(expires_at=int(time.time()) + changes.pop("ttl_seconds", 3600))
    return runner.run(GeminiLiveTokens(lambda: replace(known, **changes), web, LONG).issue(request)).token


@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
@pytest.mark.parametrize("model", MODELS)
def test_the_stand_in_accepts_our_request(
    runner: asyncio.Runner, web: HttpClient, stand_in: str, api_version: str, model: str
) -> None:
    token = issue_token(runner, web, stand_in, api_version=api_version, live_model=model)

    assert token.startswith("auth_tokens/")


@pytest.mark.parametrize(
    "changes", [{"api_version": "v1"}, {"api_key": "another"}, {"ttl_seconds": -60}, {"ttl_seconds": 21 * 3600}]
)
def test_the_stand_in_refuses_a_wrong_version_a_wrong_key_and_a_bad_expiry(
    runner: asyncio.Runner, web: HttpClient, stand_in: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(GeminiError):
        issue_token(runner, web, stand_in, **changes)

"""Gemini Live tokens: the very bytes that Google's own SDK sends, and every way in which that can fail."""

import asyncio
import io
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google import genai
from google.genai import types

from local.stand_ins.gemini import API_KEY, gemini_stand_in
from pi_voice.adapters.gemini_live import LOCKED_FIELDS, GeminiLiveTokens, token_request
from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, ProviderError, UpstreamTimeout
from pi_voice.ports import LiveTokenRequest
from pi_voice.settings import GeminiSettings
from tests.integration.provider import (
    Answer,
    Provider,
    breaks_off,
    hangs,
    hangs_up,
    resets,
    says,
    stalls,
)
from tests.integration.samples import NOW
from tests.patience import LONG

KEY = "AIza-the-key-of-the-tests"
MODEL = "gemini-3.1-flash-live-preview"
THEIR_WORDS = "what-google-says-and-perhaps-echoes"
ORDER = LiveTokenRequest(instruction='Speak "Português" 🎙️\nand <listen>.\t\\', voice="Kore", expires_at=NOW + 600)
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
    return GeminiLiveTokens(settings(url), web, LONG)


@pytest.fixture
def tokens(provider: Provider, web: HttpClient) -> GeminiLiveTokens:
    return tokens_at(provider.url, web)


# ---- What is sent -----------------------------------------------------------------------------------


async def minted_by_the_sdk(base_url: str, api_version: str, order: LiveTokenRequest) -> str | None:
    """Order the same token of google-genai."""
    expiry = datetime.fromtimestamp(order.expires_at, UTC)
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=base_url, api_version=api_version))
    config = types.CreateAuthTokenConfig(
        uses=1,
        expire_time=expiry,
        new_session_expire_time=expiry,
        live_connect_constraints=types.LiveConnectConstraints(
            model=MODEL,
            config=types.LiveConnectConfig(
                response_modalities=[types.Modality.AUDIO],
                speech_config=types.SpeechConfig(
                    voice_config=types.VoiceConfig(
                        prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name=order.voice)
                    )
                ),
                system_instruction=order.instruction,
                input_audio_transcription=types.AudioTranscriptionConfig(),
                output_audio_transcription=types.AudioTranscriptionConfig(),
                context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
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
@pytest.mark.parametrize("instruction", [ORDER.instruction, "x", "é" * 20_000], ids=["usual", "short", "long"])
def test_the_request_is_byte_for_byte_what_googles_own_sdk_sends_for_the_same_order(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, api_version: str, instruction: str
) -> None:
    provider.answers(TOKEN)
    order = LiveTokenRequest(instruction, ORDER.voice, ORDER.expires_at)

    assert runner.run(minted_by_the_sdk(provider.url, api_version, order)) == "auth_tokens/abc"
    runner.run(GeminiLiveTokens(settings(provider.url, api_version), web, LONG).issue(order))

    theirs, ours = provider.received
    assert ours.body == theirs.body
    assert (ours.method, ours.path) == (theirs.method, theirs.path) == ("POST", f"/{api_version}/auth_tokens")
    for header in ("x-goog-api-key", "Content-Type"):
        assert ours.headers.getall(header) == theirs.headers.getall(header)
    assert ours.headers.getall("x-goog-api-key") == [KEY]


def test_the_key_is_in_its_header_and_nowhere_else(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens
) -> None:
    provider.answers(TOKEN)

    runner.run(tokens.issue(ORDER))

    (sent,) = provider.received
    assert KEY not in sent.path
    assert KEY.encode() not in sent.body
    assert [name for name, value in sent.headers.items() if KEY in value] == ["x-goog-api-key"]


def test_a_token_is_locked_to_everything_but_the_resumption_of_the_session() -> None:
    request = token_request(ORDER, f"models/{MODEL}")

    locked = request["fieldMask"].split(",")
    assert set(request["bidiGenerateContentSetup"]) < set(locked)
    assert "tools" in locked
    assert "sessionResumption" not in locked
    assert "sessionResumption" not in request["bidiGenerateContentSetup"]
    assert request["uses"] == 1


@pytest.mark.parametrize("expires_at", [0, NOW, 1_772_334_000, 4_102_444_799])
def test_both_expiries_are_the_orders_and_say_their_offset(expires_at: int) -> None:
    request = token_request(LiveTokenRequest("x", "Puck", expires_at), f"models/{MODEL}")

    for field in ("expireTime", "newSessionExpireTime"):
        written = datetime.fromisoformat(request[field])
        assert written.tzinfo is not None
        assert written == datetime.fromtimestamp(expires_at, UTC)


# ---- What comes back --------------------------------------------------------------------------------


@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
@pytest.mark.parametrize("live_model", [MODEL, f"models/{MODEL}"])
def test_a_browser_gets_the_url_the_token_and_its_first_message(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, api_version: str, live_model: str
) -> None:
    provider.answers(TOKEN)

    tokens = GeminiLiveTokens(settings(provider.url, api_version, live_model), web, LONG)
    connection = runner.run(tokens.issue(ORDER))

    service = f"google.ai.generativelanguage.{api_version}.GenerativeService.BidiGenerateContentConstrained"
    assert connection.model_dump() == {
        "url": f"ws://{provider.authority}/ws/{service}",
        "token": "auth_tokens/abc",
        "model": MODEL,
        "setup": {"setup": {"model": f"models/{MODEL}", "sessionResumption": {}}},
    }
    assert json.loads(provider.received[0].body)["bidiGenerateContentSetup"]["model"] == f"models/{MODEL}"


def test_whatever_else_google_answers_beside_the_token_is_left_alone(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens
) -> None:
    provider.answers(says('{"name": "auth_tokens/é", "expireTime": "2026-11-22T00:00:00Z", "new": [1]}'))

    assert runner.run(tokens.issue(ORDER)).token == "auth_tokens/é"


# ---- What goes wrong --------------------------------------------------------------------------------


def google(status: int, name: str, **detail: Any) -> Answer:
    error = {"code": status, "message": THEIR_WORDS, "status": name, "details": [detail] if detail else []}
    return says(json.dumps({"error": error}), status)


def failure(runner: asyncio.Runner, tokens: GeminiLiveTokens) -> ProviderError:
    with pytest.raises(ProviderError) as told:
        runner.run(tokens.issue(ORDER))
    assert told.value.__context__ is None or told.value.__suppress_context__
    assert THEIR_WORDS not in repr(told.value)
    return told.value


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (google(400, "INVALID_ARGUMENT"), GeminiError),
        (google(401, "UNAUTHENTICATED"), GeminiError),
        (google(403, "PERMISSION_DENIED"), GeminiError),
        (google(404, "NOT_FOUND"), GeminiError),
        (says(f"<html>{THEIR_WORDS}", 404, "text/html"), GeminiError),
        (says("", 204), GeminiError),
        (google(408, "DEADLINE_EXCEEDED"), GeminiUnavailable),
        (google(429, "RESOURCE_EXHAUSTED"), GeminiUnavailable),
        (google(500, "INTERNAL"), GeminiUnavailable),
        (says(f"<html>{THEIR_WORDS}", 502, "text/html"), GeminiUnavailable),
        (google(503, "UNAVAILABLE"), GeminiUnavailable),
        (google(504, "DEADLINE_EXCEEDED"), GeminiUnavailable),
        (hangs_up, GeminiUnavailable),
        (resets, GeminiUnavailable),
        (breaks_off, GeminiUnavailable),
    ],
)
def test_a_refusal_is_told_apart_from_being_unavailable_and_not_in_googles_words(
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
    for secret in (THEIR_WORDS, KEY, "Português"):
        assert secret not in logged.getvalue()


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
def test_an_answer_without_a_token_is_an_error_of_geminis(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, body: str | bytes
) -> None:
    provider.answers(says(body))

    assert type(failure(runner, tokens)) is GeminiError


def test_no_log_line_holds_the_token(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, logged: io.StringIO
) -> None:
    provider.answers(TOKEN, says('{"name": ["auth_tokens/abc"]}'))

    runner.run(tokens.issue(ORDER))
    failure(runner, tokens)

    assert logged.getvalue()
    assert "auth_tokens" not in logged.getvalue()


def test_a_server_that_is_not_there_is_unavailable(runner: asyncio.Runner, web: HttpClient, closed_port: int) -> None:
    assert type(failure(runner, tokens_at(f"http://127.0.0.1:{closed_port}", web))) is GeminiUnavailable


@pytest.mark.parametrize("silence", [hangs, stalls])
def test_a_server_that_never_answers_is_given_up(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, silence: Answer
) -> None:
    provider.answers(silence)

    assert type(failure(runner, tokens)) is UpstreamTimeout
    assert len(provider.received) == 1


@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_kept_connection_that_turns_out_to_be_dead_costs_one_repeat_and_no_error(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, end: Answer
) -> None:
    provider.answers(TOKEN, end, TOKEN)
    runner.run(tokens.issue(ORDER))

    assert runner.run(tokens.issue(ORDER)).token == "auth_tokens/abc"
    assert len(provider.received) == 3


@pytest.mark.parametrize("end", [hangs_up, resets])
def test_a_request_is_repeated_once_and_not_more(
    runner: asyncio.Runner, provider: Provider, tokens: GeminiLiveTokens, end: Answer
) -> None:
    provider.answers(end)

    assert type(failure(runner, tokens)) is GeminiUnavailable
    assert len(provider.received) == 2


# ---- The stand-in that refuses what Google refuses --------------------------------------------------


@pytest.fixture
def stand_in(runner: asyncio.Runner) -> Iterator[str]:
    stack = AsyncExitStack()
    gemini = runner.run(stack.enter_async_context(gemini_stand_in()))
    assert gemini.base_url is not None
    yield gemini.base_url
    runner.run(stack.aclose())


def minting(runner: asyncio.Runner, web: HttpClient, base_url: str, **changes: Any) -> str:
    known = replace(settings(base_url), api_key=API_KEY)
    order = replace(ORDER, expires_at=int(time.time()) + changes.pop("ttl_seconds", 3600))
    return runner.run(GeminiLiveTokens(replace(known, **changes), web, LONG).issue(order)).token


@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
def test_the_stand_in_takes_our_order(runner: asyncio.Runner, web: HttpClient, stand_in: str, api_version: str) -> None:
    assert minting(runner, web, stand_in, api_version=api_version).startswith("auth_tokens/")


@pytest.mark.parametrize(
    "changes", [{"api_version": "v1"}, {"api_key": "another"}, {"ttl_seconds": -60}, {"ttl_seconds": 21 * 3600}]
)
def test_the_stand_in_refuses_another_version_or_key_and_a_time_that_is_over_or_too_far(
    runner: asyncio.Runner, web: HttpClient, stand_in: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(GeminiError):
        minting(runner, web, stand_in, **changes)

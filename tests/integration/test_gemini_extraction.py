"""The extraction model by google-genai: requests, responses and errors."""

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from local.stand_ins import gemini
from local.stand_ins.gemini import gemini_stand_in
from pi_voice.adapters.gemini_extraction import GeminiExtractionModel
from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.errors import GeminiError, GeminiMisconfigured, GeminiUnavailable, ProviderError, UpstreamTimeout
from pi_voice.domain.gemini_schema import gemini_schema
from pi_voice.ports import ModelRequest, ModelResponse
from pi_voice.settings import ExtractionThinkingLevel, GeminiSettings
from pi_voice.use_cases.extractor import INSTRUCTION, delimited_transcript
from tests.integration.provider import (
    FLOOD_BYTES,
    Answer,
    Flood,
    Provider,
    breaks_off,
    compresses,
    hangs,
    hangs_up,
    redirects,
    resets,
    says,
    stalls,
)
from tests.integration.samples import NOW, TURNS
from tests.support.moving_clock import MovableLoop
from tests.support.patience import LONG

KEY = "AIza-the-key-of-the-tests"
MODEL = "gemini-3.5-flash-lite"
BROKEN = ModelResponse("", MODEL, "broken")
PROVIDER_TEXT = "what-google-says-and-perhaps-echoes"
SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "age": {"type": ["integer", "null"], "description": "in years — «ans»"},
        "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}},
    },
    "required": ["age", "pets"],
    "additionalProperties": False,
}


def settings(base_url: str, api_key: str = KEY, extraction_model: str = MODEL) -> GeminiSettings:
    return GeminiSettings(
        api_key=api_key,
        live_model="live",
        extraction_model=extraction_model,
        api_version="v1alpha",
        base_url=base_url,
    )


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all tests of this module, because the SDK's first request is slow."""
    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        yield runner


@pytest.fixture(scope="module")
def web(runner: asyncio.Runner) -> Iterator[HttpClient]:
    web = HttpClient()
    yield web
    runner.run(web.close())


@pytest.fixture(scope="module")
def warmed_up(runner: asyncio.Runner, web: HttpClient) -> Iterator[tuple[Provider, GeminiExtractionModel]]:
    """A model after its first request, and its provider."""
    provider = Provider()
    runner.run(provider.start())
    model = GeminiExtractionModel(MODEL, lambda: settings(provider.url), web)
    provider.answers(candidate())
    runner.run(generate(model))
    yield provider, model
    runner.run(provider.stop())


@pytest.fixture
def provider(warmed_up: tuple[Provider, GeminiExtractionModel]) -> Provider:
    provider, _ = warmed_up
    provider.forget()
    return provider


@pytest.fixture
def model(warmed_up: tuple[Provider, GeminiExtractionModel]) -> GeminiExtractionModel:
    _, model = warmed_up
    return model


def generate(model: GeminiExtractionModel, text: str = "A call.", seconds: float = LONG) -> Any:
    return model.generate(ModelRequest("Extract.", (text,), SCHEMA), seconds)


def candidate(text: str | None = '{"age": 42}', reason: str | None = "STOP", **more: Any) -> Answer:
    content = {"content": {"role": "model", "parts": [{"text": text}]}} if text is not None else {}
    finish = {"finishReason": reason} if reason else {}
    return says(json.dumps({"candidates": [{**content, **finish, "index": 0}], **more}))


# ---- Requests ---------------------------------------------------------------------------------------


def test_the_request_is_one_user_turn_with_the_unchanged_schema(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate())
    text = delimited_transcript(TURNS, NOW)

    runner.run(model.generate(ModelRequest(INSTRUCTION, (text,), SCHEMA), LONG))

    (sent,) = provider.received
    assert (sent.method, sent.path) == ("POST", f"/v1beta/models/{MODEL}:generateContent")
    assert json.loads(sent.body) == {
        "contents": [{"role": "user", "parts": [{"text": text}]}],
        "systemInstruction": {"role": "user", "parts": [{"text": INSTRUCTION}]},
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
            "maxOutputTokens": 16384,
            "thinkingConfig": {"thinking_level": "MINIMAL"},  # the SDK mixes both cases; Google accepts them
        },
        "store": False,
    }


def test_a_repair_request_has_the_models_answer_between_two_user_turns(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate())

    runner.run(model.generate(ModelRequest("Extract.", ("A call.", "[1]", "This is no object."), SCHEMA), LONG))

    (sent,) = provider.received
    assert json.loads(sent.body)["contents"] == [
        {"role": "user", "parts": [{"text": "A call."}]},
        {"role": "model", "parts": [{"text": "[1]"}]},
        {"role": "user", "parts": [{"text": "This is no object."}]},
    ]


def test_the_api_key_is_sent_only_in_its_header(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate())

    runner.run(generate(model))

    (sent,) = provider.received
    assert KEY not in sent.path
    assert KEY.encode() not in sent.body
    assert [name for name, value in sent.headers.items() if KEY in value] == ["x-goog-api-key"]


def test_the_connection_is_reused_by_the_next_request(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate())

    for _ in range(3):
        runner.run(generate(model))

    assert provider.connections == 1


# ---- Responses --------------------------------------------------------------------------------------


def test_a_finished_response_has_its_text_and_the_models_version(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate('{"age": "é 🎂"}', modelVersion="gemini-3.5-flash-lite-001"))

    assert runner.run(generate(model)) == ModelResponse('{"age": "é 🎂"}', "gemini-3.5-flash-lite-001")


def test_a_response_without_a_model_version_has_the_requested_model(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate("{}"))

    assert runner.run(generate(model)) == ModelResponse("{}", MODEL)


def test_the_parts_of_a_response_are_joined_without_thoughts(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    parts = [{"text": "Hmm.", "thought": True}, {"text": '{"age"', "thoughtSignature": "c2ln"}, {"text": ": 42}"}]
    content = {"role": "model", "parts": parts}
    provider.answers(says(json.dumps({"candidates": [{"content": content, "finishReason": "STOP"}]})))

    assert runner.run(generate(model)).text == '{"age": 42}'


def failure(runner: asyncio.Runner, model: GeminiExtractionModel, seconds: float = LONG) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        runner.run(generate(model, seconds=seconds))
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    assert PROVIDER_TEXT not in repr(raised.value)
    return raised.value


def assert_secret(logged: io.StringIO) -> None:
    assert "model" in logged.getvalue()
    for secret in (PROVIDER_TEXT, KEY, "A call."):
        assert secret not in logged.getvalue()


BLOCKED = ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        *((candidate(None, reason), "blocked") for reason in BLOCKED),
        (candidate(PROVIDER_TEXT, "SAFETY"), "blocked"),
        (candidate(PROVIDER_TEXT, "RECITATION"), "blocked"),
        (
            says(
                json.dumps(
                    {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": PROVIDER_TEXT}}
                )
            ),
            "blocked",
        ),
        (candidate(None, "MAX_TOKENS"), "truncated"),
        (candidate(PROVIDER_TEXT, "MAX_TOKENS"), "truncated"),
        (candidate(PROVIDER_TEXT, "MALFORMED_FUNCTION_CALL"), "broken"),
        (candidate(PROVIDER_TEXT, "OTHER"), "broken"),
        (candidate(PROVIDER_TEXT, "SOME_REASON_THAT_IS_NEW"), "broken"),
        (candidate(PROVIDER_TEXT, None), "broken"),
        (candidate(None, "STOP"), "broken"),
        (candidate("", "STOP"), "broken"),
        (says("{}"), "broken"),
        (says('{"candidates": []}'), "broken"),
        (says('{"candidates": null}'), "broken"),
        (says('{"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}'), "broken"),
        (
            says('{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}, "finishReason": "STOP"}]}'),
            "broken",
        ),
    ],
    ids=[
        *BLOCKED,
        "blocked with words",
        "recited",
        "prompt blocked",
        "cut off before a word",
        "cut off",
        "malformed",
        "other",
        "for a new reason",
        "unfinished",
        "without content",
        "without a word",
        "empty",
        "without candidates",
        "with null for candidates",
        "without parts",
        "a function call",
    ],
)
@pytest.mark.filterwarnings("ignore:SOME_REASON_THAT_IS_NEW is not a valid FinishReason")
def test_a_200_without_finished_text_says_how_it_ended_and_has_no_text(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
    end: str,
) -> None:
    provider.answers(answer)

    response = runner.run(generate(model))

    assert (response.text, response.end) == ("", end)
    assert_secret(logged)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"promptTokenCount": 900, "candidatesTokenCount": 40, "totalTokenCount": 940}, (900, 40)),
        ({"promptTokenCount": 900, "candidatesTokenCount": 40, "thoughtsTokenCount": 60}, (900, 100)),
        ({"promptTokenCount": 900, "thoughtsTokenCount": 60}, (900, 60)),
        ({"promptTokenCount": 900}, (900, 0)),
        ({}, (0, 0)),
        (None, (0, 0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("reason", ["STOP", "MAX_TOKENS", "SAFETY"])
def test_token_counts_are_returned_however_the_response_ended(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    usage: dict[str, int] | None,
    tokens: tuple[int, int],
    reason: str,
) -> None:
    provider.answers(candidate("{}", reason, **({} if usage is None else {"usageMetadata": usage})))

    response = runner.run(generate(model))

    assert (response.input_tokens, response.output_tokens) == tokens


def test_a_blocked_prompt_has_token_counts(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    used = {"promptTokenCount": 900, "totalTokenCount": 900}
    provider.answers(says(json.dumps({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": used})))

    assert runner.run(generate(model)) == ModelResponse("", MODEL, "blocked", 900, 0)


@pytest.mark.parametrize(
    "answer",
    [
        says(f"<html>{PROVIDER_TEXT}</html>", content_type="text/html"),
        says(f'{{"candidates": ["{PROVIDER_TEXT}"'),
        says("7"),
        says(b"\xff\xfe"),
    ],
)
def test_an_unreadable_200_is_broken(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
) -> None:
    provider.answers(answer)

    assert runner.run(generate(model)) == BROKEN
    assert_secret(logged)


@pytest.mark.parametrize(
    "answer",
    [
        says(f'{{"candidates": "{PROVIDER_TEXT}"}}'),
        says(f'["{PROVIDER_TEXT}"]'),
        says(f'"{PROVIDER_TEXT}"'),
        says("null"),
        says(""),
    ],
)
def test_a_200_that_is_not_a_gemini_response_is_broken(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
) -> None:
    provider.answers(answer)

    assert runner.run(generate(model)) == BROKEN
    assert_secret(logged)


# ---- Errors -----------------------------------------------------------------------------------------


def google(status: int, name: str, *details: Any, listed: bool = False, message: str = PROVIDER_TEXT) -> Answer:
    error = {"error": {"code": status, "message": message, "status": name, "details": list(details)}}
    answer = says(json.dumps([error] if listed else error), status)
    answer.__name__ = f"{status} {name} {len(details)} {listed} {message[:8]}"
    return answer


def retry_info(delay: object) -> dict[str, object]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (google(400, "INVALID_ARGUMENT"), GeminiError),
        (google(413, "INVALID_ARGUMENT"), GeminiError),
        (google(401, "UNAUTHENTICATED"), GeminiMisconfigured),
        (google(403, "PERMISSION_DENIED"), GeminiMisconfigured),
        (google(404, "NOT_FOUND"), GeminiMisconfigured),
        (says(f"<html>{PROVIDER_TEXT}", 404, "text/html"), GeminiMisconfigured),
        (google(408, "DEADLINE_EXCEEDED"), GeminiUnavailable),
        (google(429, "RESOURCE_EXHAUSTED"), GeminiUnavailable),
        (google(429, "RESOURCE_EXHAUSTED", listed=True), GeminiUnavailable),
        (google(500, "INTERNAL"), GeminiUnavailable),
        (says(f"<html>{PROVIDER_TEXT}", 502, "text/html"), GeminiUnavailable),
        (says("", 503, "text/plain"), GeminiUnavailable),
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
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
    error: type[ProviderError],
) -> None:
    provider.answers(answer)

    raised = failure(runner, model)

    assert type(raised) is error
    assert raised.retryable is (error is GeminiUnavailable)
    assert_secret(logged)
    assert len(provider.received) == 1


def test_a_redirect_is_not_followed(runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel) -> None:
    provider.answers(redirects(provider.url), candidate())

    assert runner.run(generate(model)) == BROKEN
    assert len(provider.received) == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_a_response_without_end_is_not_read_to_its_end(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel, *, chunked: bool
) -> None:
    flood = Flood(chunked=chunked)
    provider.answers(flood)

    assert runner.run(generate(model)) == BROKEN
    assert flood.sent < FLOOD_BYTES


def test_a_compressed_response_is_not_decompressed(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(compresses('{"candidates": []}'))

    assert runner.run(generate(model)) == BROKEN
    assert provider.received[0].headers["Accept-Encoding"] == "identity"


def test_a_refused_request_points_to_the_output_schema(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(google(400, "INVALID_ARGUMENT", HELP))

    assert "output schema is too complex" in failure(runner, model).message


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (google(400, "INVALID_ARGUMENT", HELP, {"@type": ERROR_INFO, "reason": "API_KEY_INVALID"}), "key"),
        (google(400, "FAILED_PRECONDITION"), "permission"),
        (google(401, "UNAUTHENTICATED"), "key"),
        (google(403, "PERMISSION_DENIED"), "permission"),
        (google(403, "PERMISSION_DENIED", {"@type": ERROR_INFO, "reason": "API_KEY_SERVICE_BLOCKED"}), "key"),
        (google(404, "NOT_FOUND"), "model"),
        (google(400, "INVALID_ARGUMENT", message="Thinking level MINIMAL is not supported for this model."), "model"),
        (google(400, "INVALID_ARGUMENT", message="Unknown value at generation_config.thinking_config"), "model"),
    ],
)
def test_a_refused_deployment_has_its_cause_and_points_to_the_operators_settings(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel, answer: Answer, cause: str
) -> None:
    provider.answers(answer)

    refused = failure(runner, model)

    assert isinstance(refused, GeminiMisconfigured)
    assert (refused.cause, refused.message) == (cause, GeminiError.default_message)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        ([retry_info("3.5s")], 3.5),
        ([HELP, retry_info("41s"), HELP], 41.0),
        ([retry_info("0s")], 0.0),
        ([], None),
        ([HELP], None),
        ([retry_info("soon")], None),
        ([retry_info(7)], None),
        ([retry_info(None), "x"], None),
    ],
    ids=["fraction", "among others", "at once", "none", "another", "no duration", "a number", "null"],
)
def test_googles_retry_delay_is_passed_on(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    status: int,
    details: list[Any],
    seconds: float | None,
) -> None:
    provider.answers(google(status, "RESOURCE_EXHAUSTED", *details))

    assert failure(runner, model).retry_after_seconds == seconds


def test_a_refused_connection_is_unavailable_at_once(
    runner: asyncio.Runner, web: HttpClient, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GeminiExtractionModel(MODEL, lambda: settings(f"http://127.0.0.1:{closed_port}"), web)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)  # the SDK would wait with it before a retry of its own

    assert type(failure(runner, model)) is GeminiUnavailable
    assert pauses == []


@pytest.mark.parametrize("silence", [hangs, stalls])
def test_a_server_that_never_responds_times_out(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel, logged: io.StringIO, silence: Answer
) -> None:
    provider.answers(silence)

    assert type(failure(runner, model)) is UpstreamTimeout
    assert len(provider.received) == 1
    assert_secret(logged)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_request_without_time_left_times_out(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel, seconds: float
) -> None:
    provider.answers(candidate())

    assert type(failure(runner, model, seconds)) is UpstreamTimeout


def test_the_request_after_a_failure_succeeds(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(hangs, hangs_up, candidate())

    assert type(failure(runner, model)) is UpstreamTimeout
    assert type(failure(runner, model)) is GeminiUnavailable

    assert runner.run(generate(model)).text == '{"age": 42}'


# ---- The stand-in -----------------------------------------------------------------------------------


@pytest.fixture
def stand_in(runner: asyncio.Runner) -> Iterator[str]:
    stack = AsyncExitStack()
    gemini_at = runner.run(stack.enter_async_context(gemini_stand_in()))
    assert gemini_at.base_url is not None
    yield gemini_at.base_url
    runner.run(stack.aclose())


def test_a_new_key_is_used_from_the_next_request_on(
    provider: Provider, runner: asyncio.Runner, web: HttpClient
) -> None:
    keys = ["first", "first", "second"]
    model = GeminiExtractionModel(MODEL, lambda: settings(provider.url, keys.pop(0)), web)
    provider.answers(candidate())

    for _ in range(3):
        runner.run(generate(model))

    assert [sent.headers["x-goog-api-key"] for sent in provider.received] == ["first", "first", "second"]


def generate_with(
    runner: asyncio.Runner,
    web: HttpClient,
    known: GeminiSettings,
    repair: tuple[str, ...] = (),
    schema: dict[str, JsonValue] | None = None,
) -> ModelResponse:
    request = ModelRequest(INSTRUCTION, (delimited_transcript(TURNS, NOW), *repair), schema or SCHEMA)
    return runner.run(GeminiExtractionModel(known.extraction_model, lambda: known, web).generate(request, LONG))


def test_the_stand_in_accepts_our_request_and_fills_the_schema(
    runner: asyncio.Runner, web: HttpClient, stand_in: str
) -> None:
    answer = generate_with(runner, web, settings(stand_in, gemini.API_KEY))

    assert answer.model == "stand-in"
    assert set(json.loads(answer.text)) == {"age", "pets"}


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.5-flash-lite", "gemini-3.7-flash", "gemini-4-flash"])
def test_each_model_accepts_its_thinking_level(
    runner: asyncio.Runner, web: HttpClient, stand_in: str, model: str
) -> None:
    assert generate_with(runner, web, settings(stand_in, gemini.API_KEY, model)).end == "finished"


@pytest.mark.parametrize(("model", "level"), [("gemini-3.7-flash", "minimal"), ("gemini-2.5-flash", "low")])
def test_a_thinking_level_that_its_model_refuses_is_an_error(
    runner: asyncio.Runner, web: HttpClient, stand_in: str, model: str, level: ExtractionThinkingLevel
) -> None:
    known = replace(settings(stand_in, gemini.API_KEY, model), extraction_thinking_level=level)

    with pytest.raises(GeminiMisconfigured) as refused:
        generate_with(runner, web, known)
    assert refused.value.cause == "model"


def test_the_stand_in_accepts_a_repair_request(runner: asyncio.Runner, web: HttpClient, stand_in: str) -> None:
    answer = generate_with(runner, web, settings(stand_in, gemini.API_KEY), ("[]", "This is no object."))

    assert set(json.loads(answer.text)) == {"age", "pets"}
    assert answer.input_tokens > 0


def test_the_stand_in_refuses_a_request_that_ends_with_a_model_turn(
    runner: asyncio.Runner, web: HttpClient, stand_in: str
) -> None:
    with pytest.raises(GeminiError):
        generate_with(runner, web, settings(stand_in, gemini.API_KEY), ("[]",))


def test_array_bounds_over_geminis_total_limit_are_not_sent(
    runner: asyncio.Runner, web: HttpClient, stand_in: str
) -> None:
    bounded: dict[str, JsonValue] = {
        "type": "object",
        "properties": {f"list{number}": {"type": "array", "maxItems": 321} for number in range(3)},
    }
    known = settings(stand_in, gemini.API_KEY)

    with pytest.raises(GeminiError, match="too complex"):
        generate_with(runner, web, known, schema=bounded)
    assert generate_with(runner, web, known, schema=gemini_schema(bounded)).end == "finished"


@pytest.mark.parametrize(("api_key", "extraction_model"), [("another-key", MODEL), (gemini.API_KEY, "another-model")])
def test_the_stand_in_refuses_a_wrong_key_and_an_unknown_model(
    runner: asyncio.Runner, web: HttpClient, stand_in: str, api_key: str, extraction_model: str
) -> None:
    with pytest.raises(GeminiError, match="check GEMINI_API_KEY and the model settings"):
        generate_with(runner, web, settings(stand_in, api_key, extraction_model))

"""The extraction model by google-genai: what is asked, what counts as an answer, and what does not."""

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import JsonValue

from local.stand_ins import gemini
from local.stand_ins.gemini import gemini_stand_in
from pi_voice.adapters.gemini_extraction import GeminiExtractionModel
from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.errors import GeminiError, GeminiUnavailable, ProviderError, UpstreamTimeout
from pi_voice.domain.output_schema import gemini_schema
from pi_voice.ports import ModelRequest, ModelResponse
from pi_voice.settings import GeminiSettings
from pi_voice.use_cases.extractor import INSTRUCTION, fenced
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
from tests.integration.samples import NOW, TURNS
from tests.moving_clock import MovableLoop
from tests.patience import LONG

KEY = "AIza-the-key-of-the-tests"
MODEL = "gemini-3.5-flash-lite"
THEIR_WORDS = "what-google-says-and-perhaps-echoes"
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
    """One event loop for all tests here, as for all calls of a container: the SDK takes long to wake up."""
    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        yield runner


@pytest.fixture(scope="module")
def web(runner: asyncio.Runner) -> Iterator[HttpClient]:
    web = HttpClient()
    yield web
    runner.run(web.close())


@pytest.fixture(scope="module")
def awake(runner: asyncio.Runner, web: HttpClient) -> Iterator[tuple[Provider, GeminiExtractionModel]]:
    """A model that has answered once, and the provider that it asks."""
    provider = Provider()
    runner.run(provider.start())
    model = GeminiExtractionModel(settings(provider.url), web)
    provider.answers(candidate())
    runner.run(asked(model))
    yield provider, model
    runner.run(provider.stop())


@pytest.fixture
def provider(awake: tuple[Provider, GeminiExtractionModel]) -> Provider:
    provider, _ = awake
    provider.forget()
    return provider


@pytest.fixture
def model(awake: tuple[Provider, GeminiExtractionModel]) -> GeminiExtractionModel:
    _, model = awake
    return model


def asked(model: GeminiExtractionModel, text: str = "A call.", seconds: float = LONG) -> Any:
    return model.generate(ModelRequest("Extract.", (text,), SCHEMA), seconds)


def candidate(text: str | None = '{"age": 42}', reason: str | None = "STOP", **more: Any) -> Answer:
    content = {"content": {"role": "model", "parts": [{"text": text}]}} if text is not None else {}
    finish = {"finishReason": reason} if reason else {}
    return says(json.dumps({"candidates": [{**content, **finish, "index": 0}], **more}))


# ---- What is sent -----------------------------------------------------------------------------------


def test_the_request_is_one_user_turn_with_the_schema_as_it_stands(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate())
    text = fenced(TURNS, NOW)

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
            "thinkingConfig": {"thinking_level": "MINIMAL"},  # the SDK's own mixture; Google takes both
        },
    }


def test_a_repair_shows_the_model_its_own_answer_between_two_turns_of_the_user(
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


def test_the_key_is_in_its_header_and_nowhere_else(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate())

    runner.run(asked(model))

    (sent,) = provider.received
    assert KEY not in sent.path
    assert KEY.encode() not in sent.body
    assert [name for name, value in sent.headers.items() if KEY in value] == ["x-goog-api-key"]


def test_the_connection_is_kept_for_the_next_request(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate())

    for _ in range(3):
        runner.run(asked(model))

    assert provider.connections == 1


# ---- What counts as an answer -----------------------------------------------------------------------


def test_a_finished_answer_is_its_text_and_the_models_own_name_for_itself(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate('{"age": "é 🎂"}', modelVersion="gemini-3.5-flash-lite-001"))

    assert runner.run(asked(model)) == ModelResponse('{"age": "é 🎂"}', "gemini-3.5-flash-lite-001")


def test_a_model_that_does_not_name_itself_goes_by_the_name_that_was_asked_for(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(candidate("{}"))

    assert runner.run(asked(model)) == ModelResponse("{}", MODEL)


def test_an_answer_in_several_parts_is_put_together_without_the_thoughts(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    parts = [{"text": "Hmm.", "thought": True}, {"text": '{"age"', "thoughtSignature": "c2ln"}, {"text": ": 42}"}]
    content = {"role": "model", "parts": parts}
    provider.answers(says(json.dumps({"candidates": [{"content": content, "finishReason": "STOP"}]})))

    assert runner.run(asked(model)).text == '{"age": 42}'


def failure(runner: asyncio.Runner, model: GeminiExtractionModel, seconds: float = LONG) -> ProviderError:
    with pytest.raises(ProviderError) as told:
        runner.run(asked(model, seconds=seconds))
    assert told.value.__context__ is None or told.value.__suppress_context__
    assert THEIR_WORDS not in repr(told.value)
    return told.value


def assert_secret(logged: io.StringIO) -> None:
    assert "model" in logged.getvalue()
    for secret in (THEIR_WORDS, KEY, "A call."):
        assert secret not in logged.getvalue()


BLOCKED = ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        *((candidate(None, reason), "blocked") for reason in BLOCKED),
        (candidate(THEIR_WORDS, "SAFETY"), "blocked"),
        (candidate(THEIR_WORDS, "RECITATION"), "blocked"),
        (
            says(
                json.dumps({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": THEIR_WORDS}})
            ),
            "blocked",
        ),
        (candidate(None, "MAX_TOKENS"), "truncated"),
        (candidate(THEIR_WORDS, "MAX_TOKENS"), "truncated"),
        (candidate(THEIR_WORDS, "MALFORMED_FUNCTION_CALL"), "broken"),
        (candidate(THEIR_WORDS, "OTHER"), "broken"),
        (candidate(THEIR_WORDS, "SOME_REASON_THAT_IS_NEW"), "broken"),
        (candidate(THEIR_WORDS, None), "broken"),
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
def test_a_200_without_a_finished_text_tells_how_it_ended_and_gives_no_text(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
    end: str,
) -> None:
    provider.answers(answer)

    told = runner.run(asked(model))

    assert (told.text, told.end) == ("", end)
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
def test_what_an_answer_took_is_told_however_it_ended(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    usage: dict[str, int] | None,
    tokens: tuple[int, int],
    reason: str,
) -> None:
    provider.answers(candidate("{}", reason, **({} if usage is None else {"usageMetadata": usage})))

    told = runner.run(asked(model))

    assert (told.input_tokens, told.output_tokens) == tokens


def test_a_prompt_that_was_blocked_took_tokens_too(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    used = {"promptTokenCount": 900, "totalTokenCount": 900}
    provider.answers(says(json.dumps({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": used})))

    assert runner.run(asked(model)) == ModelResponse("", MODEL, "blocked", 900, 0)


@pytest.mark.parametrize(
    "answer",
    [
        says(f"<html>{THEIR_WORDS}</html>", content_type="text/html"),
        says(f'{{"candidates": ["{THEIR_WORDS}"'),
        says("7"),
        says(b"\xff\xfe"),
    ],
)
def test_a_200_that_cannot_be_read_is_an_error_of_geminis(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
) -> None:
    provider.answers(answer)

    assert type(failure(runner, model)) is GeminiError
    assert_secret(logged)


@pytest.mark.parametrize(
    "answer",
    [
        says(f'{{"candidates": "{THEIR_WORDS}"}}'),
        says(f'["{THEIR_WORDS}"]'),
        says(f'"{THEIR_WORDS}"'),
        says("null"),
        says(""),
    ],
)
def test_a_200_that_is_no_answer_of_geminis_is_a_broken_one(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
) -> None:
    provider.answers(answer)

    assert runner.run(asked(model)) == ModelResponse("", MODEL, "broken")
    assert_secret(logged)


# ---- What goes wrong --------------------------------------------------------------------------------


def google(status: int, name: str, *details: Any, listed: bool = False) -> Answer:
    error = {"error": {"code": status, "message": THEIR_WORDS, "status": name, "details": list(details)}}
    answer = says(json.dumps([error] if listed else error), status)
    answer.__name__ = f"{status} {name} {len(details)} {listed}"
    return answer


def retry_info(delay: object) -> dict[str, object]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (google(400, "INVALID_ARGUMENT"), GeminiError),
        (google(401, "UNAUTHENTICATED"), GeminiError),
        (google(403, "PERMISSION_DENIED"), GeminiError),
        (google(404, "NOT_FOUND"), GeminiError),
        (says(f"<html>{THEIR_WORDS}", 404, "text/html"), GeminiError),
        (google(408, "DEADLINE_EXCEEDED"), GeminiUnavailable),
        (google(429, "RESOURCE_EXHAUSTED"), GeminiUnavailable),
        (google(429, "RESOURCE_EXHAUSTED", listed=True), GeminiUnavailable),
        (google(500, "INTERNAL"), GeminiUnavailable),
        (says(f"<html>{THEIR_WORDS}", 502, "text/html"), GeminiUnavailable),
        (says("", 503, "text/plain"), GeminiUnavailable),
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
    model: GeminiExtractionModel,
    logged: io.StringIO,
    answer: Answer,
    error: type[ProviderError],
) -> None:
    provider.answers(answer)

    told = failure(runner, model)

    assert type(told) is error
    assert told.retryable is (error is GeminiUnavailable)
    assert_secret(logged)
    assert len(provider.received) == 1


def test_a_refused_request_points_to_the_output_schema(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(google(400, "INVALID_ARGUMENT"))

    assert "output schema is too complex" in failure(runner, model).message


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
def test_the_pause_that_google_asks_for_is_passed_on(
    runner: asyncio.Runner,
    provider: Provider,
    model: GeminiExtractionModel,
    status: int,
    details: list[Any],
    seconds: float | None,
) -> None:
    provider.answers(google(status, "RESOURCE_EXHAUSTED", *details))

    assert failure(runner, model).retry_after_seconds == seconds


def test_a_server_that_is_not_there_is_unavailable_at_once(
    runner: asyncio.Runner, web: HttpClient, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GeminiExtractionModel(settings(f"http://127.0.0.1:{closed_port}"), web)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)  # which is how the SDK would wait for a second try of its own

    assert type(failure(runner, model)) is GeminiUnavailable
    assert pauses == []


@pytest.mark.parametrize("silence", [hangs, stalls])
def test_a_server_that_never_answers_is_given_up(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel, logged: io.StringIO, silence: Answer
) -> None:
    provider.answers(silence)

    assert type(failure(runner, model)) is UpstreamTimeout
    assert len(provider.received) == 1
    assert_secret(logged)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_without_time_left_there_is_no_answer(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel, seconds: float
) -> None:
    provider.answers(candidate())

    assert type(failure(runner, model, seconds)) is UpstreamTimeout


def test_after_a_failure_the_next_request_goes_through(
    runner: asyncio.Runner, provider: Provider, model: GeminiExtractionModel
) -> None:
    provider.answers(hangs, hangs_up, candidate())

    assert type(failure(runner, model)) is UpstreamTimeout
    assert type(failure(runner, model)) is GeminiUnavailable

    assert runner.run(asked(model)).text == '{"age": 42}'


# ---- The stand-in that refuses what Google refuses --------------------------------------------------


@pytest.fixture
def stand_in(runner: asyncio.Runner) -> Iterator[str]:
    stack = AsyncExitStack()
    stood_in = runner.run(stack.enter_async_context(gemini_stand_in()))
    assert stood_in.base_url is not None
    yield stood_in.base_url
    runner.run(stack.aclose())


def asked_of(
    runner: asyncio.Runner,
    web: HttpClient,
    known: GeminiSettings,
    repair: tuple[str, ...] = (),
    schema: dict[str, JsonValue] | None = None,
) -> ModelResponse:
    question = ModelRequest(INSTRUCTION, (fenced(TURNS, NOW), *repair), schema or SCHEMA)
    return runner.run(GeminiExtractionModel(known, web).generate(question, LONG))


def test_the_stand_in_takes_our_request_and_fills_the_schema(
    runner: asyncio.Runner, web: HttpClient, stand_in: str
) -> None:
    answer = asked_of(runner, web, settings(stand_in, gemini.API_KEY))

    assert answer.model == "stand-in"
    assert set(json.loads(answer.text)) == {"age", "pets"}


def test_the_stand_in_takes_a_repair(runner: asyncio.Runner, web: HttpClient, stand_in: str) -> None:
    answer = asked_of(runner, web, settings(stand_in, gemini.API_KEY), ("[]", "This is no object."))

    assert set(json.loads(answer.text)) == {"age", "pets"}
    assert answer.input_tokens > 0


def test_the_stand_in_refuses_a_request_that_ends_with_the_model_s_own_word(
    runner: asyncio.Runner, web: HttpClient, stand_in: str
) -> None:
    with pytest.raises(GeminiError):
        asked_of(runner, web, settings(stand_in, gemini.API_KEY), ("[]",))


def test_array_bounds_that_are_too_much_for_gemini_in_all_are_none_when_they_are_not_sent(
    runner: asyncio.Runner, web: HttpClient, stand_in: str
) -> None:
    bounded: dict[str, JsonValue] = {
        "type": "object",
        "properties": {f"list{number}": {"type": "array", "maxItems": 321} for number in range(3)},
    }
    known = settings(stand_in, gemini.API_KEY)

    with pytest.raises(GeminiError, match="too complex"):
        asked_of(runner, web, known, schema=bounded)
    assert asked_of(runner, web, known, schema=gemini_schema(bounded)).end == "finished"


@pytest.mark.parametrize(("api_key", "extraction_model"), [("another-key", MODEL), (gemini.API_KEY, "another-model")])
def test_the_stand_in_refuses_another_key_and_a_model_that_is_none(
    runner: asyncio.Runner, web: HttpClient, stand_in: str, api_key: str, extraction_model: str
) -> None:
    with pytest.raises(GeminiError):
        asked_of(runner, web, settings(stand_in, api_key, extraction_model))

"""The stand-in refuses invalid connections and messages with Google's close codes and reasons."""

import asyncio
from typing import Any, Final

import aiohttp
import pytest

from local.stand_ins.gemini_live import LiveTimes
from tests.local.live.callers import MIME, Message, audio_message
from tests.local.live.conftest import MODEL, SETUP, Gemini, running_gemini, soon

pytestmark = pytest.mark.anyio

ARGUMENT: Final = (1007, "Request contains an invalid argument.")


def unknown(name: str, at: str) -> tuple[int, str]:
    where = f" at '{at}'" if at else ""
    return 1007, f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'


# ---- Paths and tokens ----


@pytest.mark.parametrize(
    "path",
    [
        "v1alpha.GenerativeService.BidiGenerateContent",  # for API keys, which do not belong in a browser
        "v1alpha.GenerativeService.BidiGenerateMusic",
        "v1.GenerativeService.BidiGenerateContentConstrained",
        "v1alpha.PredictionService.BidiGenerateContentConstrained",
    ],
)
async def test_any_other_path_is_not_found(gemini: Gemini, path: str) -> None:
    url = f"{gemini.url}/ws/google.ai.generativelanguage.{path}?access_token={await gemini.token()}"

    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await client.ws_connect(url)


async def test_a_connection_without_a_token_is_refused(gemini: Gemini) -> None:
    code, reason = await (await gemini.socket()).hangup()

    assert code == 1008
    assert reason.startswith("Method doesn't allow unregistered callers")


async def test_a_connection_with_two_tokens_is_refused(gemini: Gemini) -> None:
    token = await gemini.token()

    assert (await (await gemini.socket(token, token)).hangup())[0] == 1007


async def test_an_unknown_token_is_refused(gemini: Gemini) -> None:
    hangup = await (await gemini.socket("auth_tokens/none")).hangup()

    assert hangup == (1007, "API key not valid. Please pass a valid API key.")


async def test_a_token_is_valid_only_for_its_api_version(gemini: Gemini) -> None:
    assert (await (await gemini.socket(await gemini.token(), version="v1beta")).hangup())[0] == 1007


async def test_a_token_opens_one_session_by_default(gemini: Gemini) -> None:
    token = await gemini.token()
    await gemini.call(token)
    second = await gemini.socket(token)
    await second.send({"setup": SETUP})

    assert await second.hangup() == (1011, "Token has been used too many times")


async def test_a_token_may_be_for_several_sessions_or_unlimited(gemini: Gemini) -> None:
    for token in (await gemini.token(uses=2), await gemini.token(uses=0)):
        await gemini.call(token)
        await gemini.call(token)


async def test_a_refused_setup_does_not_count_as_a_use_of_the_token(gemini: Gemini) -> None:
    token = await gemini.token()
    refused = await gemini.socket(token)
    await refused.send({"setup": {"model": "gemini-3.1-flash-live-preview"}})
    await refused.hangup()

    await gemini.call(token)


async def test_an_expired_token_is_refused(gemini: Gemini) -> None:
    token = await gemini.token(expireTime=soon(60).isoformat())
    gemini.let_pass(60)

    assert await (await gemini.socket(token)).hangup() == (1011, "auth token has expired")


async def test_a_call_ends_when_its_token_expires_even_during_a_turn() -> None:
    async with running_gemini(LiveTimes(pace=1)) as gemini:
        caller = await gemini.call(await gemini.token(expireTime=soon(300).isoformat()))
        await caller.type("The caller is on the line.")
        await caller.until("modelTurn")
        gemini.let_pass(300)

        assert await caller.hangup() == (1011, "auth token has expired")


async def test_a_connection_without_a_setup_ends_when_its_token_expires(gemini: Gemini) -> None:
    token = await gemini.token(expireTime=soon(60).isoformat())
    gemini.let_pass(59.5)
    caller = await gemini.socket(token)

    assert await caller.hangup() == (1011, "auth token has expired")


async def test_a_session_can_begin_only_before_new_session_expire_time(gemini: Gemini) -> None:
    token = await gemini.token(newSessionExpireTime=soon(60).isoformat())
    gemini.let_pass(59.5)
    caller = await gemini.socket(token)
    await asyncio.sleep(0.6)  # longer than the remaining time
    await caller.send({"setup": SETUP})

    assert await caller.hangup() == (1011, "auth token has expired for new sessions")


# ---- The setup ----


SETUPS: Final[dict[str, tuple[Any, tuple[int, str]]]] = {
    "no setup": ({"realtimeInput": {"text": "Hi"}}, (1007, "setup must be the first message and only the first")),
    "nothing": ({}, (1007, "setup must be the first message and only the first")),
    "no object": ([], (1007, 'Invalid JSON payload received. Unknown name "": Root element must be a message.')),
    "an unknown message": ({"set_up": SETUP}, unknown("set_up", "")),
    "an unknown field": ({"setup": {**SETUP, "voice": "Puck"}}, unknown("voice", "setup")),
    "an unknown field within": (
        {"setup": {**SETUP, "sessionResumption": {"token": "x"}}},
        unknown("token", "setup.session_resumption"),
    ),
    "a model without its folder": ({"setup": {"model": "gemini-3.1-flash-live-preview"}}, ARGUMENT),
}


@pytest.mark.parametrize(("message", "hangup"), SETUPS.values(), ids=SETUPS)
async def test_a_first_message_other_than_a_valid_setup_is_refused(
    gemini: Gemini, message: object, hangup: tuple[int, str]
) -> None:
    caller = await gemini.socket(await gemini.token())
    await caller.send(message)

    assert await caller.hangup() == hangup


@pytest.mark.parametrize("text", ["", "hello", "[" * 5_000])
async def test_a_message_that_is_not_json_is_refused(gemini: Gemini, text: str) -> None:
    caller = await gemini.socket(await gemini.token())
    await caller.socket.send_str(text)

    assert await caller.hangup() == (1007, "Invalid JSON payload received.")


@pytest.mark.parametrize("model", ["models/gemini-9-live-and-kicking", "models/gemini-3.8-live", MODEL])
async def test_live_models_are_recognized_by_name(gemini: Gemini, model: str) -> None:
    await gemini.call(model=model)


async def test_a_model_without_live_support_is_not_found(gemini: Gemini) -> None:
    caller = await gemini.socket(await gemini.token())
    await caller.send({"setup": {"model": "models/gemini-3.5-flash-lite"}})
    code, reason = await caller.hangup()

    assert code == 1008
    assert reason.startswith("models/gemini-3.5-flash-lite is not found for API version v1alpha, or is not supported")
    assert len(reason.encode()) <= 123  # the maximum of a close frame


@pytest.mark.parametrize(
    "setup",
    [
        {"generationConfig": {"responseModalities": ["TEXT"]}},
        {"realtimeInputConfig": {"activityHandling": "NO_INTERRUPTION"}},
        {"realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}}},
    ],
    ids=["answers in writing", "no interruptions", "no activity detection"],
)
async def test_unsupported_settings_are_refused_and_not_ignored(gemini: Gemini, setup: Message) -> None:
    caller = await gemini.socket(await gemini.token(bidiGenerateContentSetup=None, fieldMask=None))
    await caller.send({"setup": {**SETUP, **setup}})

    assert (await caller.hangup())[0] == 1007


# ---- During the call ----


TAKEN: Final = "The stand-in takes audio/pcm;rate=16000 only, in whole samples of 16 bits, as base64."
MESSAGES: Final[dict[str, tuple[Message, str]]] = {
    "a second setup": ({"setup": SETUP}, "setup must be the first message and only the first"),
    "two kinds at once": ({"realtimeInput": {}, "clientContent": {}}, "Request must hold exactly one of setup, "),
    "no kind": ({}, "Request must hold exactly one of setup, "),
    "an unknown field": ({"realtimeInput": {"sound": ""}}, unknown("sound", "realtime_input")[1]),
    "another rate": (audio_message(bytes(64), "audio/pcm;rate=48000"), TAKEN),
    "no rate": (audio_message(bytes(64), "audio/pcm"), TAKEN),
    "another format": (audio_message(bytes(64), "audio/webm"), TAKEN),
    "half a sample": (audio_message(bytes(63)), TAKEN),
    "no base64": ({"realtimeInput": {"audio": {"data": "{}", "mimeType": MIME}}}, TAKEN),
    "chunks, as of old": ({"realtimeInput": {"mediaChunks": []}}, "realtime_input.media_chunks is deprecated."),
    "activity by hand": ({"realtimeInput": {"activityStart": {}}}, "Explicit activity control is not supported"),
}


@pytest.mark.parametrize(("message", "reason"), MESSAGES.values(), ids=MESSAGES)
async def test_an_invalid_message_ends_the_call(gemini: Gemini, message: Message, reason: str) -> None:
    caller = await gemini.call()
    await caller.send(message)
    code, closed_with = await caller.hangup()

    assert code == 1007
    assert closed_with.startswith(reason)


@pytest.mark.parametrize(
    "message",
    [
        {"realtime_input": {"audio_stream_end": True}},
        {"realtimeInput": {"video": {"data": "", "mimeType": "image/jpeg"}}},
        {"realtimeInput": {"audio": {"data": "-_8", "mimeType": "audio/PCM; rate=16000"}}},
        {"toolResponse": {"functionResponses": []}},
    ],
    ids=["in snake_case", "video", "in URL-safe base64", "a tool's response"],
)
async def test_valid_messages_are_accepted(gemini: Gemini, message: Message) -> None:
    caller = await gemini.call()
    await caller.send(message)
    await caller.type("Hello?")

    assert (await caller.turn()).text


async def test_messages_in_binary_frames_are_accepted(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.socket.send_bytes(b'{"realtimeInput": {"text": "Hello?"}}')

    assert (await caller.turn()).text

"""A browser cannot change the fields that a token locks."""

from typing import Final

import pytest

from tests.local.live.callers import Message
from tests.local.live.conftest import MODEL, NORA, SETUP, Gemini

pytestmark = pytest.mark.anyio

NORAS_GREETING: Final = "Fjord Dental, this is Nora. What is your name?"
OTHER: Final[Message] = {
    "systemInstruction": {"parts": [{"text": NORA.replace("Fjord Dental, this is Nora.", "Evil Corporation.")}]}
}


async def test_locked_fields_replace_the_browsers(gemini: Gemini) -> None:
    caller = await gemini.call(**OTHER, generationConfig={"responseModalities": ["TEXT"]})
    await caller.type("Hello?")

    assert (await caller.turn()).text == NORAS_GREETING


async def test_fields_that_are_not_locked_are_taken_from_the_browser(gemini: Gemini) -> None:
    minimal = {"model": MODEL, "outputAudioTranscription": {}}
    token = await gemini.token(bidiGenerateContentSetup=minimal, fieldMask="model,outputAudioTranscription")
    caller = await gemini.call(token, **OTHER)
    await caller.type("Hello?")

    assert (await caller.turn()).text.startswith("Evil Corporation.")


async def test_a_single_field_of_the_generation_config_can_be_locked(gemini: Gemini) -> None:
    locked = {"model": MODEL, "generationConfig": {"responseModalities": ["AUDIO"]}}
    token = await gemini.token(bidiGenerateContentSetup=locked, fieldMask="model,generationConfig.responseModalities")

    await gemini.call(token, generationConfig={"responseModalities": ["TEXT"], "temperature": 1})


async def test_a_masked_field_that_the_token_lacks_is_removed(gemini: Gemini) -> None:
    locked = {"model": MODEL, "systemInstruction": {"parts": [{"text": NORA}]}}
    mask = "model,systemInstruction,outputAudioTranscription"
    caller = await gemini.call(
        await gemini.token(bidiGenerateContentSetup=locked, fieldMask=mask), outputAudioTranscription={}
    )
    await caller.type("Hello?")
    turn = await caller.turn()

    assert turn.words == NORAS_GREETING
    assert turn.text == ""


async def test_without_a_mask_the_browsers_setup_is_ignored(gemini: Gemini) -> None:
    setup = {"model": MODEL, "systemInstruction": {"parts": [{"text": NORA}]}}
    caller = await gemini.call(await gemini.token(bidiGenerateContentSetup=setup, fieldMask=None), **OTHER)
    await caller.type("Hello?")
    turn = await caller.until("turnComplete")

    assert turn.words == NORAS_GREETING
    assert "sessionResumptionUpdate" not in turn.kinds  # only the browser asked for it


async def test_without_a_mask_a_resumption_handle_is_ignored(gemini: Gemini) -> None:
    setup = {"model": MODEL, "sessionResumption": {}}
    token = await gemini.token(bidiGenerateContentSetup=setup, fieldMask=None)
    caller = await gemini.call(token)
    await caller.type("Hello?")
    again = await gemini.socket(token)
    await again.send({"setup": {**SETUP, "sessionResumption": {"handle": await caller.handle()}}})

    assert await again.hangup() == (1011, "Token has been used too many times")


async def test_a_token_without_a_setup_locks_nothing(gemini: Gemini) -> None:
    token = await gemini.token(bidiGenerateContentSetup=None, fieldMask=None)
    caller = await gemini.call(token, **OTHER, outputAudioTranscription={})
    await caller.type("Hello?")

    assert (await caller.turn()).text.startswith("Evil Corporation.")


async def test_googles_sdk_can_send_the_token_in_a_header(gemini: Gemini) -> None:
    caller = await gemini.socket_by_header(await gemini.token())
    await caller.send({"setup": SETUP})

    assert await caller.receive() == {"setupComplete": {}}

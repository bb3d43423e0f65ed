"""Calls that outlast their connection: goAway and resumption."""

import asyncio

import pytest

from local.stand_ins.gemini_live import LiveTimes
from tests.local.live.conftest import SETUP, Gemini, running_gemini, soon

pytestmark = pytest.mark.anyio


async def test_goaway_announces_the_end_of_a_connection() -> None:
    async with running_gemini(LiveTimes(pace=50, connection_seconds=300, warning_seconds=0.4)) as gemini:
        caller = await gemini.call(await gemini.token(seconds=600))
        await caller.type("Hello?")
        await caller.handle()
        gemini.let_pass(299.6)
        warning = await caller.until("goAway")
        gemini.let_pass(0.4)
        code, reason = await caller.hangup()

    assert warning.messages == [{"goAway": {"timeLeft": "0.4s"}}]
    assert code == 1008
    assert reason.startswith("Connection aborted because the client failed to close the connection after receiving a ")


async def test_a_resumed_call_continues_where_it_was(gemini: Gemini) -> None:
    token = await gemini.token()
    first = await gemini.call(token)
    await first.type("Hello?")
    handle = await first.handle()
    await first.socket.close()
    second = await gemini.resume(token, handle)  # does not count as a use of the token
    await second.say("Erik.")

    assert (await second.turn()).text == "Thank you. Are you in pain?"


async def test_a_fresh_token_resumes_an_old_call(gemini: Gemini) -> None:
    first = await gemini.call()
    await first.type("Hello?")
    handle = await first.handle()
    await first.socket.close()
    second = await gemini.resume(await gemini.token(), handle)
    await second.type("Erik.")

    assert (await second.turn()).text == "Thank you. Are you in pain?"


async def test_a_call_can_be_resumed_after_new_session_expire_time(gemini: Gemini) -> None:
    token = await gemini.token(newSessionExpireTime=soon(60).isoformat())
    first = await gemini.call(token)
    await first.type("Hello?")
    handle = await first.handle()
    await first.socket.close()
    gemini.let_pass(60)

    await gemini.resume(token, handle)


async def test_a_handle_resumes_the_state_of_its_own_time_even_if_the_call_continued(gemini: Gemini) -> None:
    token = await gemini.token()
    first = await gemini.call(token)
    await first.type("Hello?")
    handle = await first.handle()
    await first.type("Erik.")
    await first.turn()
    await first.socket.close()
    second = await gemini.resume(token, handle)
    await second.type("Erik.")

    assert (await second.turn()).text == "Thank you. Are you in pain?"


async def test_a_session_cannot_be_resumed_before_its_connection_is_closed(gemini: Gemini) -> None:
    token = await gemini.token()
    first = await gemini.call(token)
    await first.type("Hello?")
    handle = await first.handle()
    second = await gemini.socket(token)
    await second.send({"setup": {**SETUP, "sessionResumption": {"handle": handle}}})

    code, reason = await second.hangup()
    assert (code, reason.partition(":")[0]) == (1011, "The session has another connection")
    await first.socket.close()
    await gemini.resume(token, handle)


async def test_while_the_agent_speaks_the_session_is_not_resumable(gemini: Gemini) -> None:
    caller = await gemini.call()
    await caller.type("Hello?")

    assert await caller.receive() == {"sessionResumptionUpdate": {"resumable": False}}


async def test_handles_are_sent_only_if_the_setup_asks_for_them(gemini: Gemini) -> None:
    caller = await gemini.socket(await gemini.token())
    await caller.send({"setup": {"model": "models/gemini-3.1-flash-live-preview"}})
    await caller.type("Hello?")
    await caller.until("turnComplete")
    await caller.type("Erik.")

    assert "sessionResumptionUpdate" not in (await caller.until("turnComplete")).kinds


async def test_an_unknown_handle_is_refused(gemini: Gemini) -> None:
    caller = await gemini.socket(await gemini.token())
    await caller.send({"setup": {"model": "models/gemini-live", "sessionResumption": {"handle": "none"}}})

    assert await caller.hangup() == (1008, "BidiGenerateContent session not found")


async def test_a_caller_who_disconnects_during_a_turn_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with running_gemini(LiveTimes(pace=1)) as gemini:
        caller = await gemini.call()
        await caller.type("Hello?")
        await caller.until("modelTurn")
        await caller.socket.close()

    if left := asyncio.all_tasks() - before:
        await asyncio.wait(left, timeout=120)
    assert asyncio.all_tasks() == before

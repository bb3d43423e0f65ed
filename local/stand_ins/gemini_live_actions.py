"""The agent's side of function calls over one connection: make them, cancel them, and read the answers.

The faults tool_cancelled and claims_tool spoil the first calls of a session, but never hang_up.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from local.stand_ins.answer_parsing import Call
from local.stand_ins.gemini_live_access import INVALID_ARGUMENT, Hangup
from local.stand_ins.gemini_live_agent import Script
from local.stand_ins.gemini_live_faults import Faults
from local.stand_ins.gemini_live_function_calls import Answer, FunctionCalls, InvalidResponse
from local.stand_ins.gemini_live_tools import Tools, WantedCall
from local.stand_ins.gemini_live_usage import Usage
from local.stand_ins.gemini_messages import Message

_TOO_DEEP: Final = "tool_response: a response is nested too deeply."


class Actions:
    """The function calls of one connection of a session; `send` sends a message to the client."""

    def __init__(
        self,
        tools: Tools,
        calls: FunctionCalls,
        script: Script,
        faults: Faults,
        usage: Usage,
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._tools = tools
        self._calls = calls
        self._script = script
        self._faults = faults
        self._usage = usage
        self._send = send

    @property
    def is_waiting(self) -> bool:
        """Whether the agent waits for the answer of a function."""
        return bool(self._calls.waited_for)

    def wanted(self, words: str, said: Call) -> list[WantedCall]:
        """Return the calls for what the caller has just said, in a call in which all this was said."""
        return self._tools.calls_for(words, said)

    async def make(self, wanted: Sequence[WantedCall]) -> list[str]:
        """Make calls, and return what the agent says of them at once, which is nothing but with a fault."""
        is_first, self._calls.are_spoiled = not self._calls.are_spoiled, True
        if is_first and "claims_tool" in self._faults:
            return [_sentence(self._script.done, (call.name.replace("_", " ") for call in wanted))]
        await self._call(wanted)
        if is_first and "tool_cancelled" in self._faults:
            await self._cancel([*self._calls.open][-len(wanted) :])
        return []

    async def hang_up(self, said: Call) -> None:
        """Call hang_up, if the setup has it, and if the agent has not called it yet."""
        if not self._calls.has_hung_up and (call := self._tools.hang_up(said)):
            await self._call([call])

    async def cancel_waiting(self) -> None:
        """Cancel the calls for which the agent waits."""
        await self._cancel(self._calls.waited_for)

    async def cancel_earlier(self) -> None:
        """Cancel the calls of the connection before this one."""
        await self._cancel([*self._calls.open])

    def take(self, content: Message) -> list[Answer]:
        """Take the answers of a toolResponse, and return those to open calls; raises Hangup."""
        try:
            answers = self._calls.take(content)
            self._usage.read_letters += sum(_letters(answer.response) for answer in answers)
        except InvalidResponse as fault:
            raise Hangup(INVALID_ARGUMENT, str(fault)) from None
        except RecursionError:
            raise Hangup(INVALID_ARGUMENT, _TOO_DEEP) from None
        return answers

    def news(self, answer: Answer) -> str:
        """Return what the agent says of an answer."""
        return _sentence(self._script.failed if answer.has_failed else self._script.done, [answer.told])

    async def _call(self, wanted: Sequence[WantedCall]) -> None:
        message = self._calls.make(wanted)
        self._usage.written_letters += _letters(message["toolCall"]["functionCalls"])
        await self._send(message)

    async def _cancel(self, ids: Sequence[str]) -> None:
        if ids:
            await self._send(self._calls.cancel(ids))


def _sentence(what: str, details: Iterable[str]) -> str:
    return f"{': '.join(filter(None, (what, ', '.join(details))))}."


def _letters(document: Message | list[Message]) -> int:
    return len(json.dumps(document, ensure_ascii=False))

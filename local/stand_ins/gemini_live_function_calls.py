"""The function calls of a session, over all its connections, and their answers.

A call is open until it is answered or cancelled. It is cancelled if the caller speaks while the agent waits for it, and
if its connection ends: the next connection of the session begins with the cancellation. The answer to a call that is
not open any more is ignored.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from local.stand_ins.gemini_live_tools import HANG_UP, WantedCall
from local.stand_ins.gemini_messages import Message

_LONGEST_TOLD: Final = 80
_NO_ID: Final = "tool_response: a function_response needs the id of its function call."
_UNKNOWN_ID: Final = "tool_response: there is no function call with the id {}."
_NO_RESPONSE: Final = "tool_response: the response of a function_response has to be an object."


class InvalidResponse(Exception):
    """A message with the answers of functions that Google refuses."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a function, and when the agent speaks about it: WHEN_IDLE, INTERRUPT or SILENT."""

    response: Message
    scheduling: str

    @property
    def has_failed(self) -> bool:
        """Whether the function reports an error."""
        return bool(self.response.get("error"))

    @property
    def told(self) -> str:
        """What the agent says of the answer: its error, or its first text or number; empty if there is none."""
        words = " ".join(str(_first_value({"": self.response["error"]} if self.has_failed else self.response)).split())
        return words[:_LONGEST_TOLD].rstrip(" .!?")


@dataclass(eq=False, slots=True)
class FunctionCalls:
    """The function calls of one session; ids are unique among the sessions of the stand-in."""

    session_number: int = 1
    made: int = 0
    are_spoiled: bool = False
    """Whether the calls that a fault may spoil were made."""
    has_hung_up: bool = False
    """Whether the agent has called hang_up, and the call was not cancelled."""
    open: dict[str, WantedCall] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)

    def make(self, wanted: Iterable[WantedCall]) -> Message:
        """Open calls, and return the message that sends them."""
        calls = []
        for call in wanted:
            self.made += 1
            number = f"function-call-{self.session_number}-{self.made}"
            self.open[number] = call
            self.has_hung_up |= call.name == HANG_UP
            calls.append({"id": number, "name": call.name, "args": call.args})
        return {"toolCall": {"functionCalls": calls}}

    @property
    def waited_for(self) -> list[str]:
        """The ids of the open calls for which the agent waits."""
        return [number for number, call in self.open.items() if call.waits]

    def cancel(self, ids: Iterable[str]) -> Message:
        """Cancel open calls, and return the message that says so."""
        cancelled = list(ids)
        self.has_hung_up &= all(self.open[number].name != HANG_UP for number in cancelled)
        self._close(cancelled)
        return {"toolCallCancellation": {"ids": cancelled}}

    def take(self, content: Message) -> list[Answer]:
        """Take the answers of a toolResponse, and return those to open calls; raises InvalidResponse."""
        responses = content.get("functionResponses", [])
        for response in responses:
            self._check(response)
        answers = []
        for response in responses:
            if call := self.open.get(response["id"]):
                if call.waits or not response.get("willContinue"):
                    self._close([response["id"]])
                answers.append(Answer(response["response"], _scheduling(call, response)))
        return answers

    def _check(self, response: Message) -> None:
        if not response.get("id"):
            raise InvalidResponse(_NO_ID)
        if response["id"] not in self.open and response["id"] not in self.over:
            raise InvalidResponse(_UNKNOWN_ID.format(json.dumps(response["id"])))
        if not isinstance(response.get("response"), dict):
            raise InvalidResponse(_NO_RESPONSE)

    def _close(self, ids: Iterable[str]) -> None:
        for number in ids:
            del self.open[number]
            self.over.add(number)


def _scheduling(call: WantedCall, response: Message) -> str:
    """Return when the agent speaks about an answer: as the response says, unless it waits for it; never of hang_up."""
    wanted = "WHEN_IDLE" if call.waits else response.get("scheduling")
    return "SILENT" if call.name == HANG_UP else wanted if wanted in {"INTERRUPT", "SILENT"} else "WHEN_IDLE"


def _first_value(response: Any) -> Any:
    """Return the first text or number of a response, or the name of the first thing that is true."""
    level = response
    while isinstance(level, dict | list) and level:
        items = [*(level.items() if isinstance(level, dict) else enumerate(level))]
        for _, value in items:
            if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
                return value
        if is_true := [name for name, value in items if value is True]:
            return is_true[0]
        level = next((value for _, value in items if isinstance(value, dict | list) and value), None)
    return ""

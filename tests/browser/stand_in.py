"""The API with injected faults in front of the Live stand-in with faults, and a caller who speaks to it."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from pi_voice.domain.agents import Agent
from pi_voice.domain.live_models import profile_of
from pi_voice.domain.prompts import instruction_for, instruction_to_continue
from pi_voice.domain.tool_calls import ToolCall
from tests.browser.faults import Faults
from tests.local.live.callers import MIME, spoken
from tests.local.live.conftest import MODEL, NORAS_AGENT, SERVICE, SETUP

SAYS: Final = ("It is Erik. Erik Dahl.", "Yes, rather.")
WHOLE_CALL: Final = [
    ("agent", "Fjord Dental, this is Nora. What is your name?"),
    ("user", "It is Erik. Erik Dahl."),
    ("agent", "Thank you. Are you in pain?"),
    ("user", "Yes, rather."),
    ("agent", "Get well soon."),
]


def spoken_input(text: str) -> Any:
    return {"audio": {"data": base64.b64encode(spoken(text)).decode(), "mimeType": MIME}}


@dataclass
class StandInCall(Faults):
    """A call over the stand-in; `mint` returns a token of it for an instruction and a model."""

    gemini_url: str = ""
    mint: Callable[..., Awaitable[str]] | None = None
    model: str = MODEL
    agent: Agent = NORAS_AGENT

    async def connection(self) -> dict[str, Any]:
        assert self.mint
        goes_on = self.renewals and not self.renewals[-1]
        calls = [ToolCall(**call, called_at=0) for call in self.recorded]
        agent = self.agent
        instruction = instruction_to_continue(agent, self.saved, calls) if goes_on else instruction_for(agent)
        url = f"{self.gemini_url.replace('http', 'ws')}/ws/{SERVICE.format('v1alpha')}"
        ends = {"turn_ends_at": profile_of(self.model).turn_ends_at}
        token = await self.mint(instruction, model=self.model, tools_of=agent)
        return {"url": url, "token": token, "setup": {"setup": {**SETUP, "model": self.model}}, **ends}

"""The API with injected faults in front of the Live stand-in with faults, and a caller who speaks to it."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from pi_voice.domain.prompts import instruction_for, instruction_to_continue
from tests.browser.faults import Faults
from tests.local.live.callers import MIME, spoken
from tests.local.live.conftest import SERVICE, SETUP
from tests.unit.examples import agent

NORA: Final = agent(
    name="Nora",
    questions=["What is your name?", "Are you in pain?"],
    behaviors={"greeting": "Fjord Dental, this is Nora.", "closing_message": "Get well soon."},
)
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
    """A call over the stand-in; `mint` returns a token of it for an instruction."""

    gemini_url: str = ""
    mint: Callable[[str], Awaitable[str]] | None = None

    async def connection(self) -> dict[str, Any]:
        assert self.mint
        goes_on = self.renewals and not self.renewals[-1]
        instruction = instruction_to_continue(NORA, self.saved) if goes_on else instruction_for(NORA)
        url = f"{self.gemini_url.replace('http', 'ws')}/ws/{SERVICE.format('v1alpha')}"
        return {"url": url, "token": await self.mint(instruction), "setup": {"setup": SETUP}}

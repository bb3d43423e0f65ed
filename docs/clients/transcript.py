"""The transcript of a call, assembled from the messages of Gemini Live; the rules are in docs/client.md.

Pass all messages of all connections to `Transcript.take`, and what the caller types to `Transcript.typed`, in order.
Then `turns` are the turns so far, of which the first `settled` ones can no longer change.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

Json = dict[str, Any]

# Thai to Myanmar, Khmer, CJK with its punctuation, full-width forms: scripts that put no space between words.
UNSPACED = (
    "[\u0e00-\u109f\u1780-\u17ff\u3000-\u30ff\u3100-\u312f\u31a0-\ua4cf\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff]"
)
AFTER_A_SPACE = '"¿¡&@#*/\\'  # punctuation that follows a space, unlike a comma
SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\uff61\u061f\u0964][\"')\u2019\u201d\u00bb\u300d\u300f]*\s*$")


@dataclass(eq=False)
class Turn:
    """A turn: the utterances of the caller or the fragments of the agent, and its times if there is a clock."""

    role: str
    start_ms: int
    end_ms: int
    pieces: list[str] = field(default_factory=list)
    is_open: bool = True
    is_heard: bool = False

    @property
    def text(self) -> str:
        """The text so far."""
        return reduce(join, self.pieces, "").strip()


class Transcript:
    """All turns so far; `clock` returns the milliseconds since the call began."""

    def __init__(self, turn_ends_at: str = "turnComplete", clock: Callable[[], float] | None = None) -> None:
        self._is_idle_the_end = turn_ends_at == "idle"
        self._clock = clock
        self._turns: list[Turn] = []
        self._agents: Turn | None = None  # the agent's latest turn, which may still get late text
        self._is_cut = False

    @property
    def turns(self) -> list[Json]:
        """The turns with text, as `POST /sessions/{session_id}/complete` takes them."""
        return [
            {"role": turn.role, "text": turn.text}
            | ({"start_ms": turn.start_ms, "end_ms": turn.end_ms} if self._clock else {})
            for turn in self._turns
            if turn.text
        ]

    @property
    def settled(self) -> int:
        """How many of `turns`, from the first on, can no longer change."""
        count = 0
        for turn in self._turns:
            if turn.is_open or turn is self._agents:
                break
            count += bool(turn.text)
        return count

    @property
    def agent_speaks(self) -> bool:
        """Whether a turn of the agent has begun and not ended."""
        return self._agents is not None and self._agents.is_open

    def take(self, message: Json) -> bool:
        """Take a message of Gemini, and return whether it ends a turn of the agent that was not interrupted."""
        content = message.get("serverContent") or {}
        heard = (content.get("inputTranscription") or {}).get("text") or ""
        is_interruption = bool(content.get("interrupted"))
        if "setupComplete" in message:  # a new connection: nothing of the last turn can follow
            self._end_agents_turn()
            self._agents = None
        if content.get("modelTurn") is not None and not self.agent_speaks:
            self._begin_agents_turn()
        if not is_interruption:
            self._hear(heard)
        self._say((content.get("outputTranscription") or {}).get("text") or "")
        if is_interruption:
            self._end_agents_turn()
            self._is_cut = True
            self._hear(heard)
        if self._is_end(message, content):
            return self._end_turn()
        if content.get("turnComplete") and self._agents:
            self._agents.pieces.append("")  # the turn goes on, after thinking
        return False

    def typed(self, text: str) -> None:
        """Add what the caller types."""
        if not text.strip():
            return
        if not (self._turns and self._turns[-1].role == "user" and self._turns[-1].is_open):
            self._insert(len(self._turns), "user")
        self._turns[-1].pieces.append(text)

    def close(self) -> None:
        """Settle all turns, because the conversation cannot be resumed."""
        self._agents = None
        for turn in self._turns:
            turn.is_open = False

    # ---- The caller ----

    def _hear(self, text: str) -> None:
        """Add an utterance: before the agent's turn if it has begun, because it is the one that the agent answers."""
        text = text.strip()
        if not text:
            return
        at, limit = len(self._turns), self._now()
        if self._agents and self._agents.is_open:
            at, limit = self._turns.index(self._agents), self._agents.start_ms
        if not (at and self._turns[at - 1].role == "user" and self._turns[at - 1].is_open):
            self._insert(at, "user")
            at += 1
        turn = self._turns[at - 1]
        turn.is_heard = True
        if text not in turn.pieces:  # Gemini sometimes sends an utterance twice
            turn.pieces.append(text)
            turn.start_ms, turn.end_ms = min(turn.start_ms, limit), min(self._now(), limit)

    # ---- The agent ----

    def _begin_agents_turn(self) -> Turn:
        self._agents = self._insert(len(self._turns), "agent")
        self._agents.pieces.append("")
        self._is_cut = False
        return self._agents

    def _say(self, text: str) -> None:
        """Add a fragment to the agent's last turn, unless the caller was heard after its last sentence."""
        if not text:
            return
        turn = self._agents
        if turn is None or (not turn.is_open and self._turns[-1].is_heard and SENTENCE_END.search(turn.text)):
            turn = self._begin_agents_turn()
        turn.pieces[-1] += text
        if turn.is_open:
            turn.end_ms = self._now()

    def _is_end(self, message: Json, content: Json) -> bool:
        status = message.get("interactionStatus") or content.get("interactionStatus") or ""
        return bool(re.search(r"IDLE\W*$", str(status)) if self._is_idle_the_end else content.get("turnComplete"))

    def _end_turn(self) -> bool:
        """End the agent's turn; without one, end the caller's, who got no answer."""
        is_late, self._is_cut = self._is_cut, False  # the interruption has ended the turn already
        if self.agent_speaks:
            self._end_agents_turn()
        elif not is_late:
            for turn in self._turns:
                turn.is_open = False
        return not is_late

    def _end_agents_turn(self) -> None:
        """End the agent's turn, and the caller's before it."""
        if self._agents and self._agents.is_open:
            self._agents.end_ms = self._now()
            for turn in self._turns[: self._turns.index(self._agents) + 1]:
                turn.is_open = False

    def _insert(self, at: int, role: str) -> Turn:
        now = self._now()
        self._turns.insert(at, Turn(role, now, now))
        return self._turns[at]

    def _now(self) -> int:
        return round(self._clock()) if self._clock else 0


def join(left: str, right: str) -> str:
    """Join two utterances, with a space where the language puts one."""
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return left + right
    ends, begins = unicodedata.category(left[-1]), unicodedata.category(right[0])
    is_attached = (begins in {"Pe", "Pf", "Po"} and right[0] not in AFTER_A_SPACE) or (
        ends in {"Ps", "Pi"} or left[-1] in "¿¡" or re.match(UNSPACED, left[-1]) or re.match(UNSPACED, right[0])
    )
    return left + right if is_attached else f"{left} {right}"

"""Any messages of Gemini, and the turns that the Python reference client makes of them.

`python -m tests.browser.any_messages` prints cases as JSON, for the JavaScript client to make the same turns.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docs.clients.transcript import Transcript

TEXTS: Final = st.sampled_from(
    [
        "Five.",
        " No",
        "six",
        ", please",
        " ",
        "",
        "¿Sí",
        "(",
        ")",
        "“ja”",
        "六人",
        "です。",
        "หก",
        "여섯 명",
        "…",
        "'s",
        "Ok?",
        "- no",
        "I",
    ]
)
CONTENTS: Final = st.fixed_dictionaries(
    {},
    optional={
        "modelTurn": st.just({"parts": []}),
        "inputTranscription": st.fixed_dictionaries({}, optional={"text": TEXTS, "finished": st.just(True)}),
        "outputTranscription": st.fixed_dictionaries({}, optional={"text": TEXTS}),
        "turnComplete": st.just(True),
        "interrupted": st.just(True),
        "generationComplete": st.just(True),
        "interactionStatus": st.sampled_from(["IDLE", "ACTIVE"]),
    },
)
MESSAGES: Final = st.one_of(
    CONTENTS.map(lambda content: {"serverContent": content}),
    st.sampled_from([{"setupComplete": {}}, {"goAway": {}}, {"interactionStatus": "INTERACTION_STATUS_IDLE"}]),
    TEXTS.map(lambda text: {"typed": text}),
)
CALLS: Final = st.builds(
    lambda messages, ends: {
        "messages": messages,
        "turn_ends_at": ends,
        "at_ms": [100 * number for number, _ in enumerate(messages)],
    },
    st.lists(MESSAGES, max_size=25),
    st.sampled_from(["turnComplete", "idle"]),
)


def states(case: Any) -> Iterator[Any]:
    """Yield the turns and the number of settled ones, before the first message and after each."""
    now = 0.0
    transcript = Transcript(case.get("turn_ends_at", "turnComplete"), (lambda: now) if "at_ms" in case else None)
    yield {"turns": [], "settled": 0}
    for number, message in enumerate(case["messages"]):
        now = case["at_ms"][number] if "at_ms" in case else 0.0
        if "typed" in message:
            transcript.typed(message["typed"])
        else:
            transcript.take(message)
        yield {"turns": transcript.turns, "settled": transcript.settled}


def main() -> None:
    """Print cases with their last state."""
    cases: list[Any] = []

    @settings(deadline=None, max_examples=500, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(CALLS)
    def collect(case: Any) -> None:
        *_, last = states(case)
        cases.append({**case, **last})

    collect()
    json.dump(cases, sys.stdout)


if __name__ == "__main__":
    main()

"""Fragments in any order are assembled into turns in the order of speech."""

import pytest

from demo.transcript import Transcript, Turn


class Talk:
    """A transcript with a clock that advances by a second per event."""

    def __init__(self) -> None:
        self.completed: list[Turn] = []
        self.transcript = Transcript(self.tick, self.completed.append)
        self.now = 0.0

    def tick(self) -> float:
        return self.now

    def at(self, now: float) -> Transcript:
        self.now = now
        return self.transcript

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn.role, turn.text.strip()) for turn in self.transcript.turns]


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_fragments_become_turns(talk: Talk) -> None:
    talk.at(0).add("agent", "Linden, ")
    talk.at(1).add("agent", "this is Mia.")
    talk.at(2).end_agents_turn(is_cut=False)
    talk.at(3).begin("user")
    talk.at(4).add("user", "Hi.")
    talk.at(5).begin("agent")
    talk.at(6).add("agent", "Hello.")
    talk.at(7).end_agents_turn(is_cut=False)

    assert talk.turns == [("agent", "Linden, this is Mia."), ("user", "Hi."), ("agent", "Hello.")]
    assert talk.completed == talk.transcript.turns


def test_fragments_that_arrive_after_the_answer_has_begun_belong_to_the_turn_before(talk: Talk) -> None:
    talk.at(0).begin("user")
    talk.at(1).add("user", "Six ")
    talk.at(2).begin("agent")
    talk.at(3).add("agent", "On which ")
    talk.at(4).add("user", "of us.")
    talk.at(5).add("agent", "day?")
    talk.at(6).end_agents_turn(is_cut=False)

    assert talk.turns == [("user", "Six of us."), ("agent", "On which day?")]


def test_an_interruption_ends_the_agents_turn_and_not_the_callers(talk: Talk) -> None:
    talk.at(0).begin("user")
    talk.at(0).add("user", "Hi.")
    talk.at(1).begin("agent")
    talk.at(1).add("agent", "I would like ")
    talk.at(2).begin("user")
    talk.at(3).end_agents_turn(is_cut=True)
    talk.at(4).add("user", "Wait.")
    assert talk.turns == [("user", "Hi."), ("agent", "I would like")]
    assert [turn.is_cut for turn in talk.completed] == [False, True]
    assert [turn.role for turn in talk.transcript.unfinished] == ["user"]

    talk.at(5).end()
    assert talk.turns[2:] == [("user", "Wait.")]


def test_turns_in_progress_at_the_end_of_the_call_are_included(talk: Talk) -> None:
    talk.at(0).begin("user")
    talk.at(1).add("user", "And another ")
    talk.at(2).end()

    assert talk.turns == [("user", "And another")]


def test_a_turn_without_words_is_left_out(talk: Talk) -> None:
    talk.at(0).begin("user")
    talk.at(1).begin("agent")
    talk.at(2).end_agents_turn(is_cut=True)
    talk.at(3).end_agents_turn(is_cut=False)
    talk.at(4).end()

    assert talk.turns == []


def test_a_turns_message_has_its_times(talk: Talk) -> None:
    talk.at(1.2345).begin("user")
    talk.at(2).add("user", " Hi. ")
    talk.at(9).end()

    assert talk.completed[0].message == {"role": "user", "text": "Hi.", "start_ms": 1234, "end_ms": 2000}

import pytest

from pi_voice.domain.duties import BACKOFF, Duties, Duty


def test_the_earliest_duty_is_due_first() -> None:
    duties = Duties().plus(close_room=300, extract=200)

    assert duties.due_at == 200
    assert (duties.due(199), duties.due(200), duties.due(300)) == ([], ["extract"], ["close_room", "extract"])


def test_without_duties_nothing_is_due() -> None:
    assert (Duties().due_at, Duties().due(10**10)) == (None, [])


def test_a_claim_counts_a_try_and_moves_the_duty_forward() -> None:
    claimed = Duties().plus(close_room=100, extract=90).claimed("close_room", now=110)

    assert claimed.get("close_room") == Duty(due_at=170, tries=1)
    assert claimed.get("extract") == Duty(due_at=90)


def test_pauses_double_up_to_an_hour() -> None:
    duties, pauses = Duties().plus(close_room=0), []
    for _ in range(8):
        duties = duties.claimed("close_room", now=0)
        pauses.append(duties.due_at)

    assert pauses == [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]


TRIES = {"end_call": 30, "hang_up": 30, "close_room": 30, "extract": 10, "delete_again": 30, "send_events": 30}


def test_every_duty_has_a_maximum_number_of_tries() -> None:
    assert {name: backoff.max_tries for name, backoff in BACKOFF.items()} == TRIES


@pytest.mark.parametrize(("name", "tries"), TRIES.items())
def test_a_duty_is_exhausted_after_its_last_try_and_not_before(name: str, tries: int) -> None:
    duties = Duties().plus(**{name: 0})
    for _ in range(tries):
        assert not duties.is_exhausted(name)
        duties = duties.claimed(name, now=0)

    assert duties.is_exhausted(name)


def test_a_new_duty_has_its_tries_before_it_and_a_moved_one_keeps_its_count() -> None:
    tried = Duties().plus(extract=0).claimed("extract", now=0)

    assert tried.moved("extract", 50).get("extract") == Duty(50, tries=1)
    assert tried.plus(extract=50).get("extract") == Duty(50)
    assert Duties().moved("extract", 50).get("extract") == Duty(50)


def test_a_duty_of_a_newer_version_is_kept_and_never_exhausted() -> None:
    duties = Duties({"send_fax": Duty(10, tries=1_000)}).plus(extract=20).without("extract", "hang_up")

    assert duties.due(10) == ["send_fax"]
    assert not duties.is_exhausted("send_fax")

"""LiveKit events merged into session rows."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pi_voice.domain.ids import SessionId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent
from pi_voice.domain.sessions import LiveKitRoom, Recording, ReopenedRoom, Session, Tombstone
from tests.integration.samples import NOW, UNPROVISIONED, a_call_end, a_session, added, deleted, found
from tests.integration.store import Store, sent_twice

run = asyncio.run

OURS = "RM_ours"
METADATA: dict[str, Any] = {"a": 1, "b": [0.5, None, "é 🏠"], "c": {"": 2**70}}


def merged_room(store: Store, session: Session, *events: RoomEvent) -> LiveKitRoom:
    """Merge events into a session and return the state of its room."""
    for event in events:
        merged = run(store.sessions.merge_room_event(event._replace(session_id=session.session_id)))
        assert merged == run(store.sessions.get(session.session_id))
    there = found(store, session)
    assert replace(there, livekit=session.livekit) == session
    return there.livekit


def event(sid: str = OURS, **facts: Any) -> RoomEvent:
    return RoomEvent(SessionId(""), sid, **facts)


# ---- The first room ---------------------------------------------------------------------------------


def test_a_finished_room_has_its_end_and_its_metadata(store: Store) -> None:
    session = added(store)

    facts = merged_room(store, session, event(finished_at=NOW + 90, metadata=METADATA))

    assert facts == session.livekit.model_copy(update={"finished_at": NOW + 90, "metadata": METADATA})


def test_the_start_from_livekits_response_is_not_overwritten(store: Store) -> None:
    session = added(store)

    assert merged_room(store, session, event(started_at=NOW + 77)) == session.livekit


def test_the_earliest_join_counts_in_any_order(store: Store) -> None:
    session = added(store)

    joins = [event(joined_at=NOW + second) for second in (20, 10, 30, 10)]

    assert merged_room(store, session, *joins).first_joined_at == NOW + 10


def test_the_first_end_is_not_overwritten(store: Store) -> None:
    session = added(store)
    first = event(finished_at=NOW + 90, metadata={"first": True})

    facts = merged_room(store, session, first, event(finished_at=NOW + 91, metadata={"first": False}))

    assert (facts.finished_at, facts.metadata) == (NOW + 90, {"first": True})


def test_the_first_values_of_another_room_stay_except_for_an_earlier_join(store: Store) -> None:
    session = added(store)

    facts = merged_room(
        store,
        session,
        event("RM_2", started_at=NOW, finished_at=NOW + 30, joined_at=NOW + 5, metadata={"first": True}),
        event("RM_2", started_at=NOW + 1, finished_at=NOW + 31, joined_at=NOW + 6, metadata={"first": False}),
        event("RM_2", joined_at=NOW + 4),
    )

    assert facts.other_rooms == [
        ReopenedRoom(
            room_sid="RM_2",
            started_at=NOW,
            first_joined_at=NOW + 4,
            finished_at=NOW + 30,
            metadata={"first": True},
        )
    ]


def test_an_event_whose_first_response_was_lost_is_merged_once(store: Store) -> None:
    session = added(store)
    twice = store.through(update_item=sent_twice)

    facts = merged_room(
        twice, session, event(joined_at=NOW + 5), event(finished_at=NOW + 9), event("RM_2", joined_at=NOW)
    )

    assert (facts.first_joined_at, facts.finished_at) == (NOW + 5, NOW + 9)
    assert facts.other_rooms == [ReopenedRoom(room_sid="RM_2", first_joined_at=NOW)]


def test_a_repeated_event_returns_the_session(store: Store) -> None:
    session = added(store)
    join, elsewhere = event(joined_at=NOW + 5), event("RM_2", joined_at=NOW + 50)

    facts = merged_room(store, session, join, join, elsewhere, elsewhere)

    assert facts.first_joined_at == NOW + 5


def test_events_of_an_ended_session_are_merged(store: Store) -> None:
    session = added(store)
    done = run(store.sessions.complete(session, a_call_end()))
    assert done is not None

    assert merged_room(store, done, event(finished_at=NOW + 500)).finished_at == NOW + 500


def test_a_finished_room_completes_no_session(store: Store) -> None:
    session = added(store)

    merged_room(store, session, event(finished_at=NOW + 90))

    assert found(store, session).status == "active"


# ---- Unknown sessions -------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [{"started_at": NOW}, {"joined_at": NOW}, {"finished_at": NOW, "metadata": METADATA}])
def test_events_of_unknown_rooms_create_no_row(store: Store, facts: dict[str, Any]) -> None:
    assert not run(store.sessions.merge_room_event(RoomEvent(SessionId(uuid7()), OURS, **facts)))
    assert store.rows(store.names.sessions) == []


@pytest.mark.parametrize("sid", [OURS, "RM_another"])
def test_an_event_after_the_deletion_does_not_restore_the_session(store: Store, sid: str) -> None:
    session = added(store, status="failed")
    tombstone = deleted(store, session)
    row = store.row_of(session)

    assert run(store.sessions.merge_room_event(RoomEvent(session.session_id, sid, finished_at=NOW))) == tombstone
    assert store.row_of(session) == row


def test_a_deletion_while_another_room_is_merged_is_final(store: Store) -> None:
    session = added(store, status="failed")

    def deleting(update: Any) -> Any:
        def ask(**arguments: Any) -> Any:
            try:
                return update(**arguments)
            finally:
                deleted(store, session)

        return ask

    merging = store.through(update_item=deleting).sessions.merge_room_event(
        RoomEvent(session.session_id, "RM_2", joined_at=NOW)
    )

    assert isinstance(run(merging), Tombstone)
    assert "livekit" not in store.row_of(session)


def test_an_event_for_a_session_without_a_room_is_ignored(store: Store) -> None:
    session = a_session().failed(UNPROVISIONED, "failed", NOW)
    session = replace(session, livekit=LiveKitRoom(room_name=session.session_id))
    run(store.sessions.add(session))

    assert not run(store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_any", finished_at=NOW)))
    assert run(store.sessions.get(session.session_id)) == session


# ---- Other rooms of the same name -------------------------------------------------------------------


def test_a_later_room_of_the_same_name_is_stored_separately(store: Store) -> None:
    session = added(store)
    ours = merged_room(store, session, event(joined_at=NOW + 2), event(finished_at=NOW + 9, metadata=METADATA))

    facts = merged_room(
        store,
        session,
        event("RM_2", started_at=NOW + 20),
        event("RM_2", joined_at=NOW + 21),
        event("RM_2", finished_at=NOW + 30, metadata={}),
        event("RM_3", joined_at=NOW + 41),
    )

    assert facts.model_copy(update={"other_rooms": []}) == ours
    assert sorted(facts.other_rooms, key=lambda room: room.room_sid) == [
        ReopenedRoom(
            room_sid="RM_2",
            started_at=NOW + 20,
            first_joined_at=NOW + 21,
            finished_at=NOW + 30,
            metadata={},
        ),
        ReopenedRoom(room_sid="RM_3", first_joined_at=NOW + 41),
    ]


@pytest.mark.parametrize("sid", ["RM.a", "RM a", "#sid", ":x", "réseau", "x" * 200, "other_rooms"])
def test_any_room_sid_can_be_stored(store: Store, sid: str) -> None:
    session = added(store)

    assert merged_room(store, session, event(sid, joined_at=NOW)).other_rooms == [
        ReopenedRoom(room_sid=sid, first_joined_at=NOW)
    ]


def test_at_most_five_other_rooms_are_stored_and_these_are_still_updated(store: Store) -> None:
    session = added(store)
    five = [event(f"RM_{number}", started_at=NOW + number) for number in range(5)]
    before = merged_room(store, session, *five)
    assert len(before.other_rooms) == 5

    sixth = run(store.sessions.merge_room_event(RoomEvent(session.session_id, "RM_5", started_at=NOW)))
    assert isinstance(sixth, Session)
    assert sixth.livekit == before
    facts = merged_room(store, session, event("RM_4", finished_at=NOW + 99), event(finished_at=NOW + 99))

    assert [room.room_sid for room in facts.other_rooms] == [room.room_sid for room in before.other_rooms]
    assert facts.other_rooms[-1].finished_at == NOW + 99
    assert facts.finished_at == NOW + 99


def test_concurrent_events_of_other_rooms_are_all_merged(store: Store) -> None:
    session = added(store)
    events_of_each = (event(started_at=NOW), event(joined_at=NOW + 1), event(finished_at=NOW + 2))
    events = [
        one._replace(session_id=session.session_id, room_sid=f"RM_{number}")
        for number in range(2)
        for one in events_of_each
    ]

    async def race() -> list[Session | Tombstone | None]:
        return await asyncio.gather(*map(store.sessions.merge_room_event, events))

    assert all(run(race()))
    assert merged_room(store, session).other_rooms == [
        ReopenedRoom(room_sid=f"RM_{number}", started_at=NOW, first_joined_at=NOW + 1, finished_at=NOW + 2)
        for number in range(2)
    ]


# ---- Recordings ------------------------------------------------------------------------------------


def recorded(*files: str, location: str | None = "s3://bucket") -> RoomEvent:
    recordings = tuple(Recording(file=file, location=location, duration_seconds=61.25) for file in files)
    return RoomEvent(SessionId(""), recordings=recordings)


def merged_files(store: Store, session: Session, *events: RoomEvent) -> list[str]:
    """Merge recordings into a session, and return the files that it has."""
    for each in events:
        merged = run(store.sessions.merge_room_event(each._replace(session_id=session.session_id)))
        assert merged == run(store.sessions.get(session.session_id))
    return [recording.file for recording in found(store, session).recordings]


def test_recordings_are_stored_in_the_order_of_their_events_each_file_once(store: Store) -> None:
    session = added(store)

    events = recorded("b", "a"), recorded("a"), recorded("c", "b")

    assert merged_files(store, session, *events, *events) == ["b", "a", "c"]
    assert found(store, session).recordings[0] == recorded("b").recordings[0]


def test_the_recordings_of_an_ended_session_are_merged_and_change_nothing_else(store: Store) -> None:
    done = run(store.sessions.complete(added(store), a_call_end()))
    assert done is not None

    assert merged_files(store, done, recorded("a")) == ["a"]
    assert found(store, done) == replace(done, recordings=recorded("a").recordings)


def test_a_recording_without_a_place_or_a_duration_is_stored(store: Store) -> None:
    session = added(store)
    bare = RoomEvent(session.session_id, recordings=(Recording(file="a"),))

    assert merged_files(store, session, bare) == ["a"]
    assert found(store, session).recordings == bare.recordings


def test_at_most_twenty_recordings_are_stored(store: Store) -> None:
    session = added(store)
    names = [f"{number}.ogg" for number in range(25)]

    assert merged_files(store, session, recorded(*names[:19]), recorded(*names[19:]), recorded("late")) == names[:20]


def test_a_recording_whose_first_response_was_lost_is_merged_once(store: Store) -> None:
    session = added(store)

    assert merged_files(store.through(update_item=sent_twice), session, recorded("a"), recorded("b")) == ["a", "b"]


def test_concurrent_recordings_are_all_merged(store: Store) -> None:
    session = added(store)
    events = [recorded(name)._replace(session_id=session.session_id) for name in "abcd"]

    async def race() -> list[Session | Tombstone | None]:
        return await asyncio.gather(*map(store.sessions.merge_room_event, events))

    assert all(run(race()))
    assert sorted(merged_files(store, session)) == ["a", "b", "c", "d"]


def test_a_recording_of_an_unknown_session_creates_no_row(store: Store) -> None:
    assert not run(store.sessions.merge_room_event(recorded("a")._replace(session_id=SessionId(uuid7()))))
    assert store.rows(store.names.sessions) == []


def test_a_recording_after_the_deletion_does_not_restore_the_session(store: Store) -> None:
    session = added(store, status="failed")
    tombstone = deleted(store, session)
    row = store.row_of(session)

    event = recorded("a")._replace(session_id=session.session_id)

    assert run(store.sessions.merge_room_event(event)) == tombstone
    assert store.row_of(session) == row


def test_a_recording_of_a_session_without_a_room_is_ignored(store: Store) -> None:
    session = replace(a_session(), livekit=LiveKitRoom(room_name="x"))
    run(store.sessions.add(session))

    assert not run(store.sessions.merge_room_event(recorded("a")._replace(session_id=session.session_id)))


# ---- Order of events --------------------------------------------------------------------------------


@st.composite
def events_in_two_orders(draw: st.DrawFn) -> tuple[list[RoomEvent], list[RoomEvent]]:
    """Draw events of the rooms of one name, and the same events in another order with repeats."""
    instants = st.integers(NOW, NOW + 60)
    events = []
    for sid in draw(st.lists(st.sampled_from([OURS, "RM_2", "RM_3", "RM_4"]), unique=True, min_size=1)):
        events += [event(sid, started_at=at) for at in draw(st.lists(instants, max_size=1))]
        events += [event(sid, joined_at=at) for at in draw(st.lists(instants, max_size=3))]
        events += [
            event(sid, finished_at=at, metadata=draw(st.none() | st.just(METADATA)))
            for at in draw(st.lists(instants, max_size=1))
        ]
    repeats = draw(st.lists(st.sampled_from(events), max_size=4)) if events else []
    return events, draw(st.permutations([*events, *repeats]))


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events_in_two_orders())
def test_events_in_any_order_and_with_repeats_give_the_same_result(
    store: Store, orders: tuple[list[RoomEvent], list[RoomEvent]]
) -> None:
    once, shuffled = (
        merged_room(store, session, *events) for session, events in ((added(store), order) for order in orders)
    )

    assert once.model_copy(update={"room_name": ""}) == shuffled.model_copy(update={"room_name": ""})

"""The largest rows fit DynamoDB, whose limit for an item is 400 KB with the names of its attributes."""

import asyncio
import json
from typing import Any, Final

import pytest
from pydantic import JsonValue

from pi_voice.domain import row_limits
from pi_voice.domain.agents import MAX_AGENT_BYTES, Agent
from pi_voice.domain.errors import ErrorDetail
from pi_voice.domain.extractions import ErrorInfo, Evidence, Extraction, ExtractionRun
from pi_voice.domain.ids import AgentId, WorkspaceId, uuid7
from pi_voice.domain.livekit_webhooks import RoomEvent, WebhookEvent
from pi_voice.domain.sessions import MAX_CREATED_BYTES, Participant, Recording
from pi_voice.domain.usage import MAX_TOKENS, TokenUsage
from pi_voice.domain.variables import Variable
from pi_voice.domain.webhook_events import MAX_OWED_EVENTS
from tests.integration.samples import NOW, a_call_end, a_session, added, found
from tests.integration.store import Store

MAX_ITEM_BYTES: Final = 400 * 1024
LONGEST: Final = "\x01"
"""A character that takes six bytes as JSON; one of four bytes takes more where rows have plain text."""

Json = dict[str, JsonValue]

run = asyncio.run


def bytes_of(attribute: dict[str, Any]) -> int:
    """Return the size of an attribute value, by AWS's rules; of a number at its longest."""
    [(kind, value)] = attribute.items()
    match kind:
        case "S":
            return len(value.encode())
        case "M":
            return 3 + sum(len(name.encode()) + 1 + bytes_of(inner) for name, inner in value.items())
        case "L":
            return 3 + sum(1 + bytes_of(inner) for inner in value)
        case _:
            return 21


def item_bytes(item: dict[str, Any]) -> int:
    return sum(len(name) + bytes_of(attribute) for name, attribute in item.items())


def room_event(session_id: str, sid: str, metadata: str) -> RoomEvent:
    room = {"sid": sid, "name": session_id, "metadata": metadata}
    sent = {"event": "room_finished", "createdAt": str(NOW), "room": room}
    event = RoomEvent.of(WebhookEvent.model_validate_json(json.dumps(sent)), NOW)
    assert event is not None
    return event


def test_the_largest_session_fits_its_row(store: Store) -> None:
    pairs = {f"{number:02}" + "\U0001f642" * 38: "\U0001f642" * 500 for number in range(16)}
    variables: Json = {"guest": "v" * 1_000}
    given = a_session(metadata=pairs, client_metadata=pairs, variables=variables, overrides={"greeting": ""})
    session = added(
        store,
        participant=Participant(identity="\U0001f642" * 128, name="\U0001f642" * 128),
        metadata=pairs,
        client_metadata=pairs,
        variables=variables,
        overrides={"greeting": "g" * (MAX_CREATED_BYTES - given.created_bytes)},
    )
    assert session.created_bytes == MAX_CREATED_BYTES
    for number in range(12):
        event = room_event(session.session_id, session.livekit.room_sid or "" if not number else f"RM_{number}", "")
        run(store.sessions.merge_room_event(event._replace(metadata=row_limits.fitting_room_text(LONGEST * 4_096))))
    name = "f" * (row_limits.MAX_RECORDINGS_BYTES // row_limits.MAX_RECORDINGS - 60)
    files = tuple(Recording(file=f"{number:02}{name}", location="") for number in range(25))
    run(store.sessions.merge_room_event(RoomEvent(session.session_id, recordings=files)))
    tokens = dict.fromkeys(("text", "audio", "image", "video", "document", "other"), MAX_TOKENS)
    usage = TokenUsage(tokens, tokens, tokens, tokens, MAX_TOKENS, NOW)
    assert run(store.sessions.report_usage(session, usage)) == usage
    completed = run(store.sessions.complete(session, a_call_end()))
    assert completed is not None
    for number in range(MAX_OWED_EVENTS - 1):
        failed = Extraction(status="failed", extracted_at=NOW + number)
        completed = run(store.sessions.save_extraction(completed, None, failed, lambda duties: duties))
    results: Json = {"k": "x" * (row_limits.MAX_RESULT_BYTES - len('{"k":""}'))}
    quotes = {f"k.{number}": Evidence(status="found", turn=1, role="agent", quote="q" * 450) for number in range(90)}
    assert row_limits.results_error(results, quotes) is None
    error = ErrorInfo(code="schema_violation", message="m", details=[ErrorDetail("p" * 300, LONGEST * 300)] * 4)
    earlier: list[Json] = [{"k": "y" * 14_000} for _ in range(10)]
    runs = [
        ExtractionRun(at=NOW, status="succeeded", agent_version=1, model="m", results=each, error=error)
        for each in earlier
    ]
    extraction = Extraction(status="succeeded", fields=quotes, error=None, runs=row_limits.fitting_runs(runs))
    assert row_limits.size_of([run.model_dump() for run in extraction.runs]) > 0.8 * row_limits.MAX_RUN_BYTES

    run(store.sessions.save_extraction(completed, results, extraction, lambda duties: duties))

    assert found(store, session).results == results
    assert len(found(store, session).owed_events) == MAX_OWED_EVENTS
    assert len(found(store, session).livekit.other_rooms) == 5
    assert len(found(store, session).recordings) == row_limits.MAX_RECORDINGS
    assert 0.8 * MAX_ITEM_BYTES < item_bytes(store.row_of(session)) < MAX_ITEM_BYTES


def test_the_largest_agent_fits_its_rows(store: Store) -> None:
    schema: Json = {"k": LONGEST * ((32_768 - len('{"k":""}')) // 6)}
    variables = {"v": Variable(type="string", default="v")}
    agent = Agent(
        agent_id=AgentId(uuid7()),
        version=1,
        created_at=NOW,
        updated_at=NOW,
        name="n" + LONGEST * 119,
        instructions="i" + LONGEST * 19_999,
        purpose=LONGEST * 200,
        questions=("q" + LONGEST * 499,) * 50,
        behaviors={"greeting": LONGEST * 1_000, "closing_message": LONGEST * 1_000},  # type: ignore[arg-type]
        output_schema=schema,
        output_schema_strict=schema,
        metadata={f"{number:02}" + LONGEST * 38: LONGEST * 500 for number in range(16)},
        variables=variables,
    )
    left = MAX_AGENT_BYTES - len(agent.model_dump_json())
    assert left > 0, "an agent without variables is refused"
    default = Variable.model_construct(type="string", default="v" * (left + 1))
    agent = agent.model_copy(update={"variables": {"v": default}})
    assert len(agent.model_dump_json()) == MAX_AGENT_BYTES

    assert run(store.agents.save(WorkspaceId("w" * 64), agent, "0" * 64))

    row = max(store.rows(store.names.agents), key=item_bytes)
    assert 0.98 * MAX_ITEM_BYTES < item_bytes(row) < MAX_ITEM_BYTES


def test_metadata_that_grows_when_it_is_written_again_or_is_too_deep_is_kept_as_text() -> None:
    small = '{"k":[' + ",".join(["1e15"] * 100) + "]}"
    grows = '{"k":[' + ",".join(["1e15"] * 800) + "]}"
    deep = '{"k":' + "[" * 32 + "]" * 32 + "}"

    assert isinstance(room_event("s", "r", small).metadata, dict)
    assert [room_event("s", "r", text).metadata for text in (grows, deep)] == [grows, deep]


@pytest.mark.parametrize(("text", "length"), [("x" * 5_000, 4_096), ('"' * 5_000, 4_096), (LONGEST * 5_000, 1_365)])
def test_text_of_a_room_is_clipped_to_4_kb_and_to_8_kb_in_the_row(text: str, length: int) -> None:
    fitting = row_limits.fitting_room_text(text)

    assert fitting == text[: len(fitting)]
    assert length - 1 <= len(fitting) <= length
    assert row_limits.size_of(fitting) <= 8_194

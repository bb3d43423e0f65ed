"""Provider faults: with every fault, every route answers in time with a code of the contract, and nothing is lost.

Every route is tested with every fault of each of its services. Many cases wait for the product's real time limits, so
they run concurrently, each route and service in its own lane. In time means within the function's own limit: a worker
that takes longer is killed, and its caller gets no error of ours.
"""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest
from livekit import api

from tests.durability.faulty_path import (
    SECRET,
    Fault,
    blocked,
    busy,
    changes_something,
    dynamodb_error,
    failing,
    garbage,
    google_error,
    hang,
    partial_pages,
    refuse,
    reset_half_way,
    slow_by_byte,
    truncated,
)
from tests.durability.world import BASE, Caller, Lane, World
from tests.local.conftest import Answer

pytestmark = pytest.mark.durability

REFERENCE: Final = Path(__file__).parents[2] / "docs" / "openapi.json"
ALL: Final = [{"role": "user", "text": "A table for two."}, {"role": "agent", "text": "At seven."}]
SIDE_BY_SIDE: Final = 8

STATUS: Final = {
    "livekit_error": 502,
    "gemini_error": 502,
    "livekit_unavailable": 503,
    "gemini_unavailable": 503,
    "upstream_timeout": 504,
    "internal_error": 500,
}


# ---- Routes ----


@dataclass
class Scene:
    """A caller and the objects of the request."""

    world: World
    calm: Caller
    """The caller of functions without faults."""
    troubled: Caller
    agent_id: str = ""
    session_id: str = ""

    @property
    def session(self) -> str:
        return f"/sessions/{self.session_id}"

    @property
    def agent(self) -> str:
        return f"/agents/{self.agent_id}"


def nothing(_: Scene) -> None:
    pass


def made(answer: Answer) -> Any:
    """Return the objects to create before the fault."""
    assert answer.status == 201, answer.body
    return answer.json["data"]


def with_agent(scene: Scene) -> None:
    spec = {"name": "Ana", "instructions": "Take the order.", "output_schema": {"mood": "string"}}
    scene.agent_id = made(scene.calm.post("/agents", spec))["agent_id"]


def with_two_versions(scene: Scene) -> None:
    with_agent(scene)
    assert scene.calm.call("PATCH", scene.agent, {"name": "Eva"}).status == 200


def with_session(scene: Scene) -> None:
    with_agent(scene)
    order = {"agent_id": scene.agent_id, "participant": {"identity": "caller"}}
    scene.session_id = made(scene.calm.post("/sessions", order))["session_id"]


def with_two_agents(scene: Scene) -> None:
    with_agent(scene)
    with_agent(scene)


def with_two_sessions(scene: Scene) -> None:
    with_session(scene)
    with_session(scene)


def with_kept_turns(scene: Scene) -> None:
    with_session(scene)
    for number, turn in enumerate(ALL):
        assert scene.calm.post(f"{scene.session}/transcript", {"from": number, "turns": [turn]}).status == 200


def completed(scene: Scene) -> None:
    with_session(scene)
    assert scene.calm.post(f"{scene.session}/complete", {"transcript": ALL}).status == 200


def stopped(scene: Scene) -> None:
    """Stop a call, and open its room again, as a client can do that still has a token."""
    with_session(scene)
    assert scene.calm.post(f"{scene.session}/stop", {}).status == 200
    scene.world.open_room(scene.session_id)


def start_session(scene: Scene) -> Answer:
    return scene.troubled.post("/sessions", {"agent_id": scene.agent_id, "participant": {"identity": "caller"}})


def tell_of_a_join(scene: Scene) -> Answer:
    """Send LiveKit's webhook of a join to a stopped call, whose room has to be closed again."""
    room = {"sid": scene.world.rooms()[scene.session_id].sid, "name": scene.session_id}
    event = {"event": "participant_joined", "id": "EV_1", "createdAt": str(int(time.time())), "room": room}
    body = json.dumps(event).encode()
    keys = scene.world.livekit
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    signature = api.AccessToken(keys.api_key, keys.api_secret).with_sha256(digest).with_ttl(timedelta(minutes=5))
    headers = [("Authorization", signature.to_jwt()), ("Content-Type", "application/webhook+json")]
    return scene.troubled.site.call("POST", f"{BASE}/webhooks/livekit", body, headers)


# ---- Checks afterwards ----


def unchanged(_: Scene, __: Answer) -> None:
    """Check nothing: the route only reads."""


def agents_are_whole(scene: Scene, answer: Answer) -> None:
    """Check that every listed agent can be read, in the version of its head."""
    agents = pages(scene, "/agents")
    for agent in agents:
        assert scene.calm.get(f"/agents/{agent['agent_id']}") == agent
    if answer.status == 201:
        saved = answer.json["data"]
        assert saved in [{**agent, "warnings": []} for agent in agents]


def all_versions_are_listed(scene: Scene, answer: Answer) -> None:
    if answer.status == 200:
        shown = answer.json
        versions = f"{scene.agent}/versions"
        rest = pages(scene, versions, shown["next_cursor"]) if shown["next_cursor"] else []
        assert [version["name"] for version in (*shown["data"], *rest)] == ["Eva", "Ana"]


def versions_are_whole(scene: Scene, answer: Answer) -> None:
    """Check that a restore made one version, or none if it failed, and that the agent is its last version."""
    versions = pages(scene, f"{scene.agent}/versions")
    assert versions[0] == scene.calm.get(scene.agent)
    names = [version["name"] for version in versions]
    assert names == ["Ana", "Eva", "Ana"] or (answer.status != 200 and names == ["Eva", "Ana"])


def all_agents_are_listed(scene: Scene, answer: Answer) -> None:
    if answer.status == 200:
        shown = answer.json
        rest = pages(scene, "/agents", shown["next_cursor"]) if shown["next_cursor"] else []
        assert len(shown["data"]) + len(rest) == 2


def all_sessions_are_listed(_: Scene, answer: Answer) -> None:
    if answer.status == 200:
        assert len(answer.json["data"]) == 2


def pages(scene: Scene, path: str, cursor: str | None = None) -> list[Any]:
    answer = scene.calm.call("GET", path + (f"?cursor={cursor}" if cursor else "")).json
    assert answer["next_cursor"] is None
    return list(answer["data"])


def no_session_is_half_made(scene: Scene, answer: Answer) -> None:
    """Check that a failed create leaves no session or a failed one, or, after a DynamoDB fault, an active one."""
    sessions = pages(scene, "/sessions")
    assert len(sessions) <= 1
    for session in sessions:
        if session["status"] == "failed":
            assert session["failure"]["code"] == answer.json["error"]["code"]
        else:
            assert answer.status == 201 or answer.json["error"]["code"] == "internal_error"
            scene.session_id = session["session_id"]
            call_is_completable(scene, answer)
    assert all(room.empty_timeout > 0 for room in scene.world.rooms().values())


def call_is_completable(scene: Scene, _: Answer) -> None:
    """Check that an active session can be completed with all turns, or that a completed one has them."""
    state = scene.calm.get(scene.session)
    if state["status"] == "active":
        scene.calm.post(f"{scene.session}/complete", {"transcript": ALL})
        state = scene.calm.get(scene.session)
    assert (state["status"], state["transcript"]) == ("completed", ALL)
    assert SECRET not in json.dumps(state)


def results_stay(scene: Scene, _: Answer) -> None:
    """Check that a rerun of the extraction removes no results."""
    state = scene.calm.get(scene.session)
    assert (state["status"], state["transcript"], state["extraction"]["status"]) == ("completed", ALL, "succeeded")
    assert SECRET not in json.dumps(state)


def turns_are_kept_or_not(scene: Scene, answer: Answer) -> None:
    """Check that acknowledged turns are saved, and others completely or not at all."""
    scene.calm.post(f"{scene.session}/complete", {})
    kept = scene.calm.get(scene.session)["transcript"]
    assert kept == ALL or (answer.status != 200 and kept == [])


def is_deleted_or_whole(scene: Scene, answer: Answer) -> None:
    """Check that a session that was not deleted can be deleted, with any rest of its transcript."""
    assert scene.calm.call("DELETE", scene.session).status == (404 if answer.status == 204 else 204) or (
        scene.calm.call("GET", scene.session).status == 404
    )


@dataclass(frozen=True)
class Route:
    """A route: its preparation, its call, and the check afterwards."""

    method: str
    path: str
    prepare: Callable[[Scene], None]
    call: Callable[[Scene], Answer]
    holds: Callable[[Scene, Answer], None]
    uses: tuple[str, ...] = ("DynamoDB",)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


WRITES: Final = ("DynamoDB", "DynamoDB writes")
COUNTED: Final = "DynamoDB UpdateItem idempotency"
"""The request that counts for the rate limit; no case sends an Idempotency-Key."""

ROUTES: Final = (
    Route("GET", "/voices", nothing, lambda scene: scene.troubled.call("GET", "/voices"), unchanged),
    Route(
        "POST",
        "/agents",
        nothing,
        lambda scene: scene.troubled.post("/agents", {"name": "Ana", "instructions": "Listen."}),
        agents_are_whole,
        WRITES,
    ),
    Route(
        "GET", "/agents", with_two_agents, lambda scene: scene.troubled.call("GET", "/agents"), all_agents_are_listed
    ),
    Route("GET", "/agents/{agent_id}", with_agent, lambda scene: scene.troubled.call("GET", scene.agent), unchanged),
    Route(
        "PATCH",
        "/agents/{agent_id}",
        with_agent,
        lambda scene: scene.troubled.call("PATCH", scene.agent, {"name": "Eva"}),
        agents_are_whole,
        WRITES,
    ),
    Route(
        "GET",
        "/agents/{agent_id}/versions",
        with_two_versions,
        lambda scene: scene.troubled.call("GET", f"{scene.agent}/versions"),
        all_versions_are_listed,
    ),
    Route(
        "GET",
        "/agents/{agent_id}/versions/{version}",
        with_two_versions,
        lambda scene: scene.troubled.call("GET", f"{scene.agent}/versions/1"),
        unchanged,
    ),
    Route(
        "POST",
        "/agents/{agent_id}/versions/{version}/restore",
        with_two_versions,
        lambda scene: scene.troubled.post(f"{scene.agent}/versions/1/restore", {}),
        versions_are_whole,
        WRITES,
    ),
    Route(
        "DELETE",
        "/agents/{agent_id}",
        with_agent,
        lambda scene: scene.troubled.call("DELETE", scene.agent),
        agents_are_whole,
        WRITES,
    ),
    Route(
        "POST",
        "/sessions",
        with_agent,
        start_session,
        no_session_is_half_made,
        ("LiveKit", "Gemini", *WRITES, COUNTED),
    ),
    Route(
        "GET",
        "/sessions",
        with_two_sessions,
        lambda scene: scene.troubled.call("GET", "/sessions"),
        all_sessions_are_listed,
    ),
    Route(
        "GET", "/sessions/{session_id}", completed, lambda scene: scene.troubled.call("GET", scene.session), unchanged
    ),
    Route(
        "DELETE",
        "/sessions/{session_id}",
        completed,
        lambda scene: scene.troubled.call("DELETE", scene.session),
        is_deleted_or_whole,
        WRITES,
    ),
    Route(
        "POST",
        "/sessions/{session_id}/participants",
        with_session,
        lambda scene: scene.troubled.post(f"{scene.session}/participants", {"identity": "second"}),
        call_is_completable,
    ),
    Route(
        "POST",
        "/sessions/{session_id}/transcript",
        with_session,
        lambda scene: scene.troubled.post(f"{scene.session}/transcript", {"from": 0, "turns": ALL}),
        turns_are_kept_or_not,
        WRITES,
    ),
    Route(
        "POST",
        "/sessions/{session_id}/complete",
        with_kept_turns,
        lambda scene: scene.troubled.post(f"{scene.session}/complete", {}),
        call_is_completable,
        ("LiveKit", "Gemini", *WRITES, COUNTED),
    ),
    Route(
        "POST",
        "/sessions/{session_id}/renew",
        with_kept_turns,
        lambda scene: scene.troubled.post(f"{scene.session}/renew", {}),
        call_is_completable,
        ("LiveKit", "Gemini", *WRITES),
    ),
    Route(
        "POST",
        "/sessions/{session_id}/stop",
        with_session,
        lambda scene: scene.troubled.post(f"{scene.session}/stop", {}),
        call_is_completable,
        ("LiveKit", *WRITES),
    ),
    Route(
        "POST",
        "/sessions/{session_id}/extract",
        completed,
        lambda scene: scene.troubled.post(f"{scene.session}/extract", {}),
        results_stay,
        ("Gemini", *WRITES, COUNTED),
    ),
    Route(
        "POST",
        "/extractions/preview",
        with_agent,
        lambda scene: scene.troubled.post(
            "/extractions/preview", {"transcript": ALL, "output_schema": {"a": "string"}}
        ),
        unchanged,
        ("Gemini", "DynamoDB", COUNTED),
    ),
    Route("POST", "/webhooks/livekit", stopped, tell_of_a_join, call_is_completable, ("LiveKit", "DynamoDB writes")),
)


# ---- Faults ----

OK: Final = "ok"


@dataclass(frozen=True)
class Trouble:
    """A fault: its action, and the error code for the caller."""

    name: str
    fault: Fault
    code: str
    only: int | None = None
    takes_long: bool = field(default=False, compare=False)


def provider(name: str) -> tuple[Trouble, ...]:
    """Return the faults of both LiveKit and Gemini."""
    error, unavailable = f"{name}_error", f"{name}_unavailable"
    return (
        Trouble("refuses", refuse, unavailable),
        Trouble("hangs", hang, "upstream_timeout", takes_long=True),
        Trouble("resets half-way", reset_half_way, unavailable),
        Trouble("is slow by byte", slow_by_byte, "upstream_timeout", takes_long=True),
        Trouble("429 with a delay", busy(seconds=1), unavailable),
        Trouble("500", failing(500), unavailable),
        Trouble("503", failing(503), unavailable),
        Trouble("garbage", garbage, error),
        Trouble("truncated", truncated, error),
    )


INTERNAL: Final = "internal_error"
TROUBLES: Final[Mapping[str, tuple[Trouble, ...]]] = {
    "LiveKit": provider("livekit"),
    "Gemini": (
        *provider("gemini"),
        Trouble("blocks", blocked, "gemini_error"),
        Trouble("refuses the key", google_error(400, "INVALID_ARGUMENT", "API_KEY_INVALID"), "gemini_error"),
        Trouble("refuses the permission", google_error(403, "PERMISSION_DENIED"), "gemini_error"),
        Trouble("has no such model", google_error(404, "NOT_FOUND"), "gemini_error"),
        Trouble("refuses the request", google_error(400, "INVALID_ARGUMENT"), "gemini_error"),
    ),
    "DynamoDB": (
        Trouble("refuses", refuse, INTERNAL),
        Trouble("hangs", hang, INTERNAL, takes_long=True),
        Trouble("resets half-way", reset_half_way, INTERNAL),
        Trouble("is slow by byte", slow_by_byte, INTERNAL, takes_long=True),
        Trouble("throttles", dynamodb_error(400, "ThrottlingException"), INTERNAL),
        Trouble("is over its throughput", dynamodb_error(400, "ProvisionedThroughputExceededException"), INTERNAL),
        Trouble("500", dynamodb_error(500, "InternalServerError"), INTERNAL),
        Trouble("503", failing(503), INTERNAL),
        Trouble("garbage", garbage, INTERNAL),
        Trouble("truncated", truncated, INTERNAL),
        Trouble("partial pages", partial_pages, OK),
    ),
    "DynamoDB writes": (
        Trouble("hangs", hang, INTERNAL, takes_long=True),
        Trouble("500", dynamodb_error(500, "InternalServerError"), INTERNAL),
        Trouble("every answer lost", reset_half_way, INTERNAL),
        Trouble("first answer lost", reset_half_way, OK, only=1),
        Trouble("throttles once", dynamodb_error(400, "ThrottlingException"), OK, only=1),
    ),
    COUNTED: (
        Trouble("hangs", hang, INTERNAL, takes_long=True),
        Trouble("throttles", dynamodb_error(400, "ThrottlingException"), INTERNAL),
        Trouble("first answer lost", reset_half_way, OK, only=1),
    ),
}


@dataclass(frozen=True)
class Case:
    """A route and a fault of one of its services."""

    route: Route
    service: str
    trouble: Trouble

    def __str__(self) -> str:
        return f"{self.route}: {self.service} {self.trouble.name}"

    @property
    def code(self) -> str:
        """The error code for the caller."""
        path = self.route.path
        if path.endswith("/complete") and self.service == "LiveKit":
            return OK  # the sweeper closes the room
        if path.endswith("/complete") and self.service == COUNTED:
            return OK  # the transcript is not refused because it cannot be counted
        if self.extracts and self.service == "Gemini":
            return OK  # the transcript is safe, and `extraction` has the error
        if (
            self.service == "LiveKit"
            and self.trouble.name == "truncated"
            and path != "/sessions"
            and "renew" not in path
        ):
            return OK  # no fault: the response to DeleteRoom is empty
        return self.trouble.code

    @property
    def extracts(self) -> bool:
        """Whether the route uses the extraction model."""
        return self.route.path.endswith(("/complete", "/extract", "/preview"))

    @property
    def lane(self) -> tuple[str, str, str]:
        """The cases that run in sequence."""
        outlasts = self.trouble.takes_long and self.extracts and self.service == "Gemini"
        return str(self.route), self.service.partition(" ")[0], self.trouble.name if outlasts else ""

    def concerns(self, request: str) -> bool:
        """Return whether a request gets the fault."""
        if self.service == "DynamoDB writes":
            return request.startswith("DynamoDB") and changes_something(request) and request != COUNTED
        return request.startswith(self.service)


CASES: Final = [
    Case(route, service, trouble) for route in ROUTES for service in route.uses for trouble in TROUBLES[service]
]


# ---- Running them ----


def tried(world: World, calm: Lane, lane: Lane, case: Case) -> None:
    """Run one case, and check the response and the state afterwards."""
    scene, answer = world.unhurried(lambda: answered(world, calm, lane, case))
    case.route.holds(scene, answer)


def answered(world: World, calm: Lane, lane: Lane, case: Case) -> tuple[Scene, Answer]:
    """Apply the fault of a case, and return the expected response."""
    caller = world.caller(calm)
    scene = Scene(world, replace(caller, is_patient=True), lane.caller(caller))
    case.route.prepare(scene)
    with lane.paths.faulty(case.concerns, case.trouble.fault, case.trouble.only) as plan:
        answer = case.route.call(scene)
    assert plan.met, answer.body
    check_answer(case, answer)
    if case.extracts and case.service == "Gemini":
        document = answer.json if case.route.path.endswith("/complete") else answer.json["data"]
        check_extraction(case, document["extraction"])
    return scene, answer


def check_answer(case: Case, answer: Answer) -> None:
    assert SECRET.encode() not in answer.body
    reference = json.loads(REFERENCE.read_text())["paths"][BASE + case.route.path][case.route.method.lower()]
    assert str(answer.status) in reference["responses"], answer.body
    assert answer.header("x-request-id")
    if case.code == OK:
        assert answer.status in (200, 201, 204), answer.body
        return
    error = answer.json.get("error", {})
    assert (error.get("code"), answer.status) == (case.code, STATUS[case.code]), answer.body
    assert set(error) == {"code", "message", "request_id", "retryable"}
    assert error["retryable"] is (answer.status != 502)
    assert bool(answer.all("retry-after")) is (answer.status == 503)


FINAL: Final = {"blocks": "answer_blocked", "refuses the request": "gemini_error"}
BROKEN: Final = {"garbage": "answer_invalid", "truncated": "answer_invalid"}


def check_extraction(case: Case, extraction: Any) -> None:
    """Check that an extraction is retried later, except for a manual request, unless the request itself is refused."""
    is_final = case.trouble.name in FINAL or not case.route.path.endswith("/complete")
    assert extraction["status"] == ("failed" if is_final else "pending"), extraction
    assert extraction["error"]["code"] == {**FINAL, **BROKEN}.get(case.trouble.name, case.trouble.code)


Outcomes = dict[str, BaseException | None]


@pytest.fixture(scope="module")
def outcomes(world: World, request: pytest.FixtureRequest) -> Outcomes:
    """The outcome of each selected case; with xdist, files have to stay together (--dist loadfile)."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    cases: list[Any] = [item.callspec.params["case"] for item in items if "outcomes" in item.fixturenames]
    lanes: dict[tuple[str, str, str], list[Case]] = {}
    # After too many failures in one container botocore stops retrying, so the cases that need a retry come first.
    for case in sorted(cases, key=lambda case: case.trouble.code != OK):
        lanes.setdefault(case.lane, []).append(case)
    with world.lane() as calm, ThreadPoolExecutor(SIDE_BY_SIDE) as threads:

        def run(cases: list[Case]) -> Outcomes:
            with world.lane() as lane:
                route = cases[
                    0
                ].route  # a request without a key starts the worker, so that no case includes the cold start
                lane.site.call(route.method, BASE + route.path)
                return {str(case): _outcome(world, calm, lane, case) for case in cases}

        longest_first = sorted(lanes.values(), key=lambda cases: sum(case.trouble.takes_long for case in cases))
        done = threads.map(run, reversed(longest_first))
        return dict(chain.from_iterable(outcome.items() for outcome in done))


def _outcome(world: World, calm: Lane, lane: Lane, case: Case) -> BaseException | None:
    try:
        tried(world, calm, lane, case)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 (the case's own test raises it)
        return error
    return None


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_is_answered_in_time_with_a_code_of_the_contract_and_loses_nothing(
    case: Case, outcomes: Outcomes
) -> None:
    if error := outcomes[str(case)]:
        raise error

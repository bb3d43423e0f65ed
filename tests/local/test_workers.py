"""Workers run functions as Lambda does: one request at a time per process, which is replaced when it fails."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local import worker_process
from local.worker_process import HEADER
from local.workers import FunctionError, Workers
from tests.local.conftest import Background, Project
from tests.local.processes import children, is_reaped, is_running, until
from tests.support.patience import LONG

PROGRAM = Path(worker_process.__file__)
READY = HEADER.pack(b"R", 4) + b"null"
TAKES_TURNS = """
    import os, time

    def handler(event, context):
        began = time.monotonic()
        time.sleep(0.02)
        return {"pid": os.getpid(), "began": began, "ended": time.monotonic()}
"""
OBEDIENT = """
    import os, sys, time

    calls = 0

    def handler(event, context):
        global calls
        calls += 1
        exec(event.get("do", ""))
        return {"pid": os.getpid(), "calls": calls}
"""
REPORTS = """
    import os, sys

    def handler(event, context):
        facts = {name: getattr(context, name) for name in dir(context) if not name.startswith("_")}
        facts["remaining"] = facts.pop("get_remaining_time_in_millis")()
        return {"environment": dict(os.environ), "path": sys.path, "cwd": os.getcwd(), "context": facts}
"""
LAYER = "MEANING = 42"


@pytest.fixture(scope="module")
def workers(background: Background, project: Project) -> Iterator[Workers]:
    layer = project.folder / "layer"
    layer.mkdir()
    (layer / "shared_code.py").write_text(LAYER)
    project.layer("Shared", "layer")
    project.function("Turns", TAKES_TURNS)
    project.function("Obedient", OBEDIENT)
    variables = {"Environment": {"Variables": {"COLOR": "red", "NUMBER": 5, "FLAG": True}}}
    project.function("Reports", REPORTS, Timeout=300, MemorySize=512, Layers=[{"Ref": "Shared"}], **variables)
    project.function(
        "UsesLayer",
        "import shared_code\ndef handler(event, context): return shared_code.MEANING",
        Layers=[{"Ref": "Shared"}],
    )
    project.function("CannotStart", "raise RuntimeError('not today')")
    project.function("Odd", "def handler(event, context): return {1, 2}")
    pool = Workers(project.template(COLOR="green").functions, {"PATH": os.environ["PATH"], "COLOR": "machine's"})
    yield pool
    background.run(pool.stop())


class Caller:
    """Invokes functions and waits for their answers."""

    def __init__(self, background: Background, workers: Workers) -> None:
        self._background = background
        self._workers = workers

    def __call__(self, logical_id: str, **event: Any) -> Any:
        return self._background.run(self._workers.invoke(logical_id, event))

    def at_once(self, times: int, logical_id: str, **event: Any) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self._workers.invoke(logical_id, event) for _ in range(times)))

        return self._background.run(all_of_them())

    def failing(self, logical_id: str, **event: Any) -> dict[str, Any]:
        with pytest.raises(FunctionError) as caught:
            self(logical_id, **event)
        return caught.value.details


@pytest.fixture(scope="module")
def call(background: Background, workers: Workers) -> Caller:
    return Caller(background, workers)


def test_sequential_requests_share_a_process(call: Caller) -> None:
    assert len({call("Turns")["pid"] for _ in range(5)}) == 1


def test_concurrent_requests_start_processes_up_to_the_maximum_and_then_wait(call: Caller) -> None:
    answers = call.at_once(20, "Turns")

    assert len(answers) == 20
    assert 1 < len({answer["pid"] for answer in answers}) <= 4


def test_a_process_handles_one_request_at_a_time(call: Caller) -> None:
    answers = sorted(call.at_once(20, "Turns"), key=lambda answer: (answer["pid"], answer["began"]))

    for earlier, later in itertools.pairwise(answers):
        assert earlier["pid"] != later["pid"] or earlier["ended"] <= later["began"]


def test_a_function_that_raises_keeps_its_process(call: Caller) -> None:
    before = call("Obedient")
    details = call.failing("Obedient", do="raise LookupError('no such luck')")
    after = call("Obedient")

    assert (details["errorType"], details["errorMessage"]) == ("LookupError", "no such luck")
    assert details["stackTrace"]
    assert (after["pid"], after["calls"]) == (before["pid"], before["calls"] + 2)


def test_a_crash_is_an_error_and_the_next_request_gets_a_new_process(
    call: Caller, capfd: pytest.CaptureFixture[str]
) -> None:
    before = call("Obedient")
    details = call.failing("Obedient", do="os._exit(3)")
    after = call("Obedient")

    assert details["errorType"] == "Runtime.ExitError"
    assert "Obedient: its worker ended with exit status 3" in capfd.readouterr().err
    assert after["pid"] != before["pid"]
    assert after["calls"] == 1


def test_a_process_that_dies_between_requests_fails_no_request(call: Caller) -> None:
    before = call("Obedient")
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: is_reaped(before["pid"]))

    assert call("Obedient")["pid"] != before["pid"]


def test_a_function_over_its_timeout_is_killed_and_replaced(
    call: Caller, background: Background, tmp_path: Path
) -> None:
    before = call("Obedient")
    begun = tmp_path / "begun"
    with ThreadPoolExecutor(1) as thread:
        failing = thread.submit(call.failing, "Obedient", do=f"open({str(begun)!r}, 'w'); time.sleep(600)")
        until(begun.exists)
        background.let_pass(60)
        assert not wait([failing], timeout=0.2).done
        background.let_pass(60)
        details = failing.result()

    assert details["errorType"] == "Sandbox.Timedout"
    assert not is_running(before["pid"])
    assert call("Obedient")["calls"] == 1


def test_a_functions_output_goes_to_the_terminal_and_not_into_the_answer(
    call: Caller, capfd: pytest.CaptureFixture[str]
) -> None:
    call.failing("Obedient", do="os._exit(0)")  # the next worker starts with this test's terminal
    answer = call("Obedient", do="print('hello'); os.write(1, b'raw'); print('oops', file=sys.stderr)")

    shown = capfd.readouterr()
    assert answer["pid"]
    assert ("hello\n" in shown.out, "raw" in shown.out, "oops" in shown.err) == (True, True, True)


def test_a_function_that_cannot_be_imported_is_an_error_with_its_traceback(
    call: Caller, capfd: pytest.CaptureFixture[str]
) -> None:
    details = call.failing("CannotStart")

    assert (details["errorType"], details["errorMessage"]) == ("RuntimeError", "not today")
    assert "RuntimeError: not today" in capfd.readouterr().err


def test_an_answer_that_is_not_json_is_an_error(call: Caller) -> None:
    assert call.failing("Odd")["errorType"] == "TypeError"


def test_a_function_has_its_own_folder_and_its_layers_first_on_its_path(call: Caller, project: Project) -> None:
    assert call("UsesLayer") == 42
    answer = call("Reports")
    assert answer["path"][:2] == [str(project.folder / "Reports"), str(project.folder / "layer")]
    assert answer["cwd"] == str(project.folder / "Reports")


def test_the_environment_is_the_templates_with_overrides_and_lambdas_variables(call: Caller) -> None:
    environment = call("Reports")["environment"]

    assert (environment["COLOR"], environment["NUMBER"], environment["FLAG"]) == ("green", "5", "true")
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "pi-voice-local-Reports"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "512"
    assert environment["_HANDLER"] == "app.handler"
    assert environment["PATH"] == os.environ["PATH"]
    assert "HOME" not in environment


def test_the_context_has_lambdas_attributes(call: Caller) -> None:
    first, second = (call("Reports")["context"] for _ in range(2))

    assert first["function_name"] == "pi-voice-local-Reports"
    assert first["memory_limit_in_mb"] == "512"
    assert first["invoked_function_arn"].endswith(":function:pi-voice-local-Reports")
    assert 0 < first["remaining"] <= 300_000
    assert first["aws_request_id"] != second["aws_request_id"]


def test_workers_end_when_their_parent_is_killed(project: Project, tmp_path: Path) -> None:
    project.function("Idle", TAKES_TURNS)
    project.function("Busy", TAKES_TURNS.replace("0.02", "600"))
    project.template()
    program = tmp_path / "parent.py"
    program.write_text(
        textwrap.dedent(f"""
            import asyncio, os
            from pathlib import Path
            from local.template import load
            from local.workers import Workers

            async def main():
                workers = Workers(load(Path({str(project.folder / "template.yaml")!r}), {{}}).functions, {{}})
                idle = await workers.invoke("Idle", {{}})
                asyncio.ensure_future(workers.invoke("Busy", {{}}))
                print(idle["pid"], flush=True)
                await asyncio.sleep(600)

            asyncio.run(main())
        """)
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}, text=True
    ) as parent:
        try:
            assert parent.stdout
            idle = int(parent.stdout.readline())
            until(lambda: len(children(parent.pid)) == 2)
            [busy] = children(parent.pid) - {idle}
        finally:
            parent.kill()

    until(lambda: not is_running(idle) and not is_running(busy))


@pytest.mark.parametrize("peek", [0, socket.MSG_PEEK], ids=["output read", "output unread"])
@pytest.mark.parametrize("cut", [b"", b"F\0", b"F\0\0\0\5nul"], ids=["between frames", "in a header", "in a frame"])
def test_a_worker_exits_silently_when_its_socket_is_closed(tmp_path: Path, cut: bytes, peek: int) -> None:
    """A socket that is closed with unread data is reset, and a truncated stream ends within a frame."""
    with worker_process_in(tmp_path) as (worker, ours):
        ours.sendall(cut)
        assert ours.recv(len(READY), peek | socket.MSG_WAITALL) == READY
        ours.close()

        assert (worker.communicate(timeout=LONG), worker.returncode) == (("", ""), 0)


def test_a_worker_exits_silently_when_it_cannot_answer(tmp_path: Path) -> None:
    with worker_process_in(tmp_path) as (worker, ours):
        ours.shutdown(socket.SHUT_RD)  # the worker's write fails before its read ends

        assert (worker.communicate(timeout=LONG), worker.returncode) == (("", ""), 0)


@contextmanager
def worker_process_in(folder: Path) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """Start a worker process alone, and yield it with the parent's end of its socket."""
    (folder / "app.py").write_text("def handler(event, context): return None")
    ours, theirs = socket.socketpair()
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM), str(theirs.fileno()), "app.handler"],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as worker,
    ):
        theirs.close()
        try:
            yield worker, ours
        finally:
            worker.kill()

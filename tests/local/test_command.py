"""`make run` in a terminal: what it prints, why it does not start, and that it leaves no process behind."""

import ast
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest

from local.command import model_warnings, port_of
from local.errors import CannotStart
from local.running import LocalApi, running_api
from tests.local.conftest import Site
from tests.local.processes import children, is_running, until
from tests.support.template import ROOT

CLEAN = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
UNDISTURBED = {**CLEAN, "SCHEDULE_SECONDS": "86400"}
"""The scheduler never runs, so it starts no additional worker."""

SECONDS = 300
PREVIEW = "gemini-3.1-flash-live-preview"


def refusal(*arguments: str, python: tuple[str, ...] = (), **environment: str) -> str:
    """Run the command, assert that it exits with status 1 and prints one sentence, and return the sentence."""
    ended = subprocess.run(
        [sys.executable, *python, "-m", "local", *arguments],
        cwd=ROOT,
        env={**CLEAN, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    assert re.fullmatch(r"[A-Z'][^\n]+\.\n", ended.stderr), ended.stderr
    return ended.stderr.strip()


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# ---- Reasons not to start ----


def test_a_port_in_use_is_refused_in_one_sentence() -> None:
    with taken_port() as port:
        assert refusal("--port", str(port)).startswith(f"Port {port} is in use: choose another")


def test_a_port_in_use_for_the_webhook_is_refused_in_one_sentence() -> None:
    for _ in range(10):  # another process may use the port before it
        with taken_port() as port:
            said = refusal("--port", str(port - 1))
        if said.startswith(f"Port {port} is in use: choose another"):
            return
    pytest.fail(said)


def test_running_api_raises_the_reason_why_the_stack_does_not_start() -> None:
    with (
        taken_port() as port,
        pytest.raises(CannotStart, match=f"^Port {port} is in use: [^\n]+$"),
        running_api(UNDISTURBED, port),
    ):
        pytest.fail("The stack has started.")


@pytest.mark.parametrize("port", ["", "many", "65535", "-1"])
def test_an_invalid_port_is_refused_in_one_sentence(port: str) -> None:
    with pytest.raises(CannotStart, match=f"^'{port}' is not a port: give a number up to 65534, "):
        port_of([f"--port={port}"])


def test_an_unknown_argument_is_refused_in_one_sentence() -> None:
    with pytest.raises(CannotStart, match=r"^Unrecognized arguments: --color\.$"):
        port_of(["--color"])


def test_the_port_is_3000_unless_another_is_given() -> None:
    assert (port_of([]), port_of(["--port", "3100"])) == (3000, 3100)


def test_an_incomplete_configuration_is_refused_in_one_sentence() -> None:
    said = refusal("--port", "0", LIVEKIT_URL="wss://mine")

    assert said.endswith("with LIVEKIT_URL set, LIVEKIT_API_KEY and LIVEKIT_API_SECRET must be set too.")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RETENTION_DAYS", "abc"),
        ("RETENTION_DAYS", "-5"),
        ("GRACE_SECONDS", "0"),
        ("GEMINI_API_VERSION", "v9"),
        ("GEMINI_TRANSCRIPTION_HINTS", "yes"),
        ("GEMINI_LIVE_MODEL", "models/x y"),
        ("POWERTOOLS_LOG_LEVEL", "bogus"),
    ],
)
def test_a_value_outside_the_parameters_bounds_is_refused_in_one_sentence(variable: str, value: str) -> None:
    setting: dict[str, Any] = {variable: value}

    assert refusal("--port", "0", **setting).startswith(f"{variable} is {value!r}: it should be ")


@pytest.mark.parametrize("value", ["https://a.example/", "a.example", "https://a.example, b.example"])
def test_an_invalid_origin_is_refused_in_one_sentence(value: str) -> None:
    said = refusal("--port", "0", CORS_ALLOW_ORIGINS=value)

    assert said.startswith("The parameter CorsAllowOrigins has ")
    assert "it should be comma-separated origins" in said


def test_an_invalid_livekit_url_is_refused_in_one_sentence() -> None:
    said = refusal("--port", "0", LIVEKIT_URL="foo", LIVEKIT_API_KEY="k", LIVEKIT_API_SECRET="s")

    assert said == "LIVEKIT_URL is 'foo': it should be a WebSocket URL such as wss://example.livekit.cloud."


def test_an_invalid_api_key_is_refused_in_one_sentence() -> None:
    assert "PI_VOICE_API_KEY is not an API key" in refusal("--port", "0", PI_VOICE_API_KEY="pi_live_short")


def test_an_unreachable_dynamodb_is_reported_in_one_sentence() -> None:
    assert "The tables cannot be created: " in refusal("--port", "0", AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:9")


def test_an_unreachable_sqs_is_reported_in_one_sentence() -> None:
    assert "The queues cannot be created: " in refusal("--port", "0", AWS_ENDPOINT_URL_SQS="http://127.0.0.1:9")


def test_a_missing_package_is_reported_in_one_sentence() -> None:
    said = refusal(python=("-S",))  # no site-packages

    assert re.fullmatch(r"The Python package \w+ is missing: `make run` installs all that is needed\.", said)


def test_an_old_python_is_refused_in_one_sentence() -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 10, 4); runpy.run_module('local', run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", pretend], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (1, "Pi Voice needs Python 3.11 or later; this is 3.10.\n")


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_the_version_check_can_be_parsed_by_an_old_python(name: str) -> None:
    tree = ast.parse((ROOT / "local" / name).read_text(), feature_version=(3, 4))

    assert not [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.AnnAssign)]


# ---- Output and shutdown ----


def processes_of(api: LocalApi) -> set[int]:
    """Start a worker by a request, and return the command's child processes."""
    assert Site(api.base_url).get("/api/v1/voice/voices").status == 401
    below = children(api.process.pid)
    assert len(below) == 2  # moto and the worker
    return below


def test_the_printed_lines_work_and_ctrl_c_leaves_no_process_behind() -> None:
    with running_api(UNDISTURBED) as api:
        exports = [line for line in api.lines if line.startswith("export ")]
        [curl] = [line for line in api.lines if line.startswith("curl ")]
        answer = subprocess.run(
            ["/bin/sh", "-c", "".join([*exports, curl])], capture_output=True, text=True, check=True, timeout=SECONDS
        )
        below = processes_of(api)
        api.process.send_signal(signal.SIGINT)
        assert api.process.wait(timeout=SECONDS) == 0

    port = re.escape(api.base_url.rpartition(":")[2])
    assert re.fullmatch(rf'export BASE="http://127.0.0.1:{port}"\n', exports[0])
    assert re.fullmatch(r'export API_KEY="pi_live_\w{49}"\n', exports[1])
    assert re.fullmatch(r'export WEBHOOK_URL="http://127.0.0.1:\d+"\n', exports[2])
    assert answer.stdout.startswith('{"data":')
    assert "Traceback" not in api.output
    until(lambda: not any(is_running(pid) for pid in below))


@pytest.mark.parametrize(
    ("model", "is_real", "words"),
    [
        (PREVIEW, True, ["2026-11-17", "GEMINI_LIVE_MODEL=gemini-3.8-live"]),
        (PREVIEW, False, []),
        ("gemini-3.8-live", True, []),
        ("gemini-3.8-live-next", False, ["gemini-3.8-live-next is not a Live model that Pi Voice knows"]),
    ],
)
def test_a_model_that_may_be_shut_down_or_is_unknown_has_a_warning_of_one_line(
    model: str, words: list[str], *, is_real: bool
) -> None:
    warnings = model_warnings(model, date(2026, 11, 30), is_real=is_real)

    assert len(warnings) == bool(words)
    assert all(word in warning and "\n" not in warning for warning in warnings for word in words)


def test_before_the_announced_date_the_default_model_has_no_warning() -> None:
    assert model_warnings(PREVIEW, date(2026, 11, 16), is_real=True) == []


def test_the_reference_s_examples_find_their_agent_and_an_unknown_model_is_used_with_a_warning() -> None:
    with running_api({**UNDISTURBED, "GEMINI_LIVE_MODEL": "gemini-3.8-live-next"}) as api:
        site = Site(api.base_url)
        route = site.get("/openapi.json").json["paths"]["/api/v1/voice/sessions"]["post"]
        example = route["requestBody"]["content"]["application/json"]["example"]
        created = site.post("/api/v1/voice/sessions", example, ("Authorization", f"Bearer {api.api_key}"))

    assert created.status == 201
    assert created.json["data"]["agent_id"] == example["agent_id"]
    assert created.json["data"]["connection"]["gemini_live"]["model"] == "gemini-3.8-live-next"
    assert [line.split()[:2] for line in api.lines if "Warning" in line] == [["Warning:", "gemini-3.8-live-next"]]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_is_left_behind_when_it_is_killed(number: signal.Signals, status: int) -> None:
    with running_api(UNDISTURBED) as api:
        below = processes_of(api)
        api.process.send_signal(number)
        assert api.process.wait(timeout=SECONDS) == status

    until(lambda: not any(is_running(pid) for pid in below))

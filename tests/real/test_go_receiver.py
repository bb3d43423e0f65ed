"""The receiver in Go of docs/webhooks.md: built with the library that the page names, and sent to."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from local.real import parts
from tests.support.command_blocks import BLOCKS
from tests.support.template import environment
from tests.support.webhooks import BODY, SECONDS, SECRET, WRONG_SIGNATURES, Printed, events_of, post, printing, signed

pytestmark = pytest.mark.real

LIBRARY: Final = "github.com/standard-webhooks/standard-webhooks/libraries@v0.0.1"
ADDRESS: Final = "127.0.0.1:9000"
"""Where the receiver of the page listens."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Printed, str]]:
    """Build and run the receiver on a free port; yield what it prints, and its URL."""
    go = shutil.which("go")
    if go is None or not is_recent(go):
        pytest.skip("There is no Go 1.21 or later, which the library needs, and Debian 12 has an earlier one.")
    folder, port = tmp_path_factory.mktemp("receiver"), parts.free_port()
    [shown] = [block for block in BLOCKS if block.document.name == "webhooks.md" and block.language == "go"]
    assert shown.text.count(ADDRESS) == 1
    (folder / "main.go").write_text(shown.text.replace(ADDRESS, f"127.0.0.1:{port}"), encoding="utf-8")
    for step in (["mod", "init", "receiver"], ["get", LIBRARY], ["vet", "."], ["build", "-o", "receiver", "."]):
        run(go, step, folder)
    variables = {**environment(), "WEBHOOK_SECRET": SECRET}
    with printing([str(folder / "receiver")], env=variables) as printed:
        wait_for(port)
        yield printed, f"http://127.0.0.1:{port}/"


def is_recent(go: str) -> bool:
    """Return whether Go can build the library."""
    told = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, timeout=SECONDS).stdout
    major, minor = (int(part) for part in re.findall(r"\d+", told)[:2])
    return (major, minor) >= (1, 21)


def run(go: str, step: list[str], folder: Path) -> None:
    done = subprocess.run(
        [go, *step], cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=2 * SECONDS
    )
    assert done.returncode == 0, done.stderr


def wait_for(port: int) -> None:
    """Wait until a server listens."""
    ends_at = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS).close()
        except ConnectionRefusedError:
            assert time.monotonic() < ends_at
            time.sleep(0.1)
        else:
            return


def test_the_receiver_in_go_prints_an_event_with_a_good_signature(receiver: tuple[Printed, str]) -> None:
    printed, url = receiver

    assert post(url, BODY, signed("e1")) == 204
    assert printed.until(lambda lines: bool(events_of(lines, "s1"))) == ["session.completed s1 completed"]


@pytest.mark.parametrize("signature", WRONG_SIGNATURES)
def test_the_receiver_in_go_answers_401_to_a_wrong_or_malformed_signature(
    receiver: tuple[Printed, str], signature: str
) -> None:
    _, url = receiver

    assert post(url, BODY, {**signed("wrong"), "webhook-signature": signature}) == 401


def test_the_receiver_in_go_answers_401_to_another_body(receiver: tuple[Printed, str]) -> None:
    _, url = receiver

    assert post(url, BODY + " ", signed("changed")) == 401

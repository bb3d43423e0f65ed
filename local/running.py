"""The local stack as a child process, for tests, the demo and measurements."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from local.errors import CannotStart

_ROOT: Final = Path(__file__).parent.parent
_START_SECONDS: Final = 300
_END_SECONDS: Final = 10
_LAST_LINE: Final = "curl -s "


@dataclass
class LocalApi:
    """A running stack, described by its terminal output."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def output(self) -> str:
        """The output so far: function logs, access log, tracebacks."""
        return "".join(self.lines)

    @property
    def base_url(self) -> str:
        """The API's origin."""
        return self._printed(r'export BASE="(.+)"')

    @property
    def api_key(self) -> str:
        """An API key of the workspace `local`."""
        return self._printed(r'export API_KEY="(.+)"')

    @property
    def webhook_url(self) -> str:
        """The webhook's function URL."""
        return self._printed(r'export WEBHOOK_URL="(.+)"')

    @property
    def invoke_url(self) -> str:
        """The endpoint of Lambda's Invoke API."""
        return self._printed(r"--endpoint-url (\S+)")

    @property
    def livekit_url(self) -> str:
        """The URL of the LiveKit server."""
        return self._printed(r"LiveKit .* (ws\S+)")

    @property
    def gemini_url(self) -> str:
        """The URL of the Gemini API."""
        return self._printed(r"Gemini .* (http\S+)")

    @property
    def dynamodb_url(self) -> str:
        """The endpoint of DynamoDB."""
        return self._printed(r"DynamoDB .* (http\S+)")

    @property
    def sqs_url(self) -> str:
        """The endpoint of SQS."""
        return self._printed(r"SQS .* (http\S+)")

    def _printed(self, pattern: str) -> str:
        found = re.search(pattern, self.output)
        if not found:
            raise LookupError(f"The local stack did not print {pattern}.")
        return found[1]


@contextmanager
def running_api(environment: Mapping[str, str] | None = None, port: int = 0) -> Iterator[LocalApi]:
    """Start the stack, by default on any free port and with this process's environment, and stop it afterwards.

    Raises CannotStart with the stack's output if it did not start.
    """
    with subprocess.Popen(  # noqa: S603 (a module of this project)
        [sys.executable, "-m", "local", "--port", str(port)],
        cwd=_ROOT,
        env=dict(os.environ if environment is None else environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        api, ready = LocalApi(process), threading.Event()
        reader = threading.Thread(target=_read, args=(api, ready))
        reader.start()
        try:
            # Check the output and not the process: the output ends a moment before the process does.
            if not ready.wait(_START_SECONDS) or not any(line.startswith(_LAST_LINE) for line in api.lines):
                raise CannotStart(api.output.strip())
            yield api
        finally:
            _end(process)
            reader.join()


def _read(api: LocalApi, ready: threading.Event) -> None:
    """Collect the process's output, and set `ready` once the process is ready or has ended."""
    for line in api.process.stdout or ():
        api.lines.append(line)
        if line.startswith(_LAST_LINE):
            ready.set()
    ready.set()


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()

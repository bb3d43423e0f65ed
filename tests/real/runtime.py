"""Lambda's Python runtime without Docker: the emulator that the AWS SAM CLI brings, awslambdaric, and CPython 3.13.

The paths are as on Lambda as far as possible without root. The import path is the function's folder (/var/task on
Lambda), the layer (/opt/python), the runtime's packages (/var/runtime), and the standard library. No other package of
the machine can be imported.
"""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from local.real import parts
from local.real.parts import Command
from local.template import Function

EMULATOR: Final = "Runtime emulator"
CLIENT: Final = "awslambdaric"
INVOKE: Final = "/2015-03-31/functions/function/invocations"
ANSWER_SECONDS: Final = 300
SLOW_MACHINE_SECONDS: Final = 60
"""Extra seconds beyond a function's time limit: unlike Lambda, the emulator counts the start as a part of it."""

_LOCK: Final = parts.ROOT / "requirements/runtime.txt"
_FOLDER: Final = parts.FOLDER / "runtime"

Json = Any


@dataclass(frozen=True, slots=True)
class Runtime:
    """The replacement of Lambda's runtime: the emulator, the interpreter, and a folder with awslambdaric and boto3."""

    emulator: Path
    python: Path
    folder: Path
    standard_library: Path


def installed(python: Path, architecture: str) -> Runtime:
    """Install the packages of Lambda's runtime, find the emulator, and record their versions."""
    if sys.platform != "linux":
        raise parts.Missing(EMULATOR, "it is a program for Linux")
    name = f"aws-lambda-rie-{architecture}"
    [*emulators] = parts.ROOT.glob(f".venv-sam/lib/python3*/site-packages/samcli/local/rapid/{name}")
    if not emulators:
        raise parts.Missing(EMULATOR, f"there is no {name} in .venv-sam; make test-real sets it up")
    if not parts.is_installed(_FOLDER, _LOCK):
        pip: Command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        only_locked: Command = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", _LOCK]
        parts.install(CLIENT, [*pip, "--root-user-action", "ignore", "--target", _FOLDER, *only_locked])
        parts.mark_installed(_FOLDER, _LOCK)
    asked = "import sys, sysconfig; print(sys.version.split()[0]); print(sysconfig.get_path('stdlib'))"
    version, standard_library = subprocess.check_output([python, "-I", "-c", asked], text=True).splitlines()
    site_packages = str(emulators[0].parents[3])
    parts.versions["CPython"] = version
    parts.versions[CLIENT] = _version_in(str(_FOLDER), CLIENT)
    parts.versions[EMULATOR] = f"of aws-sam-cli {_version_in(site_packages, 'aws-sam-cli')}"
    return Runtime(emulators[0], python, _FOLDER, Path(standard_library))


def _version_in(folder: str, package: str) -> str:
    return next(found.version for found in distributions(name=package, path=[folder]))


@dataclass
class Lambdas:
    """Built functions, each under its own emulator, which its first event starts."""

    runtime: Runtime
    functions: Mapping[str, Function]
    machine: Mapping[str, str]
    witness: Path
    running: ExitStack
    _urls: dict[str, str] = field(default_factory=dict)

    def invoke(self, logical_id: str, event: Json) -> Json:
        """Invoke a function with an event and return its response. The emulator serves one event at a time."""
        if logical_id not in self._urls:
            self._urls[logical_id] = self.running.enter_context(self._emulated(self.functions[logical_id]))
        request = urllib.request.Request(self._urls[logical_id] + INVOKE, json.dumps(event).encode())  # noqa: S310 (http)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)

    @contextmanager
    def _emulated(self, function: Function) -> Iterator[str]:
        port = parts.free_port(2)
        python: Command = [self.runtime.python, "-S", "-s", "-B", "-m", "awslambdaric", "import_witness.handler"]
        emulator: Command = [
            self.runtime.emulator,
            *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
            *("--runtime-api-address", f"127.0.0.1:{port + 1}"),
            *("--log-level", "warn"),
        ]
        only: Command = [f"{name}={value}" for name, value in self._variables(function).items()]
        command: Command = ["env", "-C", function.code, "-i", *only, *emulator, *python]
        name = f"{EMULATOR} of {function.logical_id}"
        with parts.running(name, command, parts.accepts_connections(port)):
            yield f"http://127.0.0.1:{port}"

    def _variables(self, function: Function) -> dict[str, str]:
        [layer] = function.layers
        path = (layer / "python", self.runtime.folder, self.witness)
        return {
            **self.machine,
            **function.environment,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(function.timeout_seconds + SLOW_MACHINE_SECONDS),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "LAMBDA_TASK_ROOT": str(function.code),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "TZ": ":UTC",
        }

"""The output of `make build`: both architectures, and the layer as on Lambda."""

import hashlib
import importlib.util
import json
import os
import py_compile
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, get_args, get_type_hints

import pytest
import yaml

import check_layer
from pi_voice.adapters import aws
from tests.contracts.template.conftest import Interpreter
from tests.support.template import ROOT, ROUTES, RUNTIME, Node, environment, snake_case

SERVICES: Final[tuple[str, ...]] = get_args(get_type_hints(aws.client)["service"])
REGIONS: Final = ("eu-west-1", "cn-north-1", "us-gov-west-1")
HOST = {"aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)

# The settings that a function needs to start; no service is called with them.
SETTINGS = {
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "VOICE_AGENTS_TABLE": "agents",
    "VOICE_SESSIONS_TABLE": "sessions",
    "VOICE_TRANSCRIPTS_TABLE": "transcripts",
    "VOICE_API_KEYS_TABLE": "keys",
    "VOICE_WEBHOOK_ENDPOINTS_TABLE": "endpoints",
    "VOICE_WEBHOOK_DELIVERIES_TABLE": "deliveries",
    "VOICE_IDEMPOTENCY_TABLE": "idempotency",
    "EXTRACTION_QUEUE_URL": "https://sqs.invalid/extractions",
    "EVENT_QUEUE_URL": "https://sqs.invalid/events",
    "DELIVERY_QUEUE_URL": "https://sqs.invalid/deliveries.fifo",
    "CLIENT_TOKEN_SECRET": "thirty-two-letters-of-a-secret!!",
    "LIVEKIT_URL": "wss://livekit.invalid",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "secret",
    "GEMINI_API_KEY": "key",
    "GEMINI_LIVE_MODEL": "live",
    "GEMINI_EXTRACTION_MODEL": "extraction",
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with everything that make needs, without Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("bash", "cmp", "dirname", "make", "sh"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def layer_of(build: Path) -> Path:
    return build / "VoiceLayer/python"


def digests(folder: Path) -> dict[Path, str]:
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def event_without_key(function: str) -> Node:
    event = json.loads((ROOT / f"events/{snake_case(function)}.json").read_text(encoding="utf-8"))
    del event["headers"]["authorization"]
    return event


def native_libraries(build: Path) -> Iterator[Path]:
    return (path for path in layer_of(build).rglob("*") if ".so" in path.suffixes)


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_native_code_is_for_the_architecture_of_the_built_template(
    builds: Mapping[str, Path], architecture: str
) -> None:
    build = builds[architecture]
    parameter = yaml.safe_load((build / "template.yaml").read_text(encoding="utf-8"))["Parameters"]["Architecture"]

    assert parameter["Default"] == architecture
    assert parameter["AllowedValues"] == [architecture]
    assert {check_layer.machine(library) for library in native_libraries(build)} == {architecture}


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_the_built_layer_passes_its_check(
    builds: Mapping[str, Path], interpreter: Interpreter, architecture: str
) -> None:
    layer = layer_of(builds[architecture])

    checked = interpreter.run(ROOT / "layers/voice/check_layer.py", layer, architecture)

    assert (checked.returncode, checked.stderr) == (0, "")
    assert len(list(layer.glob("**/*.pyc"))) == len(list(layer.glob("**/*.py")))


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_a_built_function_contains_only_its_app(
    builds: Mapping[str, Path], functions: Mapping[str, Node], architecture: str
) -> None:
    build = builds[architecture]

    assert {path.name for path in build.iterdir()} == {*functions, "VoiceLayer", "template.yaml"}
    for function in functions:
        assert [path.name for path in (build / function).rglob("*")] == ["app.py"]


def test_builds_of_the_same_source_are_identical(builds: Mapping[str, Path]) -> None:
    arm64, x86_64 = (digests(layer_of(build)) for build in builds.values())
    alike = {path for path in arm64 if path.suffix == ".py" and arm64[path] == x86_64.get(path)}
    bytecode = {path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc" for path in alike}

    assert {path for path in arm64 if path.parts[0] == "pi_voice" and path.suffix == ".py"} <= alike
    assert [path for path in sorted(bytecode) if arm64[path] != x86_64[path]] == []


def test_the_layer_contains_no_tests_no_programs_and_no_cryptography(builds: Mapping[str, Path]) -> None:
    layer = layer_of(builds["arm64"])

    assert not [path for path in layer.rglob("tests") if path.is_dir()]
    assert not {"bin", "cryptography", "cffi"} & {path.name for path in layer.iterdir()}
    assert {"pi_voice", "aws_lambda_powertools", "boto3", "livekit", "google"} < {path.name for path in layer.iterdir()}


def test_the_layer_contains_boto3s_models_of_exactly_the_services_that_are_called(builds: Mapping[str, Path]) -> None:
    models = layer_of(builds["arm64"]) / "botocore/data"

    assert sorted(path.name for path in models.iterdir() if path.is_dir()) == sorted(SERVICES)


ENDPOINTS = """
import sys, boto3
for name in sys.argv[1].split():
    for region in sys.argv[2].split():
        client = boto3.client(name, region, aws_access_key_id="x", aws_secret_access_key="x")
        print(client.meta.endpoint_url, client.meta.partition, sorted(client.meta.service_model.operation_names))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the layer's native code is for Linux")
def test_the_layers_reduced_boto3_has_the_endpoints_and_operations_of_the_complete_one(
    builds: Mapping[str, Path], interpreter: Interpreter
) -> None:
    def printed(python: str | Path, packages: str) -> str:
        command = [python, "-B", "-c", ENDPOINTS, " ".join(SERVICES), " ".join(REGIONS)]
        environment = {"PYTHONPATH": packages}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    reduced = printed(interpreter.path, str(layer_of(builds[HOST])))

    assert len(reduced.splitlines()) == len(SERVICES) * len(REGIONS)
    assert reduced == printed(sys.executable, "")


@pytest.mark.skipif(sys.platform != "linux", reason="the layer's native code is for Linux")
def test_everything_imports_from_the_built_layer_without_being_compiled(
    builds: Mapping[str, Path], functions: Mapping[str, Node], interpreter: Interpreter
) -> None:
    layer = layer_of(builds[HOST])
    events = {name: event_without_key(name) if name in ROUTES else None for name in functions}

    started = interpreter.run(
        ROOT / "tests/contracts/template/cold_start.py", builds[HOST], stdin=json.dumps(events), env=SETTINGS
    )

    assert started.returncode == 0, started.stderr
    seen = json.loads(started.stdout.splitlines()[-1])
    assert len(seen["modules"]) == len(list((layer / "pi_voice").rglob("*.py"))) - 1
    assert seen["compiled"] == []
    assert seen["statuses"] == {name: 401 if name in ROUTES else None for name in functions}


def test_without_the_runtime_s_python_the_build_prints_one_sentence(tools: Path, tmp_path: Path) -> None:
    bare = environment(
        PATH=str(tools), HOME=str(tmp_path), PYENV_ROOT=str(tmp_path), UV_PYTHON_INSTALL_DIR=str(tmp_path)
    )

    found = subprocess.run(
        [ROOT / "deploy/find_python.sh", RUNTIME], capture_output=True, text=True, check=False, env=bare
    )

    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.startswith("The build needs CPython 3.13 with pip, because")
    assert found.stderr.count("\n") == 1


def test_without_the_runtime_s_python_make_build_does_not_start_sam(tools: Path, tmp_path: Path) -> None:
    bare = environment(
        PATH=str(tools), HOME=str(tmp_path), PYENV_ROOT=str(tmp_path), UV_PYTHON_INSTALL_DIR=str(tmp_path)
    )

    made = subprocess.run(
        ["make", "build", f"PYTHON={sys.executable}", f"BUILD_DIR={tmp_path}/build"],  # noqa: S607 (as a user types it)
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=bare,
    )

    message, *of_make = made.stderr.splitlines()
    assert made.returncode != 0
    assert message.startswith("The build needs CPython 3.13")
    assert [line for line in of_make if not line.startswith("make: ")] == []
    assert not (tmp_path / "build").exists()


def test_a_broken_interpreter_of_the_right_name_is_skipped(tools: Path, tmp_path: Path) -> None:
    impostor = tools / RUNTIME
    impostor.write_text("#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    impostor.chmod(0o755)
    bare = environment(
        PATH=str(tools), HOME=str(tmp_path), PYENV_ROOT=str(tmp_path), UV_PYTHON_INSTALL_DIR=str(tmp_path)
    )

    found = subprocess.run(
        [ROOT / "deploy/find_python.sh", RUNTIME], capture_output=True, text=True, check=False, env=bare
    )

    assert found.returncode == 1
    assert "pyenv: " not in found.stderr


def test_make_refuses_an_unknown_architecture() -> None:
    made = subprocess.run(
        ["make", "-C", "layers/voice", "build-VoiceLayer", "ARCH=mips"],  # noqa: S607 (as a user types it)
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment(ARTIFACTS_DIR="/nowhere"),
    )

    assert made.returncode != 0
    assert 'ARCH is arm64 or x86_64, not "mips"' in made.stderr


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A small valid layer."""
    folder = tmp_path / "python"
    (folder / "pi_voice").mkdir(parents=True)
    source = folder / "pi_voice/agents.py"
    source.write_text("name = 1\n")
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, doraise=True)
    (folder / "fast.cpython-313.so").write_bytes(b"\x7fELF" + bytes(14) + struct.pack("<H", 183))
    return folder


def test_the_check_passes_a_valid_layer(layer: Path) -> None:
    assert list(check_layer.faults(layer, "arm64")) == []


def test_the_check_finds_native_code_for_another_processor(layer: Path) -> None:
    assert list(check_layer.faults(layer, "x86_64")) == ["fast.cpython-313.so is for arm64, not for x86_64"]


def test_the_check_finds_a_module_without_bytecode(layer: Path) -> None:
    (layer / "pi_voice/late.py").write_text("")

    assert list(check_layer.faults(layer, "arm64")) == ["pi_voice/late.py has no bytecode"]


def test_the_check_finds_bytecode_that_depends_on_dates(layer: Path) -> None:
    source = layer / "pi_voice/agents.py"
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP, doraise=True)

    assert list(check_layer.faults(layer, "arm64")) == [
        "pi_voice/agents.py has bytecode that is void once the date of its source changes"
    ]


def test_the_check_finds_bytecode_of_another_python(layer: Path) -> None:
    bytecode = Path(importlib.util.cache_from_source(str(layer / "pi_voice/agents.py")))
    bytecode.write_bytes(b"\0\0\r\n" + bytecode.read_bytes()[4:])

    assert list(check_layer.faults(layer, "arm64")) == ["pi_voice/agents.py has bytecode of another Python"]


def test_the_check_finds_a_missing_product(layer: Path) -> None:
    shutil.rmtree(layer / "pi_voice")

    assert list(check_layer.faults(layer, "arm64")) == ["pi_voice is missing"]


def test_the_check_finds_a_layer_too_large_for_lambda(layer: Path) -> None:
    with (layer / "weights.bin").open("wb") as file:
        file.truncate(check_layer.MAX_BYTES)

    assert [fault.partition(" are ")[2] for fault in check_layer.faults(layer, "arm64")] == [
        f"more than Lambda takes, {check_layer.MAX_BYTES}"
    ]

"""Every built function under the Runtime Interface Emulator, with only the build's files, against the stand-ins."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from local.real import parts
from local.running import LocalApi, running_api
from local.sample_call import STATUSES, SampleCall
from local.services import Gemini, LiveKit, Services, function_variables, machine_variables
from local.stand_ins import gemini, livekit
from local.template import load
from tests.real.conftest import ARCHITECTURE
from tests.real.runtime import Lambdas, Runtime, installed

pytestmark = pytest.mark.real

WITNESS: Final = parts.ROOT / "tests/real/import_witness.py"
QUESTION: Final = {"witness": "What was imported from where?"}

Testimony = Mapping[str, Any]
"""The import `path` of one function, and the files of each of its `modules`."""


@pytest.fixture(scope="module")
def runtime(python: Path) -> Runtime:
    return installed(python, ARCHITECTURE)


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[LocalApi]:
    """The local stack, for its DynamoDB with the tables, its LiveKit and its Gemini."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    with running_api(inherited) as stack:
        yield stack


@pytest.fixture(scope="module")
def lambdas(
    build: Path, runtime: Runtime, stand_ins: LocalApi, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lambdas]:
    """The functions of the build, with the variables of the built template and the URLs of the stand-ins."""
    witness = tmp_path_factory.mktemp("witness")
    shutil.copy(WITNESS, witness)
    database = stand_ins.dynamodb_url
    variables = function_variables(
        Services.chosen_by({}),
        LiveKit(stand_ins.livekit_url, livekit.API_KEY, livekit.API_SECRET),
        Gemini(gemini.API_KEY, stand_ins.gemini_url),
        database,
        stand_ins.sqs_url,
    )
    functions = {function.logical_id: function for function in load(build / "template.yaml", variables).functions}
    with ExitStack() as running:
        yield Lambdas(runtime, functions, machine_variables({}, database), witness, running)


@pytest.fixture(scope="module")
def call(lambdas: Lambdas) -> SampleCall:
    """A whole call through every function."""
    call = SampleCall(lambdas.invoke)
    call.hold()
    return call


@pytest.fixture(scope="module")
def testimonies(lambdas: Lambdas, call: SampleCall) -> Mapping[str, Testimony]:
    """The imports of every function after the call."""
    del call  # has to come first: imports while serving a request count too
    return {name: lambdas.invoke(name, QUESTION) for name in lambdas.functions}


def is_within(file: str, folders: tuple[Path, ...]) -> bool:
    return any(Path(file).is_relative_to(folder) for folder in folders)


def test_every_function_of_the_build_succeeds_in_a_call(lambdas: Lambdas, call: SampleCall) -> None:
    completed = call.documents["CompleteSession"]

    assert call.statuses == STATUSES
    assert call.documents.keys() == lambdas.functions.keys()
    assert completed["extraction"]["status"] == "succeeded"
    assert completed["end_reason"] == "stopped"
    assert call.documents["ExtractResults"] == {"batchItemFailures": []}
    assert call.documents["SweepSessions"]["data"]["errors"] == 0
    assert completed["results"].keys() == {"item", "quantity", "needed_by"}


def test_functions_read_what_earlier_functions_wrote(call: SampleCall) -> None:
    session_id = call.documents["CreateSession"]["data"]["session_id"]

    assert [agent["version"] for agent in call.documents["ListAgents"]["data"]] == [3]
    assert call.documents["AddParticipant"]["data"]["connection"]["livekit"]["room"] == session_id
    assert call.documents["GetSession"]["data"]["session_id"] == session_id
    assert [session["session_id"] for session in call.documents["ListSessions"]["data"]] == [session_id]
    assert call.documents["RevokeApiKey"]["data"]["revoked_at"] is not None


def test_imports_come_only_from_the_function_the_layer_and_the_runtime(
    lambdas: Lambdas, testimonies: Mapping[str, Testimony]
) -> None:
    runtime, of_others = lambdas.runtime, {}
    machines_own = runtime.standard_library / "site-packages"
    for name, function in lambdas.functions.items():
        inside = (function.code, *function.layers, runtime.folder, runtime.standard_library, lambdas.witness)
        files = [file for places in testimonies[name]["modules"].values() for file in places]
        assert str(function.code / "app.py") in files
        of_others[name] = [file for file in files if not is_within(file, inside) or is_within(file, (machines_own,))]

    assert of_others == {name: [] for name in lambdas.functions}


def test_the_import_path_is_that_of_lambda_without_folders_of_the_machine(
    lambdas: Lambdas, testimonies: Mapping[str, Testimony]
) -> None:
    runtime = lambdas.runtime
    library = runtime.standard_library
    for name, function in lambdas.functions.items():
        layer = function.layers[0] / "python"
        zipped = library.parent / "python313.zip"
        of_python = [zipped, library, library / "lib-dynload"]

        assert testimonies[name]["path"] == [
            str(place) for place in (function.code, layer, runtime.folder, lambdas.witness, *of_python)
        ]


def test_a_package_of_both_is_imported_from_the_layer(lambdas: Lambdas, testimonies: Mapping[str, Testimony]) -> None:
    function = lambdas.functions["CreateSession"]
    layer, runtime = function.layers[0] / "python", lambdas.runtime.folder
    both = {path.name for path in layer.iterdir()} & {path.name for path in runtime.iterdir() if path.suffix != ".so"}
    packages = {name.removesuffix(".py") for name in both} - {"__pycache__"}
    modules = testimonies["CreateSession"]["modules"]
    taken = {name: modules[name] for name in packages if name in modules}

    assert [file for places in taken.values() for file in places if not is_within(file, (layer,))] == []
    assert taken.keys() > {"boto3", "botocore", "urllib3"}

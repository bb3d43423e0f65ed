"""Run every command of the documentation, or check the names in it if it needs AWS, Docker, LiveKit or real keys.

The word after ```sh selects the check: run, clone, make, keys, aws, docker or livekit.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import botocore.session
import pytest
from google.protobuf import json_format
from livekit.protocol.egress import RoomCompositeEgressRequest

from local.services import Services
from tests.support.command_blocks import BLOCKS, DOCUMENTS, Block, name_of, settled
from tests.support.template import ROOT, Node, environment

WALK_THROUGH_SECONDS: Final = 600


def command_blocks(*kinds: str) -> list[Block]:
    """Return the blocks of some kinds, of which each has at least one block."""
    found = [block for block in BLOCKS if block.is_command and block.kind in kinds]
    assert {block.kind for block in found} == set(kinds), "a test would check nothing"
    return found


def commands(*kinds: str) -> list[str]:
    return [line for block in command_blocks(*kinds) for line in block.commands]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_command], ids=str)
def test_each_command_block_has_a_label_that_selects_its_check(block: Block) -> None:
    assert block.language == "sh"
    assert block.kind in {"run", "clone", "make", "keys", "aws", "docker", "livekit"}


# ---- Commands that run here ----


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("script", command_blocks("run"), ids=str)
def test_a_script_prints_the_output_that_its_page_shows(exports: Mapping[str, str], script: Block, shell: str) -> None:
    for tool in (shell, "curl", "jq"):
        assert shutil.which(tool), f"The walk-through needs {tool}: install it to run this test."
    [shown] = [block for block in BLOCKS if block.document == script.document and block.kind == "output"]

    ended = subprocess.run(
        [shell],
        input=script.text,
        env=environment(**exports),
        capture_output=True,
        text=True,
        timeout=WALK_THROUGH_SECONDS,
        check=False,
    )

    assert (ended.stderr, ended.returncode) == ("", 0)
    assert settled(ended.stdout) == settled(shown.text)


@pytest.mark.parametrize("script", command_blocks("run"), ids=str)
def test_all_variables_of_a_script_come_from_make_run_or_the_script_itself(script: Block) -> None:
    assigned = set(re.findall(r"(\w+)=", script.text))
    used = set(re.findall(r"\$([A-Za-z_]\w*)", script.text))

    assert used - assigned == {"BASE", "API_KEY"}


@pytest.mark.parametrize("script", command_blocks("run"), ids=str)
def test_a_script_has_no_character_that_an_interactive_shell_treats_differently(script: Block) -> None:
    # "!" recalls history, "#" is no comment in zsh, and a tab completes a word.
    assert set("!#\t") & set(script.text) == set()


def test_the_clone_command_ends_in_a_folder_with_the_makefile(tmp_path: Path) -> None:
    [command] = commands("clone")
    origin = tmp_path / "origin"
    origin.mkdir()
    shutil.copy(ROOT / "Makefile", origin)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    default_settings = environment(GIT_CONFIG_GLOBAL=os.devnull)
    for arguments in (["init", "--quiet"], ["add", "Makefile"], ["commit", "--quiet", "--message=Add the Makefile"]):
        subprocess.run([*git, *arguments], cwd=origin, env=default_settings, check=True)

    ended = subprocess.run(
        ["sh", "-c", f"{command.replace('<repository>', shlex.quote(str(origin)))} && pwd && ls"],  # noqa: S607
        cwd=tmp_path,
        env=default_settings,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [str(tmp_path.resolve() / "pi-voice"), "Makefile"]


def make_lines() -> list[str]:
    return sorted({line for line in commands("make", "aws", "docker", "keys") if line.split()[0] == "make"})


@pytest.mark.parametrize("line", make_lines())
def test_make_accepts_each_make_command(line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    ended = subprocess.run(
        ["make", "--dry-run", *arguments],  # noqa: S607 (the make on the reader's PATH)
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    for value in (argument.partition("=")[2] for argument in arguments if "=" in argument):
        assert value in ended.stdout, f"make does not use {value}"


def test_blocks_of_make_commands_contain_only_make_commands() -> None:
    assert [line for line in commands("make") if shlex.split(line, comments=True)[0] != "make"] == []


def test_each_target_that_the_prose_names_exists() -> None:
    named = {
        (target, name_of(document))
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8"))
    }
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    assert ("test", "CONTRIBUTING.md") in named
    assert {each for each in named if each[0] not in targets} == set()


# ---- Commands that need real keys, LiveKit, AWS or Docker ----


def exported(lines: list[str]) -> dict[str, str]:
    pairs = [shlex.split(line)[1:] for line in lines if line.startswith("export ")]
    return dict(pair.split("=", 1) for line in pairs for pair in line)


@pytest.mark.parametrize("block", command_blocks("keys"), ids=str)
def test_the_variables_for_real_keys_select_the_real_services(block: Block) -> None:
    others = [line for line in block.commands if not line.startswith("export ")]

    chosen = Services.chosen_by(exported(block.commands))

    assert others in (["make run"], ["make doctor", "make run"])
    assert chosen.livekit
    assert chosen.gemini
    assert chosen.gemini.base_url is None


def test_the_request_of_the_recording_guide_is_valid_in_livekits_api() -> None:
    [[command]] = [block.commands for block in command_blocks("livekit") if block.document.name == "recording.md"]
    [request] = [block.text for block in BLOCKS if block.document.name == "recording.md" and block.language == "json"]

    order = json_format.Parse(request, RoomCompositeEgressRequest())

    assert command == "lk egress start --type room-composite request.json"
    assert order.audio_only
    assert order.file_outputs[0].s3.bucket == "your-bucket"


def test_commands_for_aws_name_functions_and_parameters_of_the_template(template: Node) -> None:
    names = {
        f"pi-voice{resource['Properties']['FunctionName']['Fn::Sub'].removeprefix('${AWS::StackName}')}"
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    parameters, invoked = set[str](), set[str]()
    for line in commands("aws"):
        words = shlex.split(line)
        match words:
            case ["aws", "lambda", "invoke", *arguments]:
                options = dict(zip(arguments[:-1:2], arguments[1:-1:2], strict=True))
                invoked.add(options["--function-name"])
                assert isinstance(json.loads(options["--payload"]), dict)
            case ["make", *arguments]:
                for argument in arguments:
                    if argument.startswith("PARAMETERS="):
                        pairs = argument.removeprefix("PARAMETERS=").split()
                        parameters |= {pair.partition("=")[0] for pair in pairs}
            case ["aws", "cloudformation", "delete-stack", "--stack-name", "pi-voice"] | ["export", *_]:
                pass
            case _:
                raise AssertionError(f"nothing checks this command: {line}")
    assert invoked
    assert invoked - names == set()
    assert parameters
    assert parameters - template["Parameters"].keys() == set()


def test_the_deploy_script_or_the_aws_sdk_reads_each_variable_for_aws() -> None:
    script = (ROOT / "deploy/write_secrets.py").read_text(encoding="utf-8")
    region = botocore.session.Session.SESSION_VARIABLES["region"][1]

    unknown = {name for name in exported(commands("aws")) if f'"{name}"' not in script}

    assert unknown == {region}


def test_commands_for_docker_name_functions_and_samples_that_exist(template: Node) -> None:
    functions, samples = set[str](), set[str]()
    for line in commands("docker"):
        words = shlex.split(line)
        assert words[0] == "make", f"nothing checks this command: {line}"
        given = dict(word.split("=", 1) for word in words if "=" in word)
        if words[1] == "sam-invoke":
            functions.add(given["FUNCTION"])
            samples |= {value for name, value in given.items() if name == "EVENT"}
    assert functions
    assert {template["Resources"][name]["Type"] for name in functions} == {"AWS::Serverless::Function"}
    assert samples
    assert [sample for sample in samples if not (ROOT / sample).is_file()] == []

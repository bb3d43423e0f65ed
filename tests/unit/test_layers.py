"""Who may import whom: functions → use cases → domain, adapters behind ports, and wiring alone knows both sides."""

import ast
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "layers" / "voice" / "pi_voice"

DOMAIN = {
    "ids", "documents", "cursors", "voices", "api_keys", "errors", "agents", "sessions", "transcript", "schema",
    "schema_check", "prompt", "client_tokens", "evidence", "windows", "quality",
}  # fmt: skip
USE_CASES = {
    "access", "catalog", "history", "connecting", "provisioning", "renewing", "admission", "checkpoints", "hanging_up",
    "extraction", "extracting_again", "results", "completion", "room_events", "sweeping",
}  # fmt: skip
EDGE = {"http", "work", "idempotency", "wiring", "settings", "logs"}
SDKS = {"boto3", "botocore", "aiohttp", "livekit", "google", "jwt"}
PYDANTIC = {"pydantic", "pydantic_core", "typing_extensions"}

# for each kind of module: which of ours it may import, and which packages of others
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "domain": (DOMAIN, PYDANTIC | {"jsonschema", "re2"}),
    "ports": (DOMAIN, PYDANTIC),
    "use case": (DOMAIN | USE_CASES | {"ports", "logs"}, PYDANTIC),
    "adapter": (DOMAIN | {"adapters", "ports", "settings", "logs"}, PYDANTIC | SDKS),
    "http": (DOMAIN | {"ports", "logs", "wiring"}, PYDANTIC | {"aws_lambda_powertools"}),
    "work": (DOMAIN | {"http", "logs", "wiring"}, PYDANTIC | {"aws_lambda_powertools"}),
    "idempotency": (DOMAIN | {"ports", "logs"}, {"aws_lambda_powertools", "botocore"}),
    "wiring": (DOMAIN | USE_CASES | {"adapters", "settings", "idempotency"}, set()),
    "settings": (set(), set()),
    "logs": (set(), {"aws_lambda_powertools"}),
}


def kind_of(path: Path) -> str:
    """Tell what kind of module this is."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    kinds = dict.fromkeys(DOMAIN, "domain") | dict.fromkeys(USE_CASES, "use case") | {"adapters": "adapter"}
    return kinds.get(name, name)


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Parse a file."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports_of(path: Path) -> set[str]:
    """Read which modules a file imports, wherever in it it does."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """Return the modules of pi_voice that a file imports: `agents` for pi_voice.agents.Agent."""
    return {name.split(".")[1] for name in imports_of(path) if name.split(".")[0] == "pi_voice"}


def of_others(path: Path) -> set[str]:
    """Return the installed packages that a file imports."""
    packages = {name.split(".")[0] for name in imports_of(path)}
    return packages - {"pi_voice"} - STANDARD_LIBRARY


def reads_environment(path: Path) -> bool:
    """Tell whether a file looks at the process's environment."""
    names = {"environ", "environb", "getenv", "getenvb"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names) or (isinstance(node, ast.alias) and node.name in names)
        for node in nodes_of(path)
    )


STANDARD_LIBRARY: Final = sys.stdlib_module_names

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
FUNCTIONS = sorted((ROOT / "functions").glob("*/*.py"))

BESIDE = {"pi_voice.room_events.Receipt", "pi_voice.results.Budget", "pi_voice.sweeping.Swept"}
"""The few words that stand beside their use case; the use cases themselves come from the wiring, all of them."""


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE if PACKAGE in path.parents else ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_its_kind_may(path: Path) -> None:
    own, foreign = ALLOWED[kind_of(path)]

    assert ours(path) <= own
    assert of_others(path) <= foreign


@pytest.mark.parametrize("path", FUNCTIONS, ids=name_of)
def test_a_function_imports_only_the_edge_and_the_words_of_the_domain(path: Path) -> None:
    assert {name.split(".")[0] for name in imports_of(path)} <= {"pi_voice", "typing"}
    assert ours(path) <= DOMAIN | {"http", "work", "wiring"} | {name.split(".")[1] for name in BESIDE}
    assert {name for name in imports_of(path) if name.split(".")[1] in USE_CASES} <= BESIDE


@pytest.mark.parametrize("path", [*MODULES, *FUNCTIONS], ids=name_of)
def test_only_the_wiring_reads_the_environment(path: Path) -> None:
    assert reads_environment(path) == (path == PACKAGE / "wiring.py")


def test_each_sdk_has_its_own_adapters_and_nobody_else_knows_it() -> None:
    users = {sdk: {path.stem for path in [*MODULES, *FUNCTIONS] if sdk in of_others(path)} for sdk in SDKS}

    assert users == {
        "boto3": set(),
        "botocore": {"idempotency"},
        "aiohttp": {"web", "livekit", "gemini_live", "gemini_extraction"},
        "livekit": {"livekit"},
        "google": {"livekit", "gemini_extraction"},  # google.protobuf, google.genai
        "jwt": {"livekit_webhook"},
    }


def test_every_folder_of_functions_is_one_function() -> None:
    assert {path.parent.name for path in FUNCTIONS} == {
        path.name for path in (ROOT / "functions").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert len(FUNCTIONS) == 23


def test_the_modules_are_all_known_and_none_is_named_twice() -> None:
    names = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}

    assert names == DOMAIN | USE_CASES | EDGE | {"ports", "adapters"}
    assert len(DOMAIN) + len(USE_CASES) + len(EDGE) + 2 == len(names)

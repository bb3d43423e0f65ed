"""Import a build as a cold start does, invoke its functions, and print the outcome. Started by test_build.py.

    python3.13 -I -S -B cold_start.py <build>        < {"<function>": <event or null>}

The interpreter has the version of Lambda's runtime and starts without installed packages, so all imports come from the
standard library or the layer. Each function is then invoked with its event.
"""

import importlib
import importlib.util
import json
import pkgutil
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

build = Path(sys.argv[1])
layer = build / "VoiceLayer/python"
compiled: list[str] = []


def record_compiled_modules() -> None:
    """Record the modules for which the import system finds no valid bytecode."""
    compile_source = SourceFileLoader.source_to_code

    def noted(self: SourceFileLoader, data: Any, path: Any, **options: Any) -> CodeType:
        compiled.append(str(path))
        return compile_source(self, data, path, **options)

    SourceFileLoader.source_to_code = noted  # type: ignore[assignment,method-assign]


def app(function: str) -> ModuleType:
    """Import a function as Lambda does: from a file called app.py."""
    spec = importlib.util.spec_from_file_location(function, build / function / "app.py")
    assert spec
    assert spec.loader
    module = sys.modules[function] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Print JSON: the modules of the product, the compiled modules of the layer, and the statuses of the functions."""
    record_compiled_modules()
    sys.path.append(str(layer))
    product = importlib.import_module("pi_voice")
    modules = [module.name for module in pkgutil.walk_packages(product.__path__, "pi_voice.")]
    for name in modules:
        importlib.import_module(name)
    context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 30_000)
    statuses = {}
    for function, event in json.load(sys.stdin).items():
        handler = app(function).handler
        statuses[function] = handler(event, context)["statusCode"] if event else None
    of_layer = [path for path in compiled if path.startswith(str(layer))]
    print(json.dumps({"modules": modules, "compiled": of_layer, "statuses": statuses}))


main()

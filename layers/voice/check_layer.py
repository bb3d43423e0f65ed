"""Checks a built layer: `python3.13 check_layer.py <layer>/python arm64`.

A layer whose bytecode is void still works, two seconds slower at every cold start, and one whose native code is for
another processor fails at its first import on Lambda. Both are silent until then, so the build ends with this. It is
run by an interpreter of the Lambda runtime's own minor version, whose bytecode it expects.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

# Field e_machine of an ELF header, 2 bytes at offset 18.
MACHINES = {183: "arm64", 62: "x86_64"}

# Flags of a .pyc, 4 bytes at offset 4: 0 = by the date of the source, 1 = by its hash, unchecked, 3 = checked.
UNCHECKED_HASH = 1

# Lambda's limit for the functions and all their layers, unzipped.
MAX_BYTES = 250 * 1024 * 1024


def machine(library: Path) -> str:
    """Return the architecture that a native library is made for, "" if it is no native library."""
    with library.open("rb") as file:
        header = file.read(20)
    if header[:4] != b"\x7fELF":
        return ""
    code = int.from_bytes(header[18:20], "little")
    return MACHINES.get(code, f"ELF machine {code}")


def bytecode_fault(source: Path) -> str:
    """Say what keeps the bytecode of a module from being used as it stands, "" if nothing does."""
    bytecode = Path(importlib.util.cache_from_source(str(source)))
    if not bytecode.is_file():
        return "has no bytecode"
    with bytecode.open("rb") as file:
        header = file.read(8)
    if header[:4] != importlib.util.MAGIC_NUMBER:
        return "has bytecode of another Python"
    if int.from_bytes(header[4:], "little") != UNCHECKED_HASH:
        return "has bytecode that is void once the date of its source changes"
    return ""


def faults(layer: Path, architecture: str) -> Iterator[str]:
    """Name everything that is wrong with the folder `python` of a layer."""
    files = [path for path in sorted(layer.rglob("*")) if path.is_file()]
    for path in files:
        name = path.relative_to(layer)
        if path.suffix == ".py" and (fault := bytecode_fault(path)):
            yield f"{name} {fault}"
        if ".so" in path.suffixes and machine(path) != architecture:
            yield f"{name} is for {machine(path) or 'no machine'}, not for {architecture}"
    if not (layer / "pi_voice").is_dir():
        yield "pi_voice is missing"
    if (size := sum(path.stat().st_size for path in files)) > MAX_BYTES:
        yield f"{size} bytes are more than Lambda takes, {MAX_BYTES}"


def main() -> int:
    """Print the faults of the layer and return how the process should end."""
    found = list(faults(Path(sys.argv[1]), sys.argv[2]))
    for fault in found:
        print("Layer:", fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Check a built layer: `python3.13 check_layer.py <layer>/python arm64`.

A layer with invalid bytecode works, but every cold start takes two seconds longer. One with native code for another
processor fails at its first import on Lambda. The build itself notices neither, so it ends with this check. Run it with
the minor version of Python that Lambda runs, because it expects that version's bytecode.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

# Field e_machine of an ELF header, 2 bytes at offset 18.
MACHINES = {183: "arm64", 62: "x86_64"}

# Flags of a .pyc, 4 bytes at offset 4: 0 = date of the source, 1 = hash of the source, unchecked, 3 = hash, checked.
UNCHECKED_HASH = 1

# Lambda's limit for a function with all its layers, unzipped.
MAX_BYTES = 250 * 1024 * 1024


def machine(library: Path) -> str:
    """Return the architecture of a native library, "" for any other file."""
    with library.open("rb") as file:
        header = file.read(20)
    if header[:4] != b"\x7fELF":
        return ""
    code = int.from_bytes(header[18:20], "little")
    return MACHINES.get(code, f"ELF machine {code}")


def bytecode_fault(source: Path) -> str:
    """Return why Lambda would not use the bytecode of a module, "" if it would."""
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
    """Yield all faults of a layer's folder `python`."""
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
    """Print the faults of the layer and return the exit status."""
    found = list(faults(Path(sys.argv[1]), sys.argv[2]))
    for fault in found:
        print("Layer:", fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

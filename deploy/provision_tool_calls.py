"""Keep containers of call-tool started, by provisioned concurrency, in a built template.

    provision_tool_calls.py .aws-sam/build 2

Provisioned concurrency needs an alias of a published version. SAM publishes a version when the function's own code
changes, but ours is in the layer. So the version gets a hash of both; otherwise a deployment would leave the alias at
the code of an earlier one. That is why this is a step of the build, and no parameter of template.yaml.
"""

import hashlib
import sys
from pathlib import Path

import yaml

FUNCTION = "CallTool"
MAX_CONTAINERS = 1_000


def main() -> str | None:
    """Change the built template; return an error message."""
    folder, containers = Path(sys.argv[1]), sys.argv[2]
    if not (containers.isascii() and containers.isdigit() and 1 <= int(containers) <= MAX_CONTAINERS):
        return f"TOOL_CALL_CONCURRENCY is {containers!r}: give a number of containers from 1 to {MAX_CONTAINERS:,}."
    path = folder / "template.yaml"
    template = yaml.safe_load(path.read_text(encoding="utf-8"))
    template["Resources"][FUNCTION]["Properties"] |= {
        "AutoPublishAlias": "live",
        "AutoPublishCodeSha256": hash_of(folder),
        "ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": int(containers)},
    }
    path.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")
    return None


def hash_of(folder: Path) -> str:
    """Return a SHA-256 of the function and the layer in a build folder."""
    found = hashlib.sha256()
    files = [each for part in (FUNCTION, "VoiceLayer") for each in (folder / part).rglob("*") if each.is_file()]
    for file in sorted(files):
        content = file.read_bytes()
        found.update(f"{file.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


if __name__ == "__main__":
    sys.exit(main())

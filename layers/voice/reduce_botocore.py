"""Reduce botocore's data in a built layer to some services: `reduce_botocore.py <layer>/python dynamodb sqs`.

botocore has models of 400 services, 22 MB. A container would list all their folders, and parse the endpoints of all
services and the documentation of the one it calls (docs/adr/0025).
"""

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Remove the data of all other services, and the documentation in models."""
    data, services = Path(sys.argv[1]) / "botocore/data", sys.argv[2:]
    if missing := [service for service in services if not (data / service).is_dir()]:
        sys.exit(f"botocore has no model of {', '.join(missing)}.")
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in services:
            shutil.rmtree(folder)
    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: each for name, each in partition["services"].items() if name in services}
    (data / "endpoints.json").write_text(json.dumps(endpoints), encoding="utf-8")
    for model in data.glob("*/*/service-2.json.gz"):
        plain = json.dumps(_without_documentation(json.loads(gzip.decompress(model.read_bytes()))))
        model.write_bytes(gzip.compress(plain.encode(), mtime=0))  # a build is reproducible byte for byte


def _without_documentation(model: Any) -> Any:
    """Return a model without its texts; a member of a shape may also be called documentation, but is an object."""
    match model:
        case dict():
            return {
                name: _without_documentation(value)
                for name, value in model.items()
                if name != "documentation" or not isinstance(value, str)
            }
        case list():
            return [_without_documentation(each) for each in model]
        case _:
            return model


if __name__ == "__main__":
    main()

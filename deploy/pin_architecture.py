"""Restrict a built template to the architecture it was built for.

    pin_architecture.py .aws-sam/build/template.yaml x86_64

`sam build` writes a template that allows all architectures, but the layer's native code is for one. So a plain
`sam deploy` after `make build ARCH=x86_64` would create arm64 functions that fail at their first import. With one
allowed value, CloudFormation refuses other values, and `sam local` uses the right one by default.
"""

import sys
from pathlib import Path

import yaml


def main() -> None:
    """Restrict the parameter Architecture of the built template to one value."""
    path, architecture = Path(sys.argv[1]), sys.argv[2]
    template = yaml.safe_load(path.read_text(encoding="utf-8"))
    template["Parameters"]["Architecture"] |= {"Default": architecture, "AllowedValues": [architecture]}
    path.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# Prints the folder of a CPython of the Lambda runtime's own minor version: find_python.sh python3.13
#
# Bytecode is only valid for the minor version that wrote it, so no other one will do. A name on PATH is not
# enough either: pyenv puts names there that do not run.
set -euo pipefail
name=$1
version=${name#python}

shopt -s nullglob
for bin in \
  "$(dirname "$(command -v "$name" || echo /nowhere/at-all)")" \
  "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version"*/bin \
  "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$version"*/bin; do
  if "$bin/$name" -I - "$version" 2>/dev/null <<'PYTHON'; then
import importlib.util, sys, sysconfig
sys.exit(not (
    sys.implementation.name == "cpython"
    and f"{sys.version_info.major}.{sys.version_info.minor}" == sys.argv[1]
    and sys.version_info.releaselevel == "final"
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
    and importlib.util.find_spec("pip")
))
PYTHON
    echo "$bin"
    exit
  fi
done
echo "The build needs CPython $version with pip, because Lambda runs it and the layer's bytecode is only valid for it:" \
  "install it (pyenv install $version, or uv python install $version) or put $name on PATH." >&2
exit 1

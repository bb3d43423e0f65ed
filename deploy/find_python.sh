#!/usr/bin/env bash
# Print the folder of a CPython with the Lambda runtime's minor version: find_python.sh python3.13
#
# Bytecode is valid only for the minor version that wrote it. Each candidate is run, because pyenv puts names on PATH
# that do not run.
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

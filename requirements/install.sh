#!/usr/bin/env bash
# Makes a virtual environment from a lock: install.sh python3 .venv requirements/dev.txt
#
# Once it is complete, a copy of the lock in it says so. It is made anew when the lock changes and when making it was
# interrupted.
set -euo pipefail
python=$1 venv=$2 lock=$3

if cmp -s "$lock" "$venv/installed" && [ -x "$venv/bin/python" ]; then exit; fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "Pi Voice needs Python 3.11 or later, and $python is older or missing:" \
    "install one, or name one with PYTHON=..." >&2
  exit 1
fi
echo "Setting up $venv ..." >&2
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --require-hashes -r requirements/pip.txt
# The lock names every package, so there is nothing to resolve. Compiling on all cores is faster than pip's own.
"$venv/bin/python" -m pip install --quiet --no-compile --no-deps --require-hashes -r "$lock"
"$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true # some packages carry templates that are no Python yet
cp "$lock" "$venv/installed"

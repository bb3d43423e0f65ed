#!/usr/bin/env bash
# Create virtual environments from lock files, in parallel: install.sh python3 .venv requirements/dev.txt [...]
#
# A copy of the lock file marks a complete environment. An environment is recreated if its lock file has changed, if its
# creation was interrupted, or if a Python version is named (python3.13) that is not the one in it.
set -euo pipefail
python=$1
shift

install() {
  local venv=$1 lock=$2
  echo "Setting up $venv ..." >&2
  "$python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --require-hashes -r requirements/pip.txt
  # The lock file names every package, so no resolution is needed. Compiling on all cores is faster than pip does it.
  "$venv/bin/python" -m pip install --quiet --no-compile --no-deps --require-hashes -r "$lock"
  "$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true # some packages contain templates that are not valid Python
  cp "$lock" "$venv/installed"
}

is_there() {
  local venv=$1 lock=$2
  cmp -s "$lock" "$venv/installed" && [ -x "$venv/bin/python" ] || return
  case ${python##*/} in
    python3.*) [ -d "$venv/lib/${python##*/}" ] ;;
  esac
}

running=()
while [ $# -gt 0 ]; do
  if ! is_there "$1" "$2"; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "Pi Voice needs Python 3.11 or later, and $python is older or missing:" \
        "install one, or name one with PYTHON=..." >&2
      exit 1
    fi
    install "$1" "$2" &
    running+=($!)
  fi
  shift 2
done
for process in ${running[@]+"${running[@]}"}; do wait "$process"; done

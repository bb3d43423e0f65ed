#!/usr/bin/env bash
# Makes virtual environments from locks, side by side: install.sh python3 .venv requirements/dev.txt [...]
#
# Once an environment is complete, a copy of the lock in it says so. It is made anew when the lock changes, when making it
# was interrupted, and when a version is asked for by name (python3.13) that is not the one in it.
set -euo pipefail
python=$1
shift

install() {
  local venv=$1 lock=$2
  echo "Setting up $venv ..." >&2
  "$python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --require-hashes -r requirements/pip.txt
  # The lock names every package, so there is nothing to resolve. Compiling on all cores is faster than pip's own.
  "$venv/bin/python" -m pip install --quiet --no-compile --no-deps --require-hashes -r "$lock"
  "$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true # some packages carry templates that are no Python yet
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

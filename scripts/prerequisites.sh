#!/bin/sh
# Names what a fresh machine lacks, with the line that brings it, before anything is downloaded.
python=${1:-python3}
missing=""

if ! command -v "$python" >/dev/null 2>&1; then
  missing="$missing $python $python-venv $python-dev"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
  echo "error: $python is $("$python" -V 2>&1), but 3.10 or later is needed; name another one with" \
    "make PYTHON=python3.12" >&2
  exit 1
else
  "$python" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
  header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  [ -f "$header" ] || missing="$missing python3-dev"
fi
command -v g++ >/dev/null 2>&1 || command -v c++ >/dev/null 2>&1 || missing="$missing g++"

if [ -n "$missing" ]; then
  echo "error: this machine lacks:$missing" >&2
  echo "       sudo apt-get install -y$missing" >&2
  exit 1
fi

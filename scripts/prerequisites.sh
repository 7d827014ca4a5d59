#!/bin/sh
# Says which packages a fresh machine lacks, before anything is downloaded.
#
#   sh scripts/prerequisites.sh PYTHON           to build: an error with the command that installs them
#   sh scripts/prerequisites.sh PYTHON --tests   to build and to run every test: only their names, for .ci/run
python=${1:-python3}
missing=""

needs() { # COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

if ! command -v "$python" >/dev/null 2>&1; then
  missing="$missing $python $python-venv $python-dev"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: $python is $("$python" -V 2>&1), but 3.11 or later is needed; name another one with" \
    "make PYTHON=python3.12" >&2
  exit 1
else
  "$python" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
  header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  [ -f "$header" ] || missing="$missing python3-dev"
fi
command -v g++ >/dev/null 2>&1 || needs c++ g++

if [ "${2:-}" = --tests ]; then
  needs make make
  needs g++ g++      # native programs and their sanitizers
  needs cmake cmake  # csrc/ as a library
  needs nm binutils  # the stable ABI
  needs setarch util-linux
  needs chromium chromium              # clicks through the page of a gallery
  needs chromedriver chromium-driver
  echo "$missing" | tr ' ' '\n' | sort -u | xargs
elif [ -n "$missing" ]; then
  echo "error: this machine lacks:$missing" >&2
  echo "       sudo apt-get install -y$missing" >&2
  exit 1
fi

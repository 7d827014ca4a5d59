#!/bin/sh
# For a machine with a GPU: build for its card, check, measure. Needs no network.
#
#   scripts/gpu.sh              every step, one after the other; a failed step does not stop the others
#   scripts/gpu.sh STEP...      only these: build selftest memcheck racecheck synccheck ncu bench training card export
#                               roofline maps
#   scripts/gpu.sh visit        for a card that is lent for minutes: the most valuable steps first, each with its
#                               own limit, at most 580 seconds in all; libraries that were built elsewhere
#                               (make visit-kit) are used if they load
#   scripts/gpu.sh visit-rest   the steps that did not fit, at most 170 seconds
#
#   PYTHON    the Python whose own torch, 2.10 or later, is built against (python3)
#   RESULTS   the folder for logs, figures and summary.txt (results/gpu-CARD-DATE)
#   OUT       the folder for gpu.tgz, which a visit packs anew after each step (beside RESULTS)
#   LIMIT     seconds that a step may take (470: some machines allow ten minutes a command)
#
# Exit code: 0 if nothing failed, 1 if a step failed, 2 if this machine cannot run any step. A step whose
# tool is not installed says so, and does not fail.
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 2
python=${PYTHON:-python3}
limit=${LIMIT:-470}
built=$root/build/gpu/lib
steps="build selftest memcheck racecheck synccheck ncu bench training card export roofline maps"
# The steps of a visit with their limits in seconds, in the order of their value.
visit="libraries:240 selftest:130 bench:130 training:70 card:150 memcheck:80 ncu:60"
visit_rest="racecheck:45 synccheck:30 roofline:20 export:75 maps:60"

stop() {
  echo "gpu.sh: $*" >&2
  exit 2
}

deadline=
case "$*" in
  visit) plan=$visit deadline=$(($(date +%s) + 580)) ;;
  visit-rest) plan=$visit_rest deadline=$(($(date +%s) + 170)) ;;
  *) plan=${*:-$steps} ;;
esac
[ -n "$deadline" ] && set --
for step in "$@"; do
  case " $steps " in
    *" $step "*) ;;
    *) stop "there is no step '$step'; there are: $steps, and visit or visit-rest alone" ;;
  esac
done
command -v "$python" >/dev/null 2>&1 || stop "PYTHON=$python was not found"
case $python in
  /*) ;;
  */*) python=$root/$python ;;
esac

# Prints the compute capability and the card's name, or says in one line why there is nothing to do.
card=$("$python" - <<'END'
import re
import shutil
import subprocess
import sys


def stop(reason):
    print("gpu.sh: " + reason, file=sys.stderr)
    sys.exit(2)


try:
    import torch
except ImportError:
    smi = shutil.which("nvidia-smi")
    gpu = smi and subprocess.run([smi, "-L"], capture_output=True).returncode == 0
    missing = f"{sys.executable} has no torch (2.10 or later; another Python: make gpu PYTHON=...)"
    stop(missing if gpu else f"no GPU was found on this machine, and {missing}")
if tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
    stop(f"{sys.executable} has torch {torch.__version__}, but 2.10 or later is needed")
if not torch.cuda.is_available():
    cuda = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    stop(f"no GPU was found: torch {torch.__version__}, {cuda}, sees none")
major, minor = torch.cuda.get_device_capability(0)
name = re.sub("[^A-Za-z0-9]+", "-", torch.cuda.get_device_name(0)).strip("-")
print(f"{major}.{minor} {name}")
END
) || exit 2
# The interpreter itself, if PYTHON is a script around it: the tools look into the process that they start.
real=$("$python" -c 'import sys; print(sys.executable)') && [ -x "$real" ] && python=$real

results=${RESULTS:-$root/results/gpu-${card#* }-$(date +%Y-%m-%d)}
mkdir -p "$results" || exit 2
results=$(cd "$results" && pwd)
failed=0

# say STEP WORDS: print the step's line of the summary, and put it in place of an earlier one.
say() {
  line=$(printf '%-10s %s' "$1" "$2")
  { grep -v "^$1 " "$results/summary.txt"; echo "$line"; } 2>/dev/null >"$results/summary.new"
  mv "$results/summary.new" "$results/summary.txt"
  echo "$line"
}

# run STEP FOLDER COMMAND...: run it in that folder, with a log, a time limit, and a line of the summary.
run() {
  step=$1 folder=$2
  shift 2
  if [ ! -d "$folder" ]; then
    say "$step" "FAILED: nothing is built; run scripts/gpu.sh build"
    failed=1
    return
  fi
  start=$(date +%s)
  (cd "$folder" && exec timeout -k 10 "$limit" "$@") >"$results/$step.log" 2>&1
  code=$?
  took=$(($(date +%s) - start))
  case $code in
    0) say "$step" "passed, $took s" ;;
    124 | 137) say "$step" "FAILED: not done after $took s" && failed=1 ;;
    *) say "$step" "FAILED with exit code $code after $took s; its log ends:" && failed=1 ;;
  esac
  [ $code -eq 0 ] || tail -n 8 "$results/$step.log" | sed 's/^/    /'
}

# Whether the operations in the build folder load on this machine, and the reason if not.
loads() {
  "$python" -c 'import dsa_ext, sys; sys.exit(dsa_ext.CUDA_ERROR)'
}

# Use what was built elsewhere: the kit, or this tree's own libraries. Build only if neither loads.
libraries() {
  if [ ! -d "$built" ] && ls "$root"/dsa_ext/*.abi3.so >/dev/null 2>&1; then
    mkdir -p "$built"
    cp -r "$root/dsa_ext" "$root/python/dsareid" "$built/"
  fi
  if reason=$(loads 2>&1); then
    say libraries "passed, those that were brought load"
  else
    say libraries "to be built: $(echo "$reason" | tail -n 1)"
    build
  fi
}

# Pack all results into one archive. A reader sees the old one or the new one.
archive() {
  tar czf "$out/.gpu.tgz" -C "$(dirname "$results")" "$(basename "$results")" && mv "$out/.gpu.tgz" "$out/gpu.tgz"
}

# find_tool NAME: print the path of a tool of the CUDA toolkit, which is not always on PATH.
find_tool() {
  command -v "$1" && return
  for folder in "${CUDA_HOME:-/usr/local/cuda}/bin" /usr/local/cuda/bin; do
    [ -x "$folder/$1" ] && echo "$folder/$1" && return
  done
  return 1
}

machine() {
  date -u
  git log -1 --format='commit %H' 2>/dev/null
  uname -srm
  grep -m 1 'model name' /proc/cpuinfo
  echo "$(nproc) processors"
  "$python" -c 'import sys, torch
print("Python", sys.version)
print("torch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())'
  nvidia-smi
  nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.memory,power.limit --format=csv
  nvcc=$(find_tool nvcc) && "$nvcc" --version
}

build() {
  # Not in place, to keep an existing build for every architecture. The build folder gets a copy of the
  # Python files as well, and the steps run there. dsareid.ground._core, which training needs, is built if
  # pybind11 is there.
  rm -rf "$built"
  core=$("$python" -c 'import pybind11' 2>/dev/null && echo 1 || echo 0)
  run build "$root" env DSA_CUDA=1 "DSA_CORE=$core" "TORCH_CUDA_ARCH_LIST=${card%% *}" NVCC_APPEND_FLAGS=-lineinfo \
    "MAX_JOBS=${MAX_JOBS:-$(nproc)}" "$python" setup.py build \
    --build-base build/gpu --build-lib build/gpu/lib --build-temp build/gpu/temp
}

# sanitize TOOL: run it over a part of the self-test, on our kernels alone (by their namespace).
sanitize() {
  if ! tool=$(find_tool compute-sanitizer); then
    say "$1" "skipped: compute-sanitizer is not installed"
    return
  fi
  # Without torch's pool each tensor is an allocation of its own, so that memcheck sees where it ends.
  run "$1" "$built" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$tool" --tool "$1" --error-exitcode 9 \
    --report-api-errors no --kernel-name kns=_ZN3dsa "$python" -m dsa_ext.selftest --device cuda --quick
}

profile() {
  if ! tool=$(find_tool ncu); then
    say ncu "skipped: ncu is not installed"
    return
  fi
  before=$failed
  run ncu "$built" "$tool" --clock-control none --kernel-name-base demangled \
    --kernel-name 'regex:dsa::' --section SpeedOfLight --section MemoryWorkloadAnalysis \
    --section LaunchStats --section Occupancy --export "$results/ncu" --force-overwrite --page details \
    "$python" -m dsa_ext.selftest --device cuda --profile
  if grep -q ERR_NVGPUCTRPERM "$results/ncu.log" 2>/dev/null; then
    say ncu "skipped: this user may not read the GPU's counters (ERR_NVGPUCTRPERM)"
    failed=$before
  fi
}

# package NAME ARGUMENTS...: a benchmark of networks on the card, if what dsareid imports is there.
package() {
  name=$1
  shift
  imports 'pydantic, dsareid.ground._core' "$name" || return
  run "$name" "$built" "$python" "$root/benchmarks/$name.py" --preset paper --device cuda "$@" \
    --json "$results/$name.json"
}

# imports MODULES STEP: whether they are there; if not, skip the step.
imports() {
  reason=$(cd "$built" && "$python" -c "import $1" 2>&1) && return
  say "$2" "skipped: $(echo "$reason" | tail -n 1)"
  return 1
}

# maps: DensePose R-CNN on random weights, crops together and photographs.
maps() {
  imports 'pydantic, torchvision, PIL' maps || return
  run maps "$built" env "PYTHONPATH=$root/tests/helpers:$PYTHONPATH" "$python" "$root/benchmarks/rcnn.py" \
    --device cuda --crops 256 --json "$results/rcnn.json"
}

machine >"$results/machine.txt" 2>&1
export PYTHONPATH="$built${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
out=${OUT:-$(dirname "$results")}
echo "results: $results"
for step in $plan; do
  case $step in
    *:*)
      left=$((deadline - $(date +%s)))
      limit=${step#*:} step=${step%:*}
      [ "$limit" -le "$left" ] || limit=$left
      if [ "$limit" -lt 5 ]; then
        say "$step" "skipped: no time is left"
        continue
      fi
      ;;
  esac
  case $step in
    libraries) libraries ;;
    build) build ;;
    selftest)
      run selftest "$built" "$python" -m dsa_ext.selftest --device cuda --json "$results/selftest.json"
      ;;
    memcheck | racecheck | synccheck) sanitize "$step" ;;
    ncu) profile ;;
    bench) run bench "$built" "$python" "$root/benchmarks/kernels.py" --json "$results/kernels.json" ;;
    training) package training --rounds 4 ;;
    card) package card ;;
    export) package export --batch 64 ;;
    maps) maps ;;
    roofline) run roofline "$built" "$python" "$root/benchmarks/roofline.py" ;;
  esac
  [ -z "$deadline" ] || archive
done
exit $failed

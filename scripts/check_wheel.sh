#!/bin/sh
# Tests a wheel beside released versions of torch: installs both in an empty environment and runs every
# compiled operation there; last, audits the libraries' ABI. Downloads gigabytes; the environments are
# removed when it ends.
#
#   sh scripts/check_wheel.sh PYTHON dist/dsareid-*.whl torch==2.10.0 torch==2.14.1
set -eu
python=$(command -v "$1")
case $python in /*) ;; *) python=$PWD/$python ;; esac
wheel=$(realpath "$2")
shift 2

room=$(mktemp -d "${TMPDIR:-/tmp}/check-wheel.XXXXXX")
trap 'rm -rf "$room"' EXIT
trap 'exit 1' INT TERM
mkdir "$room/empty"
cd "$room/empty" # not the checkout: Python would find its dsa_ext before the wheel's
unset PYTHONPATH

install() { # ENVIRONMENT PACKAGE...
  environment=$1
  shift
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

for torch; do
  echo "== $torch: installing"
  rm -rf "$room/env"
  "$python" -m venv "$room/env"
  install "$room/env" "$torch" numpy
  install "$room/env" --no-deps "$wheel"
  "$room/env/bin/python" -m dsa_ext.selftest
  # _C_cuda is optional for dsa_ext; here it must load if it is in the wheel and torch has CUDA.
  "$room/env/bin/python" - <<'EOF'
import importlib.util, sys, torch, dsa_ext, dsareid.ground._core
built = importlib.util.find_spec("dsa_ext._C_cuda") is not None
if built and torch.version.cuda and dsa_ext.CUDA_ERROR:
    sys.exit(f"error: {dsa_ext.CUDA_ERROR}")
assert all("__global__" in dsa_ext.kernel_source(name) for name in ("warp", "merge", "rank"))
libraries = ["_C", *["_C_cuda"] * (built and torch.version.cuda is not None), "_core"]
print(f"== torch {torch.__version__}, Python {sys.version.split()[0]}: loaded {', '.join(libraries)}")
EOF
done

echo "== audit"
"$python" -m venv "$room/audit"
install "$room/audit" torch-abi-audit abi3audit
package=$(echo "$room"/env/lib/python*/site-packages/dsa_ext)
"$room/audit/bin/torch-abi-audit" --check both "$package"
"$room/audit/bin/abi3audit" --strict --verbose "$package"/*.abi3.so

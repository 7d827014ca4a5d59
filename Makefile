# The commands a developer types. All of them can be run again and skip what is done.
#
#   make demo    install, build, make the synthetic data set, train, evaluate, write a report
#   make test    install, build, run every test (12 minutes on two cores the first time, less afterwards)
#   make test-fast   the tests that need no compiler, no group of processes and no documentation (2 minutes)
#   make check   ruff, clang-format and mypy, pinned (seconds)
#   make setup   only install and build (make build is the same: it compiles what changed)
#   make bench   measure every claim about speed; rewrites benchmarks/results/*.json and docs/performance.md (half an hour)
#   make kernels memory traffic and resources of the CUDA kernels, found out without a GPU
#   make gpu     on a machine with a GPU: build for it with PYTHON's own torch, check, measure (scripts/gpu.sh)
#   make visit-kit   what to carry to a machine with a GPU that is lent for minutes (scripts/gpu.sh visit)
#   make docs    the site of docs/ into build/site, without network
#   make wheel   a wheel of the whole project into dist/
#   make fuzz    read 100,000 damaged files
#   make soak    a million batches: does memory stay level (minutes)
#   make kills   end commands with kill -9 at 200 random moments; count the processes that they leave behind
#   make check-wheel   test that wheel beside the oldest and the pinned torch (downloads 10 GB)
#   make clean   remove what build and demo made, but not the installed packages

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DSAREID := $(VENV)/bin/dsareid
# Two versions that are known to work together; a bare "torch" would install the newest.
TORCH := torch==2.14.1 torchvision==0.29.1
OLDEST_TORCH := torch==2.10.0  # that pyproject.toml allows
# Workers of pytest: as many as cores, each with whole files, so that a file's fixtures are made once.
WORKERS ?= 2
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile --durations=20
FAST := not compiles and not processes and not documents and not slow and not extras
TOOLS := setuptools wheel ninja pybind11
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

SOURCES := $(shell find csrc -type f)
DEMO := demo
DEMO_DATA := --identities 200 --images 10

CXX_FILES := find csrc tests examples benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh'
# In the order in which they run; the last one may have to download weights.
BENCHMARKS := batch micro training step contention warp merge trunk dsag rank densepose export roofline gallery growing estimate
SCRIPT := PYTHONPATH=tests/helpers $(PY)

.PHONY: demo test test-fast check setup build bench soak fuzz kills kernels visit-kit gpu docs wheel check-wheel clean

demo: $(DEMO)/run/evaluation.json
	@$(DSAREID) report $(DEMO)/run

test: build
	$(PYTEST)

test-fast: build
	$(PYTEST) -m "$(FAST)"

check: $(VENV)/.checkers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(CXX_FILES) | xargs $(VENV)/bin/clang-format --dry-run --Werror
	$(VENV)/bin/mypy

setup build: $(VENV)/.built

bench: build
	$(PIP) numba spdl-core
	$(SCRIPT) benchmarks/loader.py --plot docs/loader.png --json benchmarks/results/loader.json
	for name in $(BENCHMARKS); do \
	  $(SCRIPT) benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; \
	done
	$(SCRIPT) benchmarks/page.py

soak: build
	$(SCRIPT) tests/robustness/soak_loader.py

fuzz: build
	$(SCRIPT) tests/robustness/fuzz.py

kills: build
	$(SCRIPT) tests/robustness/kills.py
	$(SCRIPT) tests/robustness/kills.py --left-behind 5

kernels: $(VENV)/.torch
	@$(SCRIPT) tests/helpers/cuda_resources.py
	@echo
	@$(SCRIPT) tests/simt/report.py

# What a machine with a GPU, lent for minutes, needs beside the tree; KIT_PYTHON is of its Python's version.
KIT_PYTHON ?= python3.12
visit-kit: build
	@$(SCRIPT) scripts/visit_kit.py --python $(KIT_PYTHON)

gpu:
	@PYTHON=$(PYTHON) sh scripts/gpu.sh

docs: $(VENV)/.installed
	@$(PY) -m sphinx -W --keep-going -q -d build/doctrees docs build/site
	@echo "site: build/site/index.html"

# setuptools packs all that lies in build/lib, also modules deleted since, so it is emptied first.
wheel: $(VENV)/.torch
	rm -rf dist build/lib.* build/bdist.*
	$(PY) -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/*.whl

check-wheel: wheel
	sh scripts/check_wheel.sh $(PY) dist/*.whl $(OLDEST_TORCH) $(firstword $(TORCH))

clean:
	rm -rf build dist $(DEMO) $(VENV)/.built dsa_ext/*.so python/dsareid/ground/*.so

$(VENV)/.torch: scripts/prerequisites.sh
	@sh scripts/prerequisites.sh $(PYTHON)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing torch (5.5 GB with its CUDA libraries; a minute or two)"
	$(PIP) $(TORCH) $(TOOLS)
	@touch $@

# --no-build-isolation, so that setup.py sees the installed torch, which it needs.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml setup.py
	@echo "installing dsareid and its dependencies"
	DSA_BUILD=0 $(PIP) --no-build-isolation --editable ".[test]"
	@touch $@

$(VENV)/.checkers: $(VENV)/.installed
	@echo "installing the checkers"
	DSA_BUILD=0 $(PIP) --no-build-isolation --editable ".[check]"
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	@mkdir -p build
	@echo "compiling csrc/ (a minute; the log is build/build.log)"
	@$(PY) setup.py build_ext --inplace > build/build.log 2>&1 || \
	  { tail -n 40 build/build.log; echo "error: csrc/ did not compile, see build/build.log"; exit 1; }
	@grep '^dsa_ext:' build/build.log
	@touch $@

$(DEMO)/data/synth.json: | build
	$(DSAREID) synth $(DEMO)/data $(DEMO_DATA)

$(DEMO)/run/.trained: $(DEMO)/data/synth.json
	$(DSAREID) train --preset demo --data $(DEMO)/data --out $(DEMO)/run \
	  $$(test -e $(DEMO)/run/checkpoint.pt && echo --resume)
	@touch $@

$(DEMO)/run/evaluation.json: $(DEMO)/run/.trained
	$(DSAREID) eval $(DEMO)/run > /dev/null  # the report prints the table

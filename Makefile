# Everything a user or a CI machine runs; `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# Passed through: PIP_ARGS to pip, POLICY (a .onnx file) and ARGS to the command, PYTHON chooses the interpreter,
# JOBS says how many files of tests run at once (auto: one a core; 0: one, in this process). Those of nodes come last, three
# at a time: they wait for each other's answers most of the time, which a busy machine would delay.
PIP_ARGS ?=
POLICY ?=
ARGS ?=
JOBS ?= auto
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin

# Beside a sourced ROS distribution its rclpy, messages, cv2 and numpy are used; elsewhere all come as wheels.
ifdef ROS_DISTRO
MODE := ros
PYTHONS := $(or $(PYTHON),/usr/bin/python3 python3)
PROBE := import sys, rclpy
VENV_ARGS := --system-site-packages
CONSTRAINTS := constraints-ros.txt
EXTRAS := bag,sim,train,cpu,test
else
MODE := wheels
PYTHONS := $(or $(PYTHON),python3 python3.12 python3.11 /usr/bin/python3)
PROBE := import sys
VENV_ARGS :=
CONSTRAINTS := constraints.txt
EXTRAS := ros,bag,sim,train,cpu,test
endif
STAMP := $(VENV)/.installed-$(MODE)

# Install Debian packages if this user may; fails quietly otherwise.
define APT_INSTALL
apt_install() {
    command -v apt-get >/dev/null || return 1
    local sudo=
    [ "$$(id -u)" = 0 ] || { sudo="sudo -n"; $$sudo true 2>/dev/null || return 1; }
    echo "== Installing $$*"
    $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$$@" >/dev/null
}
endef

.PHONY: help
help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do
	    printf '  make %-10s %s\n' "$$name" "$$text"
	done

.PHONY: setup
setup: $(STAMP) rendering ## Create .venv with every pinned package, and see to the rendering library

$(STAMP): setup.py $(CONSTRAINTS)
	@$(APT_INSTALL)
	python=
	for candidate in $(PYTHONS); do
	    if "$$candidate" -c '$(PROBE); sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
	        python=$$candidate; break
	    fi
	done
	if [ -z "$$python" ]; then
	    echo "error: expected Python 3.11 or 3.12$(if $(ROS_DISTRO), that imports the rclpy of ROS $(ROS_DISTRO)), found none" \
	         "among: $(PYTHONS). Install one, or name it: make setup PYTHON=/path/to/python3" >&2
	    exit 2
	fi
	if ! "$$python" -c 'import ensurepip' 2>/dev/null; then
	    package=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
	    apt_install "$$package" || { echo "error: install $$package, then try again" >&2; exit 2; }
	fi
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1 || [ -n "$$(find $(VENV) -maxdepth 1 -name '.installed-*' ! -name .installed-$(MODE))" ]; then
	    echo "== Creating $(VENV) with $$python ($$("$$python" --version))"
	    "$$python" -m venv --clear $(VENV_ARGS) $(VENV)
	fi
	touch $(VENV)/COLCON_IGNORE
	echo "== Installing packages into $(VENV): the first time this takes some minutes"
	$(BIN)/python -m pip install $(PIP_ARGS) -c $(CONSTRAINTS) setuptools
	$(BIN)/python -m pip install $(PIP_ARGS) -c $(CONSTRAINTS) --no-build-isolation -e '.[$(EXTRAS)]'
	touch $(STAMP)

.PHONY: rendering
rendering:
	@$(APT_INSTALL)
	present() {
	    PATH=$$PATH:/sbin:/usr/sbin ldconfig -p | grep -q 'libEGL\.so\.1' && compgen -G '/usr/lib/*/dri/*_dri.so' >/dev/null
	}
	if [ "$${MUJOCO_GL:-egl}" = egl ] && ! present && ! { apt_install libegl1 libgl1-mesa-dri && present; }; then
	    echo "note: the simulation cannot render until you install: apt-get install libegl1 libgl1-mesa-dri" >&2
	fi

.PHONY: browser
browser:
	@$(APT_INSTALL)
	if ! command -v chromium google-chrome >/dev/null && ! apt_install --no-install-recommends chromium fonts-liberation 2>/dev/null; then
	    echo "note: tests of web pages are skipped until you install Chromium or Chrome" >&2
	fi

.PHONY: demo
demo: setup ## Train (or take POLICY=file.onnx), then drive the simulated robot through ROS 2
	@$(BIN)/sac-ae demo $(if $(POLICY),--policy '$(POLICY)') $(ARGS)

.PHONY: test
test: lint browser ## Run the linters and every test but the slow ones
	@code=5 # pytest's, for no such tests
	run() {
	    local own=0
	    $(BIN)/python -m pytest "$$@" $(ARGS) || own=$$?
	    if [ $$own != 5 ] && { [ $$code = 5 ] || [ $$code = 0 ]; }; then code=$$own; fi
	}
	run -m 'not slow and not real_time' -n $(JOBS) --maxprocesses 4 --dist loadfile
	run -m 'not slow and real_time' -n $(if $(filter auto,$(JOBS)),3,$(JOBS)) --maxprocesses 3 --dist loadfile
	exit $$code

.PHONY: test-slow
test-slow: setup ## Run the tests that take longer
	@$(BIN)/python -m pytest -m slow $(ARGS)

.PHONY: gpu-pack
gpu-pack: setup ## Pack what a GPU machine without a network lacks, and print what to run there
	@$(BIN)/python benchmarks/gpu_pack.py $(ARGS)

.PHONY: lint
lint: setup ## Run ruff and mypy
	@$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: clean
clean: ## Remove build outputs and caches; .venv and runs/ stay
	@rm -rf build dist install log *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

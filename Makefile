# make setup    the environment .venv, with the versions that constraints.txt pins
# make lab      the lessons in JupyterLab
# make check    ruff and the tests of about a minute, for those who change a line
# make test     every test, ruff and the lessons included
# make lessons  every lesson executed and written to build/lessons as a page of its own
# make slides   every lesson as slides, written to build/slides: each opens in a browser, without a network
# make student  the learner's edition of the lessons and the teacher's, in build/student and build/teacher
# make site     the course as pages to read and search, written to build/site: no kernel, no network
# make clean    removes what these made

PYTHON = python3
OPTIONS =

VENV = .venv
BIN = $(VENV)/bin

# What the environment was made from and where: the stamp that is written last, when all of it is there.
PINS = $$(cat pyproject.toml constraints.txt | cksum) $$(pwd)

PYTEST = $(BIN)/python -m pytest -n auto --no-loadscope-reorder

# Where this is set Python compiles every module anew in every process: starting torch then takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup lab check test lessons slides student site browser clean

help:
	@sed -n 's/^# make /make /p' Makefile

# uv installs what pip would, in half the time. It does not read pip's settings: where these name an index, pip installs.
# --no-compile: Python compiles what is imported when it is first imported, and most of these files never are.
setup:
	@set -e; \
	if [ -x $(BIN)/python ] && [ "$$(cat $(VENV)/.pins 2>/dev/null)" = "$(PINS)" ] && $(BIN)/python -c ''; then exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>/dev/null) || found="not there"; \
		echo "mmlesson needs Python 3.11 or newer; $(PYTHON) is $$found." >&2; \
		echo "Install a newer one and name it, for example: make setup PYTHON=python3.12" >&2; exit 1; }; \
	if [ -e $(VENV)/.unfinished ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m venv --clear $(VENV); \
	fi; \
	echo "Installing what constraints.txt pins into $(VENV) (a few minutes, about 6 GB with torch) ..."; \
	: > $(VENV)/.unfinished; rm -f $(VENV)/.pins; \
	if [ -t 1 ]; then quiet=; else quiet=--quiet; fi; \
	pip="$(BIN)/python -m pip install --disable-pip-version-check --no-compile"; \
	if $(BIN)/python -m pip config list | grep -q '\.index-url='; then install="$$pip $$quiet"; \
	elif $$pip --quiet -c constraints.txt uv; then install="$(BIN)/uv pip install $$quiet --python $(BIN)/python"; \
	else install="$$pip $$quiet"; fi; \
	needed() { "$$@" -c constraints.txt hatchling && "$$@" -c constraints.txt --no-build-isolation -e '.[test]'; }; \
	needed $$install || { echo "Once more, with pip ..."; needed $$pip $$quiet; }; \
	echo "$(PINS)" > $(VENV)/.pins; rm -f $(VENV)/.unfinished; \
	echo "Ready."

lab: setup
	$(BIN)/mmlesson lab $(OPTIONS)

# The tests run in as many processes as there are cores, one thread each; tests/conftest.py says in which order.
check: setup
	$(PYTEST) -m "not slow" $(OPTIONS)

test: setup
	$(PYTEST) $(OPTIONS)

lessons: setup
	$(BIN)/mmlesson lessons --out build/lessons $(OPTIONS)

slides: setup
	$(BIN)/mmlesson slides --out build/slides $(OPTIONS)

student: setup
	$(BIN)/mmlesson student --out build $(OPTIONS)

site: setup
	$(BIN)/mmlesson site --out build/site $(OPTIONS)

# Chromium for the tests that drive a browser, where there is none and we are root on Debian or Ubuntu.
# Without a browser those tests are left out, except in CI, where they fail.
browser:
	@for name in google-chrome google-chrome-stable chromium chromium-browser chrome; do \
		if command -v $$name >/dev/null 2>&1; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "Installing Chromium for the browser tests ..."; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 || { \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }; \
	else \
		echo "No Chrome or Chromium found: install one for the browser tests." >&2; \
	fi

clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .ruff_cache
	find mmlesson tests -name __pycache__ -type d -prune -exec rm -rf {} +

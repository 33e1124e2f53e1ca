# `make help` lists the targets. CI runs only `make test`.

# --- for make run --------------------------------------------------------------------------------------------
HOST    ?= 127.0.0.1
PORT    ?= 8000
ENGINE  ?=
STANDIN ?=
ARGS    ?=

# --- for make chaos ------------------------------------------------------------------------------------------
ROUNDS  ?= 20
SEED    ?= 1

# --- for make install, uninstall and deb ---------------------------------------------------------------------
DESTDIR ?=
PREFIX  ?= /usr/local
BUNDLE  ?=

# --- for everything ------------------------------------------------------------------------------------------
VENV    ?= .venv
PYTHON  ?=
PYTEST  ?=

# A package with its own Python needs a Python that can be copied, and a separate environment.
ifneq ($(BUNDLE),)
override VENV   := .venv-bundle
override PYTHON := --managed
endif
PY      := $(VENV)/bin/python
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3
SOURCES := reconciler api tests desired-state

.DEFAULT_GOAL := help
# One job at a time, also with -j: the output is for people, and the tests share one machine.
.NOTPARALLEL:
.PHONY: help run clean test lint types layers docs unit rest engine git e2e browser systemd chaos chaos-proof bench screenshots fmt \
	install uninstall deb lock environment tools test-machine

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  make run takes PORT=8010  HOST=127.0.0.1  ENGINE=docker|private|simulated  STANDIN=0|1  ARGS="--resync 30"'
	@echo '  make install takes PREFIX=/usr/local  DESTDIR=/tmp/root'

run: environment ## run the daemon on desired-state/, with an engine and images if there are none; Ctrl-C stops it
	@$(PY) -m reconciler.quickstart run --host='$(HOST)' --port='$(PORT)' --engine='$(ENGINE)' \
		--standin='$(STANDIN)' --args='$(ARGS)'

# The first half is bound by CPU, the second waits for containers most of the time. In each half the longest files
# come first, so that no process runs one alone at the end.
BY_FILE := --dist loadfile --no-loadscope-reorder
test: lint types layers docs test-machine ## everything below except bench, as CI runs it
	@$(PY) -m pytest $(PYTEST) -n 2 $(BY_FILE) tests/rest tests/git tests/engine tests/unit
	@$(PY) -m pytest $(PYTEST) -n 3 $(BY_FILE) tests/chaos tests/systemd tests/e2e tests/browser

lint: tools ## ruff: mistakes and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: tools ## mypy --strict
	@$(PY) -m mypy --strict
	@$(PY) -m mypy --strict systemd/install.py

layers: tools ## import-linter: which module may import which
	@$(VENV)/bin/lint-imports

docs: tools ## the user guide, into .cache/site; --strict: a broken link or anchor fails
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict

unit: tools ## unit and property tests; no engine needed
	@$(PY) -m pytest $(PYTEST) tests/unit

rest: tools test-machine ## the API of a running daemon: Schemathesis, Prometheus, many writers at once
	@$(PY) -m pytest $(PYTEST) tests/rest

engine: tools test-machine ## the contract of an engine, for the simulated and real ones
	@$(PY) -m pytest $(PYTEST) tests/engine

git: tools test-machine ## desired state in git: pushes, pull mode, commits of writes
	@$(PY) -m pytest $(PYTEST) tests/git

e2e: tools test-machine ## end to end, on private engines
	@$(PY) -m pytest $(PYTEST) tests/e2e

browser: tools test-machine ## the dashboard in Chromium, on a private engine
	@$(PY) -m pytest $(PYTEST) tests/browser

systemd: tools test-machine ## the package and the service, on a real systemd
	@$(PY) -m pytest $(PYTEST) tests/systemd

screenshots: tools test-machine ## the pictures of the dashboard in README.md
	@$(PY) -m tests.browser.screenshots

bench: tools test-machine ## speed, compared with Docker Compose
	@$(PY) -m tests.bench $(ARGS)

chaos: tools test-machine ## ROUNDS=20 rounds of faults from SEED=1; ARGS="--only KIND --keep-going"
	@$(PY) -m tests.chaos --rounds $(ROUNDS) --seed $(SEED) $(ARGS)

chaos-proof: tools test-machine ## check that make chaos finds each of nine broken builds
	@$(PY) -m pytest $(PYTEST) tests/chaos/proof.py

fmt: tools ## format the code, apply the fixes of ruff
	@$(PY) -m ruff check --fix --exit-zero .
	@$(PY) -m ruff format .

install: environment ## install the service under PREFIX, into DESTDIR; run again to upgrade
	@$(PY) systemd/install.py install --prefix='$(PREFIX)' --destdir='$(DESTDIR)'

uninstall: environment ## remove the service; containers, desired state and audit log stay
	@$(PY) systemd/install.py uninstall --prefix='$(PREFIX)' --destdir='$(DESTDIR)'

deb: environment ## build dist/alpr-service-manager_*.deb; BUNDLE=1 includes a Python
	@$(PY) systemd/install.py deb $(if $(BUNDLE),--bundle)

# The only way to change versions: everything is installed from these files, by hash.
UV   ?= .cache/uv/bin/uv
LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade
lock: ## rebuild requirements*.lock with the newest versions that pyproject.toml allows; UV=/path/to/uv
	@[ '$(UV)' != .cache/uv/bin/uv ] || [ -x $(UV) ] || { $(or $(PYTHON),python3) -m venv .cache/uv && \
		.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv; }
	@export UV_CUSTOM_COMPILE_COMMAND='make lock'; \
	$(UV) $(LOCK) pyproject.toml -o requirements.lock && \
	$(UV) $(LOCK) --extra test -c requirements.lock pyproject.toml -o requirements-dev.lock && \
	sed -n '/^\[build-system\]/,/^$$/s/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml \
		| $(UV) $(LOCK) -o requirements-build.lock - && \
	echo uv | $(UV) $(LOCK) -o requirements-uv.lock -

# Without a record and an environment there is nothing to remove from an engine.
clean: ## remove what run and test created, and nothing else; volumes on your own engine stay
	@if [ -e .run ] || [ -x $(PY) ]; then \
		$(MAKE) --no-print-directory environment && $(PY) -m reconciler.quickstart clean; \
	fi
	@if [ -e $(VENV)/.service-manager.json ]; then rm -rf $(VENV); fi
	@rm -rf build dist alpr_service_manager.egg-info .cache/debian .cache/uv .cache/python .venv-bundle
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# --- prerequisites of the targets above ---------------------------------------------------------------------------------
environment:
	@$(call with_python,$(VENV))

tools:
	@$(call with_python,$(VENV) test)

test-machine: tools
	@$(PY) -m reconciler.quickstart prepare-tests

# The first Python that is new enough creates the environment; without one, one is fetched.
define with_python
python=$$(reconciler/quickstart/find-python $(or $(PYTHON),$(PYTHONS))) && \
PYTHONDONTWRITEBYTECODE=1 $$python -m reconciler.quickstart.venv $(1)
endef

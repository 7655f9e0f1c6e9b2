# Everything is made inside this folder (.venv, .venv-meltano); nothing is installed anywhere else.
# Python 3.11 or newer and make are all it takes; where uv is installed, it is used and saves time.

SHELL := /bin/sh
PYTHON ?= python3
WORKERS ?= 2
UV := $(shell command -v uv 2>/dev/null)

# Meltano has an environment of its own, as its users have it: it pins what the package leaves open.
VENV := .venv
MELTANO_VENV := .venv-meltano
TARGET_VENV := .venv-target-postgres
AUDIT_VENV := .venv-audit
BUILD_VENV := .venv-build
BIN := $(VENV)/bin
EXTRAS := emulator,arrow,s3,postgres,page,otel

# The package as it lies here; or, as CI has it, a wheel: make environments WHEEL=dist/….whl
PACKAGE = $(if $(WHEEL),'$(WHEEL)[$(EXTRAS)]',-e '.[$(EXTRAS)]')

# $(call environment,FOLDER,WHAT TO INSTALL)
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed: make … PYTHON=python3.12' >&2; exit 1; }
	@echo 'Making $(1), which takes about half a minute …'
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1)
	@$(if $(UV),$(UV) pip install -q --python $(1)/bin/python -c constraints.txt -b constraints.txt $(2) \
		||) { $(1)/bin/python -m pip install -qq -c constraints.txt pip \
		&& $(1)/bin/python -m pip install -qq -c constraints.txt --build-constraint constraints.txt $(2); }
	@touch $@
endef

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: test
test: lint environments ## Run all checks and all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

.PHONY: test-long
test-long: environments ## Kill runs and real taps, take mirrors through random histories, and fuzz, for half an hour
	@$(MAKE) -k taps examples || echo 'A tap or a scheduler could not be installed, so its tests are skipped.' >&2
	REAL_TAPS=1 KILLS=100 EXAMPLES=50 FUZZ=50 SPEED=1 SEGMENT_MEMBERS=1000000 $(BIN)/python -m pytest -n $(WORKERS) tests/delivery/test_pace.py tests/system/test_kills.py tests/cli/test_confirm_kills.py tests/cli/test_move_kills.py tests/cli/test_resync_kills.py tests/cli/test_segment_uploads.py tests/system/test_convergence.py tests/system/test_server_ledgers.py tests/sync/test_unarchiver.py tests/singer/test_fuzz_input.py tests/settings/test_fuzz_settings.py tests/taps tests/examples $(PYTEST_ARGS)

# As in: make soak MINUTES=30 SEED=7 POSTGRES=1
.PHONY: soak
soak: $(VENV)/.made ## Run through troubles and compare all cohorts after each (MINUTES=5, SEED=, POSTGRES=1)
	@$(BIN)/python -m tools.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(POSTGRES),--postgres)

.PHONY: demo
demo: environments ## Sync cohorts from a real PostgreSQL to an emulated MoEngage, with the real Meltano
	@$(BIN)/python -m tools.demo

.PHONY: picture
picture: environments ## Take README's picture of the emulator's page, in Chromium
	@$(BIN)/python -m tools.demo.picture

.PHONY: demo-hosts
demo-hosts: $(VENV)/.made ## Let two hosts share a ledger on PostgreSQL and one rate limit, in two minutes
	@$(BIN)/python -m tools.demo.hosts

# As in: make bench MEMBERS=100000 ONLY='mirror batch' LONG=1
# ONLY takes mirror, batch, growth, fan-out, streams, doubt, engines, cold, packing and startup.
BENCH = $(BIN)/python -m tools.benchmarks $(if $(MEMBERS),--members $(MEMBERS)) $(if $(LONG),--long)

.PHONY: bench
bench: $(VENV)/.made ## Measure speed and memory, in a few minutes (LONG=1: everything)
	@$(BENCH) $(ONLY)

.PHONY: bench-report
bench-report: $(VENV)/.made ## Measure, and write docs/performance.md
	@$(BENCH) --report

.PHONY: hub
hub: $(VENV)/.made ## Write docs/meltano-hub.yml, which the Meltano Hub is to have, from --about
	@$(BIN)/python -m tools.hub

# Tests misspell on purpose.
PROSE = README.md CHANGELOG.md Makefile pyproject.toml docs .github target_moengage_cohort tools

# .proselintrc.json leaves out three of its checks: they take headings and tables for repetitions, code for
# prose with straight quotes, "resume" for a noun, and names such as hourly-cohorts for adjectives.
.PHONY: lint
lint: $(VENV)/.made ## Check style, types, spelling and prose
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell $(PROSE)
	$(BIN)/proselint check --config .proselintrc.json README.md CHANGELOG.md .github docs

.PHONY: format
format: $(VENV)/.made ## Put the code into the agreed style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: audit
audit: $(AUDIT_VENV)/.made ## Look for known vulnerabilities in constraints.txt; asks PyPI
	$(AUDIT_VENV)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

.PHONY: build
build: $(BUILD_VENV)/.made ## Build wheel and sdist into dist
	rm -rf dist
	$(BUILD_VENV)/bin/python -m hatchling build
	@ls -d $(CURDIR)/dist/*

.PHONY: environments
environments: $(VENV)/.made $(MELTANO_VENV)/.made $(TARGET_VENV)/.made ## Make the environments to work in

$(VENV)/.made: pyproject.toml constraints.txt
	$(call environment,$(VENV),--group dev $(PACKAGE))

$(MELTANO_VENV)/.made: pyproject.toml constraints.txt
	$(call environment,$(MELTANO_VENV),--group meltano)

# The target that loads the history; it pins other versions than the tap of the same makers.
$(TARGET_VENV)/.made:
	@echo 'Making $(TARGET_VENV) …'
	@rm -rf $(TARGET_VENV)
	@$(PYTHON) -m venv $(TARGET_VENV)
	@$(TARGET_VENV)/bin/python -m pip install -qq meltanolabs-target-postgres==0.8.1
	@touch $@

# Taps of other makers, each with the old versions that it needs; some of these are compiled.
TAP_VERSIONS = mysql==1.6.0 postgres==1.8.4
TAP_VENVS = $(foreach tap,$(TAP_VERSIONS),.venv-tap-$(firstword $(subst ==, ,$(tap))))

.PHONY: taps
taps: $(TAP_VENVS:=/.made) ## Make the environments of the taps that test-long kills

.venv-tap-%/.made:
	@echo 'Making .venv-tap-$* …'
	@rm -rf .venv-tap-$*
	@$(PYTHON) -m venv .venv-tap-$*
	@.venv-tap-$*/bin/python -m pip install -qq 'pipelinewise-tap-$(filter $*==%,$(TAP_VERSIONS))'
	@touch $@

# What the examples of docs/examples run in or with, each with the versions that it needs.
EXAMPLE_PACKAGES = airflow:apache-airflow~=3.3.2 dagster:dagster~=1.13.29 tap-bigquery:tap-bigquery~=0.3.10 tap-snowflake:meltanolabs-tap-snowflake~=0.5.6
EXAMPLE_VENVS = $(foreach example,$(EXAMPLE_PACKAGES),.venv-$(firstword $(subst :, ,$(example))))

.PHONY: examples
examples: $(EXAMPLE_VENVS:=/.made) ## Make the environments of the examples that test-long runs

$(EXAMPLE_VENVS:=/.made): .venv-%/.made:
	@echo 'Making .venv-$* …'
	@rm -rf .venv-$*
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install -qq '$(patsubst $*:%,%,$(filter $*:%,$(EXAMPLE_PACKAGES)))'
	@touch $@

$(AUDIT_VENV)/.made: pyproject.toml constraints.txt
	$(call environment,$(AUDIT_VENV),--group audit)

$(BUILD_VENV)/.made: pyproject.toml constraints.txt
	$(call environment,$(BUILD_VENV),hatchling hatch-vcs)

.PHONY: constraints
constraints: $(MELTANO_VENV)/.made ## Write constraints.txt anew, with the newest versions
	@{ sed -n '/^#/p' constraints.txt; \
		$(MELTANO_VENV)/bin/uv pip compile -q --universal --python-version 3.11 --all-extras \
		--group audit --group dev --group meltano --no-annotate --no-header pyproject.toml; \
	} > .venv-constraints
	@mv .venv-constraints constraints.txt

.PHONY: clean
clean: ## Remove the environments and everything that was built (not .meltano, which holds state)
	rm -rf .venv* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

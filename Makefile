# certstatus.  `make` alone lists what there is.

PYTHON ?= python3
VENV ?= .venv
STATE ?= var/dev
# Empty: what the configuration in $(STATE) says (8080, one worker per processor).
PORT ?=
WORKERS ?=
# More words for pytest, e.g. make test ARGS='-k crl -x'
ARGS ?=

BIN := $(VENV)/bin
PIP := PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip --disable-pip-version-check -qq
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## list the targets
	@echo "make run [PORT=8080] [STATE=var/dev] [WORKERS=n] is where to begin"; echo
	@awk -F ':.*## ' -v absent=' $(ABSENT) ' '/^[a-z-]+:.*## / && !index(absent, " " $$1 " ") \
	    { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- set-up: each stamp is newer than what it was made from, so a second run costs nothing --------

$(BIN)/python:
	@scripts/venv $(VENV) $(PYTHON)

# Only what stands in the lock, with these hashes; then the project itself, without looking around.
define install
@echo "setting up $(VENV) from $(1)"
@$(PIP) install --no-deps --require-hashes -r $(1)
@$(PIP) install --no-deps --no-build-isolation -e .
@touch $@
endef

$(VENV)/run.stamp: requirements/run.lock pyproject.toml | $(BIN)/python
	$(call install,requirements/run.lock)

$(VENV)/dev.stamp: requirements/dev.lock pyproject.toml | $(BIN)/python
	$(call install,requirements/dev.lock)
	@touch $(VENV)/run.stamp

$(VENV)/bench.stamp: requirements/bench.lock pyproject.toml | $(BIN)/python
	$(call install,requirements/bench.lock)
	@touch $(VENV)/run.stamp

.PHONY: setup
setup: $(VENV)/run.stamp ## set up what running needs

# --- running ---------------------------------------------------------------------------------------

.PHONY: run
run: $(VENV)/run.stamp ## set up, make the demo in STATE at the first start, and serve
	@[ -e $(STATE)/certstatus.toml ] || \
	    $(BIN)/certstatus --config $(STATE)/certstatus.toml init $(if $(PORT),--port $(PORT))
	@[ -e $(STATE)/demo/auth/population.csv ] || $(BIN)/certstatus --config $(STATE)/certstatus.toml demo
	@exec $(BIN)/certstatus --config $(STATE)/certstatus.toml serve \
	    $(if $(PORT),--port $(PORT)) $(if $(WORKERS),--workers $(WORKERS))

# --- proving ---------------------------------------------------------------------------------------

# Tests wait for servers more than they compute: three files at a time keep two processors busy.
TESTERS ?= 3
.PHONY: test
test: $(VENV)/dev.stamp ## run the tests (ARGS='-k name -x'; TESTERS=0: one at a time)
	@scripts/debian openssl openssl softhsm2-util softhsm2 cc gcc wrk wrk
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile -m 'not alone' $(ARGS)
	@$(BIN)/python -m pytest -m alone $(ARGS) || [ $$? = 5 ] # 5: ARGS leaves none

HISTORIES ?= 10
HISTORY_STEPS ?= 1000
FIRST_HISTORY ?= 1
.PHONY: histories
histories: $(VENV)/dev.stamp ## long random histories of CRLs on both databases (HISTORIES=10 HISTORY_STEPS=1000)
	@scripts/debian openssl openssl
	@HISTORIES=$(HISTORIES) HISTORY_STEPS=$(HISTORY_STEPS) FIRST_HISTORY=$(FIRST_HISTORY) \
	    $(BIN)/python -m pytest tests/publisher/test_crl_long_histories.py -s $(ARGS)

TEST_FOLDERS = $(sort $(patsubst %/,%,$(dir $(wildcard tests/*/*.py))))

.PHONY: check
check: $(VENV)/dev.stamp ## lint and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@for folder in $(TEST_FOLDERS); do $(BIN)/mypy $$folder; done
	@MYPYPATH=tests/certstatus $(BIN)/mypy $(wildcard tests/*.py)

# Listed and offered only when they are there.
ifeq ($(wildcard tests/faults),)
ABSENT += test-faults fault-runs
else
# Each has an installation under load beside it: two of them keep two processors busy.
FAULT_TESTERS ?= 2
.PHONY: test-faults
test-faults: $(VENV)/dev.stamp ## break everything once and compare each answer with the store
	@scripts/debian cc gcc
	@$(BIN)/python -m pytest -n $(FAULT_TESTERS) --dist loadgroup tests/faults $(ARGS)

RUNS ?= 200
SECONDS ?= 20
FAULT_RESULTS ?= var/fault-runs.jsonl

.PHONY: fault-runs
fault-runs: $(VENV)/dev.stamp ## many seeded runs of faults (RUNS=200 SECONDS=20), then the table of what was seen
	@scripts/debian cc gcc
	@PYTHONPATH=tests/certstatus $(BIN)/python tests/faults/fault_runs.py --runs $(RUNS) --seconds $(SECONDS) \
	    --results $(FAULT_RESULTS) $(ARGS)
	@$(BIN)/python tests/faults/fault_table.py $(FAULT_RESULTS) > tests/faults/RESULTS.md
endif

ifeq ($(wildcard tests/interop),)
ABSENT += interop
else
# Apache without its service, the JDK without a display.
INTEROP_CLIENTS = openssl openssl curl curl ocsptool gnutls-bin javac default-jdk-headless \
    /usr/share/java/bcprov.jar libbcprov-java go golang-go \
    /usr/share/gocode/src/golang.org/x/crypto/ocsp golang-golang-x-crypto-dev ocspclnt libnss3-tools \
    pki strongswan-pki /usr/lib/ipsec/plugins/libstrongswan-openssl.so libstrongswan-standard-plugins \
    /usr/lib/ipsec/plugins/libstrongswan-curl.so libstrongswan-extra-plugins \
    nginx nginx-light apache2 apache2-bin
.PHONY: interop
interop: $(VENV)/dev.stamp ## real clients against a running service
	@scripts/debian $(INTEROP_CLIENTS)
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile tests/interop $(ARGS)
endif

ifeq ($(wildcard tests/fuzz),)
ABSENT += fuzz
else
# Seconds for all targets together; ARGS='plain lane' are the targets, --keep adds to the corpus.
FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: $(VENV)/dev.stamp ## throw bytes at every reader (FUZZ_SECONDS=600)
	@$(BIN)/python tests/fuzz/run_fuzz.py --seconds $(FUZZ_SECONDS) $(ARGS)
endif

ifeq ($(wildcard bench/paths.py),)
ABSENT += bench bench-compare bench-load bench-crl bench-results bench-profile
else
.PHONY: bench
bench: $(VENV)/bench.stamp ## measure each path of a status check (ARGS=--quick: see that it runs)
	@scripts/debian nginx nginx-light wrk wrk openssl openssl cc gcc
	@$(BIN)/python -m bench.paths $(ARGS)

.PHONY: bench-compare
bench-compare: $(VENV)/bench.stamp ## say which rows of two records (A=.. B=..) differ by more than noise
	@[ -n "$(A)" ] && [ -n "$(B)" ] || { echo "make bench-compare A=RECORD B=RECORD" >&2; exit 2; }
	@$(BIN)/python -m bench.compare $(A) $(B) $(ARGS)

.PHONY: bench-load
bench-load: $(VENV)/bench.stamp ## load what `make run` serves, judge its answers (ARGS='--run-time 1m Cold')
	@$(BIN)/python -m bench.load_here --state $(STATE) $(ARGS)

.PHONY: bench-crl
bench-crl: $(VENV)/bench.stamp ## a CRL of ten million made, checked, and pulled (ARGS='--entries 1000000' PULLS='--megabytes 50')
	@scripts/debian cc gcc
	@failed=0; $(BIN)/python -m bench.crl_steps $(ARGS) || failed=$$?; \
	    $(BIN)/python -m bench.crl_pulls $(PULLS) || failed=$$?; exit $$failed

.PHONY: bench-results
bench-results: $(VENV)/bench.stamp ## plots and tables of bench/RESULTS.md from the newest records
	@$(BIN)/python -m bench.plots
	@$(BIN)/python -m bench.render

.PHONY: bench-profile
bench-profile: $(VENV)/bench.stamp ## see where a worker's time goes, path by path
	@scripts/debian perf linux-perf strace strace cc gcc
	@for path in repeated never-seen signed; do $(BIN)/python -m bench.profile_worker --path $$path $(ARGS); done
endif

# --- keeping ---------------------------------------------------------------------------------------

COMPILE = $(BIN)/python -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --group build

.PHONY: lock
lock: $(VENV)/dev.stamp ## write requirements/*.lock anew from pyproject.toml
	@$(PIP) install 'uv>=0.9'
	@$(COMPILE) $(ARGS) -o requirements/run.lock
	@$(COMPILE) $(ARGS) -c requirements/run.lock --extra hsm --extra postgres -o requirements/hsm.lock
	@$(COMPILE) $(ARGS) -c requirements/run.lock --extra postgres --group dev -o requirements/dev.lock
	@$(COMPILE) $(ARGS) -c requirements/run.lock --extra postgres --extra bench --group dev \
	    -o requirements/bench.lock

.PHONY: wheel
wheel: $(VENV)/run.stamp ## build dist/certstatus-*.whl
	@$(PIP) wheel --no-deps --no-build-isolation -w dist .

.PHONY: clean
clean: ## remove the environment and everything built (not STATE)
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

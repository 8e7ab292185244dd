# SPDX-License-Identifier: Apache-2.0
# Two commands on a fresh machine: `make demo` and `make test`. Everything they need they install here.
PYTHON ?= python3
BIN := .venv/bin
export OUTRIDER_LEGACY_PYTHON ?= $(CURDIR)/.venv-legacy/bin/python
export OUTRIDER_BRIDGE ?= $(CURDIR)/.venv-legacy/bin/mcp-proxy
export OUTRIDER_FASTMCP_PYTHON ?= $(CURDIR)/.venv-fastmcp/bin/python
export OUTRIDER_LANGCHAIN_PYTHON ?= $(CURDIR)/.venv-langchain/bin/python
export OUTRIDER_NODE_MODULES ?= $(CURDIR)/tests/node/node_modules
JOBS ?= auto

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast e2e lint generate bench lock clean

help: ## what there is
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

.venv/stamp: lock/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r lock/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv-%/stamp: lock/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --require-hashes -r $<
	@touch $@

tests/node/node_modules/stamp: tests/node/package.json tests/node/package-lock.json .venv/stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/node/install.sh
	@touch $@

install: .venv/stamp .venv-legacy/stamp ## the two environments, from the locks

demo: install ## real servers, a scripted agent, a live table; ONCE=1 to check and leave
	$(BIN)/python -m examples.demo $(if $(filter 1,$(ONCE)),--once)

test: install .venv-fastmcp/stamp .venv-langchain/stamp tests/node/node_modules/stamp lint ## everything
	bash tests/kube/build.sh >/dev/null
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -q

test-fast: install ## the inner loop
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -q -m "not slow"

e2e: install ## a Kubernetes node made of parts, and the charts on it with real images (Linux, root)
	bash tests/e2e/run.sh

lint: .venv/stamp ## ruff, mypy strict, import contracts
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

generate: .venv/stamp ## crds/, their copies in charts/ and docs/reference/ from the code
	$(BIN)/python -m outrider_operator.crds crds
	$(BIN)/python -m charts.generate
	$(BIN)/python -m docs.generate

bench: install ## ratios of one interleaved run; PEERS=1 adds Envoy
	$(BIN)/python -m bench $(if $(filter 1,$(PEERS)),--peers)

RESOLVE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links

lock: .venv/stamp ## resolve anew (needs uv); images hold the versions that the tests run with
	$(RESOLVE) lock/dev.in -o lock/dev.txt
	for each in legacy fastmcp langchain; do $(RESOLVE) lock/$$each.in -o lock/$$each.txt || exit 1; done
	for each in sidecar operator build; do $(RESOLVE) -c lock/dev.txt lock/$$each.in -o lock/$$each.txt || exit 1; done

clean: ## back to a fresh clone
	rm -rf .venv .venv-* tests/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

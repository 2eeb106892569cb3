# Everything a user or a developer does here, each with a line of explanation: make help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV_VERSION := 0.13.9
# Absolute, because tests that make an environment of their own are told by it where uv is.
export UV := $(CURDIR)/.tools/uv/bin/uv
# The machine's own Python is used, never a downloaded one.
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON := $(shell command -v $(PYTHON))
CLUSTER_NAME ?= dev
# A failed test is tried again in CI only, and told of: it is a defect all the same.
RERUNS := $(if $(CI),--reruns=1)

.PHONY: help setup demo test quick lint unit integration e2e e2e-gitops crds format
.PHONY: cluster cluster-down cluster-build cluster-demo
.PHONY: bench bench-features bench-gates bench-propagation bench-serving bench-shadow clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: .venv/.dev ## install everything that developing needs into .venv (uv itself into .tools)

demo: .venv/.demo ## train, package, serve and promote models on this machine: no cluster, no container
	@.venv/bin/python examples/demo.py

test: lint cluster-build unit e2e ## everything that CI runs, the real cluster included

quick: .venv/.dev ## the inner loop, in seconds: format, lint, and the tests of pure code
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check .
	@.venv/bin/pytest -q tests/contract tests/operator --ignore=tests/contract/evaluators

lint: .venv/.dev ## style, types, architecture, and whether generated files are current
	@echo "== style"
	@.venv/bin/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@.venv/bin/ruff check .
	@echo "== types"
	@.venv/bin/mypy
	@.venv/bin/mypy tests e2e benchmarks examples
	@echo "== architecture"
	@.venv/bin/lint-imports
	@echo "== generated files"
	@.venv/bin/python -m greenroom_operator.api.crdgen --check
	@.venv/bin/python -m greenroom_operator.api.crdgen --check --directory charts/greenroom/files/crds

format: .venv/.dev ## format the code, and mend what can be mended without thought
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

unit: .venv/.dev ## tests of the parts, and of the operator against a real kube-apiserver
	@.venv/bin/pytest tests --numprocesses=2 --dist=loadfile $(RERUNS)

e2e: .venv/.dev ## the product's promises, on real pods of a real cluster
	@.venv/bin/pytest e2e $(RERUNS)

e2e-gitops: .venv/.dev ## the promises of docs/gitops.md, held by Argo CD itself: built first, some 8 minutes
	@.venv/bin/pytest e2e/gitops

crds: .venv/.dev ## write crds/ and the chart's copy anew from the pydantic models
	@.venv/bin/python -m greenroom_operator.api.crdgen
	@.venv/bin/python -m greenroom_operator.api.crdgen --directory charts/greenroom/files/crds

cluster-build: .venv/.dev ## build what a cluster is made of, once per machine: some 15 minutes
	@.venv/bin/python -m e2e.cluster build

cluster: .venv/.dev ## start a real Kubernetes on this machine (CLUSTER_NAME=dev)
	@.venv/bin/python -m e2e.cluster up --name $(CLUSTER_NAME)

cluster-down: .venv/.dev ## remove it without trace
	@.venv/bin/python -m e2e.cluster down --name $(CLUSTER_NAME)

cluster-demo: .venv/.dev ## install the chart on such a cluster, serve and promote the example models
	@.venv/bin/python -m e2e.demo --name $(CLUSTER_NAME)

bench: .venv/.dev ## measure: apply to ready, alias flip, requests failed
	@.venv/bin/python -m benchmarks.flip

bench-propagation: .venv/.dev ## measure: how long the flag store travels, with and without the touch, some 50 minutes
	@.venv/bin/python -m benchmarks.propagation

bench-serving: .venv/.dev ## measure: the serving runtime beside its peers, on a quiet machine, some 35 minutes
	@.venv/bin/python -m benchmarks.serving

bench-features: .venv/.dev ## measure: the feature cache through faults, on a quiet machine, some 20 minutes
	@.venv/bin/python -m benchmarks.features

bench-shadow: .venv/.dev ## measure: what mirroring to a shadow costs, and its faults, on a quiet machine, some 20 minutes
	@.venv/bin/python -m benchmarks.shadow
	@.venv/bin/python -m benchmarks.shadow --faults --rounds 5 --seconds 3

bench-gates: .venv/.dev ## simulate: thousands of releases before the gates of rollouts and shadows, some 30 minutes
	@.venv/bin/python -m benchmarks.gates
	@.venv/bin/python -m benchmarks.gates shadow

clean: ## remove what make has made here; a cluster's parts in the user's cache stay
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv/.dev: pyproject.toml uv.lock $(UV)
	@echo "== installing the development environment into .venv"
	@$(UV) sync --locked
	@touch .venv/.dev .venv/.demo

.venv/.demo: pyproject.toml uv.lock $(UV)
	@echo "== installing the toolkit into .venv"
	@$(UV) sync --locked --inexact --no-dev --extra toolkit --group examples
	@touch .venv/.demo

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Greenroom needs Python 3.11 or later; say which one: make PYTHON=python3.12 …"; exit 1; }
	@echo "== installing uv $(UV_VERSION) into .tools"
	@rm -rf .tools/uv
	@$(PYTHON) -m venv .tools/uv >/dev/null 2>&1 || $(MAKE) python-venv
	@.tools/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.PHONY: python-venv
python-venv: # Debian and Ubuntu keep the module venv in a package of its own
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "== installing Debian's python3-venv"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3-venv >/dev/null; \
	else \
		echo "Python's module venv is missing; install it: sudo apt-get install python3-venv"; exit 1; \
	fi
	@rm -rf .tools/uv
	@$(PYTHON) -m venv .tools/uv

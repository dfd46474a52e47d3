# All output is in build/. `make` alone lists the targets.

PYTHON ?= python3
BIN := build/venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build/collections

REPORT := --report build/sessions.json

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check fleet fleet-down bench build clean venv

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## Run site.yml on a throw-away server, as any user, and write a page
	@$(PYTHON) tests/workshop/pythons.py venv build/venv-demo requirements-demo.txt
	@build/venv-demo/bin/python tests/workshop/artifact.py
	@PATH="$(CURDIR)/build/venv-demo/bin:$$PATH" build/venv-demo/bin/python demo/run.py

test: build ## The tests; lists at the end what could not run here
	@nox $(REPORT) --tags check test

test-all: build ## All there is: every version with every other, the demo, benchmarks and mutants as well
	@PGOPS_TEST_MATRIX=all nox $(REPORT) --tags check test all

check: build ## The static checks alone
	@nox --tags check

fleet: build ## Start the hosts in containers; inventory: build/fleet/inventory.yml
	@$(BIN)/python tests/fleet/fleet.py up

fleet-down: venv ## Remove the hosts
	@$(BIN)/python tests/fleet/fleet.py down

bench: build ## The benchmarks, beside other tools; results in build/bench/
	@$(BIN)/python tests/bench/run.py

build: venv ## Build the collection and install it into build/collections
	@$(BIN)/python tests/workshop/artifact.py

clean: ## Delete build/ and .nox/ (not the fleet: make fleet-down)
	rm -rf build .nox

venv: build/venv/made-from
build/venv/made-from: requirements-dev.txt
	@$(PYTHON) tests/workshop/pythons.py venv build/venv requirements-dev.txt

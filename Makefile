# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every target does its own set-up: .venv and .build are made on first use. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := $(CURDIR)/.venv
SANITY := .build/sanity/ansible_collections/keyturn/rotation
DEMO_READY := .venv/demo.stamp
DEV_READY := .venv/dev.stamp
PEERS_READY := .cache/peers/ready.stamp
WORKERS ?= 2
INTEGRATION ?= tests/integration
KILLS ?= 100
ROUNDS ?= 100

export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.build
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
unexport ANSIBLE_CONFIG

##@ For everyone

.PHONY: help
help: ## What each target does
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(DEMO_READY) ## Rotate the secrets of a small service on this machine: no root, no Docker, no account
	python -m demo

.PHONY: demo-compose
demo-compose: system-packages $(DEV_READY) ## The same with Docker Compose, as root: two projects on two hosts, a daemon of its own
	python -m demo.compose

##@ For people who change the collection

.PHONY: test
test: system-packages ## Everything: lints, unit tests, integration tests, scenarios
	@$(MAKE) --no-print-directory $(DEV_READY)
	@$(MAKE) --no-print-directory --jobs 2 test-unit lint-beside
	@$(MAKE) --no-print-directory test-integration INTEGRATION="tests/integration tests/molecule" WORKERS=3

.PHONY: test-unit
test-unit: $(DEV_READY) ## Unit tests: neither root nor Docker
	pytest tests/unit -n $(WORKERS)

.PHONY: test-integration
test-integration: $(DEV_READY) $(PEERS_READY) ## Tests that run playbooks and start services
	pytest $(INTEGRATION) -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: molecule
molecule: $(DEV_READY) ## The scenarios of extensions/molecule, each as one test
	pytest tests/molecule

campaign bench bench-long: export PYTHONPATH := $(CURDIR)/.build

.PHONY: campaign
campaign: $(DEV_READY) ## Kill rotations (KILLS) and cut-overs (ROUNDS) at chance moments, and check that nothing is lost
	python -m tests.bench.campaign --kills $(KILLS)
	python -m tests.bench.cutover --rounds $(ROUNDS)

.PHONY: matrix
matrix: $(DEV_READY) $(PEERS_READY) ## A part of the tests with other versions of ansible-core, and of Python on hosts
	tests/setup/matrix.sh

.PHONY: bench
bench: $(DEV_READY) ## Measure, a few minutes
	python -m tests.bench

.PHONY: bench-long
bench-long: $(DEV_READY) ## Measure at full size, an hour or more
	python -m tests.bench --long

.PHONY: changelog
changelog: $(SANITY) ## Bring CHANGELOG.md in line with the fragments and plugins of this version
	cd $(SANITY) && antsibull-changelog release --update-existing --reload-plugins --refresh-plugins
	cp $(SANITY)/CHANGELOG.md CHANGELOG.md
	cp $(SANITY)/changelogs/changelog.yaml changelogs/changelog.yaml
	for fragment in $$(find changelogs/fragments -name '*.yml'); do [ -e "$(SANITY)/$$fragment" ] || rm "$$fragment"; done

.PHONY: system-packages
system-packages: ## Debian packages of the full test run, installed when root
	@tests/setup/system_packages.sh

.PHONY: clean
clean: ## Remove what the targets made
	rm -rf .ansible .build .cache .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache .venv
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Lints, one tool each

LINTS := ruff mypy yamllint ansible-lint changelog docs importer sanity

.PHONY: lint
lint: $(LINTS:%=lint-%) ## All of them

# One after the other, each with its whole output at its end.
.PHONY: lint-beside
lint-beside:
	@$(MAKE) --no-print-directory --jobs 1 --output-sync=target lint

.PHONY: $(LINTS:%=lint-%)

lint-ruff: $(DEV_READY) ## Python: style and slips
	ruff check .
	ruff format --check .

lint-mypy: $(DEV_READY) ## Python: types
	mypy -p ansible_collections.keyturn.rotation.plugins -p demo -p tests.setup -p tests.support

lint-yamllint: $(DEV_READY) ## YAML
	yamllint --strict .

lint-ansible-lint: $(DEV_READY) ## Roles and playbooks, production profile
	ansible-lint

lint-changelog: $(DEV_READY) ## Changelog fragments
	antsibull-changelog lint

lint-docs: $(SANITY) ## Documentation of modules and roles
	cd $(SANITY) && antsibull-docs lint-collection-docs --plugin-docs .

lint-importer: $(SANITY) ## What Galaxy checks when the collection is published
	python -m tests.setup.importer $(SANITY)

lint-sanity: $(SANITY) ## ansible-test sanity, with no ignore file
	cd $(SANITY) && ansible-test sanity --venv --python "$$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

##@ Set-up

.PHONY: setup
setup: $(DEV_READY) $(PEERS_READY) ## .venv, .build and .cache/peers, for running tools by hand

$(DEMO_READY): requirements-demo.txt tests/setup/venv.sh
	tests/setup/venv.sh requirements-demo.txt
	python -m tests.setup.companions --link
	@touch $@

$(DEV_READY): requirements-dev.txt requirements-demo.txt requirements.yml tests/setup/venv.sh tests/setup/companions.py
	tests/setup/venv.sh requirements-dev.txt
	python -m tests.setup.companions
	@touch $(DEMO_READY) $@

$(PEERS_READY): $(DEV_READY) tests/peers/issuer/package.json tests/peers/issuer/package-lock.json tests/setup/peers.py
	python -m tests.setup.peers
	@touch $@

# The working tree changes all the time: the copy is made anew for each run that needs it.
.PHONY: $(SANITY)
$(SANITY): $(DEV_READY)
	python -m tests.setup.clean_copy

# `make run` and `make test` also install what is missing on a Debian machine
# that has Rust; everything else is Cargo's.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ARGS ?=
FUZZ_SECONDS ?= 60
TORTURE_SECONDS ?= 3600
SIEGE_SECONDS ?= 60

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## Install missing Debian packages for running and testing
	@.ci/setup test

.PHONY: run
run: ## Serve on 127.0.0.1:6380 with a private PostgreSQL and Redis; ARGS="--data-dir DIR"
	@.ci/setup run
	@cargo build --release --locked --bin freshet
	@exec target/release/freshet dev $(ARGS)

.PHONY: test
test: ## All tests, in their short versions
	@.ci/setup test
	cargo test --locked --features fault-points

.PHONY: bench
bench: ## Compare with Redis, twemproxy, HAProxy, pgbench and a dual write
	@.ci/setup bench
	cargo bench --locked --bench end_to_end
	cargo bench --locked --bench scripts

.PHONY: docs
docs: ## Write docs/commands.md and docs/compatibility.md anew
	@.ci/setup test
	FRESHET_WRITE_DOCS=1 cargo test --locked --features fault-points --test command_reference --test integration \
	    -- page_of_commands applications::

.PHONY: bench-cdc
bench-cdc: ## What writing by SQL costs, and how soon the cache shows it
	@.ci/setup test
	cargo bench --locked --bench cdc

.PHONY: model-large
model-large: ## The protocol's model with larger bounds (long)
	FRESHET_MODEL=large cargo test --locked --release --test protocol_model -- --nocapture

.PHONY: torture
torture: ## Three proxies under faults, histories checked; TORTURE_SECONDS=3600, FRESHET_SEED, TORTURE_FAULTS
	@.ci/setup test
	TORTURE_SECONDS=$(TORTURE_SECONDS) cargo test --locked --features fault-points --test integration -- torture::histories --nocapture

.PHONY: fuzz
fuzz: ## Feed requests, replies, payloads of RESTORE and rows of random bytes; FUZZ_SECONDS=60 each
	for target in request reply rows restore; do fuzz/run $$target $(FUZZ_SECONDS); done

.PHONY: siege
siege: ## Thousands of hostile clients, and what others notice; SIEGE_SECONDS=60 each
	@.ci/setup test
	FRESHET_SIEGE=$(SIEGE_SECONDS) cargo test --locked --features fault-points --test integration \
	    front::siege -- --nocapture --test-threads=1

.PHONY: lint
lint: ## Format, clippy and documentation as .ci/run checks them
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

.PHONY: ci
ci: ## Everything that must pass before a change is merged
	@.ci/run

.PHONY: image
image: ## Build the container image with buildah, podman or docker
	@for tool in docker podman buildah; do \
	    if command -v $$tool >/dev/null; then \
	        if [[ $$tool != docker ]]; then export BUILDAH_FORMAT=docker; fi; \
	        exec $$tool build --build-arg FRESHET_COMMIT="$$(git rev-parse --short=10 HEAD)" -t freshet .; \
	    fi; \
	done; echo "image: none of docker, podman, buildah is installed" >&2; exit 1

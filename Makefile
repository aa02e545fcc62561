# Tallygate: `make run` starts the gateway with a working key, `make test` passes the tests. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The Node of the npm package `node` comes first: wrangler needs a newer one than many systems have.
export PATH := $(CURDIR)/node_modules/.bin:$(CURDIR)/.tools/bin:$(PATH)
export WRANGLER_SEND_METRICS := false
export CARGO_TERM_COLOR ?= auto

WASM_BINDGEN_VERSION := $(shell sed -n 's/^wasm-bindgen = "=\(.*\)"$$/\1/p' edge/Cargo.toml)
WASM := target/wasm32-unknown-unknown/release/tallygate_edge.wasm
# As their addresses are: the platform serves the folder from its root.
ASSETS := build/assets/dashboard/assets
SIMULATOR := target/tools/tallygate-simulator
PYTHON := .venv/bin/python

.PHONY: help run test simulate test-rust test-live test-sdk test-browser build simulator bench check fmt dry-run clean stop \
	reconciler night test-contract lambda infra-check bench-night bench-pages

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

run: build simulator .venv/stamp ## Build and start the gateway with a working key; DEMO=1: with a month of demo traffic
	@DEMO="$(DEMO)" exec $(PYTHON) tests/support/dev.py

test: test-rust test-live test-sdk test-contract test-browser ## Pass all tests

test-rust: .tools/wasm-target
	cargo test --workspace --quiet
	STEPS=1000000 cargo test -p tallygate-shared --profile tools --quiet simulation

simulate: .tools/wasm-target ## Run the lease protocol's simulation: STEPS= and SEED=
	STEPS=$(or $(STEPS),100000000) SEED=$(or $(SEED),1) cargo test -p tallygate-shared --profile tools --quiet \
		books_hold_in_every_world -- --nocapture

test-live: build simulator reconciler .venv/stamp
	$(PYTHON) -m pytest tests/live tests/sdk -q

test-sdk: build simulator node_modules/stamp .venv/stamp
	$(PYTHON) tests/support/with_gateway.py node --test 'tests/sdk/*.test.mjs'

test-contract: .venv/stamp
	$(PYTHON) -m pytest tests/contract -q

test-browser: build simulator .venv/stamp ## Pass the dashboard's tests in Chromium (CHROMIUM= where it is)
	@command -v "$(or $(CHROMIUM),chromium)" >/dev/null || command -v google-chrome >/dev/null || \
		(command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && echo "==> installing Chromium" && \
			apt-get install -y -qq --no-install-recommends chromium >/dev/null) || true
	$(PYTHON) -m pytest tests/browser -q -rs

bench: build simulator .venv/stamp ## Compare the gateway with a Worker that only passes requests on
	cargo build --quiet --profile tools -p tallygate-load
	$(PYTHON) tests/bench/bench.py
	@$(MAKE) --no-print-directory bench-night
	@$(MAKE) --no-print-directory bench-pages

bench-night: ## How a night grows with the day: MILLIONS="1 10 50" usage rows
	cargo build --quiet --profile tools -p tallygate-reconciler --no-default-features --example night_scale
	@for millions in $(or $(MILLIONS),1 10 50); do \
		echo "==> a day of $$millions million requests"; \
		target/tools/examples/night_scale $${millions}000000; \
	done

bench-pages: build .venv/stamp ## Time the dashboard's pages on a large ledger: SIZES="0.1 0.33 1" of 10 million requests
	cargo build --quiet --profile tools -p tallygate-edge --example fill_ledger
	$(PYTHON) tests/bench/pages.py

build: build/stamp ## Build the Worker into build/

build/stamp: $(shell git ls-files -co --exclude-standard edge/src edge/js edge/assets edge/templates edge/Cargo.toml shared \
		Cargo.toml Cargo.lock 2>/dev/null) \
		.tools/wasm-target .tools/wasm-bindgen-$(WASM_BINDGEN_VERSION) node_modules/stamp
	@echo "==> building the Worker"
	cargo build --release --target wasm32-unknown-unknown -p tallygate-edge
	@mkdir -p build
	wasm-bindgen --target web --no-typescript --experimental-reset-state-function \
		--out-dir build --out-name edge $(WASM)
	wasm-opt -O3 --all-features build/edge_bg.wasm -o build/edge_bg.wasm
	cp edge/js/*.mjs build/
	@mkdir -p $(ASSETS)
	esbuild edge/assets/app.mjs edge/assets/app.css --bundle --minify --format=esm --target=es2022 \
		--legal-comments=inline --log-level=warning --outdir=$(ASSETS)
	cp edge/assets/icon.svg $(ASSETS)/
	cp edge/assets/_headers build/assets/
	@touch $@

reconciler: node_modules/stamp ## Build the reconciler for this machine
	@echo "==> building the reconciler"
	cargo build -p tallygate-reconciler --bins

night: .venv/stamp ## After some traffic on `make run`: reconcile it with the simulator's bills
	@echo "==> building the reconciler (without AWS)"
	cargo build --quiet -p tallygate-reconciler --bin reconciler --no-default-features --target-dir target/night
	@exec $(PYTHON) tests/support/make_night.py

simulator: node_modules/stamp ## Build the provider simulator
	@echo "==> building the provider simulator"
	cargo build --profile tools -p tallygate-simulator

.tools/wasm-target:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs"; exit 1; }
	@echo "==> adding the wasm32 target"
	@command -v rustup >/dev/null && rustup target add wasm32-unknown-unknown || true
	@mkdir -p .tools && touch $@

.tools/wasm-bindgen-$(WASM_BINDGEN_VERSION):
	@echo "==> installing wasm-bindgen $(WASM_BINDGEN_VERSION) into .tools (once, about two minutes)"
	cargo install wasm-bindgen-cli --version $(WASM_BINDGEN_VERSION) --locked --root .tools
	@touch $@

node_modules/stamp: package.json package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js from https://nodejs.org"; exit 1; }
	@echo "==> installing npm packages"
	npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

.venv/stamp: tests/requirements.txt
	@command -v python3 >/dev/null || { echo "Python 3 is missing: install python3 with its venv module"; exit 1; }
	@echo "==> preparing the Python environment"
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

check: .tools/wasm-target ## Format and lint
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p tallygate-edge --target wasm32-unknown-unknown -- -D warnings

dry-run: build ## Show that `wrangler deploy` works
	wrangler deploy --dry-run --outdir build/dry-run

# What builds the Lambda for arm64 on any machine: cargo-lambda drives cargo, zig links for the older glibc of Amazon Linux.
CARGO_LAMBDA_VERSION := 1.9.2
ZIG_VERSION := 0.17.0
CHECKOV_VERSION := 3.3.30
LAMBDA_ZIP := build/reconciler-arm64.zip

lambda: .tools/lambda-$(CARGO_LAMBDA_VERSION)-$(ZIG_VERSION) ## Build the reconciler's Lambda: build/reconciler-arm64.zip
	@cargo metadata --no-deps --format-version 1 | python3 -c 'import json, sys; \
		targets = [t for p in json.load(sys.stdin)["packages"] if p["name"] == "tallygate-reconciler" for t in p["targets"]]; \
		sys.exit(0 if any(t["name"] == "bootstrap" and "bin" in t["kind"] for t in targets) else \
			"the package tallygate-reconciler has no binary `bootstrap`: the Lambda would have nothing to run")'
	@echo "==> building the Lambda (arm64; some minutes)"
	PATH="$(CURDIR)/.tools/lambda/bin:$$PATH" cargo lambda build --release --arm64 --output-format zip \
		-p tallygate-reconciler --bin bootstrap --no-default-features --features aws,parquet --lambda-dir build/lambda
	@cp build/lambda/bootstrap/bootstrap.zip $(LAMBDA_ZIP)
	@echo "$(LAMBDA_ZIP): $$(wc -c < $(LAMBDA_ZIP)) bytes"

.tools/lambda-$(CARGO_LAMBDA_VERSION)-$(ZIG_VERSION):
	@echo "==> installing cargo-lambda and zig into .tools (once)"
	@mkdir -p .tools && python3 -m venv .tools/lambda
	.tools/lambda/bin/python -m pip install --quiet --disable-pip-version-check \
		cargo-lambda==$(CARGO_LAMBDA_VERSION) ziglang==$(ZIG_VERSION)
	@command -v rustup >/dev/null && rustup target add aarch64-unknown-linux-gnu || true
	@touch $@

infra-check: .tools/checkov-$(CHECKOV_VERSION) ## Check the Terraform: format, schema, plan tests, policies
	infra/check.sh $(CURDIR)/.tools/checkov/bin/python

.tools/checkov-$(CHECKOV_VERSION):
	@echo "==> installing checkov into .tools (once)"
	@mkdir -p .tools && python3 -m venv .tools/checkov
	.tools/checkov/bin/python -m pip install --quiet --disable-pip-version-check checkov==$(CHECKOV_VERSION)
	@touch $@

licences: ## Check the licences of all crates
	python3 tests/support/licences.py

clean: ## Forget the local state of `make run` (keeps what was built)
	rm -rf .dev

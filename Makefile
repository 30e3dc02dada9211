# The habits of the project, each a named command: `make help` lists them.
#
# Works on a fresh Debian 12 with Rust, gcc, make and git, as root or as a user with sudo. What else
# a target needs it installs itself (see `deps-*`); what needs root is run through $(SUDO), and the
# rest is built as you.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX  ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
# A distribution's package has its units in /usr/lib, an administrator's own build in /etc.
UNITDIR ?= $(if $(filter /usr,$(PREFIX)),/usr/lib/systemd/system,/etc/systemd/system)

SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E)

# `sudo make` drops ~/.cargo/bin from PATH: look where rustup installs for whoever called.
CALLER_HOME := $(or $(if $(SUDO_USER),$(shell getent passwd $(SUDO_USER) | cut -d: -f6)),$(HOME))
ifeq ($(shell command -v cargo),)
export PATH := $(CALLER_HOME)/.cargo/bin:$(PATH)
export RUSTUP_HOME ?= $(CALLER_HOME)/.rustup
endif
CARGO ?= cargo

# Builds go to one place, whatever the environment says, so that the rules below find them.
TARGET := $(CURDIR)/target
export CARGO_TARGET_DIR := $(TARGET)
HOST_TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
HOST_TRIPLE_VAR = $(shell echo $(HOST_TRIPLE) | tr 'a-z-' 'A-Z_')

# Where a build's four programs stand side by side, as after an installation. Not target/release
# itself: there cargo puts a dynamically linked helper whenever it likes.
BIN_RELEASE := $(TARGET)/bin/release
BIN_CI := $(TARGET)/bin/ci

DEPS_DEMO  := procps mount curl jq
DEPS_TEST  := $(DEPS_DEMO) busybox-static mmdebstrap socat python3-venv sqlite3 iproute2 nftables \
              util-linux e2fsprogs
DEPS_VM    := mmdebstrap qemu-system-x86 e2fsprogs util-linux binutils
DEPS_ENGINES := busybox-static podman containerd docker.io runc
DEPS_BENCH := busybox-static bubblewrap crun runc
# Without its compiled-in updater nextest needs no TLS stack and builds in a fraction of the time.
NEXTEST_INSTALL := $(CARGO) install --locked --debug cargo-nextest --no-default-features --features default-no-update

# $(call apt_install,PACKAGES): those that are missing, after one `apt-get update`.
define apt_install
	@missing=(); for p in $(1); do \
	  [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing+=("$$p"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  if ! command -v apt-get >/dev/null; then echo "not a Debian: please install: $${missing[*]}" >&2; exit 1; fi; \
	  echo "installing $${missing[*]}"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $(SUDO) apt-get update -q </dev/null && \
	  $(SUDO) apt-get install -y -q --no-install-recommends "$${missing[@]}" </dev/null; \
	fi
endef

# $(call build_static,DIR): helper and OCI runtime are static binaries (they are copied into a sealed
# memfd and run inside foreign roots), so they have a build of their own.
define build_static
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --profile helper \
	  -p littlebox-helper -p littlebox-runtime --bins --target $(HOST_TRIPLE)
	install -D -m 0755 -t $(1) $(TARGET)/$(HOST_TRIPLE)/helper/littlebox-helper \
	  $(TARGET)/$(HOST_TRIPLE)/helper/littlebox-runtime
endef

# $(call build_client,DIR,PROFILE): without a dynamic linker lbctl starts in two thirds of the time,
# and runs on any distribution.
define build_client
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --profile $(2) \
	  -p lbctl --bin lbctl --target $(HOST_TRIPLE)
	install -D -m 0755 -t $(1) $(TARGET)/$(HOST_TRIPLE)/$(2)/lbctl
endef

# The auditor runs inside containers of the tests.
define build_auditor
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --profile helper \
	  -p littlebox-auditor --target $(HOST_TRIPLE)
	install -D -m 0755 -t $(BIN_CI) $(TARGET)/$(HOST_TRIPLE)/helper/littlebox-auditor
endef

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: deps-demo release ## Build, run a first container, look at its namespaces, leave nothing behind
	$(SUDO) env LITTLEBOX_BIN_DIR=$(BIN_RELEASE) tests/demo.sh

.PHONY: test
test: deps-test deps-nextest build-ci ## Every test (needs root): format, units, properties, end to end, contract, demo
	SUDO='$(SUDO)' CARGO='$(CARGO)' LITTLEBOX_BIN_DIR=$(BIN_CI) \
	  $(if $(SUDO),CARGO_TARGET_$(HOST_TRIPLE_VAR)_RUNNER='$(SUDO)') tests/run.sh

VM_DEBIAN ?= bookworm
.PHONY: test-vm
test-vm: deps-vm build-ci ## systemd and pure cgroup v2: everything installed in an emulated Debian (VM_DEBIAN=trixie)
	$(SUDO) env LITTLEBOX_BIN_DIR=$(BIN_CI) CARGO_TARGET_DIR=$(TARGET) VM_DEBIAN='$(VM_DEBIAN)' tests/vm/run.sh

.PHONY: build
build: ## Development build of everything
	$(CARGO) build --workspace --locked

.PHONY: release
release: ## Release binaries, side by side in target/bin/release
	$(CARGO) build --release --locked -p littleboxd --bins
	$(call build_static,$(BIN_RELEASE))
	$(call build_client,$(BIN_RELEASE),release)
	install -m 0755 $(TARGET)/release/littleboxd $(BIN_RELEASE)/

.PHONY: build-ci
build-ci: ## What the tests run: release code paths without the link-time cost, in target/bin/ci
	$(CARGO) build --profile ci --locked --workspace --bins --tests
	$(call build_static,$(BIN_CI))
	$(call build_client,$(BIN_CI),ci)
	$(call build_auditor)
	install -m 0755 $(TARGET)/ci/littleboxd $(BIN_CI)/

TORTURE_ARGS ?=
.PHONY: torture
torture: deps-test build-ci ## Every system call of every operation made to fail, and killed at (hours; TORTURE_ARGS="start --seed 7 --sample 500")
	$(SUDO) env LITTLEBOX_BIN_DIR=$(BIN_CI) RUST_BACKTRACE=0 $(TARGET)/ci/littlebox-inject campaign $(TORTURE_ARGS)

# Debian's packages of the engines start their services; the tests use daemons of their own.
.PHONY: test-engines
test-engines: deps-engines build-ci ## Podman, containerd and Docker with littlebox-runtime (needs root; installs them)
	$(SUDO) env LITTLEBOX_BIN_DIR=$(BIN_CI) tests/engines/run.sh

BENCH_ARGS ?=
.PHONY: bench
bench: deps-bench release ## Benchmarks beside the floor and the peers (BENCH_ARGS=--quick, or names of groups)
	$(CARGO) build --release --locked --workspace --exclude littlebox-tests --bins
	$(SUDO) env LITTLEBOX_BIN_DIR=$(BIN_RELEASE) $(TARGET)/release/littlebox-bench $(BENCH_ARGS)

.PHONY: lint-code
lint-code: ## Format, and clippy without a warning
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --profile ci --locked -- -D warnings

.PHONY: lint
lint: lint-code ## Format, clippy, licences, bans, sources, advisories
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
	  echo "cargo-deny is not installed, licences and advisories unchecked: make deps-lint"; exit 0; fi; \
	$(CARGO) deny --locked check --hide-inclusion-graph licenses bans sources; \
	if $(CARGO) deny --locked fetch db >/dev/null 2>&1; then \
	  $(CARGO) deny --locked check --hide-inclusion-graph --disable-fetch advisories; \
	else echo "the advisory database cannot be reached: advisories unchecked"; fi

FUZZ_SECONDS ?= 30
FUZZ_TARGETS := log_record protocol container_config procfs tar_unpack words
.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZ_SECONDS (30); needs cargo-fuzz (make deps-fuzz)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: make deps-fuzz" >&2; exit 1; }
	cd fuzz && for t in $(FUZZ_TARGETS); do \
	  RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(TARGET)/fuzz $(CARGO) fuzz run --sanitizer none $$t -- \
	    -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048; \
	done

.PHONY: install
install: release ## Install below PREFIX (/usr/local) and DESTDIR: programs, units, configuration, man pages
	SUDO='$(SUDO)' BIN=$(BIN_RELEASE) PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' \
	  SYSCONFDIR='$(SYSCONFDIR)' UNITDIR='$(UNITDIR)' systemd/install.sh install

.PHONY: uninstall
uninstall: ## Remove what install put there; configuration and state stay
	SUDO='$(SUDO)' BIN=$(BIN_RELEASE) PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' \
	  SYSCONFDIR='$(SYSCONFDIR)' UNITDIR='$(UNITDIR)' systemd/install.sh uninstall

.PHONY: deps
deps: deps-test deps-vm deps-engines deps-bench ## Install every Debian package that any target needs

.PHONY: deps-demo deps-test deps-vm deps-engines deps-bench
deps-demo:
	$(call apt_install,$(DEPS_DEMO))
deps-test:
	$(call apt_install,$(DEPS_TEST))
deps-vm:
	$(call apt_install,$(DEPS_VM))
deps-engines:
	$(call apt_install,$(DEPS_ENGINES))
deps-bench:
	$(call apt_install,$(DEPS_BENCH))

# The tests also run under plain `cargo test`: without nextest, and without a way to get it, that
# is what tests/run.sh does.
.PHONY: deps-nextest
deps-nextest:
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(NEXTEST_INSTALL) || \
	  echo "cargo-nextest cannot be had: falling back to cargo test" >&2

.PHONY: deps-lint
deps-lint: ## Install cargo-deny
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked --debug cargo-deny

.PHONY: deps-fuzz
deps-fuzz: ## Install cargo-fuzz
	$(call apt_install,g++)
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz

.PHONY: clean
clean: ## Remove everything built
	$(CARGO) clean
	rm -rf fuzz/target

# The short commands; meson and ninja do the work. What each needs and how the tests are run: docs/development.md.
.DEFAULT_GOAL := build
.PHONY: build programs configure run check test test-all test-unit test-native test-nested bench fuzz lint format install clean setup setup-check setup-test kernel build-asan build-tsan build-fuzz

# Where it is to be installed. Said once it holds for this build tree, until another is said; /usr/local if none was.
PREFIX ?=
DESTDIR ?=

NINJA = ninja --quiet -C

# The guest kernel is built once and cached outside of the checkout; link-guest.sh makes the build tree point to it.
build: configure
	$(NINJA) build
	scripts/link-guest.sh build

# What is installed, without the guest kernel and the tests.
programs: configure
	$(NINJA) build programs

build-asan:
	scripts/configure build-asan '' -Dtests=true -Db_ndebug=false -Db_sanitize=address,undefined -Db_lundef=false
	$(NINJA) build-asan
	scripts/link-guest.sh build-asan

build-tsan:
	scripts/configure build-tsan '' -Dtests=true -Db_ndebug=false -Db_sanitize=thread -Db_lundef=false
	$(NINJA) build-tsan

build-fuzz:
	CC=clang scripts/configure build-fuzz '' -Dtests=true -Db_ndebug=false -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
	$(NINJA) build-fuzz $(or $(TARGETS:%=tests/fuzz/fuzz_%),fuzzers)

configure:
	scripts/configure build "$(PREFIX)"

setup:
	scripts/setup.sh

setup-check:
	scripts/setup.sh kernel build demo unit lint $(shell scripts/kvm-usable 2>/dev/null || echo testbed)

setup-test:
	scripts/setup.sh kernel build demo unit test testbed

kernel:
	guest/kernel/build.sh >/dev/null

run:
	scripts/demo.sh

check: setup-check
	tests/run.sh lint unit one

test: setup-test
	tests/run.sh unit native nested

test-all: setup
	tests/run.sh --all lint unit native nested

test-unit:
	tests/run.sh unit

test-native:
	tests/run.sh native

test-nested:
	tests/run.sh nested

bench: build
	bench/run.sh

# SECONDS: of all targets together; TARGETS: names, all unless given (and no others are built).
SECONDS = 600
fuzz: build-fuzz
	tests/fuzz/run.sh -t $(SECONDS) $(TARGETS)

lint: configure
	scripts/lint.sh build

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

install: build
	DESTDIR=$(DESTDIR) meson install -C build --quiet

clean:
	rm -rf build build-asan build-tsan build-fuzz

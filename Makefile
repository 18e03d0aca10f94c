# The short commands; meson and ninja do the work. What each needs and how the tests are run: docs/development.md.
.DEFAULT_GOAL := build
.PHONY: build run check test test-all test-unit test-native test-nested bench fuzz lint format install clean setup kernel build-asan build-tsan build-fuzz

PREFIX ?= /usr/local
DESTDIR ?=

MESON_SETUP = meson setup --prefix=$(PREFIX)
NINJA = ninja --quiet -C

# The guest kernel is built once and cached outside of the checkout; link-guest.sh makes the build tree point to it.
build: build/build.ninja
	$(NINJA) build
	scripts/link-guest.sh build

build-asan: build-asan/build.ninja
	$(NINJA) build-asan
	scripts/link-guest.sh build-asan

build-tsan: build-tsan/build.ninja
	$(NINJA) build-tsan

build-fuzz: build-fuzz/build.ninja
	$(NINJA) build-fuzz fuzzers

build/build.ninja:
	$(MESON_SETUP) build

build-asan/build.ninja:
	$(MESON_SETUP) -Db_sanitize=address,undefined -Db_lundef=false build-asan

build-tsan/build.ninja:
	$(MESON_SETUP) -Db_sanitize=thread -Db_lundef=false build-tsan

build-fuzz/build.ninja:
	CC=clang $(MESON_SETUP) -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false build-fuzz

setup:
	scripts/setup.sh

kernel:
	guest/kernel/build.sh >/dev/null

run:
	scripts/demo.sh

check: setup
	tests/run.sh lint unit one

test: setup
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

# SECONDS: of all targets together; TARGETS: names, all unless given.
SECONDS = 600
fuzz: build-fuzz
	tests/fuzz/run.sh -t $(SECONDS) $(TARGETS)

lint: build/build.ninja
	scripts/lint.sh build

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

install: build
	DESTDIR=$(DESTDIR) meson install -C build --quiet

clean:
	rm -rf build build-asan build-tsan build-fuzz

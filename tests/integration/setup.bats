#!/usr/bin/env bats
# What comes before the first run: packages, the build tree.
# bats file_tags=host
load helper

# tools NAME...: a PATH with these commands and those that scripts are made of, and nothing else.
tools() {
    local name
    mkdir "$BATS_TEST_TMPDIR/bin"
    for name in bash env awk sed cut grep cat rm mktemp dirname id sort comm "$@"; do
        ln -s "$(command -v "$name")" "$BATS_TEST_TMPDIR/bin/$name"
    done
}

@test "a system without apt is told what it lacks, by the names that show it" {
    tools gcc make pkg-config meson
    run env PATH="$BATS_TEST_TMPDIR/bin" SM_KERNEL_SOURCE=/nonexistent "$repo/scripts/setup.sh" kernel build
    echo "$output"
    [ "$status" -eq 1 ]
    grep -q '^    command flex (Debian: flex)$' <<<"$output"
    run ! grep -q 'command gcc\|command meson\|stdio.h' <<<"$output"
    # A group that has all is no reason to fail, and says nothing.
    ln -s "$(command -v busybox)" "$(command -v jq)" "$BATS_TEST_TMPDIR/bin"
    run env PATH="$BATS_TEST_TMPDIR/bin" "$repo/scripts/setup.sh" demo
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

@test "a user who may not install is told the command, with the packages that this Debian has" {
    tools dpkg-query
    # An apt that knows one of two names, and a dpkg without packages.
    printf '#!/bin/sh\n[ "$*" = "show libclang-rt-19-dev" ]\n' >"$BATS_TEST_TMPDIR/bin/apt-cache"
    printf '#!/bin/sh\nexit 1\n' >"$BATS_TEST_TMPDIR/bin/apt-get"
    rm "$BATS_TEST_TMPDIR/bin/dpkg-query" "$BATS_TEST_TMPDIR/bin/id"
    cp "$BATS_TEST_TMPDIR/bin/apt-get" "$BATS_TEST_TMPDIR/bin/dpkg-query"
    printf '#!/bin/sh\necho 1000\n' >"$BATS_TEST_TMPDIR/bin/id"
    chmod +x "$BATS_TEST_TMPDIR"/bin/{apt-cache,apt-get,dpkg-query,id}
    run env PATH="$BATS_TEST_TMPDIR/bin" "$repo/scripts/setup.sh" fuzz
    echo "$output"
    [ "$status" -eq 1 ]
    grep -qx '    apt-get update && apt-get install --no-install-recommends clang libclang-rt-19-dev' <<<"$output"
}

@test "a build tree takes the prefix that is said last, and keeps it when none is said" {
    local tree=$BATS_TEST_TMPDIR/tree
    cd "$repo"
    unset XDG_RUNTIME_DIR # a ccache would leave its files there
    prefix() { sed -n 's/^#define SM_PKGLIBDIR "\(.*\)\/lib\/.*/\1/p' "$tree/src/util/paths.h"; }
    # As on a system without Debian's tools for packagers: the place is one that the loader knows all the same.
    mkdir "$BATS_TEST_TMPDIR/bin"
    ln -s /bin/false "$BATS_TEST_TMPDIR/bin/dpkg-architecture"
    PATH=$BATS_TEST_TMPDIR/bin:$PATH scripts/configure "$tree" ''
    [ "$(prefix)" = /usr/local ]
    scripts/configure "$tree" /usr
    [ "$(prefix)" = /usr ]
    scripts/configure "$tree" ''
    [ "$(prefix)" = /usr ]
}

#!/usr/bin/env bats
# The library as somebody else's program meets it: installed, found by pkg-config, several VMs in one process.
load helper

setup_file() {
    export DEST=$BATS_FILE_TMPDIR/dest
    DESTDIR=$DEST meson install -C "$SM_BUILD" --no-rebuild >"$BATS_FILE_TMPDIR/install.log" 2>&1 ||
        { cat "$BATS_FILE_TMPDIR/install.log"; return 1; }
    local pc
    pc=$(find "$DEST" -name supermachine.pc)
    export PKG_CONFIG_PATH=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$DEST
    export LIBDIR=${pc%/pkgconfig/*}
}

# build SOURCE: a program against the installed library; prints its path.
build() {
    local out=$BATS_TEST_TMPDIR/run-command
    # shellcheck disable=SC2046 # lists of words
    cc -Wall -Wextra -Werror -O1 "$1" $(pkg-config --cflags --libs supermachine) -pthread -Wl,-rpath,"$LIBDIR" -o "$out" || return
    echo "$out"
}

# What is installed finds its own files, wherever DESTDIR put them.
installed() {
    SUPERMACHINE_GUEST_DIR=$LIBDIR/supermachine SUPERMACHINE_LIBEXEC_DIR=$LIBDIR/supermachine "$@"
}

@test "what is installed is whole" {
    local file
    for file in vmlinux agent.cpio supermachine-image; do
        [ -s "$LIBDIR/supermachine/$file" ] || { echo "no $file"; find "$DEST" -type f; return 1; }
    done
    [ -f "$LIBDIR/libsupermachine.a" ]
    [ -f "$LIBDIR/libsupermachine.so" ]
    [ "$(pkg-config --modversion supermachine)" = "$(supermachine version | cut -d ' ' -f 2)" ]
}

@test "the library exports the public API and nothing else" {
    comm -3 <(nm -D --defined-only "$LIBDIR/libsupermachine.so" | awk '{ print $3 }' | sort) \
        <(sed -n 's/^SM_API.*[ *]\(sm_[a-z_]*\)(.*/\1/p' "$repo/include/supermachine.h" | sort) >"$BATS_TEST_TMPDIR/difference"
    cat "$BATS_TEST_TMPDIR/difference"
    [ ! -s "$BATS_TEST_TMPDIR/difference" ]
    [ "$(nm -D --defined-only "$LIBDIR/libsupermachine.so" | wc -l)" -gt 20 ]
}

@test "the header stands alone, in C and in C++" {
    echo '#include <supermachine.h>' >"$BATS_TEST_TMPDIR/alone.c"
    # shellcheck disable=SC2046
    cc -std=c99 -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags supermachine) -fsyntax-only "$BATS_TEST_TMPDIR/alone.c"
    # shellcheck disable=SC2046
    c++ -x c++ -Wall -Wextra -Werror $(pkg-config --cflags supermachine) -fsyntax-only "$BATS_TEST_TMPDIR/alone.c"
}

@test "the example program runs a command in a VM" {
    local program
    program=$(build "$repo/examples/run-command.c")
    run --separate-stderr installed "$program" "$busybox" sh -c 'echo hello; echo err >&2; exit 4'
    echo "$output $stderr"
    [ "$status" -eq 4 ]
    [ "${lines[0]}" = "the VM says: hello" ]
    [[ ${lines[1]} == "exit code 4, signal 0, "* ]]
    [ "$stderr" = err ]
}

@test "several VMs in one process, each driven by its own thread" {
    local program
    program=$(build "$BATS_TEST_DIRNAME/many-vms.c")
    run --separate-stderr installed "$program" "$busybox" 3
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = ok ]
}

@test "a VM's own command is taken once, and says what has become of it" {
    local program
    program=$(build "$BATS_TEST_DIRNAME/own-command.c")
    run --separate-stderr installed "$program" "$busybox" "$BATS_TEST_TMPDIR/own.snap"
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = ok ]
    rm "$BATS_TEST_TMPDIR/own.snap"
}

#!/usr/bin/env bats
# -t: a working terminal, and the host's terminal put back at the end.
load helper

@test "a terminal works: size, resize, job control, Ctrl-C, Ctrl-Z, exit code, and the host's is put back" {
    run expect "$BATS_TEST_DIRNAME/terminal.exp" "$busybox"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "the host's terminal is put back when the CLI is terminated" {
    run expect "$BATS_TEST_DIRNAME/terminal-term.exp" "$busybox"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "-t without a terminal on our side still gives the command one" {
    run --separate-stderr supermachine run -t "$busybox" sh -c 'tty; stty size; echo err >&2' </dev/null
    [ "$status" -eq 0 ]
    [ "$output" = $'/dev/pts/0\r\n24 80\r\nerr\r' ]
}

# bats test_tags=all-native
@test "a shell that was captured goes on in a restore, on the terminal that is there" {
    run expect "$BATS_TEST_DIRNAME/terminal-again.exp" "$busybox" "$BATS_TEST_TMPDIR/snap"
    echo "$output"
    [ "$status" -eq 0 ]
}

# bats test_tags=all-native
@test "500 changes of size in a second: the last one counts; and no byte of a long paste is lost" {
    run "$BATS_TEST_DIRNAME/terminal-paste.py" "$(fewer $((1 << 18)) $((1 << 20)))" "$busybox"
    echo "$output"
    [ "$status" -eq 0 ]
}

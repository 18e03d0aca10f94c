#!/usr/bin/env bats
# How a run ends when somebody ends it: signals to the CLI, and its death.
load helper

# Starts `supermachine run ... sh -c 'echo ready; SCRIPT'` in the background, waits for "ready"; $pid is the CLI.
start() {
    : >"$BATS_TEST_TMPDIR/out"
    supermachine run "$busybox" sh -c "echo ready; $1" >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    pid=$!
    wait_for 60 grep -q ready "$BATS_TEST_TMPDIR/out"
}

@test "signals reach the command" {
    start 'trap "echo int" INT; trap "echo usr1" USR1; trap "echo hup; exit 9" HUP; while :; do sleep 0.1; done'
    kill -INT "$pid"
    wait_for 30 grep -q int "$BATS_TEST_TMPDIR/out"
    kill -USR1 "$pid"
    wait_for 30 grep -q usr1 "$BATS_TEST_TMPDIR/out"
    kill -HUP "$pid"
    run wait "$pid"
    [ "$status" -eq 9 ]
    [ "$(tail -n 1 "$BATS_TEST_TMPDIR/out")" = hup ]
}

@test "a command without a handler dies by the signal: 143" {
    start 'exec sleep 1000'
    kill -TERM "$pid"
    run wait "$pid"
    [ "$status" -eq 143 ]
}

@test "the third request to end kills a command that ignores it: 137" {
    start 'trap "" INT TERM HUP QUIT; while :; do sleep 1; done'
    kill -TERM "$pid"; sleep 0.3
    kill -TERM "$pid"; sleep 0.3
    kill -TERM "$pid"
    run wait "$pid"
    [ "$status" -eq 137 ]
}

@test "SIGTERM before the command runs ends the CLI as a signal does" {
    supermachine run "$busybox" sh -c 'echo ready; sleep 1000' >"$BATS_TEST_TMPDIR/out" 3>&- &
    pid=$!
    sleep 0.05
    kill -TERM "$pid"
    run wait "$pid"
    [ "$status" -eq 143 ]
}

@test "a killed CLI leaves no process, socket or temporary file" {
    start 'while :; do sleep 1; done'
    kill -KILL "$pid"
    run wait "$pid"
    [ "$status" -eq 137 ]
    nothing_left
}

@test "a CLI killed while it builds an image leaves no process, and the next run is whole" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    supermachine run "$debian" true 3>&- &
    pid=$!
    wait_for 30 sh -c 'find "$XDG_DATA_HOME" -name "*.partial*" | grep -q .'
    kill -KILL "$pid"
    run wait "$pid"
    [ "$status" -eq 137 ]
    nothing_left
    run --separate-stderr supermachine run "$debian" cat /etc/supermachine-test-image
    [ "$status" -eq 0 ]
    [ "$output" = debian ]
    [ -z "$(find "$XDG_DATA_HOME" -name '*.partial*')" ]
}

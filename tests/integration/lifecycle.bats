#!/usr/bin/env bats
# How a run ends when somebody ends it: signals to the CLI, and its death.
load helper

# start SETUP LOOP [OPTION...]: `supermachine run OPTION... sh -c 'SETUP; echo ready; LOOP'` in the background, waits for "ready";
# $pid is the CLI; its standard input is $input, its image $image.
start() {
    : >"$BATS_TEST_TMPDIR/out"
    # A shell without job control has background commands ignore SIGINT and SIGQUIT.
    env --default-signal supermachine run "${@:3}" "${image:-$busybox}" sh -c "$1; echo ready; $2" \
        <"${input:-/dev/null}" >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- 4>&- &
    pid=$!
    wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
}

# ended STATUS: $pid ends with it.
ended() {
    local got=0
    wait "$pid" || got=$?
    [ "$got" -eq "$1" ] || { echo "status $got, not $1"; cat "$BATS_TEST_TMPDIR/err"; return 1; }
}

@test "signals reach the command, and not its children" {
    start 'trap "echo int" INT; trap "echo usr1" USR1; trap "echo hup; exit 9" HUP' \
        'while :; do sleep 0.3 || echo "sleep $?"; done'
    kill -INT "$pid"
    wait_for grep -q int "$BATS_TEST_TMPDIR/out"
    kill -USR1 "$pid"
    wait_for grep -q usr1 "$BATS_TEST_TMPDIR/out"
    kill -HUP "$pid"
    ended 9
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = $'ready\nint\nusr1\nhup' ]
}

@test "a command without a handler is not ended by a signal as process 1, and is with --init: 143" {
    start : 'exec sleep 1000' --stop-timeout 2
    kill -TERM "$pid"
    ended 137
    grep -q 'did not end within 2.0 s of SIGTERM; its VM was ended' "$BATS_TEST_TMPDIR/err"
    start : 'exec sleep 1000' --init
    kill -TERM "$pid"
    ended 143
}

# hung [OPTION...]: as start; a command that never waits has the only CPU to itself, and the agent none, so nothing that is
# sent into this VM has an effect. It says so by the network, which needs no agent.
hung() {
    needs_debian
    local input=$BATS_TEST_TMPDIR/in image=$debian port
    python3 -c '
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
print(server.accept()[0].makefile().readline(), flush=True)' >"$BATS_TEST_TMPDIR/said" 3>&- &
    wait_for [ -s "$BATS_TEST_TMPDIR/said" ]
    port=$(cat "$BATS_TEST_TMPDIR/said")
    mkfifo "$input"
    exec 4<>"$input"
    start 'trap "" INT TERM HUP QUIT; echo -1 >/proc/sys/kernel/sched_rt_runtime_us' '
        read -r _; python3 -c "
import os, socket
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
socket.create_connection((\"10.0.2.2\", '"$port"')).sendall(b\"hung\\n\")
while True:
    pass"' -i --privileged --allow "host-loopback:$port" "$@"
    echo >&4
    wait_for grep -qx hung "$BATS_TEST_TMPDIR/said"
}

@test "the third request to end ends a VM that does not react: 137" {
    hung --stop-timeout 1h
    kill -TERM "$pid" # of three kinds: however late they are looked at, none hides another
    kill -INT "$pid"
    sleep 0.3
    kill -0 "$pid"
    kill -HUP "$pid"
    ended 137
    run ! grep 'did not end' "$BATS_TEST_TMPDIR/err"
}

@test "a VM that does not react is ended some time after SIGTERM: 137" {
    hung --stop-timeout 1
    kill -TERM "$pid"
    ended 137
    grep -q 'did not end within 1.0 s of SIGTERM; its VM was ended' "$BATS_TEST_TMPDIR/err"
}

@test "a guest that powers off, halts or reboots ends the run with one sentence: 130" {
    local how
    for how in poweroff halt reboot; do
        run --separate-stderr supermachine run --cap-add sys_boot "$busybox" sh -c "$how -f; sleep 1000"
        echo "$how: $status $stderr"
        [ "$status" -eq 130 ]
        [ "$stderr" = "supermachine: the guest shut itself down before the command had ended" ]
    done
}

@test "SIGTERM before the command runs ends the CLI as a signal does" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data # nothing is baked there
    : >"$BATS_TEST_TMPDIR/err"
    supermachine run --cold "$busybox" sleep 1000 3>&- &
    pid=$!
    sleep 0.5
    kill -TERM "$pid"
    ended 143
}

@test "a killed CLI leaves no process, socket or temporary file" {
    start : 'while :; do sleep 1; done'
    kill -KILL "$pid"
    ended 137
    nothing_left
}

@test "a CLI killed while it builds an image leaves no process, and the next run is whole" {
    needs_debian
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    mkdir "$XDG_DATA_HOME"
    : >"$BATS_TEST_TMPDIR/err"
    supermachine run "$debian" sleep 1000 3>&- & # nor has it ended by itself when we look too late
    pid=$!
    wait_for sh -c 'find "$XDG_DATA_HOME" -type f -size +100k | grep -q .'
    kill -KILL "$pid"
    ended 137
    nothing_left
    run --separate-stderr supermachine run "$debian" cat /etc/supermachine-test-image
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = debian ]
    find "$XDG_DATA_HOME"
    [ -z "$(find "$XDG_DATA_HOME" -name '*.partial*')" ]
    [ -z "$(find "$XDG_DATA_HOME/supermachine/tmp" -type f)" ]
}

@test "--boot-timeout bounds a boot by the clock, and the message says what happened" {
    fails_with 125 'not ready within [0-9]+\.[0-9] s: the boot timeout is over' \
        supermachine run --cold --boot-timeout 1ms "$busybox" true
    [[ $stderr == *"printed nothing on its console" || $stderr == *"last lines:"*[a-z]* ]]
    fails_with 125 'is not a time' supermachine run --boot-timeout soon "$busybox" true
}

@test "the memory of the process is limited before there is a VM, also where it is baked" {
    # limited COMMAND...: one that does not end by itself, which on a busy host could be before we look.
    limited() {
        local pid limit
        supermachine "$@" >/dev/null 2>&1 3>&- &
        pid=$!
        wait_for grep -Eq 'Max data size +[0-9]+ ' "/proc/$pid/limits"
        limit=$(awk '/Max data size/ { print $4 }' "/proc/$pid/limits")
        ((limit >= 3 * 512 << 20 && limit < (3 * 512 + 2048) << 20))
        kill -KILL "$pid"
        wait "$pid" || true
    }
    limited run --cold -q -m 512m "$busybox" sleep 1000
    limited bake --again -q -m 512m --warmup 'sleep 1000' "$busybox"
}

# bats test_tags=all-native
@test "a disk without room for a bake's snapshot ends the run with a sentence, and nothing half-made is left" {
    [ "$(id -u)" -eq 0 ] || skip "needs root: a mount"
    mkdir "$BATS_TEST_TMPDIR/full"
    # Room for the image; then also for what the run without a bake needs.
    # shellcheck disable=SC2016 # of the shell in there
    run unshare -m bash -c 'mount -t tmpfs -o size=12m,mode=700 none "$1" && export XDG_DATA_HOME=$1 || exit
        supermachine run -q "$2" true 2>&1; echo "status $?"; find "$1" -name "*.snap*" -o -name "*.partial*"
        supermachine run -q --cold "$2" echo alive' _ "$BATS_TEST_TMPDIR/full" "$busybox"
    echo "$output"
    [ "${#lines[@]}" -eq 3 ]
    [[ ${lines[0]} == "supermachine: baking "*"No space left on device" ]]
    [ "${lines[1]}" = "status 125" ]
    [ "${lines[2]}" = alive ]
}

# Of hundreds none may hang and none may end with something else. Processes, sockets and files that they left are looked for as after
# every test; here also in the store, and, where nobody else is on the machine, descriptors and memory.
# bats test_tags=all
@test "500 short runs, eight at once: each ends with 0, and nothing of them is left" {
    local n ends=$BATS_TEST_TMPDIR/ends files before after
    n=$(fewer 16 500)
    host() { echo 3 >/proc/sys/vm/drop_caches; echo "$(cut -f 1 /proc/sys/fs/file-nr) $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)"; }
    supermachine run "$busybox" true
    files=$(find "$XDG_DATA_HOME" | sort)
    is_native || before=$(host)
    # shellcheck disable=SC2016 # of the shells that xargs starts
    seq "$n" | xargs -P 8 -I {} sh -c 'said=$(supermachine run "$1" true 2>&1); echo "$? $said"' _ "$busybox" >"$ends" 3>&-
    sort "$ends" | uniq -c
    [ "$(grep -cx '0 ' "$ends")" -eq "$n" ]
    diff - <(find "$XDG_DATA_HOME" | sort) <<<"$files"
    is_native || {
        after=$(host)
        echo "descriptors, KiB available: $before, then $after"
        [ "$((${after% *} - ${before% *}))" -lt 200 ]
        [ "$((${before#* } - ${after#* }))" -lt 65536 ]
    }
}

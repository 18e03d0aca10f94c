#!/usr/bin/env bats
# The nested machine itself: what the nested run of the integration tests relies on.

nested="$BATS_TEST_DIRNAME/nested"

# The first use says on stderr what it fetches.
setup_file() {
    "$nested" prepare >/dev/null 2>&1
}

setup() {
    # shellcheck disable=SC2154 # set by bats
    cd "$BATS_TEST_TMPDIR" || return 1
}

@test "nested: streams apart, status kept, KVM there" {
    status=0
    "$nested" run -t 900 -- sh -c 'echo out; echo err >&2; test -c /dev/kvm && exec 3<>/dev/kvm && exit 7' >out 2>err || status=$?
    [ "$status" -eq 7 ]
    [ "$(cat out)" = out ]
    [ "$(cat err)" = err ]
}

@test "nested: arguments, directory and variables arrive as they are" {
    run "$nested" run -t 900 -e 'SM_X=a b' -- sh -c 'echo "$PWD|$SM_X|$SM_TESTBED|$1|$2"' sh "it's" '$HOME *'
    [ "$status" -eq 0 ]
    [ "$output" = "$PWD|a b|nested|it's|\$HOME *" ]
}

@test "nested: only what -w names can be written" {
    mkdir kept
    echo before >untouched
    "$nested" run -t 900 -w kept -- sh -c 'echo after >untouched; cat untouched; echo result >kept/file'
    [ "$(cat untouched)" = before ]
    [ "$(cat kept/file)" = result ]
}

@test "nested: the time limit ends it with 124 and leaves nothing" {
    mkdir tmp
    SM_TESTBED_TMP=$PWD/tmp run "$nested" run -t 9 -- sleep 600
    [ "$status" -eq 124 ]
    [[ "$output" == *"not done within 9 s"* ]]
    [ -z "$(ls -A tmp)" ]
}

# A second in it is a second, whatever kept its CPU from running while it booted.
@test "nested: its kernel is told the frequency of its counter" {
    local khz
    cc -O -o tsc "$BATS_TEST_DIRNAME/tsc.c"
    khz=$(./tsc)
    run "$nested" run -t 900 -- sh -c 'dmesg | grep "tsc: Detected"'
    echo "$khz: $output"
    [ "$status" -eq 0 ]
    [[ "$output" =~ "Detected $((khz / 1000)).$(printf %03d $((khz % 1000))) MHz "(TSC|processor) ]]
}

@test "nested: a machine that crashes, or hangs, is told from a command that fails" {
    run "$nested" run -t 900 -- sh -c 'echo c >/proc/sysrq-trigger; sleep 600'
    [ "$status" -eq 125 ]
    [[ "$output" == *"Kernel panic"*"ended without a result"* ]]
    local patience
    for patience in 20 80 400; do # on a busy host it may not be up within the first
        SM_TESTBED_PATIENCE=$patience run "$nested" run -t 1800 -- sh -c 'echo risen; kill -STOP -1; sleep 3600'
        [ "$status" -eq 125 ]
        [[ "$output" == *"no sign of life for $patience s"*"ended without a result"* ]]
        [[ "$output" != *risen* ]] || break
    done
    [[ "$output" == *risen* ]]
}

@test "a /dev/kvm that is none, or is not there, is found unusable" {
    [ "$(id -u)" -eq 0 ] || skip "needs root to hide /dev/kvm"
    local usable=$BATS_TEST_DIRNAME/../../scripts/kvm-usable
    run unshare --mount sh -c 'mount --bind /dev/null /dev/kvm && exec "$1"' sh "$usable"
    [ "$status" -eq 1 ]
    [[ $output == "/dev/kvm cannot be used ("* ]]
    run unshare --mount sh -c 'mount -t tmpfs none /dev && exec "$1"' sh "$usable"
    [ "$status" -eq 1 ]
    [ "$output" = "no /dev/kvm on this machine" ]
}

@test "nested: with --count the clock counts instructions, whatever else this machine does" {
    local busy=() i
    for i in 1 2; do
        (while :; do :; done) >/dev/null 2>&1 3>&- &
        busy+=($!)
    done
    # shellcheck disable=SC2016 # for the bash there
    run "$nested" run --count -t 900 -- bash -c 'for ((i = 0; i < 6; i++)); do a=${EPOCHREALTIME/./}
        for ((n = 0; n < 20000; n++)); do :; done; echo $((${EPOCHREALTIME/./} - a)); done'
    kill "${busy[@]}"
    [ "$status" -eq 0 ]
    echo "$output"
    # The first one also fetches code; the others differ by a timer's interrupts.
    echo "$output" | tail -n 5 | sort -n | awk 'NR == 1 { least = $1 } { most = $1 } END { exit !(NR == 5 && most < least * 1.03) }'
}

@test "testbed: a QEMU that cannot be fetched is told, and an installed one has to do" {
    mkdir bin
    printf '#!/bin/sh\necho "E: no network here" >&2\nexit 100\n' >bin/apt-get
    printf '#!/bin/sh\n' >bin/qemu-system-x86_64
    chmod +x bin/*
    export SM_TESTBED_CACHE=$PWD/cache SM_TESTBED_QEMU=
    PATH=$PWD/bin:$PATH run "$BATS_TEST_DIRNAME/qemu"
    [ "$status" -eq 0 ]
    [[ $output == *"E: no network here"*"going on with $PWD/bin/qemu-system-x86_64, whose faults"*"$PWD/bin/qemu-system-x86_64" ]]
    rm bin/qemu-system-x86_64
    if ! command -v qemu-system-x86_64 >/dev/null; then
        PATH=$PWD/bin:$PATH run "$BATS_TEST_DIRNAME/qemu"
        [ "$status" -eq 1 ]
        [[ $output == *"no QEMU for the nested machine"* ]]
    fi
}

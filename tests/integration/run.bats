#!/usr/bin/env bats
# supermachine run: streams, exit codes, and what the image and the options say about the command.
load helper

@test "stdout, stderr and exit code are the command's (booted)" {
    run --separate-stderr supermachine run --cold "$busybox" sh -c 'echo out; echo err >&2; exit 7'
    [ "$status" -eq 7 ]
    [ "$output" = out ]
    [ "$stderr" = err ]
}

@test "stdout, stderr and exit code are the command's (baked and restored)" {
    for _ in 1 2; do
        run --separate-stderr supermachine run "$busybox" sh -c 'echo out; echo err >&2; exit 7'
        [ "$status" -eq 7 ]
        [ "$output" = out ]
        [ "$stderr" = err ]
    done
}

@test "stdout, stderr and exit code are the command's (Debian)" {
    needs_debian
    run --separate-stderr supermachine run "$debian" sh -c 'echo out; echo err >&2; grep ^ID= /etc/os-release; exit 7'
    [ "$status" -eq 7 ]
    [ "$output" = $'out\nID=debian' ]
    [ "$stderr" = err ]
}

@test "python3 of a Debian image computes" {
    needs_debian
    run --separate-stderr supermachine run "$debian" python3 -c 'print(6*7)'
    [ "$status" -eq 0 ]
    [ "$output" = 42 ]
    [ -z "$stderr" ]
}

@test "the machine is as asked for: CPUs, memory, host name, user, directory, environment" {
    printf 'FROM_FILE=file\nBOTH=file\n# comment\n' >"$BATS_TEST_TMPDIR/env"
    HOSTVAR=host run --separate-stderr supermachine run --rm --cpus 4 --memory 512m --name probe --hostname box \
        -e A='1 2' -e HOSTVAR -e BOTH=option --env-file "$BATS_TEST_TMPDIR/env" -w /tmp/new -u app "$busybox" sh -c '
        echo "cpus=$(grep -c ^processor /proc/cpuinfo) online=$(cat /sys/devices/system/cpu/online)"
        awk "/MemTotal/ { print \"memory=\" (\$2 > 450000 && \$2 < 524288) }" /proc/meminfo
        echo "host=$(hostname) id=$(id -u):$(id -g) pwd=$PWD home=$HOME"
        echo "env=$A,$HOSTVAR,$BOTH,$FROM_FILE"
        echo "pid1=$([ $$ -ne 1 ] && echo other) init=$(tr "\0" " " </proc/1/cmdline 2>/dev/null | wc -w)"
        echo "args=$#:$1:$2" ' sh 'one arg' ''
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = "cpus=4 online=0-3" ]
    [ "${lines[1]}" = "memory=1" ]
    [ "${lines[2]}" = "host=box id=1000:1000 pwd=/tmp/new home=/home/app" ]
    [ "${lines[3]}" = "env=1 2,host,option,file" ]
    [[ "${lines[4]}" = pid1=other* ]]
    [ "${lines[5]}" = "args=2:one arg:" ]
}

@test "the system in the VM is whole: devices, proc, tmp, loopback, time, randomness, writable root" {
    local before
    before=$(date +%s)
    run --separate-stderr supermachine run "$busybox" sh -c '
        date +%s
        for d in null zero full random urandom tty ptmx; do [ -c /dev/$d ] || echo "no /dev/$d"; done
        [ -d /proc/self ] && [ -d /sys/class ] && [ -d /dev/shm ] && [ -d /dev/pts ] && echo mounts
        echo data >/usr/new && rm /etc/os-release && cat /usr/new
        [ -u /bin/busybox.suid ] && echo setuid
        ip addr show lo | grep -q "inet 127.0.0.1" && echo loopback
        [ "$(head -c 32 /dev/urandom | wc -c)" = 32 ] && echo random
        cat /etc/supermachine-test-image
        mount | grep -c " / "; ls -ld /tmp | cut -c 1-10'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "${lines[0]}" -ge "$before" ]
    [ "${lines[0]}" -le "$(date +%s)" ]
    [ "$(printf '%s\n' "${lines[@]:1}")" = $'mounts\ndata\nsetuid\nloopback\nrandom\nbusybox\n1\ndrwxrwxrwt' ]
}

@test "nothing of one run is seen by the next" {
    run --separate-stderr supermachine run "$busybox" sh -c 'cat /usr/new 2>/dev/null; cat /etc/os-release | head -n 1'
    [ "$status" -eq 0 ]
    [ "$output" = 'NAME="busybox test image"' ]
}

@test "stdin goes through unchanged, and only with -i" {
    local size=1048576
    is_native || size=104857600
    head -c "$size" /dev/urandom >"$BATS_TEST_TMPDIR/in"
    supermachine run -i "$busybox" cat <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
    cmp "$BATS_TEST_TMPDIR/in" "$BATS_TEST_TMPDIR/out"
    run --separate-stderr supermachine run "$busybox" sh -c 'cat; echo end; readlink /proc/self/fd/0' <"$BATS_TEST_TMPDIR/in"
    [ "$status" -eq 0 ]
    [ "$output" = $'end\n/dev/null' ]
}

@test "archives are read as layouts are" {
    run --separate-stderr supermachine run "oci-archive:$SM_IMAGE_BUSYBOX/oci.tar" cat /etc/supermachine-test-image
    [ "$status" -eq 0 ]
    [ "$output" = busybox ]
    run --separate-stderr supermachine run "docker-archive:$SM_IMAGE_BUSYBOX/docker.tar" cat /etc/supermachine-test-image
    [ "$status" -eq 0 ]
    [ "$output" = busybox ]
}

@test "a signal that ends the command is 128 + its number" {
    run --separate-stderr supermachine run "$busybox" sh -c 'exec tail /dev/zero & kill -SEGV $!; wait $!'
    [ "$status" -eq 139 ]
    [ -z "$stderr" ]
}

@test "the time limit kills the command: 124" {
    local limit
    for limit in 3 30 300; do # on a busy host the shell may not come to its word within the first
        run --separate-stderr supermachine run --timeout "$limit" "$busybox" sh -c 'echo begun; sleep 1000'
        [ "$status" -eq 124 ]
        [[ $stderr == "supermachine: "*timeout* ]]
        [ -z "$output" ] || break
    done
    [ "$output" = begun ]
}

@test "a reader that goes away ends the command" {
    run bash -o pipefail -c 'supermachine run "$1" yes | head -n 2' _ "$busybox"
    [ "$output" = $'y\ny' ]
    [ "$status" -eq 141 ]
}

@test "a command that is not there is 127, one that cannot be executed 126, an unknown user 125" {
    fails_with 127 'no-such-command' supermachine run "$busybox" no-such-command
    fails_with 126 '/etc/passwd' supermachine run "$busybox" /etc/passwd
    fails_with 125 'nobody-knows' supermachine run -u nobody-knows "$busybox" true
}

@test "the image config's Entrypoint, Cmd, Env, User, WorkingDir and StopSignal are honoured, and replaced by options" {
    local layout=$BATS_TEST_TMPDIR/layout
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    umoci config --image "$layout:latest" --tag service --config.entrypoint /bin/echo --config.entrypoint entry \
        --config.cmd one --config.cmd two
    umoci config --image "$layout:latest" --tag worker --config.cmd sh --config.cmd -c --config.cmd \
        'trap "echo stopped; exit 5" USR1; echo $COLOUR $(id -un) $PWD; while :; do sleep 0.1; done' \
        --config.env COLOUR=blue --config.user app --config.workingdir /srv/work --config.stopsignal SIGUSR1

    run --separate-stderr supermachine run "oci:$layout:service"
    [ "$status" -eq 0 ]
    [ "$output" = "entry one two" ]
    run --separate-stderr supermachine run "oci:$layout:service" three
    [ "$output" = "entry three" ]
    run --separate-stderr supermachine run --entrypoint /usr/bin/basename "oci:$layout:service" /a/b
    [ "$output" = b ]

    supermachine run "oci:$layout:worker" >"$BATS_TEST_TMPDIR/out" &
    local pid=$!
    wait_for grep -q blue "$BATS_TEST_TMPDIR/out"
    kill -TERM "$pid"
    local got=0
    wait "$pid" || got=$?
    [ "$got" -eq 5 ]
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = $'blue app /srv/work\nstopped' ]
}

@test "--timing tells the stages, and the assist is used where it must and nowhere else" {
    run --separate-stderr supermachine run --timing "$busybox" true
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    grep -q 'agent ready' <<<"$stderr"
    local assists
    assists=$(sed -n 's/.*assists \([0-9]*\)).*/\1/p' <<<"$stderr")
    if is_emulated; then
        [ "$assists" -gt 0 ]
    elif ! is_native; then
        [ "$assists" -eq 0 ]
    fi
}

@test "an image without a command is refused before anything is baked for it" {
    local layout=$BATS_TEST_TMPDIR/layout
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    umoci config --image "$layout:latest" --tag empty --clear=config.cmd --clear=config.entrypoint
    fails_with 125 'names no command' supermachine run "oci:$layout:empty"
    [ -z "$(find "$XDG_DATA_HOME/supermachine/snapshots" -type f 2>/dev/null)" ]
}

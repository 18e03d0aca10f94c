#!/usr/bin/env bats
# Bake once, restore for every run: that it is a restore, that nothing of one run is in the next, that it holds for many.
load helper

# The test's own store: what it bakes is its own.
own_store() {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
}

# A store of the test's own with one snapshot: the base of busybox that all tests share (links to its files), $snap.
baked_store() {
    supermachine bake "$busybox" >/dev/null
    cp -al "$XDG_DATA_HOME" "$BATS_TEST_TMPDIR/data"
    own_store
    snap=$(supermachine snapshot ls --format json | jq -r '[.[] | select(.state == "base")][0].path') # used last
    find "${snap%/*}" -type f ! -path "${snap%.snap}*" -delete
}

# The baked snapshots' files, and their sums.
sums() {
    sha256sum "$XDG_DATA_HOME"/supermachine/snapshots/*.snap
}

# A secret that is only in memory, and a counter that a process of the guest's keeps going.
witness='
    cat /proc/sys/kernel/random/boot_id >/dev/null # made when it is read for the first time
    head -c 16 /dev/urandom | md5sum | cut -c 1-32 >/run/nonce
    (i=0; while :; do i=$((i + 1)); echo $i >/run/ticks.new; mv /run/ticks.new /run/ticks; sleep 0.05; done) >/dev/null 2>&1 &
    until [ -s /run/ticks ]; do sleep 0.05; done'

# What a run can tell about where it came from: nonce, boot id, ticks, then what must be new every time.
tell='
    cat /run/nonce /proc/sys/kernel/random/boot_id
    a=$(cat /run/ticks); i=0
    until [ "$(cat /run/ticks)" -gt "$a" ] || [ $i -ge 1200 ]; do sleep 0.5; i=$((i + 1)); done
    [ $i -lt 1200 ] && echo "ticks go on"
    head -c 16 /dev/urandom | md5sum | cut -c 1-32; cat /etc/machine-id; hostname
    date +%s; cut -d " " -f 1 /proc/uptime'

@test "a run is a restore and not a boot; random numbers, machine id, host name and clock are new" {
    own_store
    run --separate-stderr supermachine bake --warmup "$witness" "$busybox"
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    local i before
    for i in 1 2; do
        before=$(date +%s)
        supermachine run "$busybox" sh -c "$tell" >"$BATS_TEST_TMPDIR/$i"
        cat "$BATS_TEST_TMPDIR/$i"
        [ "$(wc -l <"$BATS_TEST_TMPDIR/$i")" -eq 8 ]
        [ "$(sed -n 3p "$BATS_TEST_TMPDIR/$i")" = "ticks go on" ]
        [ "$(sed -n 7p "$BATS_TEST_TMPDIR/$i")" -ge "$before" ]
        [ "$(sed -n 7p "$BATS_TEST_TMPDIR/$i")" -le "$(($(date +%s) + 1))" ]
    done
    local line
    for line in 1 2; do # what is from before the snapshot
        [ "$(sed -n ${line}p "$BATS_TEST_TMPDIR/1")" = "$(sed -n ${line}p "$BATS_TEST_TMPDIR/2")" ]
    done
    for line in 4 5 6; do
        [ "$(sed -n ${line}p "$BATS_TEST_TMPDIR/1")" != "$(sed -n ${line}p "$BATS_TEST_TMPDIR/2")" ]
    done
    # What still runs keeps process 1, which an init may be and nobody who asks for more than it has left.
    run --separate-stderr supermachine run --init "$busybox" sh -c 'echo "child of $(sed -n "s/^PPid:.//p" /proc/$$/status)"; test -s /run/ticks'
    echo "$status $output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = "child of 1" ]
    fails_with 125 "has given up what is asked for" supermachine run --privileged "$busybox" true
    # The host's clock may have been put back since the bake; here it is the nested machine's.
    is_native && return
    before=$(($(date +%s) - 7200))
    date -s "@$before"
    run --separate-stderr supermachine run "$busybox" date +%s
    date -s "@$(($(date +%s) + 7200))"
    [ "$output" -ge "$before" ]
    [ "$output" -lt "$((before + 3600))" ]
}

# restore_many VCPUS N: the program of that name, which makes no process in the guest: that is what costs most where guest kernels
# are emulated.
restore_many() {
    SUPERMACHINE_GUEST_DIR=$SM_BUILD/guest SUPERMACHINE_LIBEXEC_DIR=$SM_BUILD "$BATS_FILE_TMPDIR/restore-many/run-command" "$busybox" "$@"
}

setup_file() {
    local program
    for program in restore-many captures; do
        mkdir "$BATS_FILE_TMPDIR/$program"
        cc -Wall -Wextra -Werror -O1 -I"$repo/include" "$BATS_TEST_DIRNAME/$program.c" -o "$BATS_FILE_TMPDIR/$program/run-command" \
            -L"$SM_BUILD" -lsupermachine -Wl,-rpath,"$SM_BUILD"
    done
}

@test "many restores in a row and many at once, all different, the file unchanged" {
    local in_a_row at_once i pids=()
    in_a_row=$(fewer 10 100)
    at_once=$(fewer 4 20)
    baked_store
    sums >"$BATS_TEST_TMPDIR/before"
    restore_many 1 "$in_a_row" >"$BATS_TEST_TMPDIR/row"
    for i in $(seq "$at_once"); do
        restore_many 1 1 >"$BATS_TEST_TMPDIR/once.$i" 3>&- &
        pids+=($!)
    done
    for i in "${pids[@]}"; do # not all: the test's own time limit is a job, too
        wait "$i"
    done
    cat "$BATS_TEST_TMPDIR"/row "$BATS_TEST_TMPDIR"/once.* >"$BATS_TEST_TMPDIR/all"
    [ "$(wc -l <"$BATS_TEST_TMPDIR/all")" -eq $((2 * (in_a_row + at_once))) ]
    [ -z "$(sort "$BATS_TEST_TMPDIR/all" | uniq -d)" ]
    sums | cmp - "$BATS_TEST_TMPDIR/before" # nor has the library baked another one
    supermachine snapshot verify "$XDG_DATA_HOME"/supermachine/snapshots/*.snap
}

@test "1, 2 and 4 vCPUs are restored again and again" {
    own_store
    local cpus times
    times=$(fewer 5 25)
    for cpus in $(fewer '2 4' '1 2 4'); do # one is what all other tests have
        restore_many "$cpus" "$times" >"$BATS_TEST_TMPDIR/all"
        [ "$(sort -u "$BATS_TEST_TMPDIR/all" | wc -l)" -eq $((2 * times)) ]
    done
}

@test "two that need the same snapshot at once bake it once" {
    own_store
    local i pids=()
    supermachine image inspect "$busybox" >/dev/null
    for i in 1 2; do
        supermachine bake "$busybox" >"$BATS_TEST_TMPDIR/$i" 3>&- &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i"
    done
    cat "$BATS_TEST_TMPDIR"/[12]
    [ "$(cat "$BATS_TEST_TMPDIR"/[12] | grep -c 'baked already')" -eq 1 ]
    [ "$(supermachine snapshot ls --format json | jq length)" -eq 1 ]
}

@test "a service is baked listening, and goes on running in every run" {
    own_store
    local layout=$BATS_TEST_TMPDIR/layout i
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    umoci config --image "$layout:latest" --tag service --config.cmd sh --config.cmd -c --config.cmd \
        'nc -ll -p 7777 -e cat & echo $$ starts; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done'
    states() { supermachine snapshot ls --format json | jq -r '[.[].state] | sort | join(" ")'; }
    supermachine bake --warmup 'echo 1 >/one' "oci:$layout:service"
    run --separate-stderr supermachine bake --warmup 'echo 1 >/one' --until listening "oci:$layout:service"
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$(states)" = "base service warm" ]
    for i in 1 2; do
        supermachine run "oci:$layout:service" >"$BATS_TEST_TMPDIR/out.$i" 3>&- &
        wait_for grep -q 'tick 2' "$BATS_TEST_TMPDIR/out.$i"
        kill -TERM $!
        wait $! || true
    done
    # A command instead runs beside no service.
    run --separate-stderr supermachine run "oci:$layout:service" echo hello
    [ "$output" = hello ]
    # Nor does it outlive a bake that begins with something else.
    supermachine bake --warmup 'echo 2 >/two' "oci:$layout:service"
    [ "$(states)" = "base warm" ]
}

@test "runs begin where the last bake says; images that differ in configuration only share it" {
    baked_store
    local layout=$BATS_TEST_TMPDIR/layout key keys two
    # What it leaves of groups, bounds and controllers is where a run begins, also when process 1 was moved away.
    two='echo 2 >/two; cd /sys/fs/cgroup; mkdir -p x/y; echo $$ >x/cgroup.procs; echo 1 >x/cgroup.procs
        echo +memory >cgroup.subtree_control; echo "90000 100000" >cpu.max'
    bake() { run --separate-stderr supermachine bake "$@"; echo "$output $stderr"; [ "$status" -eq 0 ]; }
    bake --warmup 'echo 1 >/one' "$busybox"
    [[ $output != *already* ]]
    bake --warmup 'echo 1 >/one' "$busybox"
    [ "$output" = "baked already" ]
    bake --warmup "$two" "$busybox"
    [[ $output != *already* ]]
    run --separate-stderr supermachine run "$busybox" sh -c 'ls -d /one /two /sys/fs/cgroup/x 2>/dev/null
        echo $$; cd /sys/fs/cgroup; cat /proc/self/cgroup cgroup.subtree_control cpu.max'
    [ "$output" = $'/sys/fs/cgroup/x\n/two\n1\n0::/x\nmemory\n90000 100000' ]
    # Another command, another label: the same file system and the same way of running a command.
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    umoci config --image "$layout:latest" --tag other --config.cmd true --config.label a=b
    bake --warmup "$two" "oci:$layout:other"
    [ "$output" = "baked already" ]
    bake "oci:$layout:other" # the way back
    [ "$output" = "baked already" ]
    run --separate-stderr supermachine run "$busybox" sh -c 'ls -d /one /two 2>/dev/null; exit 0'
    [ -z "$output" ]
    # What the list prints is what `rm` takes.
    bake --warmup 'echo 1 >/one' "$busybox"
    keys=$(supermachine snapshot ls | sed 1d | cut -d ' ' -f 1)
    [ "$(wc -l <<<"$keys")" -eq 2 ]
    for key in $keys; do
        supermachine snapshot rm "$key"
    done
    [ "$(supermachine snapshot ls --format json | jq length)" -eq 0 ]
}

@test "a failing warm-up, and one that is not there, bake nothing" {
    baked_store
    fails_with 125 "exit code 3" supermachine bake --warmup 'exit 3' "$busybox"
    fails_with 125 "neither" supermachine bake --until never "$busybox"
    [ "$(supermachine snapshot ls --format json | jq '[.[] | select(.state == "warm")] | length')" -eq 0 ]
}

@test "a running VM is captured and runs on; the capture is restored any number of times" {
    needs_debian
    local snap=$BATS_TEST_TMPDIR/live.snap i
    : >"$BATS_TEST_TMPDIR/out"
    supermachine run --name "live-$$" --cpus 2 --add-host kept:10.9.9.9 "$busybox" sh -c "$witness"'
        trap "exit 143" TERM; echo ready; i=0; while :; do i=$((i + 1)); echo "loop $i"; sleep 0.1; done' >"$BATS_TEST_TMPDIR/out" 3>&- &
    local pid=$!
    wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
    fails_with 125 "runs already" supermachine run --name "live-$$" "$busybox" true
    for i in $(seq "$(fewer 1 2)"); do
        local before
        run --separate-stderr supermachine snapshot create "live-$$" "$snap"
        echo "$output $stderr"
        [ "$status" -eq 0 ]
        [[ $output == *"stood still for"* ]]
        before=$(wc -l <"$BATS_TEST_TMPDIR/out")
        wait_for sh -c '[ "$(wc -l <"$1")" -gt '"$before"' ]' _ "$BATS_TEST_TMPDIR/out"
        kill -STOP "$pid" # two busy machines would only slow each other down
        run --separate-stderr supermachine run --snapshot "$snap" "$busybox" sh -c "$tell"'
            head -n 1 /etc/hosts; grep -c "^10.0.2.15.$(hostname)\$" /etc/hosts; nproc'
        kill -CONT "$pid"
        echo "$output $stderr"
        [ "$status" -eq 0 ]
        grep -qx "ticks go on" <<<"$output"
        [ "$(tail -n 3 <<<"$output" | head -n 2)" = $'10.9.9.9\tkept\n1' ]
        [ "$(tail -n 1 <<<"$output")" = 2 ]
    done
    # Without a command of its own a run goes on with the one that was captured, and ends with it.
    kill -STOP "$pid"
    supermachine run --snapshot "$snap" "$busybox" >"$BATS_TEST_TMPDIR/on" 3>&- &
    wait_for grep -q loop "$BATS_TEST_TMPDIR/on"
    kill -TERM $!
    status=0; wait $! || status=$?
    cat "$BATS_TEST_TMPDIR/on"
    [ "$status" -eq 143 ]
    run ! grep -q ready "$BATS_TEST_TMPDIR/on"
    kill -KILL "$pid"
    wait "$pid" || true
    fails_with 125 "no VM named" supermachine snapshot create "live-$$" "$snap"
    fails_with 125 "has 2 vCPUs and cannot have 1" supermachine run --snapshot "$snap" --cpus 1 "$busybox" true
    fails_with 125 "has 256 MiB of memory and cannot have 128" supermachine run --snapshot "$snap" -m 128m "$busybox" true
    fails_with 125 "restored .* or booted" supermachine run --snapshot "$snap" --cold "$busybox" true
    fails_with 125 "another image" supermachine run --snapshot "$snap" "$debian" true
    rm -f "$snap"
}

# bats test_tags=all-native
@test "captures of one VM at once wait for each other, and what was captured goes on" {
    SUPERMACHINE_GUEST_DIR=$SM_BUILD/guest SUPERMACHINE_LIBEXEC_DIR=$SM_BUILD \
        run --separate-stderr "$BATS_FILE_TMPDIR/captures/run-command" "$busybox" "$BATS_TEST_TMPDIR"
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$(grep -c '^at [0-9]' <<<"$output")" -eq 2 ]
    rm "$BATS_TEST_TMPDIR"/*.snap
}

# What the guest is busy with: one that appends to a file, one that sleeps and wakes, one that makes processes, one that
# answers over the loopback interface, and the stream to the host. `read -t` from what nobody writes to sleeps, without a
# process. What must be true after a restore: every line that was written is there, in order, and whole; and all go on.
load='
    mkfifo /run/never; exec 3<>/run/never
    (i=0; while read -t 0.05 x <&3; i=$((i + 1)); do echo $i line; done >/run/file) &
    (i=0; while read -t 0.02 x <&3; i=$((i + 1)); do echo $i >/run/timer; done) &
    (while read -t 0.2 x <&3; :; do /bin/true; done) &
    nc -ll -p 7777 -e cat >/dev/null &
    echo ready; i=0; while read -t 0.1 x <&3; i=$((i + 1)); do echo "loop $i"; done'
check='
    function last(file, line, n, bad) {
        while ((getline line <file) > 0)
            if (line != ++n " line")
                bad++
        close(file)
        return bad ? "bad" : n
    }
    function timer(line) { getline line <"/run/timer"; close("/run/timer"); return line }
    BEGIN {
        n = last("/run/file"); t = timer()
        print (n > 0 ? "whole" : n)
        while (n == last("/run/file") || t == timer()) ;
        print "they go on"
        fflush()
        exit system("echo over | nc -w 600 127.0.0.1 7777")
    }'

@test "a VM that is busy with files, timers, processes and streams is captured again and again, and each capture is whole" {
    local snap=$BATS_TEST_TMPDIR/busy.snap out=$BATS_TEST_TMPDIR/out rounds n before
    rounds=$(fewer 3 10)
    ! is_native || rounds=$(fewer 1 5) # some 16 s each
    : >"$out"
    supermachine run --name "busy-$$" --cpus 2 "$busybox" sh -c "$load" >"$out" 3>&- &
    local pid=$!
    wait_for grep -q 'loop 5' "$out"
    for n in $(seq "$rounds"); do
        supermachine snapshot create "busy-$$" "$snap"
        before=$(wc -l <"$out")
        wait_for sh -c '[ "$(wc -l <"$1")" -gt '"$before"' ]' _ "$out"
        kill -STOP "$pid" # two busy machines would only slow each other down
        run --separate-stderr supermachine run --timeout 800 --snapshot "$snap" "$busybox" awk "$check"
        kill -CONT "$pid"
        [ "$status" -eq 0 ] && [ "$output" = $'whole\nthey go on\nover' ] || { echo "capture $n: $status $output $stderr"; return 1; }
    done
    kill -KILL "$pid"
    wait "$pid" || true
    rm -f "$snap"
}

@test "snapshots are listed, removed and pruned" {
    baked_store
    supermachine bake --memory 128m "$busybox"
    run --separate-stderr supermachine snapshot ls --format json
    [ "$(jq length <<<"$output")" -eq 2 ]
    [ "$(jq '[.[] | .memory_bytes] | sort | .[0]' <<<"$output")" -eq $((128 << 20)) ]
    local key
    key=$(jq -r '.[0].key' <<<"$output")
    run --separate-stderr supermachine snapshot inspect "$(jq -r '.[0].path' <<<"$output")"
    [ "$status" -eq 0 ]
    grep -q x86_64 <<<"$output"
    run supermachine snapshot ls
    [ "${#lines[@]}" -eq 3 ]
    supermachine snapshot rm "$key"
    fails_with 125 "no snapshot" supermachine snapshot rm "$key"
    supermachine cache prune --unused-for 10h
    [ "$(supermachine snapshot ls --format json | jq length)" -eq 1 ]
    run --separate-stderr supermachine cache prune
    [[ $output == "removed 1 snapshots"* ]]
    [ "$(supermachine snapshot ls --format json | jq length)" -eq 0 ]
}

@test "a damaged snapshot is refused with a clear error" {
    baked_store
    cp "$snap" "$BATS_TEST_TMPDIR/good"
    rm "$snap" # the other tests' link stays as it is
    cp "$BATS_TEST_TMPDIR/good" "$snap"
    printf 'X' | dd of="$snap" bs=1 seek=200 conv=notrunc 2>/dev/null
    fails_with 125 "checksum|damaged|corrupt" supermachine run "$busybox" true
    cp "$BATS_TEST_TMPDIR/good" "$snap"
    truncate -s 1000000 "$snap"
    fails_with 125 "truncated" supermachine run "$busybox" true
    rm "$snap"
    cp "$BATS_TEST_TMPDIR/good" "$snap"
    run supermachine run "$busybox" true
    [ "$status" -eq 0 ]
}

# A restore maps the file: what becomes of the VM when it is cut short meanwhile?
@test "a snapshot cut short under its VM is named, and one that others may write is copied" {
    local base
    supermachine run "$busybox" true
    base=$(supermachine snapshot ls --format json | jq -r '[.[] | select(.state == "base")][0].path')
    cp "$base" "$BATS_TEST_TMPDIR/mine.snap"
    cp "$base" "$BATS_TEST_TMPDIR/others.snap"
    chmod 600 "$BATS_TEST_TMPDIR/mine.snap"
    chmod 666 "$BATS_TEST_TMPDIR/others.snap"
    # Begun, they wait for a line; then memory is used that was not before.
    for name in mine others; do
        mkfifo "$BATS_TEST_TMPDIR/$name.in"
        supermachine run -i --snapshot "$BATS_TEST_TMPDIR/$name.snap" "$busybox" \
            sh -c 'echo begun; read line; ls -lR /bin /etc /usr >/dev/null; echo "$line"' \
            <"$BATS_TEST_TMPDIR/$name.in" >"$BATS_TEST_TMPDIR/$name.out" 2>"$BATS_TEST_TMPDIR/$name.err" 3>&- &
        local pid=$!
        exec 8<>"$BATS_TEST_TMPDIR/$name.in" # read too: a VM that has ended by itself meanwhile is no failure to write
        wait_for grep -q begun "$BATS_TEST_TMPDIR/$name.out"
        truncate -s 64K "$BATS_TEST_TMPDIR/$name.snap"
        echo "$name went on" >&8
        exec 8>&-
        status=0
        wait "$pid" || status=$?
        cat "$BATS_TEST_TMPDIR/$name.out" "$BATS_TEST_TMPDIR/$name.err"
        if [ "$name" = others ]; then
            [ "$status" -eq 0 ]
            grep -q "others went on" "$BATS_TEST_TMPDIR/others.out"
        else
            [ "$status" -eq 125 ]
            grep -q "mine.snap' was cut short" "$BATS_TEST_TMPDIR/mine.err"
        fi
    done
}

#!/usr/bin/env bats
# bats file_tags=all
# Other people's inits and entrypoints as process 1, systemd among them: started, signalled, stopped, baked while they run and after a
# warm-up, captured, restored.
load helper

setup_file() {
    : "${SM_IMAGE_INITS=$([ "$(id -u)" -ne 0 ] || "$BATS_TEST_DIRNAME/../images/inits.sh")}"
    export SM_IMAGE_INITS
    mkdir "$BATS_FILE_TMPDIR/inits"
    cc -Wall -Wextra -Werror -O1 -I"$repo/include" "$BATS_TEST_DIRNAME/inits.c" -o "$BATS_FILE_TMPDIR/inits/run-command" \
        -L"$SM_BUILD" -lsupermachine -Wl,-rpath,"$SM_BUILD"
}

needs_inits() { [ -n "$SM_IMAGE_INITS" ] || skip "making the image of inits needs root"; }

# begin OUT ARGUMENTS...: `supermachine run` in the background, its output in OUT; $pid is its process.
begin() {
    supermachine run "${@:2}" >"$1" 2>"$1.err" 3>&- &
    pid=$!
    out=$1
}

# says WORDS: what began has said a line like this (grep -E).
says() { wait_for grep -Eqx "$1" "$out"; }

# ends WORDS STATUS: told to stop, it says WORDS and ends with STATUS.
ends() {
    local status=0
    kill -TERM "$pid"
    wait "$pid" || status=$?
    echo "status $status: $(cat "$out" "$out.err")"
    [ "$status" -eq "$2" ]
    grep -Eqx "$1" "$out"
}

# lives IMAGE NAME UP STATUS [MORE]: an image whose service NAME says "NAME up as UP" when it is there, "NAME bye" when it is stopped
# and "NAME quits" when it is told by SIGQUIT, where STATUS is what the image ends with (where that is 0 it is stopped, too):
# run, captured while it runs, that capture restored; baked while it runs, that restored; baked after a warm-up, that run.
# MORE is a line of its first run.
lives() {
    needs_inits
    local image=oci:$SM_IMAGE_INITS/oci:$1 dir=$BATS_TEST_TMPDIR snap=$BATS_TEST_TMPDIR/snap up="$2 up as $3" until=idle
    ! is_emulated || until=3 # seconds: what it does now and then keeps an emulated guest busy
    begin "$dir/first" --name "$1-$$" "$image"
    says "$up"
    [ -z "${5:-}" ] || says "$5"
    supermachine snapshot create "$1-$$" "$snap"
    ends "$2 bye" 0
    begin "$dir/captured" --snapshot "$snap" "$image"
    says "$2 goes on"
    ends "$2 bye" 0
    run ! grep -q ' up as ' "$out" # it goes on where it was
    rm "$snap"

    export XDG_DATA_HOME=$dir/data # what is baked here is this test's
    cp -al "${SM_TEST_STORE:-$BATS_RUN_TMPDIR}/data" "$XDG_DATA_HOME"
    supermachine bake --until "$until" "$image"
    begin "$dir/baked" --stop-signal QUIT "$image"
    says "$up" # nobody has read that yet
    says "$2 goes on"
    if [ "$4" -eq 0 ]; then ends "$2 bye" 0; else ends "$2 quits" "$4"; fi
    supermachine bake --warmup 'sleep 100000 & echo $! >/warm' "$image"
    begin "$dir/warm" "$image"
    says "$up"
    ends "$2 bye" 0
}

@test "s6: an entrypoint that insists on being process 1 becomes s6-svscan, whose services come and go with it" {
    lives s6 one '0 in .*' 0 'two up as 1000 in .*'
    grep -qx 'two bye' "$BATS_TEST_TMPDIR/captured"
}

@test "tini hands signals on, and takes orphans" {
    lives tini tini '0 in [0-9]+ below 1' 5
}

@test "dumb-init hands signals on to all of its session" {
    lives dumb-init dumb '0 in [0-9]+ below 1' 5 'child up as 0 in .*'
    grep -qx 'child bye' "$BATS_TEST_TMPDIR/captured"
}

@test "supervisord starts and stops its program, as another user" {
    lives supervisord one '1000 in [0-9]+ below 1' 0
}

@test "gosu: an entrypoint that goes on as another user is process 1 still" {
    lives gosu gosu '1000 in 1 below 0' 5
}

@test "who writes to /proc/1/fd/1 and /proc/1/fd/2 writes to the command's output" {
    lives fd1 fd1 '0 in 1 below 0' 5 out
    grep -qx err "$BATS_TEST_TMPDIR/first.err"
}

@test "a user in 40 groups is in all of them" {
    needs_inits
    [ "$(supermachine run "oci:$SM_IMAGE_INITS/oci:groups")" = "1000 $(seq -s ' ' 2001 2040)" ]
}

# ---- systemd ----------------------------------------------------------------------------------

# ask COMMAND: of the machine that begin_systemd began; its lines are in $output, its status in $status.
ask() {
    local line
    echo "$1" >&"${machine[1]}"
    output=
    while read -r line <&"${machine[0]}" && [[ $line != status\ * ]]; do output+=$line$'\n'; done
    status=${line#status }
    echo "$1: $status $output"
}

# What has to be the same in each restore: who runs, that nothing was started again, and that the journal has what came before it.
units='journalctl -q -u own -o cat | grep "up as"; systemctl is-system-running; systemctl --failed --no-legend'
units+='; systemctl show -p Id,ActiveState,MainPID,NRestarts multi-user.target own dbus systemd-journald systemd-logind'

@test "systemd boots to its target, with its journal and its groups, goes on in restores, and halts in order" {
    needs_inits
    ! is_emulated || skip "takes more than ten minutes where the guest's kernel is emulated"
    local image=oci:$SM_IMAGE_INITS/oci:systemd snap=$BATS_TEST_TMPDIR/snap i times first machine_pid line status output
    times=$(fewer 2 25)
    coproc machine { SUPERMACHINE_GUEST_DIR=$SM_BUILD/guest SUPERMACHINE_LIBEXEC_DIR=$SM_BUILD \
        exec "$BATS_FILE_TMPDIR/inits/run-command" "$image" 2>"$BATS_TEST_TMPDIR/console" 3>&-; }
    # shellcheck disable=SC2154 # coproc
    machine_pid=$machine_PID
    ask 'until state=$(systemctl is-system-running --wait 2>/dev/null); [ -n "${state%offline}" ]; do sleep 1; done; echo "$state"'
    [ "$output" = $'running\n' ]
    ask 'cat /proc/self/cgroup /sys/fs/cgroup/cgroup.subtree_control' # with its controllers on others join it where it is
    [ "$output" = $'0::/init.scope\nmemory pids\n' ]
    ask 'until journalctl -q -u own -o cat | grep -q "up as"; do sleep 1; done'
    ask 'systemd-run -q --wait --pipe -p MemoryMax=20M sh -c "cat /sys/fs/cgroup\$(cut -d : -f 3 /proc/self/cgroup)/memory.max"'
    [ "$output" = $'20971520\n' ]
    ask 'systemd-run --wait -p MemoryMax=20M python3 -c "bytearray(100 << 20)" 2>&1'
    [[ $output == *"result: oom-kill"* ]]
    ask 'systemctl reset-failed'
    ask "$units"
    first=$output
    [[ $first == 'own up as 1000 in '*$' below 1\nrunning\n'* ]]
    [ "$(grep -c '^ActiveState=active' <<<"$first")" -eq 5 ]
    for i in $(seq "$times"); do
        ask "capture $snap"
        [ "$status" -eq 0 ]
        run --separate-stderr supermachine run --snapshot "$snap" "$image" sh -c "$units"
        echo "restore $i: $status $output $stderr"
        [ "$output"$'\n' = "$first" ]
    done
    # Its terminal is who restores it.
    begin "$BATS_TEST_TMPDIR/captured" --snapshot "$snap" "$image"
    says '.*own goes on.*'
    ends '.*own bye.*' 0
    grep -q 'Reached target.*System Shutdown' "$out"
    rm "$snap"
    echo stop >&"${machine[1]}"
    read -r line <&"${machine[0]}"
    [ "$line" = "ended 0" ]
    wait "$machine_pid"
    grep -q 'own bye' "$BATS_TEST_TMPDIR/console"
}

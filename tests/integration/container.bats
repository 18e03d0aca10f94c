#!/usr/bin/env bats
# What a command is in: process 1 of a container, who joins it, its end, its captures.
load helper

# Says what process 1 is; its exit code is that of a child which was ended by a signal.
inside='
    set -- /proc/[0-9]*
    echo "process $$ of $#"
    echo "parent $(sed -n "s/^PPid:.//p" /proc/1/status)"
    echo "groups $(cat /proc/self/cgroup)"
    orphan=$(sleep 1000 >/dev/null & echo $!)
    echo "orphan of $(sed -n "s/^PPid:.//p" /proc/$orphan/status)"
    kill -9 1; kill -TERM 1; kill $orphan
    echo out >/proc/1/fd/1
    echo err >/proc/1/fd/2
    sh -c "kill -SEGV \$\$"; exit $?'

@test "the command is process 1: its own namespaces, orphans, streams; what is inside cannot kill it" {
    local user
    for user in root app; do
        run --separate-stderr supermachine run -u "$user" "$busybox" sh -c "$inside"
        echo "$user: $status $output $stderr"
        [ "$status" -eq 139 ]
        [ "${lines[0]}" = "process 1 of 1" ] # the agent is not there
        [ "${lines[1]}" = "parent 0" ]
        [ "${lines[2]}" = "groups 0::/" ]
        [ "${lines[3]}" = "orphan of 1" ]
        [ "${lines[4]}" = out ]
        [[ $stderr == *err* ]]
    done
    run supermachine run -t "$busybox" sh -c 'echo $$; echo out >/proc/1/fd/1; tty </proc/1/fd/0'
    echo "$output"
    [[ $output == $'1\r\nout\r\n/dev/pts/0'* ]]
}

@test "with --init the command is the child of an init: signals, orphans and its exit code pass through" {
    run --separate-stderr supermachine run --init "$busybox" sh -c '
        echo "child of $(sed -n "s/^PPid:.//p" /proc/$$/status): $(tr "\0" " " </proc/1/cmdline)"
        trap "echo told; exit 7" TERM
        (sleep 0.1 &)
        while ps -o comm | grep -qx sleep; do usleep 100000; done # a zombie keeps its name, too
        echo out >/proc/1/fd/1
        kill -TERM 1; sleep 1000 & wait'
    echo "$status $output $stderr"
    [ "$status" -eq 7 ]
    [ "$output" = $'child of 1: supermachine-init 2 \nout\ntold' ]
    run --separate-stderr supermachine run --init "$busybox" sh -c 'kill -SEGV $$'
    [ "$status" -eq 139 ]
    fails_with 127 'no-such-command' supermachine run --init "$busybox" no-such-command
    # It is not killed for want of memory.
    run --separate-stderr supermachine run --init "$busybox" sh -c 'cat /proc/1/oom_score_adj /proc/self/oom_score_adj'
    [ "$output" = $'-1000\n0' ]
}

@test "an entrypoint that insists on being process 1 starts" {
    local layout=$BATS_TEST_TMPDIR/layout # busybox's layers: there is a snapshot of them
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    umoci config --image "$layout:latest" --config.entrypoint=sh --config.entrypoint=-c \
        --config.entrypoint='[ $$ -eq 1 ] || { echo can only run as pid 1; exit 100; }; exec echo up'
    run --separate-stderr supermachine run "oci:$layout:latest"
    echo "$status $output $stderr"
    [ "$output" = up ]
}

@test "the command's end is the end of all in the container, and comes at once" {
    run --separate-stderr supermachine run "$busybox" sh -c '
        (trap "" TERM HUP; sleep 1000 & setsid sleep 1000 & echo started); exit 3'
    [ "$status" -eq 3 ]
    [ "$output" = started ]
    # What process 1 has no handler for does not end it, but for who reads its output.
    run bash -o pipefail -c 'supermachine run "$1" yes | head -n 1' _ "$busybox"
    [ "$status" -eq 141 ]
}

@test "who runs in groups of the guest's own goes on in them in a restore of what was captured, which its own signal stops" {
    local snapshot=$BATS_TEST_TMPDIR/snapshot out=$BATS_TEST_TMPDIR/out
    supermachine run --name "grouped-$$" --systemd always --stop-signal QUIT "$busybox" sh -c '
        trap "exit 5" QUIT
        mkdir -p "/var/log/journal/$(cat /etc/machine-id)/journal"
        mkdir /sys/fs/cgroup/own
        sh -c "echo \$\$ >/sys/fs/cgroup/own/cgroup.procs; while :; do cat /etc/machine-id; sleep 0.2; done >/told" &
        while sleep 0.2; do id=$(tail -n 1 /told); echo "$$ $(cat /proc/$!/cgroup) $id $(cd /var/log/journal && ls "$id" && readlink "$id")"; done' \
        >"$out" 3>&- &
    local first=$! second third id status=0
    wait_for grep -Eq '^1 0::/own [0-9a-f]{32} journal$' "$out"
    id=$(sed -n 's/^1 0::\/own \(.*\) journal$/\1/p' "$out" | head -n 1)
    supermachine snapshot create "grouped-$$" "$snapshot"
    kill -KILL "$first"
    supermachine run --name "again-$$" --snapshot "$snapshot" "$busybox" >"$out.2" 3>&- &
    second=$!
    # Another machine id than before, by which the journal that goes on is found; in a restore of a restore, too.
    goes_on() { sed -zE 's/journal\n/journal /g' "$1" | grep -vF "${@:2}" | grep -Eq "^1 0::/own [0-9a-f]{32} journal $id$"; }
    wait_for goes_on "$out.2" -e "own $id"
    supermachine snapshot create "again-$$" "$snapshot.2"
    kill -TERM "$second"
    wait "$second" || status=$?
    [ "$status" -eq 5 ]
    supermachine run --snapshot "$snapshot.2" "$busybox" >"$out.3" 3>&- &
    third=$!
    wait_for goes_on "$out.3" -e "own $id" -e "own $(sed -n 's/^1 0::.own \([0-9a-f]*\) .*/\1/p' "$out.2" | tail -n 1)"
    kill -KILL "$third"
    rm "$snapshot" "$snapshot.2"
}

@test "systemd's paths are in memory and its variable is set, if the command is systemd or is said to be" {
    run --separate-stderr supermachine run --systemd always "$busybox" sh -c '
        echo "$container"; mount | sed -n "s/^tmpfs on \(\/[rtv][^ ]*\) .*/\1/p" | sort; touch /run/x && mkdir /sys/fs/cgroup/init.scope && echo made
        df -k /dev/shm /run /run/lock /tmp /var/log/journal | awk "NR > 1 { all += \$2 } END { if (NR != 6 || all > 184320) print \$0, all }"'
    echo "$status $output $stderr"
    [ "$output" = $'oci\n/run\n/run/lock\n/tmp\n/var/log/journal\nmade' ]
    run --separate-stderr supermachine run "$busybox" sh -c 'echo "$container"; mount | grep -c "^tmpfs on /[rtv]"'
    [ "$output" = $'\n0' ]
    fails_with 125 "not true, false or always" supermachine run --systemd maybe "$busybox" true
    # Process 1 is told to halt by SIGRTMIN+3.
    supermachine run --systemd always "$busybox" sh -c 'trap "echo halt; exit 4" 37; echo up; while :; do sleep 0.1; done' \
        >"$BATS_TEST_TMPDIR/halt" 3>&- &
    local pid=$! status=0
    wait_for grep -q up "$BATS_TEST_TMPDIR/halt"
    kill -TERM "$pid"
    wait "$pid" || status=$?
    [ "$status" -eq 4 ]
}

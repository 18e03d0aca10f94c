#!/usr/bin/env bats
# What a command finds around it in the guest: processes, users, limits, identity.
load helper

@test "kill -9 -1 ends what it may end, and neither who sent it nor process 1" {
    run --separate-stderr supermachine run "$busybox" sh -c 'sleep 1000 & kill -9 -1; echo alive; exit 3'
    echo "$output $stderr"
    [ "$status" -eq 3 ]
    [ "$output" = alive ]
    # The sender's parent is not spared where it is not process 1.
    run --separate-stderr supermachine run --init "$busybox" sh -c 'sh -c "kill -9 -1"; echo never'
    [ "$status" -eq 137 ]
    [ -z "$output" ]
}

@test "the small init takes orphans and leaves no zombie" {
    run --separate-stderr supermachine run --init "$busybox" sh -c '
        i=0; while [ $i -lt 5 ]; do (sleep 0.1 &); i=$((i + 1)); done
        setsid sh -c "(sleep 0.1 &); exit"
        orphan=$(sleep 1000 >/dev/null & echo $!)
        awk "/^PPid/ { print \$2 }" /proc/$orphan/status
        kill $orphan
        # A zombie keeps its name, too.
        while ps -o comm | grep -qx sleep; do usleep 100000; done
        echo "all gone"'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = $'1\nall gone' ]
}

@test "names, limits and kernel settings are as in a container" {
    run --separate-stderr supermachine run --hostname box "$busybox" sh -c '
        cat /etc/hostname; grep -c "10.0.2.15.box$" /etc/hosts; grep -c "^10.0.2.2.host.containers.internal" /etc/hosts; grep -c "127.0.0.1.localhost$" /etc/hosts
        ulimit -Sn; ulimit -Hn
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start
        ls -l /dev/fd /dev/stdin /dev/stdout /dev/stderr | wc -l
        echo through >/dev/stdout; echo "a b" | cat /dev/fd/0
        grep -c "^0::" /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.controllers'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = $'box\n1\n1\n1\n1048576\n1048576\n0\n4\nthrough\na b\n1\n/sys/fs/cgroup/cgroup.controllers' ]
}

@test "the files that every container has: devices, queues, shared memory; and of /proc and /sys what podman shows" {
    run --separate-stderr supermachine run -t "$busybox" sh -c '
        stty -onlcr; cd /dev; ls -d console fd full mqueue net/tun null ptmx pts random shm stderr stdin stdout tty urandom zero | tr "\n" " "; echo
        stat -c "%a %n" mqueue shm net/tun ptmx
        echo to the console >/dev/console; (: >/dev/full; echo x >/dev/full) 2>&1
        mkdir shm/own && cp /bin/busybox shm/own/echo && shm/own/echo executed && rm -r shm/own
        cd /proc; wc -c <timer_list; wc -c <keys; ls /sys/firmware /sys/dev/block
        for file in /proc/irq/default_smp_affinity /proc/sys/vm/swappiness /sys/kernel/mm/none; do (echo 1 >$file) 2>&1; done
        mkdir /sys/fs/cgroup/own && cat /sys/fs/cgroup/cgroup.controllers
        cat sys/vm/max_map_count sys/vm/overcommit_memory sys/net/core/somaxconn'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    diff - <<<"$output" <(printf '%s\n' \
        'console fd full mqueue net/tun null ptmx pts random shm stderr stdin stdout tty urandom zero ' \
        '1777 mqueue' '1777 shm' '666 net/tun' '666 ptmx' 'to the console' 'sh: write error: No space left on device' executed 0 0 \
        /sys/dev/block: '' /sys/firmware: \
        "sh: can't create /proc/irq/default_smp_affinity: Read-only file system" \
        "sh: can't create /proc/sys/vm/swappiness: Read-only file system" \
        "sh: can't create /sys/kernel/mm/none: Read-only file system" \
        'cpuset cpu io memory pids' 1048576 1 4096)
    run --separate-stderr supermachine run "$busybox" ls /dev/console
    [ "$status" -eq 1 ]
}

@test "every run has a machine id and random numbers of its own" {
    local ids=$BATS_TEST_TMPDIR/ids
    for _ in 1 2 3; do
        supermachine run "$busybox" sh -c 'cat /etc/machine-id; cat /proc/sys/kernel/random/uuid' >>"$ids"
    done
    [ "$(wc -l <"$ids")" -eq 6 ]
    [ "$(sort -u "$ids" | wc -l)" -eq 6 ]
    [ "$(grep -Ec '^[0-9a-f]{32}$' "$ids")" -eq 3 ]
}

@test "users of the image: supplementary groups, a number that nobody has, a group by name" {
    run --separate-stderr supermachine run -u app "$busybox" sh -c 'id; echo $HOME; touch /etc/x 2>/dev/null || echo refused'
    echo "$output $stderr"
    [[ ${lines[0]} == "uid=1000(app) gid=1000(app) groups="*"50(staff)"* ]]
    [ "${lines[1]}" = /home/app ]
    [ "${lines[2]}" = refused ]
    run --separate-stderr supermachine run -u 4242:staff "$busybox" sh -c 'id -u; id -g; echo $HOME'
    [ "$output" = $'4242\n50\n/' ]
}

@test "a service on the guest's loopback is reached, also by a user who may bind port 80" {
    run --separate-stderr supermachine run -u app "$busybox" sh -c '
        echo answer >/tmp/answer # a pipe could be empty yet when the client has ended its half, and with it nc
        nc -l -p 80 </tmp/answer >/dev/null &
        until nc 127.0.0.1 80 </dev/null; do sleep 0.2; done'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = answer ]
}

# odd_image NAME MEMBERS: busybox and these, in tests/tools/layout.py's words; its reference is $layout:NAME.
odd_image() {
    layout=oci:$BATS_TEST_TMPDIR/$1
    PYTHONPATH=$repo/tests/tools python3 - "$BATS_TEST_TMPDIR/$1" "$1" "$2" <<'PY'
import sys
from layout import *
l = Layout(sys.argv[1])
with open("/bin/busybox", "rb") as f:
    members = [("d", "bin"), ("f", "bin/busybox", f.read(), {"mode": 0o755})]
members += [("l", "bin/" + tool, "busybox") for tool in ("sh", "cat", "stat", "id", "ls")]
l.image(sys.argv[2], [l.layer(members + eval(sys.argv[3]))])
l.close()
PY
}

# bats test_tags=all-native
@test "an image's own /etc, /proc, /sys, /dev and /tmp: kept, followed where they are links, made where they are missing" {
    odd_image links '[("d", "nix/store/x/etc", b"", {"mode": 0o715, "uid": 5, "gid": 6, "mtime": 1000}), ("l", "etc", "/nix/store/x/etc"),
        ("f", "nix/store/x/etc/passwd", b"www:x:33:33::/:/bin/sh\n"), ("d", "d"), ("l", "dev", "/d"), ("l", "proc", "nix/p"), ("d", "nix/p"),
        ("f", "tmp", b"mine")]'
    run --separate-stderr supermachine run --cold -u www "$layout:links" sh -c \
        'id -u; stat -c "%a %u:%g %Y" /etc/.; ls /etc; cat /tmp; echo; ls -d /proc/self/fd /sys/kernel /d/null; [ -L /etc ] && [ -L /proc ] && [ -L /dev ]'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = $'33\n715 5:6 1000\nhostname\nhosts\nmachine-id\npasswd\nresolv.conf\nmine\n/d/null\n/proc/self/fd\n/sys/kernel' ]
    # What cannot be has a reason, whatever has become of /dev by then.
    odd_image file '[("f", "proc", b"")]'
    fails_with 125 "supermachine agent: the image has something else than a directory at /proc" \
        supermachine run --cold "$layout:file" true
}

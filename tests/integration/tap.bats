#!/usr/bin/env bats
# A VM on a tap interface. Each test makes its own network namespaces, an interface tap0 with the gateway's address in each, and
# starts VM and servers in there.
load helper

servers=()

teardown() {
    [ "${#servers[@]}" -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
    local name
    for name in a b; do
        [ ! -e "/run/netns/$net_names-$name" ] || ip netns del "$net_names-$name" || true
    done
    end_test
    nothing_left
}

# namespaces NAME...: makes them.
namespaces() {
    local name ns
    [ "$(id -u)" -eq 0 ] || skip "needs root: network namespaces and tap interfaces"
    [ -c /dev/net/tun ] || skip "this host has no /dev/net/tun"
    for name; do
        ns=$net_names-$name
        ip netns add "$ns"
        ip -n "$ns" link set lo up
        ip -n "$ns" tuntap add tap0 mode tap
        ip -n "$ns" addr add 10.0.2.2/24 dev tap0
        ip -n "$ns" addr add 10.7.0.1/24 dev tap0
        ip -n "$ns" link set tap0 up
    done
}

# inside NAME COMMAND...: in that namespace; `exec_inside ... &` has the command's own pid.
inside() { ip netns exec "$net_names-$1" "${@:2}"; }
exec_inside() { exec ip netns exec "$net_names-$1" "${@:2}"; }

# serve NAME COMMAND...: in the background until the end of the test.
serve() {
    exec_inside "$@" 3>&- &
    servers+=($!)
}

# listens NAME PORT [udp]: in that namespace.
listens() {
    inside "$1" cat "/proc/net/${3:-tcp}" "/proc/net/${3:-tcp}6" | grep -qi ":$(printf %04X "$2") 0*:0000 0[A7]"
}

@test "ping, a transfer each way over TCP, UDP, and a connection from the host" {
    namespaces a
    local size=$((8 << 20)) www=$BATS_TEST_TMPDIR/www
    is_native && size=$((160 << 10)) # the guest's kernel is emulated there
    mkdir "$www"
    head -c "$size" /dev/urandom >"$www/blob"
    head -c 5000 /dev/urandom >"$www/small"
    serve a busybox httpd -f -p 10.0.2.2:8000 -h "$www"
    mkfifo "$BATS_TEST_TMPDIR/never" # standard input that does not end: nc would hang up
    serve a sh -c "exec busybox nc -l -p 8001 <>'$BATS_TEST_TMPDIR/never' >'$BATS_TEST_TMPDIR/upload'"
    serve a python3 "$repo/tests/tools/tftp.py" 10.0.2.2 69 "$www"
    wait_for listens a 8000
    wait_for listens a 8001
    wait_for listens a 69 udp
    # What each end says to the other at port 9000 is in a file: a pipe could be empty yet when the other's half ends, and nc with it.
    echo "from the host" >"$BATS_TEST_TMPDIR/said"
    exec_inside a supermachine run --cap-add net_raw --network tap:tap0,dns=10.0.2.2,mac=06:00:00:00:00:09 "$busybox" sh -c '
        set -e
        cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /etc/resolv.conf
        ping -c 1 -W 600 10.0.2.2 | grep -o "0% packet loss"
        cd /tmp
        wget -q http://10.0.2.2:8000/blob
        md5sum <blob
        nc 10.0.2.2 8001 <blob
        tftp -g -r small 10.0.2.2
        md5sum <small
        echo "from the guest" >said
        nc -l -p 9000 <said >inbound
        cat inbound' >"$BATS_TEST_TMPDIR/out" 3>&- &
    local vm=$!
    wait_for sh -c '[ "$(wc -l <"$1")" -ge 7 ]' _ "$BATS_TEST_TMPDIR/out"
    # shellcheck disable=SC2016 # for the shell in there
    wait_for inside a sh -c '[ "$(busybox nc 10.0.2.15 9000 <"$1" 2>/dev/null)" = "from the guest" ]' _ "$BATS_TEST_TMPDIR/said"
    wait "$vm"
    cat "$BATS_TEST_TMPDIR/out"
    diff "$BATS_TEST_TMPDIR/out" - <<END
06:00:00:00:00:09
1500
nameserver 10.0.2.2
options edns0
0% packet loss
$(md5sum <"$www/blob")
$(md5sum <"$www/small")
from the host
END
    wait_for cmp -s "$www/blob" "$BATS_TEST_TMPDIR/upload"
}

@test "clones of one snapshot at once, each in its own namespace: the same address, their own MAC" {
    namespaces a b
    local name pids=()
    for name in a b; do
        mkdir "$BATS_TEST_TMPDIR/$name"
        echo "namespace $name" >"$BATS_TEST_TMPDIR/$name/name"
        serve "$name" busybox httpd -f -p 10.0.2.2:8000 -h "$BATS_TEST_TMPDIR/$name"
        wait_for listens "$name" 8000
    done
    supermachine bake "$busybox"
    for name in a b; do
        inside "$name" supermachine run --network tap:tap0 "$busybox" sh -c '
            wget -q -O - http://10.0.2.2:8000/name; ip -o addr show dev eth0 | grep -o "inet [^ ]*"
            cat /sys/class/net/eth0/address; ip route | grep default' >"$BATS_TEST_TMPDIR/$name.out" 3>&- &
        pids+=($!)
    done
    for name in "${pids[@]}"; do
        wait "$name"
    done
    for name in a b; do
        cat "$BATS_TEST_TMPDIR/$name.out"
        [ "$(sed -n 1p "$BATS_TEST_TMPDIR/$name.out")" = "namespace $name" ]
        [ "$(sed -n 2p "$BATS_TEST_TMPDIR/$name.out")" = "inet 10.0.2.15/24" ]
        [[ $(sed -n 4p "$BATS_TEST_TMPDIR/$name.out") == "default via 10.0.2.2 dev eth0"* ]]
    done
    [ "$(sed -n 3p "$BATS_TEST_TMPDIR/a.out")" != "$(sed -n 3p "$BATS_TEST_TMPDIR/b.out")" ]
}

@test "a snapshot of a VM on a tap is restored on another network, on another address, and its interface is its own" {
    namespaces a b # two hosts: the neighbour that the guest knew is not on the second
    local snap=$BATS_TEST_TMPDIR/live.snap tell='
        cat /sys/class/net/eth0/mtu; ip -o addr show dev eth0 | grep -o "inet6* [^ ]*"; ip route | grep -o "default via [^ ]*"
        head -n 1 /etc/resolv.conf; [ -z "$GATEWAY" ] || ping -c 1 -W 600 "$GATEWAY" | grep -o "0% packet loss"'
    exec_inside a supermachine run --cap-add net_raw --name "tap-$$" --network tap:tap0,dns=10.0.2.2 "$busybox" sh -c '
        ping -c 1 -W 600 10.0.2.2; echo ready; sleep 1000' >"$BATS_TEST_TMPDIR/out" 3>&- &
    local vm=$!
    wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
    fails_with 125 "'tap0' is in use" inside a supermachine run --network tap:tap0 "$busybox" true
    supermachine snapshot create "tap-$$" "$snap"
    kill -KILL "$vm"
    wait "$vm" || true

    run --separate-stderr supermachine run --cap-add net_raw --snapshot "$snap" "$busybox" sh -c "$tell"
    echo "$output $stderr"
    diff - <<<"$output" <(printf '%s\n' 65520 "inet 10.0.2.15/24" "inet6 fd73:6d6e:6574::15/64" "default via 10.0.2.2" \
        "nameserver 10.0.2.3")

    run --separate-stderr inside b supermachine run --cap-add net_raw --snapshot "$snap" -e GATEWAY=10.7.0.1 \
        --network tap:tap0,ip=10.7.0.9/24,gw=10.7.0.1,ip6=fd00:7::9/64,dns=10.7.0.3 "$busybox" sh -c "$tell"
    echo "$output $stderr"
    diff - <<<"$output" <(printf '%s\n' 1500 "inet 10.7.0.9/24" "inet6 fd00:7::9/64" "default via 10.7.0.1" \
        "nameserver 10.7.0.3" "0% packet loss")
    rm -f "$snap"
}

@test "the policy holds on a tap, and what cannot be enforced there is refused" {
    namespaces a
    local www=$BATS_TEST_TMPDIR/www
    mkdir "$www"
    echo secret >"$www/index.html"
    serve a busybox httpd -vv -f -p 10.0.2.2:8000 -h "$www" 2>"$BATS_TEST_TMPDIR/allowed.log"
    serve a busybox httpd -vv -f -p 10.0.2.2:8001 -h "$www" 2>"$BATS_TEST_TMPDIR/denied.log"
    wait_for listens a 8000
    wait_for listens a 8001
    run --separate-stderr inside a supermachine run --network tap:tap0 --allow 10.0.2.2:8000 "$busybox" sh -c '
        wget -q -O - http://10.0.2.2:8000/; wget -O - http://10.0.2.2:8001/ 2>&1'
    echo "$output $stderr"
    [ "$(sed -n 1p <<<"$output")" = secret ]
    [ "$(grep -c secret <<<"$output")" -eq 1 ]
    grep -q "refused" <<<"$output"
    grep -q "denied: TCP 10.0.2.2 port 8001" <<<"$stderr"
    grep -q "" "$BATS_TEST_TMPDIR/allowed.log"
    [ ! -s "$BATS_TEST_TMPDIR/denied.log" ]

    fails_with 125 "names cannot be enforced on a tap" supermachine run --network tap:tap0 --allow example.org "$busybox" true
    fails_with 125 "host-loopback cannot be opened" supermachine run --network tap:tap0 --allow host-loopback:80 "$busybox" true
    fails_with 125 "no tap interface" inside a supermachine run --network tap:lo "$busybox" true
    fails_with 125 "no name of a network interface" supermachine run --network tap:../x "$busybox" true
    fails_with 125 "'mtu'" supermachine run --network tap:tap0,mtu=1500 "$busybox" true
    fails_with 125 "user, none or tap:IFNAME" supermachine run --network tab:tap0 "$busybox" true
}

#!/usr/bin/env bats
# What programs in a guest do with the network: the usual clients against servers in a network of the test's own, and a guest
# that floods.
load helper

teardown() {
    end_own_network
    end_test
    nothing_left
}

# The host side: a name server at 10.1.2.3, what is in $www by HTTP at port 8080 of every address, echo by UDP at port 8000.
servers() {
    www=$BATS_TEST_TMPDIR/www
    own_network 10.1.2.3 203.0.113.9 2001:db8::9 2001:db8::53
    mkdir -p "$www"
    echo 'hello from the host' >"$www/hello"
    serve_network "$BATS_TEST_TMPDIR/dns" python3 "$repo/tests/tools/dns.py" 10.1.2.3,2001:db8::53 \
        server.test=203.0.113.9,2001:db8::9 four.test=203.0.113.9 six.test=2001:db8::9 'many.test=*400'
    serve_network "$BATS_TEST_TMPDIR/http" python3 -m http.server --bind :: --directory "$www" 8080
    serve_network "$BATS_TEST_TMPDIR/saw" python3 "$repo/tests/tools/witness.py"
    wait_for network_listens 53 udp
    wait_for network_listens 8080
    wait_for network_listens 8000
}

@test "busybox: wget over IPv4, IPv6 and by name, look-ups, UDP, ping" {
    servers
    run --separate-stderr in_network supermachine run --cap-add net_raw "$busybox" sh -c '
        wget -q -O - http://203.0.113.9:8080/hello
        wget -q -O - "http://[2001:db8::9]:8080/hello"
        wget -q -O - http://four.test:8080/hello
        nslookup -timeout=60 -retry=5 six.test
        nslookup -timeout=60 -retry=5 nowhere.test 2>&1
        nslookup -timeout=60 -retry=5 four.test 10.1.2.3 # UDP to an address of its own
        ping -c 1 -W 600 203.0.113.9
        ping -c 1 -W 600 10.0.2.2
        ping -6 -c 1 -W 600 fd73:6d6e:6574::2'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$(grep -cx 'hello from the host' <<<"$output")" -eq 3 ]
    [ "$(grep -c ' 0% packet loss' <<<"$output")" -eq 3 ]
    grep -q NXDOMAIN <<<"$output"
    grep -q 'Address.*2001:db8::9' <<<"$output"
    grep -q '^Server:.*10.1.2.3' <<<"$output"
    grep -q 'Address.*203.0.113.9' <<<"$output"
}

# The network's processes of this test's VMs.
network_processes() {
    local pid
    for pid in $(our_processes | awk '/-vm$/ { print $1 }'); do
        [ "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -d ' ' -f 2)" != network ] || echo "$pid"
    done
}
a_network_process() { [ -n "$(network_processes)" ]; }
no_network_process() { ! a_network_process; }
has_lines() { [ "$(grep -c "$2" "$1")" -ge "$3" ]; } # FILE WORD N

@test "the network is a process of its own: confined, replaced when it dies, gone with its client" {
    local out=$BATS_TEST_TMPDIR/out in=$BATS_TEST_TMPDIR/in said=$BATS_TEST_TMPDIR/said job first second status=0
    servers
    mkfifo "$in"
    # shellcheck disable=SC2016 # for the shell in there
    in_network supermachine run -i "$busybox" sh -c '
        echo ready
        while read -r url; do wget -q -O - "$url"; done' <"$in" >"$out" 2>"$said" 3>&- &
    job=$!
    exec 4>"$in"
    wait_for grep -q ready "$out"
    # That there is none before the first frame is the unit test's: a guest's kernel may send by itself.
    echo http://203.0.113.9:8080/hello >&4
    wait_for has_lines "$out" hello 1
    first=$(network_processes)
    [[ $first =~ ^[0-9]+$ ]]
    # Sockets, pipes and what belongs to no file: no capability, and a list of system calls.
    readlink "/proc/$first/fd/"* | tee "$BATS_TEST_TMPDIR/fds"
    [ -z "$(grep -vE '^(socket|anon_inode|pipe):|/dev/null$' "$BATS_TEST_TMPDIR/fds")" ]
    [ -z "$(grep -i kvm "$BATS_TEST_TMPDIR/fds")" ]
    grep -x 'Seccomp:.2' "/proc/$first/status"
    grep -x 'NoNewPrivs:.1' "/proc/$first/status"
    grep -x 'CapEff:.0*' "/proc/$first/status"
    kill -KILL "$first"
    wait_for grep -q 'network process has ended' "$said"
    echo http://server.test:8080/hello >&4
    wait_for has_lines "$out" hello 2
    second=$(network_processes)
    [[ $second =~ ^[0-9]+$ ]]
    [ "$second" != "$first" ]
    # The one whose client is killed.
    kill -KILL "$(our_processes | awk '/\/supermachine$/ { print $1; exit }')"
    wait "$job" || status=$?
    [ "$status" -eq 137 ]
    wait_for no_network_process
    exec 4>&-
}

# bats test_tags=all-native
@test "names and routes are as on the host: search domains, options, a first name server that is dead, no IPv6" {
    servers
    printf '%s\n' 'nameserver 10.9.9.9' 'nameserver 10.1.2.3' 'domain no.test' 'search nowhere.test test' \
        'options ndots:2 use-vc' >"$BATS_TEST_TMPDIR/resolv.conf"
    ip -n "$netns" -6 route del default
    run --separate-stderr in_network supermachine run --cap-add net_raw "$busybox" sh -c '
        cat /etc/resolv.conf
        wget -q -O - http://four:8080/hello
        wget -q -O - http://server.test:8080/hello # of either family
        wget -O - "http://[2001:db8::9]:8080/hello" 2>&1
        ping -c 1 -W 600 203.0.113.9 | grep -o "0% packet loss"
        hostname -i; ping -c 1 "$(hostname)" | grep -o "^64 bytes from 10.0.2.15"; wget -q -O - "http://$(hostname):1/" 2>&1'
    echo "$output $stderr"
    diff - <<<"$output" <(printf '%s\n' 'search nowhere.test test' 'nameserver 10.0.2.3' 'options edns0 ndots:2 use-vc' \
        'hello from the host' 'hello from the host' "Connecting to [2001:db8::9]:8080 ([2001:db8::9]:8080)" \
        "wget: can't connect to remote host: Network is unreachable" '0% packet loss' 10.0.2.15 '64 bytes from 10.0.2.15' \
        "wget: can't connect to remote host (10.0.2.15): Connection refused")
}

# bats test_tags=all-native
@test "a host with IPv6 alone: names resolve, IPv6 is used, IPv4 is unreachable at once" {
    servers
    echo 'nameserver 2001:db8::53' >"$BATS_TEST_TMPDIR/resolv.conf"
    ip -n "$netns" route del default
    run --separate-stderr in_network supermachine run "$busybox" sh -c '
        wget -q -O - http://six.test:8080/hello
        wget -q -O - "http://[2001:db8::9]:8080/hello"
        wget -O - http://203.0.113.9:8080/hello 2>&1'
    echo "$output $stderr"
    diff - <<<"$output" <(printf '%s\n' 'hello from the host' 'hello from the host' \
        'Connecting to 203.0.113.9:8080 (203.0.113.9:8080)' \
        "wget: can't connect to remote host (203.0.113.9): Network is unreachable")
}

# bats test_tags=all-native
@test "Debian: curl by either family and by name, getent, UDP, ping" {
    needs_services
    servers
    local url=:8080/hello
    run --separate-stderr in_network supermachine run --cap-add net_raw -e RES_OPTIONS="timeout:30 attempts:5" "$services:latest" bash -c "
        curl -sS 'http://203.0.113.9$url' 'http://[2001:db8::9]$url' -: -sS -6 'http://server.test$url' -: -sS -4 'http://server.test$url'
        getent ahostsv4 server.test
        getent ahostsv4 many.test | grep -c STREAM # more than a datagram holds
        getent hosts six.test
        exec 3<>/dev/udp/203.0.113.9/8000
        echo ask >&3
        timeout 600 head -n 1 <&3
        ping -c 1 -W 600 four.test # -w would send more of them, and call those lost that are not answered yet
        curl -sS http://nowhere.test/ 2>&1"
    echo "$output $stderr"
    [ "$status" -eq 6 ] # curl: could not resolve
    [ "$(grep -cx 'hello from the host' <<<"$output")" -eq 4 ]
    grep -q '^203.0.113.9 *STREAM' <<<"$output"
    grep -qx 400 <<<"$output"
    grep -q '^2001:db8::9 .*six.test' <<<"$output"
    grep -qx reached <<<"$output"
    grep -q ' 0% packet loss' <<<"$output"
}

# bats test_tags=all-native
@test "Debian: apt-get installs a package of a mirror" {
    needs_debian
    servers
    local root=$BATS_TEST_TMPDIR/hello
    mkdir -p "$root/DEBIAN" "$root/usr/share/hello"
    printf '%s\n' 'Package: supermachine-hello' 'Version: 1.0' 'Architecture: all' 'Maintainer: nobody <nobody@localhost>' \
        'Description: test' >"$root/DEBIAN/control"
    echo 'it is here' >"$root/usr/share/hello/word"
    dpkg-deb --root-owner-group --build "$root" "$www/hello.deb" >/dev/null
    {
        cat "$root/DEBIAN/control"
        echo "Filename: ./hello.deb"
        echo "Size: $(stat -c %s "$www/hello.deb")"
        echo "SHA256: $(sha256sum <"$www/hello.deb" | cut -d ' ' -f 1)"
    } >"$www/Packages"
    run --separate-stderr in_network supermachine run -e RES_OPTIONS="timeout:30 attempts:5" "$debian" sh -c '
        rm -rf /etc/apt/sources.list.d /etc/apt/sources.list
        echo "deb [trusted=yes] http://server.test:8080/ ./" >/etc/apt/sources.list
        apt-get update && apt-get install -y supermachine-hello && dpkg -s supermachine-hello && cat /usr/share/hello/word'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    grep -qx 'Status: install ok installed' <<<"$output"
    [ "${lines[-1]}" = 'it is here' ]
    grep -q 'GET /./hello.deb\|GET /hello.deb' "$BATS_TEST_TMPDIR/http"
}

resident() { awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"; } # PID: KiB

# bats test_tags=all-native
@test "a guest that floods with UDP and with connections takes no more of the host's memory than is allowed" {
    needs_debian
    servers
    local out=$BATS_TEST_TMPDIR/out in=$BATS_TEST_TMPDIR/in job vm before most=0 now
    mkfifo "$in"
    in_network supermachine run -i --memory 128m "$debian" python3 -c '
import socket, sys, time
print("ready", flush=True)
sys.stdin.readline()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end, n, held = time.time() + float(sys.argv[1]), 0, []
while time.time() < end:
    for _ in range(20):
        try:
            # new ports all the time: each is a socket of the host
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.sendto(b"x" * 1400, ("203.0.113.9", 20000 + n % 30000))
            u.sendto(b"x" * 60000, ("203.0.113.9", 8001))
            t = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            t.setblocking(False)
            t.connect_ex(("203.0.113.9", 20000 + n % 30000))
            held += [s, t]
        except OSError:
            pass
        n += 1
    if len(held) > 400:
        del held[:200]
print("sent", n, flush=True)
sys.stdin.readline()
' 20 <"$in" >"$out" 3>&- &
    job=$!
    exec 4>"$in"
    wait_for grep -q ready "$out"
    echo >&4
    wait_for a_network_process
    vm=$(network_processes)
    before=$(resident "$vm")
    until grep -q sent "$out"; do
        [ -e "/proc/$vm" ]
        now=$(resident "$vm")
        [ "$now" -le "$most" ] || most=$now
        sleep 0.2
    done
    echo "# $(tail -n 1 "$out") times; resident before: $before KiB, at most: $most KiB" >&3
    echo >&4
    exec 4>&-
    wait "$job"
    [ "$before" -gt 0 ]
    [ "$most" -gt 0 ]
    # 1024 sockets of the host are the bound; the connections among them have buffers of libslirp's.
    [ $((most - before)) -lt $((128 << 10)) ]
}

@test "what the guest fetches and sends in bulk arrives whole" {
    local size=$((16 << 20)) port server
    ! is_native || size=300000
    python3 - "$size" >"$BATS_TEST_TMPDIR/host" 3>&- <<'PY' &
import hashlib, os, socket, sys
data = os.urandom(int(sys.argv[1]))
s = socket.create_server(("127.0.0.1", 0))
s.settimeout(600) # does not wait for ever for a guest that has failed
print(s.getsockname()[1], flush=True)
c, _ = s.accept()
c.sendall(data)
c.close()
c, _ = s.accept()
got = hashlib.sha256()
while part := c.recv(1 << 16):
    got.update(part)
print(hashlib.sha256(data).hexdigest(), got.hexdigest())
PY
    server=$!
    wait_for [ -s "$BATS_TEST_TMPDIR/host" ]
    port=$(cat "$BATS_TEST_TMPDIR/host")
    # shellcheck disable=SC2016 # for the shell in there
    run timeout 800 supermachine run --allow "host-loopback:$port" "$busybox" \
        sh -c 'nc 10.0.2.2 $0 </dev/null >/tmp/f && nc 10.0.2.2 $0 </tmp/f && sha256sum </tmp/f' "$port"
    echo "$output"
    wait "$server"
    cat "$BATS_TEST_TMPDIR/host"
    [ "$(tail -n +2 "$BATS_TEST_TMPDIR/host")" = "${output%% *} ${output%% *}" ]
}
# A server that holds what it has accepted until its end: of a client that has gone libslirp keeps its half.
# bats test_tags=all
@test "1,100 clients that were killed, and whose server keeps its side, leave a network that works" {
    needs_debian
    servers
    serve_network "$BATS_TEST_TMPDIR/holder" python3 -c '
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
s = socket.create_server(("203.0.113.9", 7777), backlog=1024)
held = []
while True:
    held.append(s.accept()[0])
    held[-1].sendall(b"x")'
    wait_for network_listens 7777
    run --separate-stderr in_network supermachine run "$debian" python3 -c '
import os, signal, socket, urllib.request
n = 0
while n < 1100:
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = [socket.create_connection(("203.0.113.9", 7777)) for _ in range(50)]
        for s in held:
            s.recv(1)
        os.write(tell, b"x")
        signal.pause()
    assert os.read(ready, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready); os.close(tell)
    n += 50
print(n, "clients")
print(urllib.request.urlopen("http://203.0.113.9:8080/hello").read().decode(), end="")'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = $'1100 clients\nhello from the host' ]
}
# bats test_tags=all-native
@test "datagrams of every size pass, and one half of a connection outlives the other" {
    needs_debian
    servers
    serve_network "$BATS_TEST_TMPDIR/halves" python3 "$repo/tests/tools/halves.py" 203.0.113.9 2001:db8::9
    wait_for network_listens 8002
    wait_for network_listens 8002 udp
    run --separate-stderr in_network supermachine run "$debian" python3 -c '
import errno, os, socket, time
socket.setdefaulttimeout(60)
print(open("/sys/class/net/eth0/mtu").read(), end="")
for host, most in ("203.0.113.9", 65507), ("2001:db8::9", 65472):
    u = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    u.connect((host, 8002))
    for n in 1, 1473, 9000, 60000, most:
        data = os.urandom(n)
        u.send(data)
        assert u.recv(1 << 16) == data, n
    c = socket.create_connection((host, 8002))
    data = os.urandom(100000)
    c.sendall(b"first" + data)
    c.shutdown(socket.SHUT_WR)
    got = b"".join(iter(lambda: c.recv(1 << 16), b""))
    assert got == data[::-1], len(got)
    c = socket.create_connection((host, 8002))
    c.sendall(b"later")
    assert len(b"".join(iter(lambda: c.recv(1 << 16), b""))) == 100000
    time.sleep(3) # longer than a half-closed one may be idle where there is no room
    c.sendall(data)
    c.close()
    print(host)'
    echo "$output $stderr"
    [ "$output" = $'65520\n203.0.113.9\n2001:db8::9' ]
    wait_for sh -c '[ "$(cat "$1")" = "100000
100000" ]' _ "$BATS_TEST_TMPDIR/halves"
}

# A path on which no packet of more than 1,280 bytes gets through, two hops from here: neither this host nor the guest knows it before
# a router says so.
# bats test_tags=all-native
@test "a path with a smaller MTU: connections and datagrams to behind it arrive whole" {
    needs_debian
    servers
    local far=203.0.113.77 far6=2001:db8:77::1 behind=$netns-behind
    ip netns add "$behind"
    ip -n "$netns-peer" link add far0 mtu 1280 type veth peer name far0 netns "$behind"
    ip -n "$netns-peer" link set far0 up
    ip -n "$behind" link set far0 mtu 1500 up
    ip -n "$behind" addr add "$far/32" dev far0
    ip -n "$behind" addr add "$far6/128" dev far0 nodad
    ip -n "$netns-peer" addr add fdfe:77::1/128 dev far0 nodad
    ip -n "$netns-peer" route add "$far" dev far0
    ip -n "$netns-peer" -6 route add "$far6" dev far0
    ip netns exec "$netns-peer" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
    ip -n "$behind" route add default via 203.0.113.9 dev far0 onlink
    ip -n "$behind" -6 route add default via fdfe:77::1 dev far0 onlink
    ip -n "$netns" route add "$far" via 203.0.113.9 dev net0 onlink
    ip -n "$netns" -6 route add "$far6" via 2001:db8::9 dev net0 onlink
    ip netns exec "$behind" python3 -c '
import socket, threading
def tcp(listener):
    while True:
        c = listener.accept()[0]
        data = b"".join(iter(lambda: c.recv(1 << 16), b""))
        c.sendall(str(len(data)).encode())
        c.close()
def udp(address):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 8003))
    while True:
        data, peer = s.recvfrom(1 << 16)
        s.sendto(str(len(data)).encode(), peer)
for address in "'$far'", "'$far6'":
    threading.Thread(target=udp, args=(address,), daemon=True).start()
tcp(socket.create_server(("::", 8003), family=socket.AF_INET6, dualstack_ipv6=True))' 3>&- &
    net_jobs+=($!)
    wait_for sh -c 'ip netns exec "$1" cat /proc/net/tcp6 | grep -qi ":1F43 0*:0000 0A"' _ "$behind"
    # So narrow it is: who may not divide what he sends learns it. Then it is as if nobody had asked.
    ip netns exec "$netns" timeout 600 python3 -c '
import socket, time
for host, family, level, discover, mtu in ("'$far'", socket.AF_INET, socket.IPPROTO_IP, 10, 14), ("'$far6'", socket.AF_INET6, socket.IPPROTO_IPV6, 23, 24):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(level, discover, 2)
    s.connect((host, 8003))
    while s.getsockopt(level, mtu) != 1280:
        try:
            s.send(bytes(1400))
        except OSError:
            pass
        time.sleep(0.1)'
    ip -n "$netns" route flush cache
    ip -n "$netns" -6 route flush cache
    run --separate-stderr in_network timeout 1200 supermachine run "$debian" python3 -c '
import socket, sys
for host in "203.0.113.77", "2001:db8:77::1":
    c = socket.create_connection((host, 8003), 600)
    c.sendall(bytes(1 << 20))
    c.shutdown(socket.SHUT_WR)
    got = b"".join(iter(lambda: c.recv(100), b""))
    print(host, got.decode())
    u = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    u.settimeout(2)
    u.connect((host, 8003))
    for n in 1200, 1400, 9000:
        answer = None
        while answer != str(n).encode(): # the first may be what the path is found out by
            u.send(bytes(n))
            try:
                answer = u.recv(100)
            except TimeoutError:
                print("lost", n, file=sys.stderr)
        print(n)'
    echo "$output $stderr"
    diff - <<<"$output" <(printf '%s\n' "$far 1048576" 1200 1400 9000 "$far6 1048576" 1200 1400 9000)
}

# Where the host's user may not: who asks for the reason is told at once, who does not waits as long as he wants to.
# bats test_tags=all
@test "a host whose users may not ping: the guest is told at once, and its own gateway answers" {
    needs_services
    servers
    ip netns exec "$netns" sh -c 'echo 1 0 >/proc/sys/net/ipv4/ping_group_range'
    run --separate-stderr in_network setpriv --bounding-set=-net_raw --inh-caps=-net_raw \
        supermachine run --cap-add net_raw "$services:latest" bash -c '
        ping -c 1 -W 600 203.0.113.9; echo "status $?"; ping -c 1 -W 600 10.0.2.2 | grep -o " 0% packet loss"'
    echo "$output $stderr"
    grep -Eq '^From .* (Packet filtered|Destination .* (Prohibited|Unreachable))' <<<"$output"
    grep -qx 'status 1' <<<"$output"
    grep -q ' 0% packet loss' <<<"$output"
    run --separate-stderr in_network setpriv --bounding-set=-net_raw --inh-caps=-net_raw \
        supermachine run --cap-add net_raw "$busybox" sh -c 'ping -c 1 -W 1 203.0.113.9; echo "status $?"'
    echo "$output $stderr"
    grep -q '100% packet loss' <<<"$output"
    grep -qx 'status 1' <<<"$output"
}

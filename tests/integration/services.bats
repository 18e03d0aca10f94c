#!/usr/bin/env bats
# Real services of an image, published: nginx and PostgreSQL restored from warm snapshots, used with curl and psql; many connections
# and much data through one port.
load helper

teardown() {
    end_own_network
    end_test
    nothing_left
}

# The guest's port of each service, and whether it answers at a port of the host's.
declare -gA guest_port=([nginx]=80 [postgres]=5432)

nginx_answers() { [ "$(curl -s -m 60 "http://127.0.0.1:$1/" 2>/dev/null)" = "hello from nginx" ]; }

postgres_answers() {
    [ "$(PGCONNECT_TIMEOUT=120 psql -h 127.0.0.1 -p "$1" -U postgres -Atc 'SELECT 6*7' 2>/dev/null)" = 42 ]
}

# first_answer SERVICE HOSTPORT: restores the service, waits until it answers, prints how many milliseconds that took.
first_answer() {
    local begin=${EPOCHREALTIME/./} pid failed=0
    supermachine run --no-auto-ports -p "$2:${guest_port[$1]}" "$services:$1" >"$BATS_TEST_TMPDIR/log.$2" 2>&1 3>&- &
    pid=$!
    if wait_for "$1_answers" "$2"; then
        echo $(((${EPOCHREALTIME/./} - begin) / 1000))
    else
        failed=1
        tail -n 5 "$BATS_TEST_TMPDIR/log.$2" >&2
    fi
    kill -KILL "$pid" || true
    wait "$pid" 2>/dev/null || true
    return "$failed"
}

# summary FILE...: of numbers, one a line.
summary() { sort -n "$@" | awk '{ v[NR] = $1 } END { print NR " times, median " v[int((NR + 1) / 2)] ", most " v[NR] " ms" }'; }

# every_restore_answers SERVICE
every_restore_answers() {
    local in_a_row=1 at_once=2 i pids=() base=$((20000 + RANDOM % 10000))
    # Each takes 10 s where the guest's kernel is emulated.
    is_native || { in_a_row=$(fewer 5 50); at_once=$(fewer 8 20); }
    supermachine bake --until listening "$services:$1"
    for i in $(seq "$in_a_row"); do
        first_answer "$1" "$base" >>"$BATS_TEST_TMPDIR/row"
    done
    echo "# $1, first answer, one after the other: $(summary "$BATS_TEST_TMPDIR/row")" >&3
    for i in $(seq "$at_once"); do
        first_answer "$1" $((base + i)) >"$BATS_TEST_TMPDIR/once.$i" 3>&- &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i"
    done
    echo "# $1, first answer, all at once: $(summary "$BATS_TEST_TMPDIR"/once.*)" >&3
    [ "$(cat "$BATS_TEST_TMPDIR"/row "$BATS_TEST_TMPDIR"/once.* | wc -l)" -eq $((in_a_row + at_once)) ]
}

@test "nginx is restored listening, in a row and many at once, and answers curl every time" {
    needs_services
    every_restore_answers nginx
}

# bats test_tags=all-native
@test "PostgreSQL is restored listening, in a row and many at once, and answers psql every time" {
    needs_services
    every_restore_answers postgres
}

# bats test_tags=all-native
@test "what one clone of a database writes no other clone sees" {
    needs_services
    local base=$((20000 + RANDOM % 10000)) i pids=()
    sql() { psql -h 127.0.0.1 -p $((base + $1)) -U postgres -Atqc "$2"; }
    for i in 1 2; do
        supermachine run --no-auto-ports -p $((base + i)):5432 "$services:postgres" >/dev/null 2>&1 3>&- &
        pids+=($!)
    done
    for i in 1 2; do
        wait_for postgres_answers $((base + i))
        sql $i "CREATE TABLE t AS SELECT 'clone $i' AS who"
    done
    for i in 1 2; do
        [ "$(sql $i 'SELECT who FROM t')" = "clone $i" ]
    done
    # As a service is ended: with its own stop signal, to which it listens.
    kill -TERM "${pids[@]}"
    wait "${pids[@]}" || true
}

@test "many connections through one port, all open at once, all answered" {
    needs_services
    local count=40 port=$((20000 + RANDOM % 10000)) pid
    is_native || count=$(fewer 400 2000) # beyond 511 nginx' own queue can overflow on a busy machine
    ulimit -n 8192
    supermachine run --no-auto-ports -p "$port:80" "$services:nginx" >/dev/null 3>&- &
    pid=$!
    wait_for nginx_answers "$port"
    timeout 800 python3 - "$port" "$count" <<'PY'
import socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
open_ones = [socket.create_connection(("127.0.0.1", port), timeout=400) for _ in range(count)]
for s in open_ones: # each has got its answer, and stays open
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
for i, s in enumerate(open_ones):
    got = b""
    while not got.endswith(b"hello from nginx\n"):
        part = s.recv(4096)
        if not part:
            sys.exit(f"connection {i} ended: {got!r}")
        got += part
for s in open_ones:
    s.close()
PY
    wait_for nginx_answers "$port"
    kill -KILL "$pid"
    wait "$pid" || true
}

@test "a large transfer goes in and comes back through one port, at the same time, undamaged" {
    local size=$((256 << 20)) port=$((20000 + RANDOM % 10000)) pid
    ! is_native || size=$((size / 50))
    supermachine run --no-auto-ports -p "$port:7000" "$busybox" nc -ll -p 7000 -e cat 3>&- &
    pid=$!
    answers() { [ "$(echo ping | timeout 600 busybox nc 127.0.0.1 "$port" 2>/dev/null)" = ping ]; }
    wait_for answers
    timeout 800 python3 - "$port" "$size" <<'PY'
import hashlib, random, socket, sys, threading, time
port, size = int(sys.argv[1]), int(sys.argv[2])
s = socket.create_connection(("127.0.0.1", port))
sent, got, length, begin = hashlib.sha256(), hashlib.sha256(), 0, time.time()

def send():
    left, source = size, random.Random(1)
    while left:
        part = source.randbytes(min(left, 1 << 20))
        sent.update(part)
        s.sendall(part)
        left -= len(part)
    s.shutdown(socket.SHUT_WR)

sender = threading.Thread(target=send)
sender.start()
while part := s.recv(1 << 20):
    got.update(part)
    length += len(part)
sender.join()
print(f"{size} bytes each way in {time.time() - begin:.1f} s")
if (length, got.digest()) != (size, sent.digest()):
    sys.exit(f"came back: {length} bytes, {got.hexdigest()}, not {sent.hexdigest()}")
PY
    kill -KILL "$pid"
    wait "$pid" || true
}

# bats test_tags=all-native
@test "PostgreSQL that trusts its own machine does not take for it who comes from outside to a published port" {
    needs_services
    own_network 10.1.2.3
    local url="host=10.254.254.1 user=postgres connect_timeout=120" pid
    in_network supermachine run -p 0.0.0.0:5432:5432 "$services:postgres" >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
    pid=$!
    wait_for in_network psql -h 127.0.0.1 -U postgres -Atc 'SELECT 6*7'
    run ip netns exec "$netns-peer" psql "$url" -Atc 'SELECT 6*7'
    echo "$output"
    [ "$status" -ne 0 ]
    run in_network psql "$url" -Atc 'SELECT 6*7' # nor by this host's other address
    [ "$status" -ne 0 ]
    [ "$(in_network setpriv --reuid 65534 --clear-groups psql -h 127.0.0.1 -U postgres -Atc 'SELECT 6*7' 2>/dev/null)" != 42 ]
    [ "$(in_network psql -h 127.0.0.1 -U postgres -Atc 'SELECT 6*7')" = 42 ]
    # shellcheck disable=SC2046 # pids
    kill -KILL $(our_processes | cut -d ' ' -f 1)
    wait "$pid" 2>/dev/null || true
}

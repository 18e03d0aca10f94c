#!/usr/bin/env bats
# What a guest may reach: every kind of address on a host that has them all, with a witness on it that says what reached it.
load helper

# What is allowed is decided on the host, for every machine alike: hence "all-native" on all of these.

# Each has the witness behind it. What is not public, the kinds in the order of src/net/addr.c:
private4=(10.1.2.3 172.16.0.9 172.31.255.254 192.168.1.1 169.254.169.254 100.64.0.1 192.0.0.9 192.0.2.1 192.88.99.1
    198.18.0.1 198.51.100.1 203.0.113.1)
private6=(fd00::1 fc00::1 fec0::1 100::1 2001:db8::1 2001:1::1 2001:2::1 2001:10::1 2001:20::1 3fff::1 4000::1 64:ff9b:1::1
    64:ff9b::a01:203 64:ff9b::a9fe:a9fe 2002:a01:203::1 2001:0:a01:203::f7f7:f7f7
    2001:0:807:707::f5ff:fffe ::ffff:0:a01:203)
public=(8.7.7.7 2600::7 64:ff9b::807:707 2002:807:707::1)
# Loopback in disguise, which no policy opens, and the reserved range, which does not come as far as a policy that allows it.
never=(64:ff9b::7f00:1 2002:7f00:1::1 240.0.0.1)
# Forms of addresses that the guest's own kernel makes another one of; the host's loopback; multicast, only for UDP.
forms=(::ffff:10.1.2.3 ::ffff:169.254.169.254 127.0.0.1 ::ffff:127.0.0.1 ::1 10.0.2.2 fd73:6d6e:6574::2 239.1.2.3 ff0e::1 255.255.255.255)

teardown() {
    end_own_network
    end_test
    nothing_left
}

# The network, the witness and the name server in it.
witnessed() {
    needs_debian
    own_network "${private4[@]}" "${private6[@]}" "${public[@]}" "${never[@]}"
    saw=$BATS_TEST_TMPDIR/saw
    serve_network "$saw" python3 "$repo/tests/tools/witness.py"
    serve_network "$BATS_TEST_TMPDIR/dns" python3 "$repo/tests/tools/dns.py" 10.1.2.3 "$@"
    wait_for network_listens 8000
    wait_for network_listens 53 udp
}

# reach COUNT OPTIONS... -- TARGET...: a guest tries them, of which COUNT answers must come (by TCP and UDP); its lines end in
# $output, what the witness saw in $saw.
reach() {
    local options=() count=$1
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    : >"$saw"
    # As patient as a resolver can be.
    run --separate-stderr in_network supermachine run -e RES_OPTIONS="timeout:30 attempts:5" "${options[@]}" "$debian" \
        python3 -c "$(cat "$repo/tests/tools/reach.py")" "$count" "$@"
    printf '%s\n' "$output" "$stderr" "saw:" "$(cat "$saw")"
    [ "$status" -eq 0 ]
}

# reached exactly TARGET...: by TCP and UDP, and no other; the witness saw these and no other.
reached_exactly() {
    local target
    diff <(for target; do printf 'tcp %s\nudp %s\n' "$target" "$target"; done | sort) <(sed -n 's/ reached$//p' <<<"$output" | sort)
    [ "$(wc -l <"$saw")" -eq $((2 * $#)) ]
}

# bats test_tags=all-native
@test "with every kind of address at the other end: all are reached, or the public ones alone, or none" {
    witnessed x.test=10.1.2.3
    # That all of them would be reached makes the other two worth something.
    reach $((2 * (${#private4[@]} + ${#private6[@]} + ${#public[@]}))) --egress all -- "${private4[@]}" "${private6[@]}" "${public[@]}"
    reached_exactly "${private4[@]}" "${private6[@]}" "${public[@]}"
    reach $((2 * ${#public[@]})) --egress public -- "${private4[@]}" "${private6[@]}" "${public[@]}" "${never[@]}" "${forms[@]}"
    reached_exactly "${public[@]}"
    reach 4 --egress none --allow 10.1.2.3:8000 --allow 64:ff9b::a01:203 -- "${private4[@]}" "${private6[@]}" "${public[@]}"
    reached_exactly 10.1.2.3 64:ff9b::a01:203
}

# bats test_tags=all-native
@test "the host itself is reached by no form of its addresses, and by the gateway's or its own only where they were opened" {
    witnessed x.test=10.1.2.3
    serve_host "$saw" python3 "$repo/tests/tools/witness.py"
    reach 0 --egress all -- "${never[@]}" 127.0.0.1 127.1.2.3 ::1 ::ffff:127.0.0.1 0.0.0.0 :: 10.0.2.2 fd73:6d6e:6574::2 10.254.254.1 fdfe::1
    reached_exactly
    reach 4 --allow host-loopback:8000 --allow 10.254.254.1:8000 --allow fdfe::/64 -- 127.0.0.1 10.0.2.2 10.254.254.1
    reached_exactly 10.0.2.2 10.254.254.1
}

# bats test_tags=all-native
@test "names of private addresses do not resolve, also of a name that had a public one before" {
    local names=() all=() i=0 address
    for address in "${private4[@]}" "${private6[@]}" ::ffff:10.1.2.3 127.0.0.1 ::1; do
        names+=("p$i.test=$address")
        all+=("p$i.test")
        i=$((i + 1))
    done
    witnessed "${names[@]}" public.test=8.7.7.7 public6.test=2600::7 mixed.test=8.7.7.7,10.1.2.3 rebind.test=8.7.7.7/10.1.2.3 \
        good.test=8.7.7.7 evil.test=10.1.2.3
    reach 4 --egress public -- "${all[@]}" mixed.test public.test public6.test
    reached_exactly public.test public6.test
    # Rebinding: TCP asks first and is told the public address, UDP asks and is told the private one.
    reach 1 --egress public -- rebind.test
    [ "$output" = $'tcp rebind.test reached\nudp rebind.test -' ]
    [ "$(cat "$saw")" = "tcp 8.7.7.7" ]
    # A name opens what it names, if that is public; nothing else has a name then.
    reach 4 --allow good.test:8000 --allow evil.test -- 8.7.7.7 evil.test public6.test good.test 8.7.7.7 10.1.2.3
    [ "$(sed -n 1p <<<"$output")" = "tcp 8.7.7.7 -" ]
    [ "$(grep -c reached <<<"$output")" -eq 4 ]
    [ "$(sort -u "$saw")" = $'tcp 8.7.7.7\nudp 8.7.7.7' ]
}

# bats test_tags=all-native
@test "a snapshot keeps the policy that it ran under: a restore adds to what is denied, and cannot take away" {
    local snap=$BATS_TEST_TMPDIR/live.snap pid
    witnessed x.test=10.1.2.3
    in_network supermachine run --name "kept-$$" --egress public "$debian" sh -c 'echo ready; sleep 1000' \
        >"$BATS_TEST_TMPDIR/out" 3>&- &
    pid=$!
    wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
    in_network supermachine snapshot create "kept-$$" "$snap"
    # shellcheck disable=SC2046 # pids
    kill -KILL $(our_processes | cut -d ' ' -f 1)
    wait "$pid" 2>/dev/null || true
    reach 4 --snapshot "$snap" --egress all --allow 10.1.2.3 -- 10.1.2.3 169.254.169.254 fd00::1 8.7.7.7 2600::7
    reached_exactly 8.7.7.7 2600::7
    reach 2 --snapshot "$snap" --deny 2600::/16 -- 10.1.2.3 8.7.7.7 2600::7
    reached_exactly 8.7.7.7
    rm -f "$snap"
}

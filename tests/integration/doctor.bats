#!/usr/bin/env bats
# supermachine doctor, version, help and image.
load helper

@test "doctor finds this host usable, and says whether the assist is needed" {
    run supermachine doctor
    echo "$output"
    [ "$status" -eq 0 ]
    grep -q '^ok *kvm ' <<<"$output"
    grep -q '^ok *guest kernel ' <<<"$output"
    if is_emulated; then
        grep -q '^warning *hardware ' <<<"$output"
    elif ! is_native; then
        grep -q '^ok *hardware ' <<<"$output"
    fi
}

@test "doctor says what a VM's processes are confined by, and what turns on what is not" {
    [ "$(id -u)" -eq 0 ] || skip "needs root to take user namespaces away"
    run supermachine doctor
    echo "$output"
    [ "$(grep -c ' confinement ' <<<"$output")" -ge 1 ]
    # The nested machine's root is a chroot, where there are none to begin with.
    if unshare --user true; then
        run unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; supermachine doctor'
        echo "$output"
    fi
    grep -A 1 '^warning *confinement *user namespace: missing, the host refuses it' <<<"$output" | grep -q 'max_user_namespaces'
    # A violation of its list would be told in this place.
    [[ $output != *refused* ]] || [[ $output != *"system call"* ]]
}

@test "doctor says that guests cannot ping where this host's users cannot" {
    [ "$(id -u)" -eq 0 ] || skip "needs root for a network namespace, where nobody can at first"
    run unshare --net supermachine doctor
    grep -A 1 '^warning *ping ' <<<"$output" | grep -q 'ping_group_range='
    run unshare --net sh -c 'echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range; supermachine doctor'
    ! grep -q ' ping ' <<<"$output"
}

@test "doctor says what is missing and what to do, and ends with 125" {
    [ "$(id -u)" -eq 0 ] || skip "needs root to hide /dev/kvm"
    SUPERMACHINE_GUEST_DIR=$BATS_TEST_TMPDIR run unshare --mount sh -c 'mount -t tmpfs none /dev && exec supermachine doctor'
    echo "$output"
    [ "$status" -eq 125 ]
    grep -q '^FAILED *kvm ' <<<"$output"
    grep -q '^FAILED *guest kernel ' <<<"$output"
    grep -q -- '-> ' <<<"$output"
}

@test "version and help" {
    run supermachine version
    [ "$status" -eq 0 ]
    [[ $output =~ ^supermachine\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
    run supermachine help
    [ "$status" -eq 0 ]
    local command
    for command in $(sed -n 's/^  \([a-z]*\) .*/\1/p' <<<"$output"); do
        run supermachine help "$command"
        [ "$status" -eq 0 ]
        [[ $output == *"Usage: supermachine $command"* ]]
        run supermachine "$command" --help
        [ "$status" -eq 0 ]
        [[ $output == *"Usage: supermachine $command"* ]]
    done
    [ -n "$command" ]
}

@test "--version, -h, and the words of other tools" {
    [ "$(supermachine --version)" = "$(supermachine version)" ]
    [ "$(supermachine -h)" = "$(supermachine help)" ]
    [ "$(supermachine doctor -h)" = "$(supermachine help doctor)" ]
    fails_with 125 "unknown command 'images'; here it is 'image ls'" supermachine images
    fails_with 125 "unknown option '--vers'" supermachine --vers
    fails_with 125 "'--memory 64k' is not from 32m to 64g" supermachine run -m 64k "$busybox"
}

@test "what the caller left open is not handed on" {
    printf '#!/bin/sh\nls -l /proc/self/fd >"%s"\nexit 1\n' "$BATS_TEST_TMPDIR/fds" >"$BATS_TEST_TMPDIR/supermachine-image"
    chmod +x "$BATS_TEST_TMPDIR/supermachine-image"
    echo secret >"$BATS_TEST_TMPDIR/secret"
    XDG_DATA_HOME=$BATS_TEST_TMPDIR/data SUPERMACHINE_LIBEXEC_DIR=$BATS_TEST_TMPDIR \
        run supermachine pull "$busybox" 9<"$BATS_TEST_TMPDIR/secret"
    [ "$status" -eq 125 ]
    [ -s "$BATS_TEST_TMPDIR/fds" ]
    run ! grep secret "$BATS_TEST_TMPDIR/fds"
}

@test "what needs a network is refused without one" {
    fails_with 125 "--publish needs a network" supermachine run --network none -p 8080:80 "$busybox"
    fails_with 125 "--publish-all needs a network" supermachine run -P --network none "$busybox"
    fails_with 125 "--allow needs a network" supermachine run --network none --allow 10.0.0.0/8 "$busybox"
}

@test "doctor without a place for the store says what run says" {
    run env -u HOME -u XDG_DATA_HOME supermachine doctor
    [ "$status" -eq 125 ]
    grep -q '^FAILED *store *neither XDG_DATA_HOME nor HOME is set' <<<"$output"
}

@test "image ls, inspect, rm" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    run --separate-stderr supermachine image ls --format json
    [ "$status" -eq 0 ]
    [ "$(jq length <<<"$output")" -eq 0 ]
    run --separate-stderr supermachine image inspect "$busybox"
    [ "$status" -eq 0 ]
    local digest rootfs
    digest=$(jq -r '.[0].digest' <<<"$output")
    rootfs=$(jq -r '.[0].rootfs' <<<"$output")
    [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]
    [ -f "$rootfs" ]
    [ "$(jq -r '.[0].config.os' <<<"$output")" = linux ]
    run --separate-stderr supermachine image ls --format json
    [ "$(jq -r '.[0].digest' <<<"$output")" = "$digest" ]
    run --separate-stderr supermachine image ls
    [ "${#lines[@]}" -eq 2 ]
    [[ ${lines[1]} == *"${digest:0:19}"* ]]
    run --separate-stderr supermachine image rm "${digest:0:19}"
    [ "$status" -eq 0 ]
    [ ! -e "$rootfs" ]
    fails_with 125 "${digest:0:19}" supermachine image rm "${digest:0:19}"
}

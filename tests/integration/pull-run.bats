#!/usr/bin/env bats
# From a registry into a microVM: pulled by `run` itself, and a large image in bounded memory. What a pull must do
# otherwise is in registry.bats, which starts no machine.
load helper

setup_file() {
    export REG=$BATS_FILE_TMPDIR/registry REG_AT=127.0.0.1:$((20000 + RANDOM % 10000))
    mkdir "$REG"
    cat >"$REG/config.yml" <<YML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $REG/data}}
http: {addr: "$REG_AT"}
YML
    docker-registry serve "$REG/config.yml" >"$REG/log" 2>&1 3>&- &
    echo $! >"$REG/pid"
    wait_for curl -so /dev/null "http://$REG_AT/v2/"
}

teardown_file() {
    kill "$(cat "$REG/pid")"
}

# bats test_tags=all-nested
@test "run pulls what it does not have, once" {
    skopeo copy -q --dest-tls-verify=false "$busybox" "docker://$REG_AT/busybox"
    run --separate-stderr supermachine run "$REG_AT/busybox" cat /etc/supermachine-test-image
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = busybox ]
    kill -STOP "$(cat "$REG/pid")"
    run --separate-stderr supermachine run "$REG_AT/busybox" cat /etc/supermachine-test-image
    kill -CONT "$(cat "$REG/pid")"
    [ "$output" = busybox ]
}

# bats test_tags=all-nested
@test "an image of more than 1 GiB is pulled within 64 MiB of memory, and runs" {
    needs_debian
    local sum
    sum=$(PYTHONPATH=$repo/tests/tools python3 "$repo/tests/tools/large_image.py" "$SM_IMAGE_DEBIAN/oci" "$BATS_TEST_TMPDIR/layout")
    skopeo copy -q --dest-tls-verify=false "oci:$BATS_TEST_TMPDIR/layout:large" "docker://$REG_AT/large"
    rm -r "$BATS_TEST_TMPDIR/layout"
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    /usr/bin/time -o "$BATS_TEST_TMPDIR/kib" -f %M supermachine pull -q "$REG_AT/large"
    echo "#   peak: $(cat "$BATS_TEST_TMPDIR/kib") KiB" >&3
    [ "$(cat "$BATS_TEST_TMPDIR/kib")" -le 65536 ]
    mkfifo "$BATS_TEST_TMPDIR/stdin"
    exec 8<>"$BATS_TEST_TMPDIR/stdin"
    # shellcheck disable=SC2016 # for the guest's shell
    supermachine run -i --cold --pull never "$REG_AT/large" sh -c 'python3 -c "$1" /large; read -r go; python3 -c "$1" /large' \
        sh "$(cat "$repo/tests/tools/sample.py")" <&8 >"$BATS_TEST_TMPDIR/out" 3>&- 8>&- &
    local pid=$!
    wait_for grep -qx "$sum" "$BATS_TEST_TMPDIR/out"
    # nobody takes it away from under a VM
    fails_with 125 "is in use" supermachine image rm "$REG_AT/large"
    supermachine image prune --all
    echo go >&8
    wait "$pid"
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = "$sum"$'\n'"$sum" ]
    supermachine image rm "$REG_AT/large"
    [ -z "$(find "$XDG_DATA_HOME/supermachine/rootfs" -type f)" ]
}

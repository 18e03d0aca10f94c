# What the tests of `supermachine-image` share: builds in a store of the test's own, layouts, umoci as the judge.

# Runs `supermachine-image build` with the store $store (of the test's own unless set); digest or error end in $output.
build() {
    run timeout 600 supermachine-image build --store "${store:=$BATS_TEST_TMPDIR/store}" "$@"
    output=$(tail -n 1 <<<"$output")
}

# The image is built: $digest, and $rootfs, its file.
built() {
    build "$@"
    if [ "$status" -ne 0 ]; then
        echo "$output"
        return 1
    fi
    digest=$(jq -r .result.digest <<<"$output")
    rootfs=$store/$(jq -r .rootfs "$store/images/sha256/${digest#sha256:}.json")
}

# refused WORDS REFERENCE...: a clear error that tells no secret, and no image that is half-made.
refused() {
    local words=$1
    shift
    build "$@"
    if [ "$status" -eq 0 ] || ! jq -r .error.message <<<"$output" | grep -Eq -- "$words"; then
        printf 'status %s\n%s\nmust say: %s\n' "$status" "$output" "$words"
        return 1
    fi
    [[ $output != *geheim* && $output != *tok-en* && $output != *s3cret* ]]
    [ -z "$(find "$store" -path '*/rootfs/*' -o -path '*/images/sha256/*' -o -path '*/refs/*' -type f)" ]
}

# refused_at_once WORDS ARGUMENTS...: `refused` for each pair (arguments are split at spaces), all at the same time, since
# most of them wait; each in a store of its own, $batch.N (store.N).
refused_at_once() {
    local i=0 pids=() failed=0 name=$BATS_TEST_TMPDIR/${batch:-store}
    while [ $# -gt 1 ]; do
        # shellcheck disable=SC2086 # words
        (store=$name.$i && refused "$1" $2) >"$name.$i.log" 2>&1 3>&- &
        pids+=($!)
        i=$((i + 1))
        shift 2
    done
    for i in "${!pids[@]}"; do
        wait "${pids[i]}" || { cat "$name.$i.log"; failed=1; }
    done
    [ "$failed" -eq 0 ]
}

# No partial file is left in any of the test's stores that are called so.
nothing_partial() {
    [ -z "$(find "$BATS_TEST_TMPDIR" -path '*/store*' -name '*.partial')" ]
}

# layout CODE: a layout made by the statements, with `l` of tests/tools/layout.py.
layout() {
    rm -rf "$BATS_TEST_TMPDIR/layout"
    PYTHONPATH=$repo/tests/tools python3 - "$BATS_TEST_TMPDIR/layout" "$1" <<'PY'
import json, os, sys
from layout import *
l = Layout(sys.argv[1])
exec(sys.argv[2])
l.close()
PY
}

# Compares $rootfs with what umoci makes of the same layout: every path, mode, owner, link, attribute, time and digest.
same_as_umoci() {
    command -v umoci >/dev/null || skip "umoci is not here"
    [ "$(id -u)" = 0 ] || skip "umoci needs root for owners and devices"
    rm -rf "$BATS_TEST_TMPDIR/umoci"
    umoci raw unpack --image "$1" "$BATS_TEST_TMPDIR/umoci" >"$BATS_TEST_TMPDIR/umoci.log" 2>&1
    "$repo/tests/tools/tree_list.py" "$BATS_TEST_TMPDIR/umoci" >"$BATS_TEST_TMPDIR/theirs"
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" >"$BATS_TEST_TMPDIR/ours"
    rm -rf "$BATS_TEST_TMPDIR/umoci"
    diff "$BATS_TEST_TMPDIR/theirs" "$BATS_TEST_TMPDIR/ours"
    PATH=$PATH:/sbin:/usr/sbin e2fsck -fn "$rootfs"
}

# full SIZE WORDS COMMAND: in a store on a disk of that size it fails with these words, or with none if WORDS is empty. No file
# is half there; what is whole may be.
full() {
    unshare -m bash -c '
        mount -t tmpfs -o "size=$1,mode=700" none "$XDG_DATA_HOME" || exit
        status=0 said=$(eval "$3" 2>&1 >/dev/null) || status=$?
        echo "$1 $3: $status $said"
        if [ -n "$2" ]; then [ "$status" -eq 125 ] && [[ $said == *"$2"*"No space left on device" ]]; else [ "$status" -eq 0 ]; fi || exit
        find "$XDG_DATA_HOME" -name "*.partial" -o -size 0 -type f | grep . && exit 1
        [ "$status" -eq 0 ] || [ -z "$(find "$XDG_DATA_HOME" -path "*/refs/*" -type f)" ] || exit
        supermachine image verify' _ "$@"
}

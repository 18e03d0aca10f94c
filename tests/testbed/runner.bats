#!/usr/bin/env bats
# bats file_tags=host
# What the tests rely on when one of them goes wrong: what it leaves is found, named and ended, and a hang ends at its limit.
bats_require_minimum_version 1.5.0

repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)

# files RESULT-PATTERN...: runs planted.bats as `make test` does; $output is what it prints.
files() {
    run env -u BATS_RUN_TMPDIR -u BATS_ROOT_PID -u BATS_SUITE_TEST_NUMBER -u SM_TEST_STORE -u SM_TEST_MARK -u SM_TEST_FILTER \
        -u SM_TEST_REPEAT SM_TESTBED=native "$@" "$repo/tests/run-files" "$BATS_TEST_TMPDIR/planted.bats" 3>&-
    echo "$output"
}

# planted BODY [SECONDS]: a file with one test that does this, within so long, and one that is well.
planted() {
    local test=@test # a line that begins with it would be one of this file
    # shellcheck disable=SC2016 # for that file
    local limit=${2:-'${BATS_TEST_TIMEOUT:-600}'}
    cat >"$BATS_TEST_TMPDIR/planted.bats" <<END
# bats file_tags=host
BATS_TEST_DIRNAME=$repo/tests/integration
SM_IMAGE_BUSYBOX=none SM_IMAGE_DEBIAN= SM_IMAGE_SERVICES=
[ "\${BATS_TEST_NAME:-}" != test_planted ] || BATS_TEST_TIMEOUT=$limit
load $repo/tests/integration/helper
$test "planted" {
$1
}
$test "well" { true; }
END
    # Known as one of ours by its name.
    mkdir -p "$BATS_TEST_TMPDIR/bin"
    cp "$(command -v sleep)" "$BATS_TEST_TMPDIR/bin/supermachine"
}

@test "a VM that outlives its test is named and ended, and only its test fails" {
    planted "$BATS_TEST_TMPDIR/bin/supermachine 1000 3>&- &"
    files SM_TEST_GRACE=10
    [[ $output == *"not ok 1 planted"*"left behind: "*"/bin/supermachine"*"ok 2 well"*"# done "* ]]
    [[ $output != *"not ok - "* ]]
    ! pgrep -f "$BATS_TEST_TMPDIR/bin/supermachine"
}

@test "what a failed test started is ended" {
    # A program of ours, another, and a function.
    planted "$BATS_TEST_TMPDIR/bin/supermachine 1000 3>&- & sleep 999 3>&- & f() { while :; do sleep 0.1 || true; done; }; f >/dev/null 2>&1 3>&- & false"
    files
    [[ $output == *"not ok 1 planted"*"ok 2 well"* ]]
    [[ $output != *"left behind"* && $output != *"not ok - "* ]]
    ! pgrep -f "$BATS_TEST_TMPDIR/bin/supermachine"
}

@test "a test that hangs ends at its limit, with what it started, and only it fails" {
    planted "$BATS_TEST_TMPDIR/bin/supermachine 1000 3>&- & sleep 999" 2
    files
    [[ $output == *"not ok 1 planted in "*"timeout after 2s"*"ok 2 well"* ]]
    [[ $output != *"not ok - "* ]]
    ! pgrep -f "$BATS_TEST_TMPDIR/bin/supermachine"
}

# What stands for another run's, or a user's. Of the other run's test nobody is left.
nobody=$(bash -c 'echo $$')
end_others() {
    rm -rf "/tmp/supermachine-planted.$$"
    [ ! -e "/run/netns/sm-$nobody-other" ] || ip netns del "sm-$nobody-other"
    [ -z "${other:-}" ] || kill "$other" 2>/dev/null || true
}
teardown() { end_others; }

@test "what a file leaves on the machine is named, ended and fails; what others do there is not its" {
    local root='' store
    [ "$(id -u)" -ne 0 ] || root=1
    # shellcheck disable=SC2016 # for the planted test
    planted 'env -u SM_TEST_MARK setsid sleep 999 3>&- & mkdir "$SM_TEST_STORE/left"
        echo "$SM_TEST_STORE" >"'"$BATS_TEST_TMPDIR"'/store"
        if [ "$(id -u)" -eq 0 ]; then
            mkdir "$SM_TEST_STORE/data/mounted"
            mount -t tmpfs none "$SM_TEST_STORE/data/mounted"
            ip netns add "$net_names-left"
        fi
        # Others, while it runs.
        mkdir /tmp/supermachine-planted.'"$$"'
        [ "$(id -u)" -ne 0 ] || ip netns add sm-'"$nobody"'-other
        touch "'"$BATS_TEST_TMPDIR"'/planted"
        until grep -q "@supermachine-other-'"$$"'" /proc/net/unix; do sleep 0.1; done'
    # shellcheck disable=SC2016 # for Python
    python3 -c 'import os, socket, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.1)
s = socket.socket(socket.AF_UNIX); s.bind("\0supermachine-other-" + sys.argv[2]); time.sleep(600)' \
        "$BATS_TEST_TMPDIR/planted" "$$" 3>&- &
    other=$!
    files SM_TEST_GRACE=10
    store=$(cat "$BATS_TEST_TMPDIR/store")
    [[ $output == *"ok 1 planted"*"ok 2 well"* ]]
    [[ $output == *"not ok - "*"planted.bats left process "*": "*"sleep 999"* ]]
    [[ $output == *"not ok - "*"planted.bats left directory $store/left"* ]]
    if [ -n "$root" ]; then
        [[ $output == *"not ok - "*"planted.bats left mount $store/data/mounted"* ]]
        [[ $output == *"not ok - "*"planted.bats left network namespace sm-"*-left* ]]
        [ -e "/run/netns/sm-$nobody-other" ]
    fi
    [[ $output != *other* && $output != *supermachine-planted* ]]
    run grep -c "$store" /proc/self/mountinfo
    [ "$output" = 0 ]
    [ ! -e "$store" ]
    run find /run/netns -name "sm-*-${store##*.}-*-left"
    [ -z "$output" ]
}

@test "the time limit that bats has left to itself is ended, and is nothing that a file has left" {
    local pid
    planted "env -u SM_TEST_MARK setsid sleep 601 3>&- & echo \$! >'$BATS_TEST_TMPDIR/pid'"
    files BATS_TEST_TIMEOUT=601
    [[ $output == *"ok 1 planted"*"ok 2 well"*"# done "* && $output != *"not ok"* ]]
    pid=$(cat "$BATS_TEST_TMPDIR/pid")
    while [ "$(tr '\0' ' ' <"/proc/$pid/cmdline")" = "sleep 601 " ]; do sleep 0.1; done
}

@test "a file whose results do not come has failed, and one without a test that is wanted has not" {
    planted true
    sed -i 's/@test "well"/@test "planted"/' "$BATS_TEST_TMPDIR/planted.bats"
    files
    [[ $output == *"not ok - "*"planted.bats gave no results, "*"# done "* ]]
    planted true
    files SM_TEST_FILTER=none
    [[ $output == *"1..0"*"# done "* && $output != *"not ok"* ]]
    planted true
    files
    [[ $output == *"ok 1 planted"*"ok 2 well"*"# done "* && $output != *"not ok"* ]]
}

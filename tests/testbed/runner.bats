#!/usr/bin/env bats
# bats file_tags=host
# What the tests rely on when one of them goes wrong: what it leaves is found, named and ended, and a hang ends at its limit.
bats_require_minimum_version 1.5.0

repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)

# files RESULT-PATTERN...: runs planted.bats as `make test` does; $output is what it prints.
files() {
    run env -u BATS_RUN_TMPDIR -u BATS_ROOT_PID -u BATS_SUITE_TEST_NUMBER -u SM_TEST_STORE -u SM_TEST_MARK -u SM_TEST_FILTER \
        SM_TESTBED=native SM_TEST_GRACE=10 "$@" "$repo/tests/run-files" "$BATS_TEST_TMPDIR/planted.bats" 3>&-
    echo "$output"
}

# planted BODY: a file with one test that does this, and one that is well.
planted() {
    local test=@test # a line that begins with it would be one of this file
    cat >"$BATS_TEST_TMPDIR/planted.bats" <<END
# bats file_tags=host
BATS_TEST_DIRNAME=$repo/tests/integration
SM_IMAGE_BUSYBOX=none SM_IMAGE_DEBIAN= SM_IMAGE_SERVICES=
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
    files
    [[ $output == *"not ok 1 planted"*"left behind: "*"/bin/supermachine"*"ok 2 well"*"# done "* ]]
    [[ $output != *"not ok - "* ]]
    ! pgrep -f "$BATS_TEST_TMPDIR/bin/supermachine"
}

@test "what a failed test started is ended" {
    planted "$BATS_TEST_TMPDIR/bin/supermachine 1000 3>&- & sleep 999 3>&- & false"
    files
    [[ $output == *"not ok 1 planted"*"ok 2 well"* ]]
    [[ $output != *"left behind"* && $output != *"not ok - "* ]]
    ! pgrep -f "$BATS_TEST_TMPDIR/bin/supermachine"
}

@test "a test that hangs ends at its limit, with what it started, and only it fails" {
    planted "$BATS_TEST_TMPDIR/bin/supermachine 1000 3>&- & sleep 999"
    files BATS_TEST_TIMEOUT=2
    [[ $output == *"not ok 1 planted in "*"timeout after 2s"*"ok 2 well"* ]]
    [[ $output != *"not ok - "* ]]
    ! pgrep -f "$BATS_TEST_TMPDIR/bin/supermachine"
}

@test "what a file leaves on the machine is named and fails" {
    planted "env -u SM_TEST_MARK setsid sleep 999 3>&- & mkdir /tmp/supermachine-planted.$$"
    files
    rmdir "/tmp/supermachine-planted.$$"
    [[ $output == *"ok 1 planted"*"ok 2 well"* ]]
    [[ $output == *"not ok - "*"planted.bats left process "*": "*"sleep 999"* ]]
    [[ $output == *"not ok - "*"planted.bats left directory /tmp/supermachine-planted.$$"* ]]
}

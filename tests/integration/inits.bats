#!/usr/bin/env bats
# Other people's inits and entrypoints as process 1: started, signalled, stopped, baked while they run, captured, restored.
load helper

setup_file() {
    : "${SM_IMAGE_INITS=$([ "$(id -u)" -ne 0 ] || "$BATS_TEST_DIRNAME/../images/inits.sh")}"
    export SM_IMAGE_INITS
}

# begin OUT ARGUMENTS...: `supermachine run` in the background, its output in OUT; $! is its process.
begin() {
    local out=$1
    shift
    supermachine run "$@" >"$out" 2>"$out.err" 3>&- &
}

# ends OUT PID WORDS: told to stop, it says WORDS, and ends with 0.
ends() {
    local status=0
    kill -TERM "$2"
    wait "$2" || status=$?
    echo "status $status: $(cat "$1" "$1.err")"
    [ "$status" -eq 0 ]
    grep -Eqx "$3" "$1"
}

# lives NAME UP BYE [MORE]: an image that says UP when it is there, and BYE (both of grep -E) when it is stopped: run, captured while
# it runs, that capture restored, baked while it runs, that restored. MORE is what it says when it is first run, too.
lives() {
    [ -n "$SM_IMAGE_INITS" ] || skip "making the image of inits needs root"
    local image=oci:$SM_IMAGE_INITS/oci:$1 out=$BATS_TEST_TMPDIR/out snap=$BATS_TEST_TMPDIR/snap pid
    begin "$out" --name "$1-$$" "$image"
    pid=$!
    wait_for grep -Eqx "$2" "$out"
    [ -z "${4:-}" ] || wait_for grep -Eqx "$4" "$out"
    supermachine snapshot create "$1-$$" "$snap"
    ends "$out" "$pid" "$3"
    begin "$out.captured" --snapshot "$snap" "$image"
    pid=$!
    # It goes on where it was: what it said first it does not say again.
    ends "$out.captured" "$pid" "$3"
    run ! grep -Eqx "$2" "$out.captured"
    rm "$snap"
    supermachine bake --until idle "$image"
    begin "$out.baked" "$image"
    ends "$out.baked" "$!" "$3"
}

# bats test_tags=all
@test "s6: an entrypoint that insists on being process 1 becomes s6-svscan, whose services come and go with it" {
    lives s6 'one up as 0 in .*' 'one bye' 'two up as 1000 in .*'
    grep -qx 'two bye' "$BATS_TEST_TMPDIR/out.captured"
}

# bats test_tags=all
@test "tini hands signals on, and takes orphans" {
    lives tini 'tini up as 0 in [0-9]+ below 1' 'tini bye'
}

# bats test_tags=all
@test "dumb-init hands signals on to all of its session" {
    lives dumb-init 'dumb up as 0 in [0-9]+ below 1' 'dumb bye' 'child up as 0 in .*'
    grep -qx 'child bye' "$BATS_TEST_TMPDIR/out.captured"
}

# bats test_tags=all
@test "supervisord starts and stops its program, as another user" {
    lives supervisord 'one up as 1000 in [0-9]+ below 1' 'one bye'
}

# bats test_tags=all
@test "gosu: an entrypoint that goes on as another user is process 1 still" {
    lives gosu 'gosu up as 1000 in 1 below 0' 'gosu bye'
}

# bats test_tags=all
@test "who writes to /proc/1/fd/1 and /proc/1/fd/2 writes to the command's output" {
    lives fd1 'fd1 up as 0 in 1 below 0' 'fd1 bye' out
    grep -qx err "$BATS_TEST_TMPDIR/out.err"
}

# bats test_tags=all
@test "a user in 40 groups is in all of them" {
    [ -n "$SM_IMAGE_INITS" ] || skip "making the image of inits needs root"
    [ "$(supermachine run "oci:$SM_IMAGE_INITS/oci:groups")" = "1000 $(seq -s ' ' 2001 2040)" ]
}

#!/usr/bin/env bash
# Builds what the tests need, runs them, and ends with the ten slowest, the time of all, and one line
# "N passed, N failed[, N skipped]".
#
#   tests/run.sh [--all] [--repeat N] PART... [FILE...]
#     lint     scripts/lint.sh; one result
#     unit     every unit test under ASan and UBSan, those of suite "threads" under TSan too
#     one      an image baked and run, natively or, where /dev/kvm cannot be used, in the nested machine
#     native   tests/integration and tests/testbed (bats) on this machine's /dev/kvm
#     nested   tests/integration in the nested machine, see tests/testbed/nested; not the files with the tag "host": they
#              start no machine, and would only repeat themselves
#     --all    with what `make test` leaves out for its time: docs/development.md has the list
#     FILE     (tests/integration/*.bats) instead of all files of the parts native and nested; --repeat: each N times
#
# A part that gives no result counts as a failure. Where /dev/kvm is missing or unusable, "native" says so and runs only
# the files with the tag "host". Logs: build/test-logs, where `last` tells of the last whole run. The integration tests find
# in their environment
#   SM_TESTBED             native or nested
#   SM_BUILD               the build directory (supermachine in it)
#   SM_KERNEL              the guest kernel (vmlinux)
#   SM_IMAGE_BUSYBOX, SM_IMAGE_DEBIAN, SM_IMAGE_SERVICES   directories of tests/images/make.sh (oci, and of some oci.tar,
#                          docker.tar); the latter two are empty where they cannot be made
#   SM_IMAGE_INITS         with --all: the directory of tests/images/inits.sh, empty where it cannot be made
#   SM_TEST_ALL            not empty with --all
# SM_TEST_FILTER, a regular expression, chooses tests by name. BATS_TEST_TIMEOUT: a test that takes longer hangs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD
began=$SECONDS

passed=0
failed=0
skipped=0
logs=$root/build/test-logs
mkdir -p "$logs"

count() { passed=$((passed + $1)); failed=$((failed + $2)); skipped=$((skipped + ${3:-0})); }

# A step that everything after it needs: without it there is nothing to run.
need() {
    local log=$logs/${1// /-}.log
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "run.sh: failed: $*"
        count 0 1 0
        return 1
    fi
}

# took MILLISECONDS NAME: for the list of the slowest.
took() { printf '%s\t%s\n' "$1" "$2" >>"$times"; }

# ---- lint and unit tests -----------------------------------------------------------------------

run_lint() {
    local start=${EPOCHREALTIME/./}
    need build make -s build || return
    if scripts/lint.sh build; then count 1 0; else count 0 1; fi
    took $(((${EPOCHREALTIME/./} - start) / 1000)) lint
}

# unit DIRECTORY COMMAND...: the tests of a build tree, by a command that ends with what `meson test` is told. The limits are for
# what hangs: a busy machine is not judged by them. Sums cmocka's own counts in meson's log; a program that died before it
# counted is one failure, and so is a meson that failed without having told of any.
unit() {
    local log=$1/meson-logs/testlog.json sums status=0 failed_before=$failed
    rm -f "$log"
    "${@:2}" --no-rebuild --print-errorlogs -t 10 || status=$?
    sums=$(jq -rs '
        def number($what): [((.stdout // "") + (.stderr // "")) | scan("\\[  " + $what + "  \\] ([0-9]+) test")[0] | tonumber] | add // 0;
        map(number("PASSED") as $passed | number("SKIPPED") as $skipped | number("FAILED") as $failed |
            if .result == "OK" then [([$passed - $skipped, 0] | max | if $passed == 0 then 1 else . end), 0, $skipped]
            elif .result == "SKIP" then [0, 0, 1]
            else [$passed, ([$failed, 1] | max), 0] end)
        | transpose | map(add) | join(" ")' "$log" 2>/dev/null)
    # shellcheck disable=SC2086 # three numbers
    if [ -n "$sums" ]; then count $sums; else count 0 1 0; fi
    if [ "$status" -ne 0 ] && [ "$failed" -eq "$failed_before" ]; then
        echo "run.sh: $1: meson ended with status $status"
        count 0 1
    fi
    jq -r --arg where "$1" '"\(.duration * 1000 | floor)\t\($where): \(.name)"' "$log" 2>/dev/null >>"$times"
}

run_unit() {
    need build-asan make -s build-asan || return
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
        unit build-asan meson test -C build-asan
    need build-tsan make -s build-tsan || return
    # A fixed address layout: TSan's shadow does not fit some random ones.
    TSAN_OPTIONS=halt_on_error=1 \
        unit build-tsan setarch -R meson test -C build-tsan --suite threads
}

# ---- integration tests -------------------------------------------------------------------------

# count_tap FILE: the results in it; what a plan promised and did not give has failed.
count_tap() {
    # shellcheck disable=SC2046 # three numbers
    count $(awk '
        function end_plan() { if (seen < plan) bad += plan - seen; plan = seen = 0 }
        /^1\.\.[0-9]+/ { end_plan(); plan = substr($1, 4) + 0; plans++ }
        /^ok .* # skip/ { skip++; seen++; next }
        /^ok / { ok++; seen++ }
        /^not ok / { bad++ }
        /^not ok [0-9]/ { seen++ }
        END { end_plan(); print ok + 0, plans ? bad + 0 : 1, skip + 0 }' "$1")
    sed -nE "s/^(not )?ok [0-9]+ (.*) in ([0-9]+)ms.*/\3\t$2: \2/p" "$1" >>"$times"
}

# judge PART STATUS N: the results in PART.tap of a tests/run-files that ended with STATUS and was to tell of N files.
judge() {
    local tap=$logs/$1.tap files=$(($3 * ${SM_TEST_REPEAT:-1})) told
    count_tap "$tap" "$1"
    told=$(grep -c '^# done ' "$tap")
    if [ "$2" -ne 0 ] || [ "$told" -ne "$files" ]; then
        echo "run.sh: the $1 tests ended with status $2 after $told of $files files"
        count 0 1
    fi
}

# Once for all parts, which may run at the same time.
prepared=
prepare_integration() {
    local missing=
    [ -z "$prepared" ] || return 0
    need build make -s build || return
    SM_KERNEL=$(guest/kernel/build.sh)/vmlinux
    if ! SM_IMAGE_BUSYBOX=$(tests/images/make.sh busybox); then
        count 0 1 0
        return 1
    fi
    # Without root they can only be taken from the cache; the tests that need them skip themselves.
    SM_IMAGE_DEBIAN=$(tests/images/make.sh debian) || missing=1
    SM_IMAGE_SERVICES=$(tests/images/make.sh services) || missing=1
    SM_IMAGE_INITS=
    [ -z "${SM_TEST_ALL:-}" ] || SM_IMAGE_INITS=$(tests/images/inits.sh) || missing=1
    if [ -n "$missing" ] && [ "$(id -u)" -eq 0 ]; then
        count 0 1 0
        return 1
    fi
    SM_BUILD=$root/build
    BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-$test_limit}
    export SM_KERNEL SM_IMAGE_BUSYBOX SM_IMAGE_DEBIAN SM_IMAGE_SERVICES SM_IMAGE_INITS SM_BUILD BATS_TEST_TIMEOUT
    prepared=1
}

run_native() {
    local why host_only='' files=("${files[@]}")
    [ "${#files[@]}" -gt 0 ] || files=(tests/integration/*.bats tests/testbed/*.bats)
    if ! why=$(scripts/kvm-usable 2>&1); then
        echo "run.sh: $why: only the tests that start no machine run here, the nested machine runs the others"
        host_only=1
    fi
    prepare_integration || return
    SM_TESTBED=native SM_TEST_HOST_ONLY=$host_only tests/run-files "${files[@]}" | tee "$logs/native.tap"
    judge native "${PIPESTATUS[0]}" "${#files[@]}"
}

run_nested() {
    local files=("${files[@]}")
    [ "${#files[@]}" -gt 0 ] || files=(tests/integration/*.bats)
    prepare_integration || return
    # BATS_TEST_TIMEOUT reaches the machine by -e, SM_* by themselves.
    tests/testbed/nested run -t "${SM_NESTED_TIMEOUT:-$nested_limit}" -e BATS_TEST_TIMEOUT="$BATS_TEST_TIMEOUT" -- \
        tests/run-files "${files[@]}" | tee "$logs/nested.tap"
    judge nested "${PIPESTATUS[0]}" "${#files[@]}"
}

# What a run of the command with an image comes down to: its output, its status, and nothing else. Needs none of what other tests do.
run_one() {
    local start=${EPOCHREALTIME/./} image machine=() store got
    need build make -s build || return
    if ! scripts/kvm-usable; then
        need testbed scripts/setup.sh testbed || return
        machine=(tests/testbed/nested run --)
    fi
    if ! image=$(tests/images/make.sh demo); then
        count 0 1
        return
    fi
    store=$(mktemp -d)
    got=$(XDG_DATA_HOME=$store "${machine[@]}" build/supermachine run "oci:$image/oci" sh -c 'echo out; exit 7'; echo "status $?")
    rm -rf "$store"
    if [ "$got" = $'out\nstatus 7' ]; then
        count 1 0
    else
        printf 'not "out" and status 7, but:\n%s\n' "$got"
        count 0 1
    fi
    took $(((${EPOCHREALTIME/./} - start) / 1000)) "one run"
}

# The tests of one machine keep one CPU busy, seldom two: with two, the nested machine runs beside the native tests. Its results
# are shown and counted when those are through. It has a process group of its own: with it goes all that it has started.
aside=
start_aside() {
    prepare_integration || return # what both build is built once
    rm -f "$logs/nested.sums"
    set -m
    {
        passed=0 failed=0 skipped=0
        run_nested
        echo "$passed $failed $skipped" >"$logs/nested.sums"
    } >"$logs/nested.log" 2>&1 &
    aside=$!
    set +m
    trap 'kill -- "-$aside" 2>/dev/null' EXIT
}

await_aside() {
    wait "$aside"
    trap - EXIT
    cat "$logs/nested.log"
    # shellcheck disable=SC2046 # three numbers
    if [ -s "$logs/nested.sums" ]; then count $(cat "$logs/nested.sums"); else count 0 1 0; fi
}

# ---- the run -----------------------------------------------------------------------------------

parts=()
files=()
test_limit=1800 # seconds, for what hangs: more than two waits of a test (wait_for)
nested_limit=18000
while [ $# -gt 0 ]; do
    case $1 in
    --all)
        export SM_TEST_ALL=1
        test_limit=3600
        nested_limit=36000
        ;;
    --repeat)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: --repeat takes a number"; exit 2; }
        export SM_TEST_REPEAT=$2
        shift
        ;;
    lint | unit | one | native | nested) parts+=("$1") ;;
    *.bats)
        [ -f "$1" ] || { echo "run.sh: no file '$1'"; exit 2; }
        files+=("$1")
        ;;
    *) echo "run.sh: no part or file '$1': lint, unit, one, native, nested, FILE.bats"; exit 2 ;;
    esac
    shift
done
[ "${#parts[@]}" -gt 0 ] || parts=(native nested)
whole=
[ "${#files[@]}" -gt 0 ] || [ -n "${SM_TEST_FILTER:-}${SM_TEST_REPEAT:-}" ] || [[ " ${parts[*]} " != *" unit native nested "* ]] || whole=1
times=$(mktemp)

for part in "${parts[@]}"; do
    if [ "$part" = nested ] && [ -n "$aside" ]; then
        echo "== nested"
        await_aside
        continue
    fi
    echo "== $part"
    if [ "$part" = native ] && [[ " ${parts[*]} " == *" nested "* ]]; then
        start_aside
    fi
    "run_$part"
done

echo "== the slowest"
sort -rn "$times" | head -n 10 | awk -F '\t' '{ printf "%7.1f s  %s\n", $1 / 1000, $2 }'
rm -f "$times"
seconds=$((SECONDS - began))
printf 'all of it: %d min %02d s\n' $((seconds / 60)) $((seconds % 60))
if [ -n "$whole" ]; then
    printf '%s %s\n' commit "$(git describe --always --abbrev=40 --dirty 2>/dev/null)" seconds "$seconds" \
        passed "$passed" failed "$failed" skipped "$skipped" >"$logs/last"
fi
summary="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
echo "$summary"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]

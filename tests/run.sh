#!/usr/bin/env bash
# Builds what the tests need, runs them, and ends with one line "N passed, N failed[, N skipped]".
#
#   tests/run.sh PART...
#     unit     every unit test under ASan and UBSan, those of suite "threads" under TSan too
#     native   tests/integration and tests/testbed (bats) on this machine's /dev/kvm
#     nested   tests/integration in the nested machine, see tests/testbed/nested; not the files with the tag "host": they
#              start no machine, and would only repeat themselves
#
# A part that gives no result counts as a failure. Where /dev/kvm is missing or unusable, "native" says so and runs only
# the files with the tag "host". Logs: build/test-logs. The integration tests find in their environment
#   SM_TESTBED             native or nested
#   SM_BUILD               the build directory (supermachine in it)
#   SM_KERNEL              the guest kernel (vmlinux)
#   SM_IMAGE_BUSYBOX, SM_IMAGE_DEBIAN, SM_IMAGE_SERVICES   directories of tests/images/make.sh (oci, and of some oci.tar,
#                          docker.tar); the latter two are empty where they cannot be made
# SM_TEST_FILTER, a regular expression, chooses tests by name.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD

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

# Sums cmocka's own counts in meson's log; a program that died before it counted is one failure.
count_unit() {
    local sums
    sums=$(jq -rs '
        def number($what): [((.stdout // "") + (.stderr // "")) | scan("\\[  " + $what + "  \\] ([0-9]+) test")[0] | tonumber] | add // 0;
        map(number("PASSED") as $passed | number("SKIPPED") as $skipped | number("FAILED") as $failed |
            if .result == "OK" then [([$passed - $skipped, 0] | max | if $passed == 0 then 1 else . end), 0, $skipped]
            elif .result == "SKIP" then [0, 0, 1]
            else [$passed, ([$failed, 1] | max), 0] end)
        | transpose | map(add) | join(" ")' "$1/meson-logs/testlog.json" 2>/dev/null)
    # shellcheck disable=SC2086 # three numbers
    if [ -n "$sums" ]; then count $sums; else count 0 1 0; fi
}

run_unit() {
    need build-asan make -s build-asan || return
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
        meson test -C build-asan --no-rebuild --print-errorlogs
    count_unit build-asan
    if meson test -C build-asan --list 2>/dev/null | grep -q threads; then
        need build-tsan make -s build-tsan || return
        # A fixed address layout: TSan's shadow does not fit some random ones.
        TSAN_OPTIONS=halt_on_error=1 \
            setarch -R meson test -C build-tsan --no-rebuild --print-errorlogs --suite threads
        count_unit build-tsan
    fi
}

# count_tap FILE: results in it; what its plan promised and did not give has failed.
count_tap() {
    local plan ok bad skip
    plan=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$1" | head -n 1)
    skip=$(grep -c '^ok .* # skip' "$1")
    ok=$(($(grep -c '^ok ' "$1") - skip))
    bad=$((${plan:-1} - ok - skip))
    [ "$bad" -ge 0 ] || bad=$(grep -c '^not ok ' "$1")
    count "$ok" "$bad" "$skip"
}

prepare_integration() {
    need build make -s build || return
    SM_KERNEL=$(guest/kernel/build.sh)/vmlinux
    if ! SM_IMAGE_BUSYBOX=$(tests/images/make.sh busybox); then
        count 0 1 0
        return 1
    fi
    # Without root they can only be taken from the cache; the tests that need them skip themselves.
    if { ! SM_IMAGE_DEBIAN=$(tests/images/make.sh debian) || ! SM_IMAGE_SERVICES=$(tests/images/make.sh services); } &&
        [ "$(id -u)" -eq 0 ]; then
        count 0 1 0
        return 1
    fi
    SM_BUILD=$root/build
    BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-900}
    export SM_KERNEL SM_IMAGE_BUSYBOX SM_IMAGE_DEBIAN SM_IMAGE_SERVICES SM_BUILD BATS_TEST_TIMEOUT
    bats=(bats --formatter tap --timing)
    [ -z "${SM_TEST_FILTER:-}" ] || bats+=(--filter "$SM_TEST_FILTER")
}

run_native() {
    local why
    if ! why=$(scripts/kvm-usable 2>&1); then
        echo "run.sh: $why: only the tests that start no machine run here, the nested machine runs the others"
        prepare_integration || return
        bats+=(--filter-tags host)
    else
        prepare_integration || return
    fi
    SM_TESTBED=native "${bats[@]}" tests/integration tests/testbed | tee "$logs/native.tap"
    count_tap "$logs/native.tap"
}

# first_tests N FILE: the TAP of a run without what came after its Nth test.
first_tests() {
    awk -v last="$1" '/^1\.\./ { print "1.." last; next } /^(not )?ok / { n++ } n <= last' "$2"
}

# QEMU 7.2 has bugs that crash or hang the kernel that it runs; those that we know are worked around in tests/testbed.
# That says nothing about us: a machine that ended without a result is followed by another one, at most two times, which
# begins with the file of tests that was running.
run_nested() {
    local files=(tests/integration/*.bats) part=$logs/nested.tap tries=3 end=$((SECONDS + ${SM_NESTED_TIMEOUT:-4200}))
    local status done_tests done_files n
    prepare_integration || return
    bats+=(--filter-tags '!host')
    while :; do
        # BATS_TEST_TIMEOUT and the like reach the machine by -e, SM_* by themselves.
        tests/testbed/nested run -t $((end - SECONDS)) -e BATS_TEST_TIMEOUT="$BATS_TEST_TIMEOUT" -- \
            "${bats[@]}" "${files[@]}" | tee "$part"
        status=${PIPESTATUS[0]}
        tries=$((tries - 1))
        if [ "$status" -ne 125 ] || [ "$tries" -eq 0 ] || [ "$SECONDS" -ge "$end" ]; then
            break
        fi
        done_tests=0
        done_files=0
        for n in $(for file in "${files[@]}"; do "${bats[@]}" --count "$file"; done); do
            [ $((done_tests + n)) -le "$(grep -cE '^(not )?ok ' "$part")" ] || break
            done_tests=$((done_tests + n))
            done_files=$((done_files + 1))
        done
        [ "$done_files" -lt ${#files[@]} ] || break
        files=("${files[@]:done_files}")
        first_tests "$done_tests" "$part" >"$logs/nested-$tries.tap"
        count_tap "$logs/nested-$tries.tap"
        echo "run.sh: the nested machine broke: a new one starts, with ${files[0]}"
    done
    count_tap "$part"
}

# The tests of one machine keep one CPU busy, seldom two: with two, the nested machine runs beside them. Its results are shown
# and counted when those are through.
aside=
start_aside() {
    prepare_integration >/dev/null || return # what both build is built once
    setsid tests/run.sh "$1" >"$logs/$1.log" 2>&1 & # a group of its own: with it goes all that it has started
    aside=$!
    trap 'kill -- "-$aside" 2>/dev/null' EXIT
}

await_aside() {
    local sums
    wait "$aside"
    trap - EXIT
    sed '$d' "$logs/nested.log"
    sums=$(tail -n 1 "$logs/nested.log" | sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/p')
    # shellcheck disable=SC2086 # two or three numbers
    if [ -n "$sums" ]; then count $sums; else tail -n 1 "$logs/nested.log"; count 0 1 0; fi
}

for part in "$@"; do
    case $part in
    unit | native | nested) ;;
    *) echo "run.sh: no part '$part': unit, native, nested"; exit 2 ;;
    esac
done

for part in "$@"; do
    if [ "$part" = nested ] && [ -n "$aside" ]; then
        await_aside
        continue
    fi
    echo "== $part"
    if [ "$part" = native ] && [[ " $* " == *" nested "* ]]; then
        start_aside nested
    fi
    "run_$part"
done

summary="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
echo "$summary"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]

#!/usr/bin/env bash
# Runs the fuzz targets that `make build-fuzz` has built: a few at once, each for its share of the time.
#
#   tests/fuzz/run.sh [-t SECONDS] [TARGET...]   all targets together take SECONDS (600)
#   tests/fuzz/run.sh -k [TARGET...]             puts what was found to reach new code into tests/fuzz/corpus
#
# A target starts from seeds/TARGET, corpus/TARGET and what earlier runs have left in build-fuzz/corpus/TARGET. What makes it
# fail is kept in build-fuzz/findings, with the target's log beside it, and the status is 1. FUZZ_JOBS: how many at once,
# one on each CPU unless given.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/fuzz
build='build-fuzz'
findings=$build/findings
logs=$build/fuzz-logs

readonly MEMORY_MB=1024  # of a target; most need 100
readonly INPUT_SECONDS=20 # of the CPU, for one input; the slowest that is fine needs 2

jobs=${FUZZ_JOBS:-$(nproc)}
seconds=600
keep=false
while getopts t:k option; do
    case $option in
    t) seconds=$OPTARG ;;
    k) keep=true ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: '$seconds' is no number of seconds" >&2; exit 2; }

targets=("$@")
if [ $# -eq 0 ]; then
    for source in "$here"/fuzz_*.c; do
        name=${source##*/fuzz_}
        targets+=("${name%.c}")
    done
fi
for name in "${targets[@]}"; do
    [ -x "$build/$here/fuzz_$name" ] || { echo "run.sh: there is no target '$name' in $build: see make fuzz" >&2; exit 2; }
done

export ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1

# The directories a target reads beside its first, which it also writes.
inputs_of() { # TARGET
    echo "$here/seeds/$1"
    if [ -d "$here/corpus/$1" ]; then echo "$here/corpus/$1"; fi
}

# Whether an input that took too long does so by its own fault: time passes for a target that does not run, too (a machine
# that is busy, or asleep).
is_slow() { # TARGET INPUT
    ! (ulimit -t "$INPUT_SECONDS" && exec "$build/$here/fuzz_$1" -timeout=0 "$2") >/dev/null 2>&1
}

executions_in() { awk '$1 == "stat::number_of_executed_units:" { n = $2 } END { print n + 0 }' "$1"; }
edges_in() { awk '{ for (i = 1; i < NF; i++) if ($i == "cov:") n = $(i + 1) } END { print n + 0 }' "$1"; }

# Of what `times` says, the line of the children: "1m2.34s 0m0.56s".
cpu_seconds() { awk 'NR == 2 { split($1 " " $2, t, /[ms ]+/); print 60 * (t[1] + t[3]) + t[2] + t[4] }'; }

# Fuzzes until the time is over or there is a finding. Leaves a line for the table: CPU time, executions, edges, result.
fuzz() { # TARGET SECONDS
    local name=$1 end=$((EPOCHSECONDS + $2)) log=$logs/$1.log left status=0 found='' executions=0 pid='' inputs
    local result=clean
    mapfile -t inputs < <(inputs_of "$name")
    mkdir -p "$build/corpus/$name"
    trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; exit 130' TERM
    while left=$((end - EPOCHSECONDS)) && [ "$left" -gt 0 ] && [ "$result" = clean ]; do
        "$build/$here/fuzz_$name" -max_total_time="$left" -timeout="$INPUT_SECONDS" -rss_limit_mb="$MEMORY_MB" \
            -print_final_stats=1 -artifact_prefix="$findings/$name-" "$build/corpus/$name" "${inputs[@]}" >"$log" 2>&1 &
        pid=$!
        status=0
        wait "$pid" || status=$?
        pid=''
        executions=$((executions + $(executions_in "$log")))
        found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        if [ "$status" -eq 0 ]; then
            continue
        elif [[ $found == */"$name"-timeout-* ]] && ! is_slow "$name" "$found"; then
            rm -f "$found"
        elif [ -n "$found" ]; then
            cp "$log" "$found.log"
            result="FOUND: $build/$here/fuzz_$name $found"
        else
            result="FAILED with status $status: $log"
        fi
    done
    times >"$logs/$name.times"
    echo "$(cpu_seconds <"$logs/$name.times") $executions $(edges_in "$log") $result" >"$logs/$name.result"
}

# What the seeds do not reach, and as little of it as reaches the same: edges count, not how often they are taken.
keep() { # TARGET
    local name=$1 all=$build/keep/$1
    rm -rf "$all"
    mkdir -p "$all" "$here/corpus/$name" "$build/corpus/$name"
    cp "$here/seeds/$name"/* "$all"
    "$build/$here/fuzz_$name" -merge=1 -use_counters=0 -timeout="$INPUT_SECONDS" -artifact_prefix="$findings/$name-" \
        "$all" "$here/corpus/$name" "$build/corpus/$name" >"$logs/$name-keep.log" 2>&1 ||
        { echo "run.sh: cannot merge: $logs/$name-keep.log" >&2; return 1; }
    for seed in "$here/seeds/$name"/*; do rm "$all/${seed##*/}"; done
    rm -rf "${here:?}/corpus/$name"
    mv "$all" "$here/corpus/$name"
    echo "$name: $(find "$here/corpus/$name" -type f | wc -l) files, $(du -sb "$here/corpus/$name" | cut -f 1) bytes"
}

print_table() {
    local name cpu executions edges result
    printf '| %-18s | %12s | %10s | %7s | %6s | %s\n' target executions 'per CPU s' 'CPU s' edges result
    for name in "${targets[@]}"; do
        if ! read -r cpu executions edges result <"$logs/$name.result" 2>/dev/null; then
            cpu=0 executions=0 edges=0 result="FAILED: no result, see $logs/$name.log"
        fi
        printf '| %-18s | %12d | %10.0f | %7.0f | %6d | %s\n' "$name" "$executions" \
            "$(awk "BEGIN { print ($cpu > 0 ? $executions / $cpu : 0) }")" "$cpu" "$edges" "$result"
    done
}

mkdir -p "$findings" "$logs"
if $keep; then
    for name in "${targets[@]}"; do keep "$name"; done
    exit
fi

share=$((seconds * jobs / ${#targets[@]}))
[ "$share" -gt 0 ] || share=1
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM
for name in "${targets[@]}"; do
    rm -f "$logs/$name.result"
    while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    fuzz "$name" "$share" &
done
wait
print_table
status=0
for name in "${targets[@]}"; do
    grep -q ' clean$' "$logs/$name.result" 2>/dev/null || status=1
done
exit $status

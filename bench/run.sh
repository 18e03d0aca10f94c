#!/usr/bin/env bash
# make bench: every benchmark after the other. Tables on stdout; JSON, and a copy of the tables, in build/bench-results.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export BENCH_OUT=$PWD/build/bench-results
mkdir -p "$BENCH_OUT"

{
    status=0
    echo "# $(uname -srm), $(nproc) CPUs, load $(cut -d ' ' -f 1 /proc/loadavg), $(git describe --always --dirty 2>/dev/null)"
    for bench in bench/boot bench/run bench/restore bench/density bench/snapshot bench/image bench/network; do
        echo
        echo "# $bench"
        "$bench" || status=1
    done
    exit $status
} | tee "$BENCH_OUT/tables.txt"

#!/usr/bin/env bash
# Static analysis of what is ours: the house's own rules (check-rooms; it needs no compiler, so `scripts/check-rooms` alone does),
# clang-tidy and cppcheck on the C code, shellcheck on the scripts, clang-format's opinion.
# What was found in order once is not looked at again (scripts/tidy, cppcheck's build directory).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
status=0

mapfile -t sources < <(git ls-files '*.c')
mapfile -t ours < <(printf '%s\n' "${sources[@]}" | grep -v '^tests/')
mapfile -t headers < <(git ls-files '*.h')
mapfile -t scripts < <(git grep -lE '^#!.*(bash|sh)$')

step() {
    echo "== $1" >&2
    shift
    "$@" || status=1
}

step check-rooms scripts/check-rooms
step system-calls scripts/system-calls check
step clang-tidy scripts/tidy "$build" "${ours[@]}"
mkdir -p "$build/cppcheck"
step cppcheck cppcheck --quiet -j "$(nproc)" --cppcheck-build-dir="$build/cppcheck" --error-exitcode=1 --std=c11 --library=posix,gnu -I include -I src \
    --enable=warning,performance --suppressions-list=scripts/cppcheck.suppressions "${ours[@]}"
# The variables of bats's helper are set in a file that shellcheck does not read.
step shellcheck shellcheck -S warning -e SC2154 "${scripts[@]}"
# Each version lays out some lines otherwise: the format is the one of Debian 12's. Others do not judge it.
if clang-format --version | grep -q 'version 14\.'; then
    step clang-format clang-format --dry-run -Werror "${sources[@]}" "${headers[@]}"
else
    echo "== clang-format: left out, as this is not version 14, but $(clang-format --version)" >&2
fi
exit $status

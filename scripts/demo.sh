#!/usr/bin/env bash
# make run: from a fresh clone to the output of a command that ran inside a microVM, with the time that each stage took.
set -euo pipefail
cd "$(dirname "$0")/.."

stages=()
stage() {
    local name=$1 start=$EPOCHREALTIME
    shift
    echo "== $name" >&2
    "$@"
    stages+=("$(awk -v a="$start" -v b="$EPOCHREALTIME" -v name="$name" 'BEGIN { printf "%8.2f s  %s", b - a, name }')")
}

make_image() { image=$(tests/images/make.sh busybox)/oci; }
fetch_testbed() { tests/testbed/nested prepare >/dev/null; }

# shellcheck disable=SC2016 # for the guest's shell
in_guest='uname -a; cat /etc/os-release; echo "arguments: $*"'
run_demo() { "$@" build/supermachine run "oci:$image" sh -c "$in_guest" sh hello from a microVM; }

stage 'install what is missing' scripts/setup.sh
stage 'build the guest kernel' make -s kernel
stage 'build supermachine' make -s build
stage 'make the demo image' make_image
if why=$(scripts/kvm-usable 2>&1); then
    stage 'run a command in a microVM, first time' run_demo
    stage 'run it again' run_demo
else
    echo "$why: running in the nested test machine (QEMU) instead" >&2
    stage 'fetch the nested machine' fetch_testbed
    stage 'run a command in a microVM in the nested machine' run_demo tests/testbed/nested run --
fi

echo
printf '%s\n' "${stages[@]}"

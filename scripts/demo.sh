#!/usr/bin/env bash
# make run: from a fresh clone to the output of a command that ran inside a microVM, with the time that each stage took.
# The guest kernel, most of the work of a first time, is built beside all else.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/progress.sh
. scripts/progress.sh
unset MAKEFLAGS # of the make that runs us: they are not for those that we run

stages=()
# stage NAME COMMAND...: the command, and its time for the list at the end.
stage() {
    local name=$1 start=$EPOCHREALTIME
    shift
    say "== $name"
    "$@"
    note_time "$name" "$start"
}
note_time() { stages+=("$(awk -v a="$2" -v b="$EPOCHREALTIME" -v name="$1" 'BEGIN { printf "%8.2f s  %s", b - a, name }')"); }

work=$(mktemp -d)
kernel_job=
end_all() {
    trap '' HUP INT TERM
    [ -z "$kernel_job" ] || { kill -- "-$kernel_job" && wait "$kernel_job"; } 2>/dev/null || true
    end_progress
    rm -rf "$work"
}
trap end_all EXIT
trap 'exit 129' HUP INT TERM

# In a process group of its own: all of it is ended with us, at once.
start_kernel() {
    set -m
    guest/kernel/build.sh >"$work/kernel" </dev/null &
    kernel_job=$!
    set +m
}
await_kernel() {
    wait "$kernel_job" || { kernel_job=; exit 1; }
    kernel_job=
}
make_programs() {
    report programs 'being compiled'
    make -s programs
    report programs ''
}
make_image() { image=$(tests/images/make.sh demo)/oci; }
fetch_testbed() { tests/testbed/nested prepare >/dev/null; }

# shellcheck disable=SC2016 # for the guest's shell
in_guest='uname -a; cat /etc/os-release; echo "arguments: $*"'
run_demo() { "$@" build/supermachine run "oci:$image" sh -c "$in_guest" sh hello from a microVM; }

why=
# Whoever may not install is told of everything at once, and a password is asked for before there is a line of progress.
groups=(kernel build demo)
scripts/kvm-usable 2>/dev/null || groups+=(testbed)
scripts/setup.sh --ask "${groups[@]}"
begin_progress
stage 'install what the guest kernel is built with' scripts/setup.sh kernel
kernel_began=$EPOCHREALTIME
start_kernel
stage 'install the rest, beside the guest kernel' scripts/setup.sh build demo
if ! why=$(scripts/kvm-usable 2>&1); then
    stage 'install the nested test machine (QEMU), beside the guest kernel' scripts/setup.sh testbed
fi
stage 'build supermachine, beside the guest kernel' make_programs
stage 'make the demo image' make_image
stage 'wait for the guest kernel' await_kernel
note_time '(the guest kernel, from its start)' "$kernel_began"
scripts/link-guest.sh build
end_progress

if [ -z "$why" ]; then
    stage 'run a command in a microVM, first time' run_demo
    stage 'run it again' run_demo
else
    echo "$why: running in the nested test machine (QEMU) instead" >&2
    stage 'fetch the nested machine' fetch_testbed
    stage 'run a command in a microVM in the nested machine' run_demo tests/testbed/nested run --
fi

echo
printf '%s\n' "${stages[@]}"

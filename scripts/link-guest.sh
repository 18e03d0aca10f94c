#!/usr/bin/env bash
# Gives a build tree what its machines boot: guest/ beside the executables, with the cached kernel in it.
set -euo pipefail
build=$(cd "${1:?which build directory}" && pwd)
kernel=$("$(dirname "$0")/../guest/kernel/build.sh")
for beside in "$build" "$build/src/cli"; do
    [ -d "$beside" ] || continue
    mkdir -p "$beside/guest"
    ln -sfn "$kernel/vmlinux" "$beside/guest/vmlinux"
done

#!/usr/bin/env bash
# Gives a build tree what its machines boot: guest/ beside the executables, with the cached kernel in it.
set -euo pipefail
build=$(cd "${1:?which build directory}" && pwd)
kernel=$("$(dirname "$0")/../guest/kernel/build.sh")
mkdir -p "$build/guest"
ln -sfn "$kernel/vmlinux" "$build/guest/vmlinux"

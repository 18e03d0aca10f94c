#!/bin/sh
# build-id.sh OUTPUT DEPFILE ROOT SOURCE...: writes a C file with the identity of the library's code: a digest of its sources and
# of the headers beside them. Not of what a linker makes of them: the command, the shared library and every program that the
# static one is linked into are of one build, and restore each other's snapshots.
set -eu
output=$1 depfile=$2 root=$(realpath "$3")
shift 3
sources=$(realpath --relative-to="$root" "$@")
build=$PWD
cd "$root"
# shellcheck disable=SC2086 # names of our own
files=$(
    export LC_ALL=C
    rooms=$(dirname $sources | sort -u)
    { echo "$sources"; find include $rooms -maxdepth 1 -name '*.h'; } | sort
)
digest=$(echo "$files" | xargs sha256sum | sha256sum | cut -c 1-64)
cd "$build"
cat >"$output" <<END
/* Made by scripts/build-id.sh. */
#include "vmm/machine.h"

const uint8_t sm_vmm_build_id[SM_VMM_BUILD_ID_BYTES] = {$(echo "$digest" | sed 's/../0x&, /g')};
END
echo "$output: $(echo "$files" | sed "s|^|$root/|; s| |\\\\ |g" | tr '\n' ' ')" >"$depfile"

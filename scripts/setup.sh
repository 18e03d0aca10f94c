#!/usr/bin/env bash
# Installs the packages of scripts/packages.txt that are missing. Does nothing, and asks for no network, when all are there.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mapfile -t wanted < <(sed 's/#.*//' "$here/packages.txt" | awk 'NF { print $1 }')

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not a Debian system; install by hand what these Debian packages hold: ${wanted[*]}" >&2
    exit 1
fi

# Prints the wanted packages that are not installed.
missing() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null |
        awk '$1 == "installed" { print $2 }' |
        sort | comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) -
}

mapfile -t todo < <(missing)
[ ${#todo[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=(sudo)
    else
        echo "setup: these packages are missing and this user may not install them; as root, run:" >&2
        echo "    apt-get update && apt-get install --no-install-recommends ${todo[*]}" >&2
        exit 1
    fi
fi

echo "setup: installing ${todo[*]}" >&2
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${todo[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get failed (above); is the network up and are the package sources those of Debian 12?" >&2
    exit 1
fi

mapfile -t todo < <(missing)
if [ ${#todo[@]} -gt 0 ]; then
    echo "setup: apt-get succeeded but these are still missing: ${todo[*]}" >&2
    exit 1
fi

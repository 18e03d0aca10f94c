#!/usr/bin/env bash
# Installs what is missing of the groups of scripts/packages.txt that are named, or of all. Does nothing, and asks for no network,
# when all is there. Where there is no apt it says what is missing by the names that show it, and fails.
#
#   scripts/setup.sh [--ask] [GROUP...]     --ask: only whether it may install that; asks for sudo's password, or tells what is missing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/progress.sh
. "$here/progress.sh"
ask=
if [ "${1:-}" = --ask ]; then ask=1; shift; fi

# Rows of the groups: "package[|package...]<tab>what shows it".
rows() {
    awk -v groups=" $* " '
        { sub(/ *#.*/, "") }
        /^\[/ { gsub(/[][]/, ""); on = groups == "  " || index(groups, " " $0 " "); next }
        on && NF {
            gsub(/ *\| */, "|")
            packages = $1
            sub(/^[^ ]+ +/, "")
            print packages "\t" $0
        }' "$here/packages.txt"
}

# ---- without apt -------------------------------------------------------------------------------

is_there() {
    case $1 in
    command) command -v "$2" ;;
    pkg-config) pkg-config --exists "$2" ;;
    header) echo "#include <$2>" | ${CC:-gcc} -E - ;;
    source) [ -f "${SM_KERNEL_SOURCE:-}" ] || compgen -G '/usr/src/linux-source-6.*.tar.xz' ;;
    *) return 1 ;;
    esac >/dev/null 2>&1
}

names_what_is_missing() {
    local packages kind name missing=()
    while IFS=$'\t' read -r packages name; do
        kind=${name%% *}
        name=${name#* }
        is_there "$kind" "$name" || case $kind in
        source) missing+=("the source of Linux 6.12 as a tarball, named by SM_KERNEL_SOURCE") ;;
        *) missing+=("$kind $name (Debian: ${packages//|/ or })") ;;
        esac
    done < <(rows "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    {
        echo "setup: this is no Debian system, and it lacks"
        printf '    %s\n' "${missing[@]}"
        echo "install that by hand; README.md, \"What it needs\", has it as a table"
    } >&2
    return 1
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    names_what_is_missing "$@"
    exit
fi

# ---- with apt ----------------------------------------------------------------------------------

mapfile -t wanted < <(rows "$@" | cut -f 1)
[ ${#wanted[@]} -gt 0 ] || { echo "setup: scripts/packages.txt has no group '$*'" >&2; exit 2; }

# missing PACKAGE[|PACKAGE...]...: those of which none is installed.
missing() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | awk -v wanted="$*" '
        $1 == "installed" { have[$2] }
        END {
            rows = split(wanted, row, " ")
            for (r = 1; r <= rows; r++) {
                there = 0
                names = split(row[r], name, "|")
                for (n = 1; n <= names; n++) if (name[n] in have) there = 1
                if (!there) print row[r]
            }
        }'
}

# Of several that would do, the one that this machine's apt knows.
choose() {
    local row name
    for row; do
        for name in ${row//|/ }; do
            if [ "$row" = "$name" ] || apt-cache show "$name" >/dev/null 2>&1; then
                echo "$name"
                continue 2
            fi
        done
        echo "${row%%|*}"
    done
}

mapfile -t todo < <(missing "${wanted[@]}")
[ ${#todo[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=(sudo)
        # Its password, before there is a line of progress over its question.
        sudo -n true 2>/dev/null || sudo -v || exit 1
    else
        mapfile -t todo < <(choose "${todo[@]}")
        echo "setup: these packages are missing and this user may not install them; as root, run:" >&2
        echo "    apt-get update && apt-get install --no-install-recommends ${todo[*]}" >&2
        exit 1
    fi
fi
[ -z "$ask" ] || exit 0

# apt tells what it does and how far it is between what it says otherwise, which goes to the log: "dlstatus:N:PERCENT:TEXT",
# "pmstatus:PACKAGE:PERCENT:TEXT". Not on its standard output, which packages' scripts would find closed; sudo lets no other
# descriptor through, so it is made behind that.
tell_progress() {
    local line kind percent text
    while IFS= read -r line; do
        IFS=: read -r kind _ percent text <<<"$line"
        case $kind in
        dlstatus) report packages "${text:-downloading} (${percent%%.*} %)" ;;
        pmstatus) report packages "${text:-installing} (${percent%%.*} %)" ;;
        *) echo "$line" >>"$log" ;;
        esac
    done
}

log=$(mktemp)
begin_progress
trap 'report packages ""; end_progress; rm -f "$log"' EXIT
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c 'exec apt-get "$@" 9>&1 >&2' sh \
        -o DPkg::Lock::Timeout=300 -o APT::Status-Fd=9 -qq "$@" 2>>"$log" </dev/null | tell_progress
}
install() { apt install -y --no-install-recommends -o Dpkg::Use-Pty=0 "${chosen[@]}"; }

# Package lists of today will do; what they name may be gone from the mirror all the same.
update() { report packages 'reading the package lists'; apt update; mapfile -t chosen < <(choose "${todo[@]}"); }
lists_are_new() { [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 -print -quit 2>/dev/null)" ]; }

say "setup: installing $(IFS=' '; echo "${todo[*]}")"
mapfile -t chosen < <(choose "${todo[@]}")
if { ! lists_are_new || ! install; } && ! { update && install; }; then
    end_progress
    tail -n 20 "$log" >&2
    echo "setup: apt-get failed (above); is the network up and are the package sources those of Debian 12 or 13?" >&2
    exit 1
fi

mapfile -t todo < <(missing "${wanted[@]}")
if [ ${#todo[@]} -gt 0 ]; then
    echo "setup: apt-get succeeded but these are still missing: ${todo[*]}" >&2
    exit 1
fi

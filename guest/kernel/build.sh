#!/usr/bin/env bash
# Builds the guest kernel from the distribution's source package and prints the directory that holds it.
#
#   guest/kernel/build.sh [x86_64]        -> .../<arch>-<key>/{vmlinux,bzImage,config,version}
#   guest/kernel/build.sh --key [x86_64]  -> the directory's name only, nothing is built
#
# Every line of config/common/*.config and config/<arch>/*.config is a wish; all that is not wished for is off
# (allnoconfig), and a wish that Kconfig did not grant fails the build. The result is cached outside of the checkout under
# a key made of what it depends on (source package, wishes, compiler, recipe), so a second clone builds nothing.
# It appears under its name by a rename, and two builders at once wait for each other.
#
# Environment: SM_KERNEL_SOURCE (tarball), SM_KERNEL_CACHE (directory), SM_KERNEL_JOBS, SM_KERNEL_FRAGMENTS (more fragments).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/progress.sh
. "$here/../../scripts/progress.sh"

die() { say "build.sh: $*"; exit 1; }

# To be raised when this script makes something else of the same wishes.
recipe=3
# What a start runs, in the order in which it does (record-hot makes it): laid out together, so that it is few pages.
hot=$here/hot-functions
# Lines that its make prints, for the progress shown.
steps=1600

key_only=
if [ "${1:-}" = --key ]; then key_only=1; shift; fi
arch=${1:-x86_64}
[ -d "$here/config/$arch" ] || die "no configuration for architecture '$arch' under $here/config"

source=${SM_KERNEL_SOURCE:-}
if [ -z "$source" ]; then
    source=$(find /usr/src -maxdepth 1 -name 'linux-source-6.*.tar.xz' 2>/dev/null | sort -V | tail -n 1)
fi
[ -f "$source" ] || die "the kernel source is missing: install the package linux-source-6.12 (scripts/setup.sh does)"

case $arch in
x86_64) make_arch=x86_64; source_arch=x86; cross=; image=arch/x86/boot/bzImage; targets='vmlinux bzImage' ;;
*) die "do not know how to build for '$arch'" ;;
esac
cc=${cross}gcc
command -v "$cc" >/dev/null || die "the compiler $cc is missing (scripts/setup.sh installs it)"

read -ra extra <<<"${SM_KERNEL_FRAGMENTS:-}"
fragments=("$here"/config/common/*.config "$here/config/$arch"/*.config "${extra[@]}")

# The package's version stands for its content; a tarball of no package is known by its own sum.
source_id() {
    local package version
    package=$(basename "$source" .tar.xz)
    version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null) || version=
    if [ -n "$version" ] && [ "$(dirname "$source")" = /usr/src ]; then
        echo "$package $version"
    else
        sha256sum <"$source"
    fi
}

id=$(source_id)
key=$({
    echo "$id"
    $cc --version | head -n 1
    echo "recipe $recipe"
    grep -h '^CONFIG_' "${fragments[@]}"
    cat "$hot"
} | sha256sum | cut -c 1-16)

cache=${SM_KERNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/supermachine/kernel}
out=$cache/$arch-$key
if [ -n "$key_only" ] || [ -f "$out/vmlinux" ]; then
    echo "$out"
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/.$arch-$key.lock"
if ! flock -n 9; then
    echo "build.sh: waiting for another build of the same kernel" >&2
    flock -w 3600 9 || die "waited an hour for the lock $cache/.$arch-$key.lock"
fi
if [ -f "$out/vmlinux" ]; then
    echo "$out"
    exit 0
fi

partial=$out.partial
rm -rf "$partial"
mkdir -p "$partial/src" "$partial/build" "$partial/result"
trap 'report kernel ""; end_progress; rm -rf "$partial"' EXIT
trap 'exit 129' HUP INT TERM

say "build.sh: building the guest kernel ($id), this takes some minutes; log in $cache/$arch-$key.log"
begin_progress
log=$cache/$arch-$key.log
: >"$log"

# Half of the source is for other machines: what no guest has is not written to the disk. Kconfig reads all its files, and so
# they stay.
unpack() {
    local dir others=() leave_out=() pack=()
    for dir in alpha arc arm arm64 csky hexagon loongarch m68k microblaze mips nios2 openrisc parisc powerpc riscv s390 sh sparc \
        um x86 xtensa; do
        [ "$dir" = "$source_arch" ] || others+=("arch/$dir")
    done
    for dir in "${others[@]}" Documentation samples sound tools/perf tools/testing \
        drivers/{gpu,infiniband,media,scsi,staging,usb} drivers/net/{dsa,ethernet,wireless}; do
        leave_out+=("--exclude=*/$dir/*."{c,h,S,dts,dtsi,rst,txt,yaml,svg,json,py,sh})
    done
    case $source in *.xz) pack=(-I 'xz -T0') ;; esac
    tar "${pack[@]}" -xf "$source" -C "$partial/src" --strip-components=1 "${leave_out[@]}"
}
report kernel 'unpacking its source'
unpack
cat "${fragments[@]}" >"$partial/wishes"

# Each function is a section of its own (KCFLAGS, below); the linker's script names those of the list first, each with the
# variants that the compiler makes of it, then what the compiler takes for cold, then all others.
lay_out() {
    local script=$partial/src/include/asm-generic/vmlinux.lds.h
    sed -e 's/.*/\t\t*(.text.& .text.&.*)\t\\/' "$hot" >"$partial/hot"
    printf '\t\t*(.text.unlikely .text.unlikely.*)\t\\\n' >>"$partial/hot"
    sed -i -e 's/^#define TEXT_MAIN \.text$/& .text.[0-9a-zA-Z_]*/' -e '/^\t\t\*(\.text\.unlikely \.text\.unlikely\.\*)/d' \
        -e "/^\t\t\*(\.text\.hot \.text\.hot\.\*)/r $partial/hot" "$script"
    [ "$(grep -c -e 'TEXT_MAIN .*_\]\*$' -e '\*(\.text\.unlikely ' "$script")" -eq 3 ] || die "the kernel's linker script is not laid out as expected"
}
lay_out

# Writes the log, and tells how far it is: about as many steps as last time (steps, above).
follow() {
    local line n=0 start=$SECONDS left
    while IFS= read -r line; do
        echo "$line" >>"$log"
        [[ $line =~ ^\ \ [A-Z] ]] || continue
        n=$((n + 1))
        left=
        if [ "$n" -gt 200 ] && [ "$n" -lt "$steps" ]; then
            left=", about $(((SECONDS - start) * (steps - n) / n / 60 + 1)) min left"
        fi
        report kernel "$n of about $steps steps$left"
    done
}

kmake() {
    # Same input, same bytes: no time, user or host of the builder in the kernel.
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=supermachine KBUILD_BUILD_HOST=supermachine \
        KBUILD_BUILD_VERSION=1 make -C "$partial/src" O="$partial/build" ARCH="$make_arch" CROSS_COMPILE="$cross" \
        CC="$here/cc $cc" SM_PCH="$partial/pch" KCFLAGS=-ffunction-sections \
        "$@" 2>&1 </dev/null 9>&- | follow || { tail -n 25 "$log" >&2; die "the kernel's 'make ${*: -1}' failed, see $log"; }
}

kmake KCONFIG_ALLCONFIG="$partial/wishes" allnoconfig

# A wish that a missing dependency dropped, or a "no" that a select overrode, must not pass unseen.
refused=$(awk -F= '
    FNR == NR { if ($0 ~ /^CONFIG_/) { name = $1; sub(/^[^=]*=/, ""); have[name] = $0 } next }
    /^CONFIG_/ { name = $1; value = $0; sub(/^[^=]*=/, "", value); want[name] = value }
    END {
        for (name in want) {
            got = (name in have) ? have[name] : "n"
            if (got != want[name]) printf "  %s: wanted %s, got %s\n", name, want[name], got
        }
    }' "$partial/build/.config" "$partial/wishes")
[ -z "$refused" ] || die "the kernel's configuration did not grant:
$refused"

jobs=-j${SM_KERNEL_JOBS:-$(nproc)}
kmake "$jobs" prepare
mkdir "$partial/pch"
kmake kernel/groups.o # an ordinary file: with it comes the precompiled header
# shellcheck disable=SC2086 # a list of words
kmake "$jobs" $targets

cp "$partial/build/.config" "$partial/result/config"
cp "$partial/build/System.map" "$partial/result/System.map"
"${cross}strip" -o "$partial/result/vmlinux" "$partial/build/vmlinux"
cp "$partial/build/$image" "$partial/result/$(basename "$image")"
printf '%s\n%s\n%s\n' "$(cat "$partial/build/include/config/kernel.release")" "$id" "$($cc --version | head -n 1)" \
    >"$partial/result/version"
chmod -R a+rX "$partial/result"
sync -f "$partial/result"
rm -rf "$out"
mv -T "$partial/result" "$out"
echo "$out"

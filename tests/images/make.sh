#!/usr/bin/env bash
# Makes a test image on this machine and prints the directory that holds it:
#
#   tests/images/make.sh busybox     Debian's static busybox: small, sh and the usual tools
#   tests/images/make.sh debian      debootstrap's minbase with python3: glibc, dynamic linking, dpkg
#
#   DIR/oci            OCI layout, reference "latest"
#   DIR/oci.tar        the same as oci-archive
#   DIR/docker.tar     the same as docker-archive, named <image>:latest
#
# The tools are not ours on purpose (debootstrap, tar, umoci, skopeo): they judge our reading of their formats.
# Cached outside of the checkout ($SM_IMAGE_CACHE or ~/.cache/supermachine/images), keyed by this script and the packages
# that go in; appears by a rename; two makers at once wait for each other. debian needs root (device nodes, owners, chroot);
# busybox does not, and has the same digest wherever it is made.
set -euo pipefail

die() { echo "images: $*" >&2; exit 1; }

name=${1:?which image: busybox or debian}
cache=${SM_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/supermachine/images}

# Files that every image has; the marker lets a test know that it sees this image and no other.
write_identity() {
    local root=$1
    echo "$name" >"$root/etc/supermachine-test-image"
}

root_busybox() {
    local root=$1 applet
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,dev,proc,sys,etc,root,home/app,var/log,run}
    install -d -m 1777 "$root/tmp" "$root/var/tmp"
    install -m 755 "$(command -v busybox)" "$root/bin/busybox"
    while read -r applet; do
        [ "$applet" = bin/busybox ] || ln -s /bin/busybox "$root/$applet"
    done < <(busybox --list-full)
    # su through a setuid copy of its own: the bit must survive, on one file.
    install -m 4755 "$(command -v busybox)" "$root/bin/busybox.suid"
    ln -sf busybox.suid "$root/bin/su"
    cat >"$root/etc/passwd" <<'EOF'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
EOF
    cat >"$root/etc/group" <<'EOF'
root:x:0:
daemon:x:1:
tty:x:5:
staff:x:50:app
app:x:1000:
nogroup:x:65534:
EOF
    cat >"$root/etc/os-release" <<'EOF'
NAME="busybox test image"
ID=busybox-test
VERSION_ID=1
PRETTY_NAME="supermachine busybox test image"
EOF
    write_identity "$root"
}

# Adds a file to the layout's blobs and prints its digest.
add_blob() {
    local digest
    digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
    mv "$1" "$2/blobs/sha256/$digest"
    echo "sha256:$digest"
}

layout_busybox() {
    local root=$1 layout=$2 tar=$work/layer.tar diff layer manifest size
    # shellcheck disable=SC2054 # the commas belong to an option
    local common=(--format=pax --pax-option=delete=atime,delete=ctime --mtime=@0 --sort=name -C "$root")
    mkdir -p "$layout/blobs/sha256"
    tar "${common[@]}" --owner=:0 --group=:0 --exclude=./home/app -cf "$tar" .
    tar "${common[@]}" --owner=:1000 --group=:1000 -rf "$tar" ./home/app
    diff=$(sha256sum <"$tar" | cut -d ' ' -f 1)
    gzip -n "$tar"
    size=$(stat -c %s "$tar.gz")
    layer=$(add_blob "$tar.gz" "$layout")
    jq -cn --arg diff "sha256:$diff" '{
        architecture: "amd64", os: "linux", rootfs: {type: "layers", diff_ids: [$diff]},
        config: {Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], Cmd: ["sh"]}
    }' >"$work/config"
    jq -cn --arg layer "$layer" --argjson size "$size" --argjson config_size "$(stat -c %s "$work/config")" \
        --arg config "$(add_blob "$work/config" "$layout")" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $config, size: $config_size},
        layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: $layer, size: $size}]
    }' >"$work/manifest"
    size=$(stat -c %s "$work/manifest")
    manifest=$(add_blob "$work/manifest" "$layout")
    jq -cn --arg manifest "$manifest" --argjson size "$size" '{
        schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $manifest,
        size: $size, annotations: {"org.opencontainers.image.ref.name": "latest"}}]
    }' >"$layout/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
}

root_debian() {
    local root=$1
    [ "$(id -u)" -eq 0 ] || die "making the test image 'debian' needs root"
    debootstrap --variant=minbase --include=python3 bookworm "$root" "$(mirror)" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; die "debootstrap failed, see above"; }
    # What no test reads.
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/usr/share/{doc,man,info,locale}/*
    groupadd -R "$root" -g 1000 app
    useradd -R "$root" -u 1000 -g 1000 -m -s /bin/bash app
    write_identity "$root"
}

layout_debian() {
    local root=$1 layout=$2
    umoci init --layout "$layout"
    umoci new --image "$layout:latest"
    umoci insert --image "$layout:latest" "$root" /
    umoci config --image "$layout:latest" --architecture amd64 --os linux --config.cmd bash \
        --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    umoci gc --layout "$layout"
}

# The mirror that this machine's own packages come from.
mirror() {
    local uri
    uri=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
    [ -n "$uri" ] || uri=$(sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*debian[^ ]*\) .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n 1)
    echo "${uri:-http://deb.debian.org/debian}"
}

versions() {
    case $name in
    busybox) dpkg-query -W busybox-static ;;
    debian) dpkg-query -W debootstrap umoci ;;
    *) die "no image '$name' here: busybox and debian" ;;
    esac
}

key=$({ versions; cat "$0"; } | sha256sum | cut -c 1-16)
out=$cache/$name-$key
if [ -f "$out/docker.tar" ]; then
    echo "$out"
    exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/.$name-$key.lock"
flock -w 900 9 || die "waited 15 minutes for another maker of '$name'"
if [ -f "$out/docker.tar" ]; then
    echo "$out"
    exit 0
fi

work=$out.partial
rm -rf "$work"
mkdir -p "$work/root" "$work/result"
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM
echo "images: making the test image '$name' (cached in $cache)" >&2

umask 022
"root_$name" "$work/root"
layout=$work/result/oci
{
    "layout_$name" "$work/root" "$layout"
    skopeo copy "oci:$layout:latest" "oci-archive:$work/result/oci.tar:latest"
    skopeo copy "oci:$layout:latest" "docker-archive:$work/result/docker.tar:$name:latest"
} >"$work/log" 2>&1 9>&- || { tail -n 20 "$work/log" >&2; die "packing the image failed, see above"; }

rm -rf "$out"
mv -T "$work/result" "$out"
echo "$out"

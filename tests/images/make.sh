#!/usr/bin/env bash
# Makes a test image on this machine and prints the directory that holds it:
#
#   tests/images/make.sh busybox     Debian's static busybox: small, sh and the usual tools
#   tests/images/make.sh demo        the same, of `make run`
#   tests/images/make.sh debian      debootstrap's minbase with python3: glibc, dynamic linking, dpkg
#   tests/images/make.sh services    debian with nginx, PostgreSQL and its cluster, curl and ping
#
#   DIR/oci            OCI layout, reference "latest"; of services also "nginx" and "postgres", which run those
#   DIR/oci.tar        the same as oci-archive (of busybox and debian)
#   DIR/docker.tar     the same as docker-archive, named <image>:latest (of those, too)
#
# The tools are not ours on purpose (debootstrap, tar, umoci, skopeo): they judge our reading of their formats. Those of demo are on
# every system, or nearly: tar, gzip and jq.
# Cached outside of the checkout ($SM_IMAGE_CACHE or ~/.cache/supermachine/images), keyed by this script and the packages
# that go in; appears by a rename; two makers at once wait for each other. busybox has the same digest wherever it is made; debian and
# services need root (device nodes, owners, chroot).
set -euo pipefail

die() { echo "images: $*" >&2; exit 1; }

name=${1:?which image: busybox, demo, debian or services}
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

root_demo() { root_busybox "$@"; }

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

layout_demo() { layout_busybox "$@"; }

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

# On debian's root rather than a second debootstrap, which takes longer than all of this. Without what PostgreSQL needs to
# compile queries: three quarters of its size. No test waits for a disk: the cluster does not sync.
root_services() {
    local root=$1 debian blob cluster=/var/lib/postgresql/15/main
    debian=$("$0" debian)/oci
    blob=$(jq -r '.manifests[0].digest' "$debian/index.json")
    blob=$(jq -r '.layers[0].digest' "$debian/blobs/${blob/://}")
    tar --numeric-owner --xattrs -xpzf "$debian/blobs/${blob/://}" -C "$root"
    printf 'path-exclude=/usr/share/%s/*\n' doc man info locale >"$root/etc/dpkg/dpkg.cfg.d/small"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    mkdir "$root/etc/postgresql-common"
    echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    {
        chroot "$root" apt-get update
        chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            nginx-light postgresql-15 curl iputils-ping
        chroot "$root" install -d -o postgres -g postgres -m 700 "$cluster"
        chroot "$root" su postgres -c "/usr/lib/postgresql/15/bin/initdb -D $cluster -A trust -N --locale C -E UTF8"
    } >"$work/services.log" 2>&1 9>&- || { tail -n 20 "$work/services.log" >&2; die "installing the services failed, see above"; }
    # /var/www: umoci does not pad the layer's last file, nor end the archive; so that one must be a directory.
    rm -rf "$root"/usr/lib/postgresql/15/lib/{llvmjit*,bitcode} "$root"/usr/lib/llvm-* "$root"/usr/lib/*/{libLLVM,libz3}* \
        "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/www "$root/usr/sbin/policy-rc.d"
    cat >>"$root$cluster/postgresql.conf" <<'EOF'
fsync = off
jit = off
shared_buffers = 8MB
unix_socket_directories = '/tmp'
EOF
    cat >"$root/etc/nginx/nginx.conf" <<'EOF'
pid /run/nginx.pid;
error_log stderr;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
    access_log off;
    server {
        listen 80;
        root /srv/www;
    }
}
EOF
    mkdir "$root/srv/www"
    echo 'hello from nginx' >"$root/srv/www/index.html"
    write_identity "$root"
}

layout_services() {
    local layout=$2
    layout_debian "$1" "$layout"
    umoci config --image "$layout:latest" --tag nginx --config.exposedports 80/tcp \
        --config.entrypoint nginx --config.cmd -g --config.cmd 'daemon off;'
    umoci config --image "$layout:latest" --tag postgres --config.exposedports 5432/tcp --config.user postgres \
        --config.entrypoint /usr/lib/postgresql/15/bin/postgres --config.cmd -D --config.cmd /var/lib/postgresql/15/main
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
    busybox | demo) busybox --help 2>&1 | sed -n 1p ;;
    debian | services) dpkg-query -W debootstrap umoci ;;
    *) die "no image '$name' here: busybox, demo, debian and services" ;;
    esac
}

key=$({ versions; cat "$0"; } | sha256sum | cut -c 1-16)
out=$cache/$name-$key
if [ -d "$out" ]; then
    echo "$out"
    exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/.$name-$key.lock"
flock -w 900 9 || die "waited 15 minutes for another maker of '$name'"
if [ -d "$out" ]; then
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
    case $name in
    busybox | debian)
        skopeo copy "oci:$layout:latest" "oci-archive:$work/result/oci.tar:latest"
        skopeo copy "oci:$layout:latest" "docker-archive:$work/result/docker.tar:$name:latest"
        ;;
    esac
} >"$work/log" 2>&1 9>&- || { tail -n 20 "$work/log" >&2; die "packing the image failed, see above"; }

rm -rf "$out"
mv -T "$work/result" "$out"
echo "$out"

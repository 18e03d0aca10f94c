#!/usr/bin/env bash
# Makes the test image of other people's init programs and entrypoints, and prints the directory that holds it (DIR/oci). A file of its
# own: the images of make.sh are keyed by that script, and would all be made anew.
#
#   latest       Debian's image with s6, tini, dumb-init, supervisor and gosu; it has the user "many", who is in 40 groups
#   s6           s6-svscan with two services, by an entrypoint that ends when it is not PID 1 (as s6-overlay's does)
#   tini         tini with a shell that leaves an orphan behind
#   dumb-init    dumb-init with a shell and its child
#   supervisord  supervisord with one program
#   gosu         an entrypoint that goes on as another user
#   fd1          an entrypoint whose child writes to /proc/1/fd/1 and /proc/1/fd/2
#   groups       `id -G` of the user "many"
#   systemd      Debian's image with systemd and D-Bus, and a service of its own, nothing left out: /sbin/init
#
# Needs root (chroot, owners). Cached as make.sh caches, keyed by this script and the image that it is made from.
set -euo pipefail

die() { echo "images: $*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || die "making the test image 'inits' needs root"
here=$(cd "$(dirname "$0")" && pwd)
debian=$("$here/make.sh" debian)
cache=${SM_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/supermachine/images}
out=$cache/inits-$({ echo "$debian"; cat "$0"; } | sha256sum | cut -c 1-16)
exec 9>"$out.lock"
flock -w 900 9 || die "waited 15 minutes for another maker of 'inits'"
if [ -d "$out" ]; then
    echo "$out"
    exit 0
fi
work=$out.partial
rm -rf "$work"
mkdir -p "$work/result"
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP INT TERM
echo "images: making the test image 'inits' (cached in $cache)" >&2

script() { # script PATH: an executable of standard input
    cat >"$root/$1"
    chmod 755 "$root/$1"
}

install() { # install PACKAGE...
    printf 'path-exclude=/usr/share/%s/*\n' doc man info locale >"$root/etc/dpkg/dpkg.cfg.d/small"
    printf '#!/bin/sh\nexit 101\n' | script usr/sbin/policy-rc.d
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    chroot "$root" apt-get update
    chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root/usr/sbin/policy-rc.d"
}

add_user_of_many_groups() {
    local i
    for i in $(seq 1 40); do
        groupadd -R "$root" -g $((2000 + i)) "many$i"
    done
    useradd -R "$root" -u 2000 -g 1000 -G "$(seq -s , -f many%g 1 40)" -M -s /bin/sh many
}

# What each one runs says that it is there, and how it was ended, on its standard output.
write_service() {
    script usr/local/bin/service <<'EOF'
#!/bin/sh
# service NAME: says now and then that it goes on, until it is told to end
trap 'echo "$1 bye"; exit 0' TERM
trap 'echo "$1 quits"; exit 5' QUIT
echo "$1 up as $(id -u) in $$ below $PPID"
while :; do
    sleep 3 &
    wait $!
    echo "$1 goes on"
done
EOF
}

write_programs() {
    write_service
    mkdir -p "$root"/etc/s6/one "$root"/etc/s6/two
    script etc/s6/one/run <<'EOF'
#!/bin/sh
exec service one
EOF
    script etc/s6/two/run <<'EOF'
#!/bin/sh
exec gosu app service two
EOF
    script usr/local/bin/s6-entrypoint <<'EOF'
#!/bin/sh
[ $$ -eq 1 ] || { echo "s6-entrypoint: can only run as pid 1"; exit 100; }
mkdir -p /run/s6
cp -r /etc/s6/. /run/s6
exec s6-svscan /run/s6
EOF
    cat >"$root/etc/supervisor/supervisord.conf" <<'EOF'
[supervisord]
nodaemon=true
user=root
logfile=/dev/null
logfile_maxbytes=0
pidfile=/run/supervisord.pid
[unix_http_server]
file=/run/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix:///run/supervisor.sock
[program:one]
command=/usr/local/bin/service one
user=app
stdout_logfile=/dev/fd/1
stdout_logfile_maxbytes=0
redirect_stderr=true
EOF
    script usr/local/bin/fd1-entrypoint <<'EOF'
#!/bin/sh
(setsid sh -c 'echo out >/proc/1/fd/1; echo err >/proc/1/fd/2' </dev/null >/dev/null 2>&1)
exec service fd1
EOF
}

tag() { # tag NAME ENTRYPOINT...: an image of its own
    local name=$1 word options=()
    shift
    for word; do options+=(--config.entrypoint "$word"); done
    umoci config --image "$layout:latest" --tag "$name" "${options[@]}" --clear config.cmd
}

# begin NAME: $root is to become the image of that name.
begin() {
    root=$work/$1/rootfs
    umoci unpack --image "$layout:debian" "$work/$1"
}

make_inits() {
    begin latest
    install s6 tini dumb-init supervisor gosu
    add_user_of_many_groups
    write_programs
    umoci repack --image "$layout:latest" "$work/latest"
    tag s6 s6-entrypoint
    tag tini tini -- sh -c '(sleep 1 &) ; exec service tini'
    tag dumb-init dumb-init sh -c 'service child & exec service dumb'
    tag supervisord supervisord -c /etc/supervisor/supervisord.conf
    tag gosu gosu app service gosu
    tag fd1 fd1-entrypoint
    tag groups id -G
    umoci config --image "$layout:groups" --config.user many
}

make_systemd() {
    begin systemd
    install systemd-sysv dbus
    write_service
    cat >"$root/etc/systemd/system/own.service" <<'EOF'
[Unit]
Description=A service of the image
[Service]
ExecStart=/usr/local/bin/service own
User=app
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
EOF
    chroot "$root" systemctl enable own
    umoci repack --image "$layout:systemd" "$work/systemd"
    umoci config --image "$layout:systemd" --config.cmd /sbin/init
}

make_images() {
    layout=$work/result/oci
    cp -r "$debian/oci" "$layout"
    chmod -R u+w "$layout"
    umoci tag --image "$layout:latest" debian
    make_inits
    make_systemd
    umoci rm --image "$layout:debian"
    umoci gc --layout "$layout"
}

umask 022
# shellcheck disable=SC2119 # no arguments
make_images >"$work/log" 2>&1 9>&- || { tail -n 20 "$work/log" >&2; die "making the image failed, see above"; }
rm -rf "$out"
mv -T "$work/result" "$out"
echo "$out"

#!/bin/busybox sh
# shellcheck shell=dash
# PID 1 of the nested machine: the host's root file system below an overlay in memory, then the job in it.
# The job directory (9p tag "job") holds "command", a script; its streams are virtio ports, its status a file.
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
busybox=/bin/busybox
$busybox --install -s /bin

while read -r module; do
    insmod "/modules/$module" || echo "testbed: insmod $module failed"
done </modules/order

fail() {
    echo "testbed: $*" >/dev/ttyS0
    poweroff -f
    sleep 60
}

p9=trans=virtio,version=9p2000.L,msize=1048576
mkdir -p /host /over /new /job
mount -t 9p -o "$p9,cache=loose,ro" host /host || fail "cannot mount the host's files"
mount -t tmpfs -o size=75%,mode=755 over /over
mkdir -p /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /new || fail "cannot mount the overlay"
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t cgroup2 cgroup /new/sys/fs/cgroup
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
ln -s /proc/self/fd /new/dev/fd # what udev makes, and bash's <(...) needs
for n in stdin:0 stdout:1 stderr:2; do
    ln -s "/proc/self/fd/${n#*:}" "/new/dev/${n%:*}"
done
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /new/dev/pts
for dir in dev/shm run; do
    mount -t tmpfs -o mode=1777,size=75% tmpfs "/new/$dir"
done
mkdir -p /new/run/testbed-job
mount -t 9p -o "$p9,cache=none" job /new/run/testbed-job || fail "cannot mount the job"
# Directories that the job may write to, on the host: one tag each.
while read -r tag path; do
    mkdir -p "/new$path"
    mount -t 9p -o "$p9,cache=mmap" "$tag" "/new$path" || fail "cannot mount $path"
done </new/run/testbed-job/shares
ifconfig lo 127.0.0.1 up
hostname nested

out=''
err=''
for name in /sys/class/virtio-ports/*/name; do
    port=/dev/${name%/name}
    port=/dev/${port##*/}
    case $(cat "$name") in
    out) out=$port ;;
    err) err=$port ;;
    esac
done
{ [ -n "$out" ] && [ -n "$err" ]; } || fail "no ports for the job's streams"

# The host ends a machine that no longer does this.
while sleep 10; do
    cat /proc/uptime /proc/loadavg /proc/meminfo >/new/run/testbed-job/alive
done </dev/null >/dev/null 2>&1 &

cat /proc/uptime >/new/run/testbed-job/uptime
chroot /new /bin/bash /run/testbed-job/command </dev/null >"$out" 2>"$err"
status=$?
cut -d " " -f 1 /proc/uptime >>/new/run/testbed-job/uptime
echo $status >/new/run/testbed-job/status
sync
poweroff -f

#!/usr/bin/env bats
# What `podman run` has for options, and what becomes of them: docs/podman.md. Here is what needs no machine, or one for all of it.

load helper

doc=$repo/docs/podman.md

# The rows of the table: the example, a tab, the verdict.
rows() { sed -n 's/^| `\(-[^`]*\)` | \([a-z]*\) |.*/\1\t\2/p' "$doc"; }

# The long names of what podman 4.3.1 has (`podman run --help`).
podman_has="add-host annotation arch attach authfile blkio-weight blkio-weight-device cap-add cap-drop cgroup-conf cgroup-parent cgroupns
cgroups chrootdirs cidfile conmon-pidfile cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems
detach detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust
dns dns-option dns-search entrypoint env env-file env-host env-merge expose gidmap group-add health-cmd health-interval
health-on-failure health-retries health-start-period health-timeout hostname hostuser http-proxy image-volume init init-path
interactive ip ip6 ipc label label-file log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount
name network network-alias no-healthcheck no-hosts oom-kill-disable oom-score-adj os passwd passwd-entry personality pid pidfile
pids-limit platform pod pod-id-file preserve-fds privileged publish publish-all pull quiet read-only read-only-tmpfs replace requires
restart rm rmi rootfs sdnotify seccomp-policy secret security-opt shm-size sig-proxy stop-signal stop-timeout subgidname subuidname
sysctl systemd timeout tls-verify tmpfs tty tz uidmap ulimit umask unsetenv unsetenv-all user userns uts variant volume volumes-from workdir"

# bats test_tags=all-nested
@test "each option of podman has a row, and is accepted or refused as the row says" {
    declare -A short=([a]=attach [c]=cpu-shares [d]=detach [e]=env [h]=hostname [i]=interactive [l]=label [m]=memory [p]=publish
        [P]=publish-all [q]=quiet [t]=tty [u]=user [v]=volume [w]=workdir)
    local example verdict option value name seen=" "
    while IFS=$'\t' read -r example verdict; do
        read -r option value <<<"$example"
        name=${option#-}
        [[ $option == --* ]] && name=${option#--} || name=${short[$name]}
        seen+="${name%%=*} "
        # An image that is not there: what is accepted gets as far as that.
        run --separate-stderr supermachine run "$option" ${value:+"$value"} oci:/no/such/image
        echo "$example ($verdict): $status $stderr"
        [ "$status" -eq 125 ]
        case $verdict in
        ours | differs | taken) [[ $stderr == *"/no/such/image"* ]] ;;
        refused) [[ $stderr == *"--${name%%=*}"*"not possible"* ]] ;;
        *) false ;;
        esac
    done < <(rows)
    for name in $podman_has; do
        [[ $seen == *" $name "* ]] || { echo "no row: $name"; false; }
    done
    [ "$(wc -w <<<"$seen")" -eq "$(wc -w <<<"$podman_has")" ]
    if command -v podman >/dev/null && [[ $(podman --version) == *" 4.3."* ]]; then
        diff <(podman run --help | sed -n 's/^ *\(-[a-zA-Z], \)*--\([a-z0-9-]*\).*/\2/p' | grep -vx help | sort) \
            <(tr ' ' '\n' <<<"$podman_has" | sort)
    fi
}

# refused SENTENCE OPTION...: told before anything is baked.
refused() {
    run --separate-stderr supermachine run "${@:2}" "$busybox" true
    echo "${*:2}: $status $stderr"
    [ "$status" -eq 125 ]
    [[ $stderr == *"$1"* ]]
}

# bats test_tags=all-nested
@test "values that make no sense are refused by name, before anything is baked" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    refused "there is no capability 'nosuch'" --cap-add nosuch
    refused "NET_RAW cannot be both added and dropped" --cap-add net_raw --cap-drop CAP_NET_RAW
    refused "all capabilities cannot be both" --cap-add all --cap-drop all
    refused "there is no limit 'nosuch=1'" --ulimit nosuch=1
    refused "soft limit above the hard one" --ulimit nofile=2:1
    refused "there is no limit 'host'" --ulimit host
    refused "the umask '0888'" --umask 0888
    refused "from -1000 to 1000" --oom-score-adj 1001
    refused "from -1000 to 1000" --oom-score-adj=--1
    refused "'x' is no absolute path" --tmpfs x
    refused "'nosuch' is no option of a tmpfs" --tmpfs /x:nosuch
    refused "not a size" --shm-size 0
    refused "the sysctl 'a.b' is not NAME=VALUE" --sysctl a.b
    refused "keep-groups" --group-add keep-groups
    refused "'box' is not NAME:ADDRESS" --add-host box
    refused "learns names from the guest's usual one" --allow example.org --dns 1.1.1.1
    refused "--publish-all needs a network" -P --expose 80 --network none
    refused "the command's name is empty" --entrypoint '["","x"]'
    refused "it is no-new-privileges" --security-opt no-new-privilegesXtrue
    refused "'1.1.1' is not the address of a name server" --dns 1.1.1
    refused "without a network" --network none --dns 1.1.1.1
    refused "there is no signal 'NOSUCH'" --stop-signal NOSUCH
    refused "filters no system calls" --security-opt seccomp=/profile.json
    refused "it is no-new-privileges" --security-opt no-new-privileges=maybe
    refused "it is no-new-privileges" --security-opt nosuch
    refused "more ports on one side" -p 8000-8002:80-81
    refused "not PORT[-PORT]" --expose 81-80
    refused "not PORT[-PORT]" --expose 1.2.3.4:80:80
    refused "'--ipc host' is not possible: it is private shareable" --ipc host
    refused "takes no value" --rm=maybe
    refused "8000-8001:80" -p 8000-8001:80:80:80
    refused "cannot lead to both port 80 and port 81" -p 8080:80 -p 8080:81
    refused "192.0.2.1 port 8080: this host has no such address" -p 192.0.2.1:8080:80
    [ -z "$(find "$XDG_DATA_HOME" -name '*.snap')" ]
}

# bats test_tags=all-nested
@test "a port below 1024 is refused to a user before anything is baked, with what to do" {
    [ "$(id -u)" -eq 0 ] || skip "needs root: a network namespace, and another user in it"
    # Where that user can get at it, and gone with its end.
    # shellcheck disable=SC2016 # of the shell in there
    fails_with 125 'cannot publish on 127.0.0.1 port 80: ports this low are for root \(the sysctl net.ipv4.ip_unprivileged_port_start' \
        unshare --net --mount sh -ec 'ip link set lo up
        mount -t tmpfs none /mnt
        cp -rL "$0/supermachine" "$0/supermachine-image" "$0/guest" "$1/oci" /mnt
        chown -R 65534:65534 /mnt
        mknod -m 666 /mnt/kvm c 10 232
        mount --bind /mnt/kvm /dev/kvm
        exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs env -u SUPERMACHINE_GUEST_DIR HOME=/mnt XDG_DATA_HOME=/mnt/data \
            XDG_RUNTIME_DIR=/mnt TMPDIR=/mnt /mnt/supermachine run -q -p 80:80 oci:/mnt/oci true' "$SM_BUILD" "$SM_IMAGE_BUSYBOX"
}

# What the agent gives is podman's. One guest for what does not contradict itself.
@test "a command has what its options say: capabilities, limits, groups, sysctls, mounts, environment" {
    local caps='sed -n "s/^\(Cap[A-Z][a-z]*\):.0*/\1=/p" /proc/self/status | tr "\n" " "'
    run --separate-stderr supermachine run "$busybox" sh -c "$caps; grep -E 'Groups|NoNew' /proc/self/status; umask
        mount -t tmpfs x /tmp 2>&1 | grep -o 'ermission denied'; id -G; echo \$HOME"
    echo "$status $output $stderr"
    [ "$output" = $'CapInh= CapPrm=800405fb CapEff=800405fb CapBnd=800405fb CapAmb= Groups:\t0 \nNoNewPrivs:\t0\n0022\nermission denied\n0\n/root' ]
    GIVEN=from-host run --separate-stderr supermachine run -u app --group-add staff,777 --cap-add net_raw --cap-drop CAP_CHOWN \
        --security-opt no-new-privileges --ulimit nofile=100:200 --ulimit core=-1 --umask 027 --oom-score-adj 321 \
        --sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=1000 --sysctl net/ipv4/tcp_fin_timeout=7 --tmpfs /x/y:size=1m,mode=700 \
        --shm-size 2m --read-only --add-host box:10.9.9.9 --add-host here:host-gateway --add-host six:fd00::1 --dns 1.1.1.1 --dns-search a.test,b.test --dns-option ndots:3 --env-host --unsetenv GIVEN2 -e A=1 -w home/new/dir --entrypoint '["sh","-c"]' "$busybox" "$caps
        grep -E 'Groups|NoNew' /proc/self/status; umask; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj
        cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/net/ipv4/tcp_fin_timeout
        grep -E ' (/x/y|/dev/shm|/tmp) ' /proc/mounts | cut -d' ' -f2,4 | cut -d, -f1-3 | tail -n 3 | sort
        (echo >/home/app/x) 2>&1 | grep -o 'Read-only'; echo \$GIVEN \$A; pwd; stat -c %a /x/y /run
        head -n 3 /etc/hosts; cat /etc/resolv.conf"
    echo "$status $output $stderr"
    diff - <<<"$output" <(printf '%s\n' 'CapInh=2000 CapPrm=2000 CapEff=2000 CapBnd=800425fa CapAmb=2000 Groups:'$'\t''50 777 1000 ' $'NoNewPrivs:\t1' \
        0027 100 200 321 1 1000 7 '/dev/shm rw,nosuid,nodev' '/tmp rw,nosuid,nodev' '/x/y rw,nosuid,nodev' Read-only 'from-host 1' /home/new/dir 700 755 $'10.9.9.9\tbox' $'10.0.2.2\there' $'fd00::1\tsix' 'search a.test b.test' 'nameserver 1.1.1.1' 'options edns0 ndots:3')
}

@test "what the image has under a tmpfs is copied into it, within its size" {
    run --separate-stderr supermachine run --tmpfs /etc:ro --tmpfs /home:mode=700 --tmpfs /root:notmpcopyup --add-host box:10.9.9.9 "$busybox" sh -c '
        head -n 1 /etc/hosts; id -un app; stat -c "%n %a %u:%g" /etc /etc/passwd /home /home/app; (echo >/etc/x) 2>&1 | grep -o "Read-only"
        mount | grep -E " /(etc|home|root) " | wc -l'
    echo "$status $output $stderr"
    [ "$output" = $'10.9.9.9\tbox\napp\n/etc 1777 0:0\n/etc/passwd 644 0:0\n/home 700 0:0\n/home/app 755 1000:1000\nRead-only\n3' ]
    fails_with 125 'no room in the tmpfs for what is in the directory .*: /etc$' supermachine run --tmpfs /etc:size=4k "$busybox" true
}

@test "a privileged command has all rights over its VM; what the guest lacks is told" {
    run --separate-stderr supermachine run --privileged "$busybox" sh -c '
        sed -n "s/^CapBnd:.0*//p" /proc/self/status; mount -t tmpfs x /tmp && grep -c " /tmp " /proc/mounts; mknod /tmp/n c 1 3 && echo made'
    echo "$status $output $stderr"
    [ "$output" = $'1ffffffffff\n1\nmade' ]
    refused "the guest kernel has no such setting: sysctl kernel.nosuch=1" --sysctl kernel.nosuch=1
    refused 'no such name in /etc/group for group "nosuch"' --group-add nosuch
    refused 'an id is not from 0 to 2147483647 for user "4294967295"' -u 4294967295
    refused 'no such name in /etc/passwd for user "0x10"' -u 0x10
}

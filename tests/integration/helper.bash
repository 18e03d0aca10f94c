# What every integration test loads. The suite runs natively and in the nested machine, see tests/run.sh; what it is
# given there by the environment is found here by itself when a file is run by hand:
#   bats tests/integration/run.bats
bats_require_minimum_version 1.5.0

repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
: "${SM_TESTBED:=native}"
: "${SM_BUILD:=$repo/build}"
: "${SM_IMAGE_BUSYBOX:=$("$repo/tests/images/make.sh" busybox)}"
# Empty where they cannot be made: without root.
: "${SM_IMAGE_DEBIAN=$("$repo/tests/images/make.sh" debian)}"
: "${SM_IMAGE_SERVICES=$("$repo/tests/images/make.sh" services)}"
export SM_TESTBED SM_BUILD SM_IMAGE_BUSYBOX SM_IMAGE_DEBIAN SM_IMAGE_SERVICES

# shellcheck disable=SC2034 # for the tests
busybox=oci:$SM_IMAGE_BUSYBOX/oci:latest
# shellcheck disable=SC2034
debian=oci:$SM_IMAGE_DEBIAN/oci:latest
# shellcheck disable=SC2034 # services:latest, services:nginx, services:postgres
services=oci:$SM_IMAGE_SERVICES/oci

PATH=$SM_BUILD:$PATH

# One store for the whole run, so that an image is built and baked once; everything else is the test's own. The mark is
# inherited by every process that a test starts.
setup() {
    export XDG_DATA_HOME=${SM_TEST_STORE:-$BATS_RUN_TMPDIR}/data
    export XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR/runtime TMPDIR=$BATS_TEST_TMPDIR/tmp HOME=$BATS_TEST_TMPDIR/home
    export SM_TEST_MARK=$BATS_ROOT_PID-$BATS_SUITE_TEST_NUMBER
    mkdir -p "$XDG_DATA_HOME" "$XDG_RUNTIME_DIR" "$TMPDIR" "$HOME"
    chmod 700 "$XDG_RUNTIME_DIR"
    jobs_before=$(jobs -p) # the test's own time limit
}

# A test with servers or networks of its own has a teardown of its own, which ends with this one's two lines.
teardown() {
    end_test
    nothing_left
}

# Processes that this test has started, all or those that run one of our programs: "PID PROGRAM".
test_processes() {
    local environ exe
    for environ in $(grep -lsxz "SM_TEST_MARK=$SM_TEST_MARK" /proc/[0-9]*/environ); do
        exe=$(readlink "${environ%/environ}/exe" 2>/dev/null) || continue
        environ=${environ#/proc/}
        echo "${environ%/environ} $exe"
    done
}

our_programs='/(supermachine|supermachine-image|supermachine-vm|run-command)$'
our_processes() { test_processes | grep -E "$our_programs" || true; }

# end_test: what the test started does not outlive it. After one that failed, or ran into its time limit, that is everything,
# so that no machine of it makes the next one slow; otherwise ours are left to nothing_left, which waits for their own end.
# A function in the background is a shell that never became a program: without the mark, but a job of this one.
end_test() {
    local pids pid
    if [ -n "${BATS_TEST_COMPLETED:-}" ]; then
        pids=$(test_processes | grep -vE "$our_programs" | cut -d ' ' -f 1)
    else
        for pid in $(jobs -rp); do
            grep -qx "$pid" <<<"${jobs_before:-}" || kill -KILL "$pid" 2>/dev/null || true
        done
        pids=$(test_processes | cut -d ' ' -f 1)
    fi
    # shellcheck disable=SC2086 # pids
    [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
}

# No process, socket or temporary file outlives what a test ran (a dying process gets time: a VM's end is some 20 ms of the
# host's kernel, seconds on a busy host; SM_TEST_GRACE fifths of a second).
nothing_left() {
    local left
    for _ in $(seq "${SM_TEST_GRACE:-150}"); do
        left=$(our_processes)
        [ -n "$left" ] || break
        sleep 0.2
    done
    # shellcheck disable=SC2046 # pids
    [ -z "$left" ] || kill -KILL $(cut -d ' ' -f 1 <<<"$left") 2>/dev/null || true
    # The name of one that was killed goes when another one looks for a name.
    [ ! -d "$XDG_RUNTIME_DIR/supermachine" ] || supermachine port nobody >/dev/null 2>&1 || true
    left+=$(find "$XDG_RUNTIME_DIR" "$TMPDIR" -mindepth 1 2>/dev/null)
    left+=$(find "$XDG_DATA_HOME" "$XDG_RUNTIME_DIR" "$TMPDIR" -type s 2>/dev/null)
    if [ -n "$left" ]; then
        echo "left behind: $left"
        return 1
    fi
}

# fails_with STATUS WORDS COMMAND...: the command ends with STATUS, prints nothing on stdout and one sentence of ours with
# these words (a grep -E pattern) on stderr.
fails_with() {
    local expected=$1 words=$2
    shift 2
    run --separate-stderr "$@"
    if [ "$status" -ne "$expected" ] || [ -n "$output" ] ||
        [[ ! $(head -n 1 <<<"$stderr") =~ ^"supermachine: " ]] || ! grep -Eq -- "$words" <<<"$stderr"; then
        printf 'status %s, not %s\nstdout: %s\nstderr: %s\nmust say: %s\n' "$status" "$expected" "$output" "$stderr" "$words"
        return 1
    fi
}

# wait_for COMMAND...: until it succeeds. How long that takes on a busy machine is not judged: the limit is for what hangs.
wait_for() {
    [[ $1 != [0-9]* ]] || { echo "wait_for takes no time: it is for what hangs"; return 1; }
    local end=$((SECONDS + ${SM_TEST_PATIENCE:-600}))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || { echo "waited in vain for: $*"; return 1; }
        sleep 0.1
    done
}

# fewer N ALL: how often something is repeated: N in `make test`, ALL in `make test-all`.
fewer() { if [ -n "${SM_TEST_ALL:-}" ]; then echo "$2"; else echo "$1"; fi; }

needs_debian() { [ -n "$SM_IMAGE_DEBIAN" ] || skip "making the Debian image needs root"; }
needs_services() { [ -n "$SM_IMAGE_SERVICES" ] || skip "making the image of services needs root"; }

is_native() { [ "$SM_TESTBED" = native ]; }

# Is the guest's kernel emulated here? Not asked of our own program, which is to find out by itself.
is_emulated() { is_native && { [ -e /sys/module/kvm_pvm ] || grep -q '^kvm_pvm ' /proc/modules 2>/dev/null; }; }

# ---- a network that is the test's own ----------------------------------------------------------

net_jobs=()

# What names of network namespaces begin with: whoever looks for what is left (tests/run-files) knows those of its own run by it.
net_names=sm-$$-${SM_TEST_RUN:-alone}

# own_network ADDRESS...: a network namespace whose network has a peer with these addresses, in a namespace of its own: addresses
# of the host itself are not judged by their kind. Nothing else leaves it; teardown calls end_own_network.
own_network() {
    local address
    [ "$(id -u)" -eq 0 ] || skip "needs root: network namespaces"
    netns=$net_names-own
    ip netns add "$netns"
    ip netns add "$netns-peer"
    ip -n "$netns" link add net0 type veth peer name net0 netns "$netns-peer"
    ip -n "$netns" addr add 10.254.254.1/32 dev net0
    ip -n "$netns" addr add fdfe::1/128 dev net0 nodad
    for address; do
        case $address in
        *:*) ip -n "$netns-peer" addr add "$address/128" dev net0 nodad ;;
        *) ip -n "$netns-peer" addr add "$address/32" dev net0 ;;
        esac
    done
    for address in "$netns" "$netns-peer"; do
        ip -n "$address" link set lo up
        ip -n "$address" link set net0 up
        ip -n "$address" route add default dev net0
        ip -n "$address" -6 route add default dev net0
    done
    echo 'nameserver 10.1.2.3' >"$BATS_TEST_TMPDIR/resolv.conf"
    ip netns exec "$netns" sh -c 'echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range'
}

# in_network COMMAND...: in there, where the name server is 10.1.2.3. Becomes the command when it is run in the background.
in_network() {
    # shellcheck disable=SC2016 # for the shell in there
    ip netns exec "$netns" sh -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$BATS_TEST_TMPDIR/resolv.conf" "$@"
}

# serve_network OUTPUT COMMAND...: at the peer, in the background until the end of the test. OUTPUT may be emptied meanwhile.
serve_network() {
    ip netns exec "$netns-peer" "${@:2}" >>"$1" 2>&1 3>&- &
    net_jobs+=($!)
}

# The same on the host of the VM.
serve_host() {
    ip netns exec "$netns" "${@:2}" >>"$1" 2>&1 3>&- &
    net_jobs+=($!)
}

# network_listens PORT [udp]: at the peer.
network_listens() {
    ip netns exec "$netns-peer" cat "/proc/net/${2:-tcp}" "/proc/net/${2:-tcp}6" | grep -qi ":$(printf %04X "$1") 0*:0000 0[A7]"
}

end_own_network() {
    [ "${#net_jobs[@]}" -eq 0 ] || kill "${net_jobs[@]}" 2>/dev/null || true
    [ -n "${netns:-}" ] || return 0
    local name
    for name in "$netns" "$netns-peer" "$netns-behind"; do # one that stays is named after the file (tests/run-files)
        [ ! -e "/run/netns/$name" ] || ip netns del "$name" || true
    done
}

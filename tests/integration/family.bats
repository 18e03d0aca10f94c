#!/usr/bin/env bats
# The processes that a VM has: which there are, what is left when one of them is killed, callers of every kind, and other users.
load helper

setup_file() {
    export FAMILY=$BATS_FILE_TMPDIR/family/run-command # nothing_left knows this name
    mkdir "${FAMILY%/*}"
    cc -Wall -Wextra -Werror -O1 -D_GNU_SOURCE -I"$repo/include" "$BATS_TEST_DIRNAME/family.c" -o "$FAMILY" \
        "$SM_BUILD/libsupermachine.a" -ljansson -pthread
}

# A program that is not installed beside what it needs.
family() { SUPERMACHINE_GUEST_DIR=$SM_BUILD/guest SUPERMACHINE_LIBEXEC_DIR=$SM_BUILD "$FAMILY" "$@"; }

# in_role ROLE: the processes of this test that supermachine-vm is in this role.
in_role() {
    local pid program words
    while read -r pid program; do
        [ "${program##*/}" = supermachine-vm ] || continue
        mapfile -d '' -t words <"/proc/$pid/cmdline" 2>/dev/null || true
        [ "${words[1]:-}" != "$1" ] || echo "$pid"
    done < <(test_processes)
}
has_no_machine() { [ -z "$(in_role machine)" ]; }
is_in_role() { [ -n "$(in_role "$1")" ]; }

# status_of PID NAME: a field of its status.
status_of() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }

@test "a VM is a machine, and a network once its guest has sent something: nobody's children, and gone at its end" {
    mkfifo "$BATS_TEST_TMPDIR/in"
    supermachine run -i --name kin "$busybox" sh -c 'echo ready; read x; wget -q -O - http://10.0.2.2/; echo sent; read x; exit 5' \
        <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- 4>&- &
    local client=$! machine network pid got=0
    exec 4>"$BATS_TEST_TMPDIR/in"
    wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
    machine=$(in_role machine)
    [ "$(wc -w <<<"$machine")" -eq 1 ]
    echo >&4
    wait_for grep -q sent "$BATS_TEST_TMPDIR/out"
    wait_for is_in_role network
    network=$(in_role network)
    [ "$(wc -w <<<"$network")" -eq 1 ]
    [ "$(in_role machine)" = "$machine" ]
    for pid in $machine $network; do
        [ "$(status_of "$pid" PPid)" -ne "$client" ]
    done
    [ -z "$(pgrep -P "$client")" ]
    echo >&4
    exec 4>&-
    wait "$client" || got=$?
    [ "$got" -eq 5 ]
    nothing_left
    # Without a network there is no process for it.
    run supermachine run --network none "$busybox" true
    [ "$status" -eq 0 ]
}

# ---- SIGKILL ---------------------------------------------------------------------------------------------------------------

# Alone on a machine it is some 30 ms; a busy one has this many seconds.
gone_within=20

no_family() { ! test_processes | grep -qE "$our_programs"; }

# family_gone: no process of it is there, and no mount or memory that others would see.
family_gone() {
    local end=$((SECONDS + gone_within))
    until no_family; do
        [ "$SECONDS" -lt "$end" ] || { echo "after $gone_within s there are:"; test_processes; return 1; }
        sleep 0.1
    done
    diff "$BATS_TEST_TMPDIR/mounts" /proc/self/mountinfo
    diff "$BATS_TEST_TMPDIR/shm" <(find /dev/shm -mindepth 1 2>/dev/null | sort)
}

# killed VICTIM MS: a VM's life, of which after so many milliseconds a process is ended by SIGKILL, if there is one in that role;
# hits[VICTIM] counts those. What the client makes of it: without a machine it ends with a sentence, without a network it goes on.
killed() {
    local pid victims got=0 at
    : >"$BATS_TEST_TMPDIR/said"
    SUPERMACHINE_GUEST_DIR=$SM_BUILD/guest SUPERMACHINE_LIBEXEC_DIR=$SM_BUILD "$FAMILY" life "$busybox" \
        "$BATS_TEST_TMPDIR/life.snap" >"$BATS_TEST_TMPDIR/said" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    pid=$!
    sleep "$(printf '%d.%03d' $(($2 / 1000)) $(($2 % 1000)))"
    if [ "$1" = client ]; then victims=$pid; else victims=$(in_role "$1"); fi
    # shellcheck disable=SC2086 # pids
    kill -KILL $victims 2>/dev/null || victims=
    at=$(tail -n 1 "$BATS_TEST_TMPDIR/said")
    wait "$pid" || got=$?
    [ -z "$victims" ] || hits[$1]=$((${hits[$1]:-0} + 1))
    echo "$1 ${victims:+killed }after $2 ms, at '$at': status $got, $(cat "$BATS_TEST_TMPDIR/err")"
    family_gone || return
    case ${victims:+$1} in
    client) [ "$got" -eq 137 ] ;;
    machine) [ "$got" -eq 0 ] || { [ "$got" -eq 1 ] && [ -s "$BATS_TEST_TMPDIR/err" ]; } ;;
    *) [ "$got" -eq 0 ] ;;
    esac
}

# The milliseconds of a life that nobody disturbs, when what has to be baked is.
measure_life() {
    local begin
    find /dev/shm -mindepth 1 2>/dev/null | sort >"$BATS_TEST_TMPDIR/shm"
    cat /proc/self/mountinfo >"$BATS_TEST_TMPDIR/mounts"
    supermachine bake "$busybox" 3>&-
    begin=$(date +%s%N)
    family life "$busybox" "$BATS_TEST_TMPDIR/life.snap" >/dev/null 3>&-
    life_ms=$((($(date +%s%N) - begin) / 1000000))
}

# enough_were_hit MOMENTS: a kill that hits nobody tells nothing. A client is there all the time, a machine most of it, and a network
# from when its guest first sends. Of three moments in all only the client's
# is sure to hit.
enough_were_hit() {
    local each=$(($1 / 3)) victim least
    for victim in client machine network; do
        case $victim in client) least=$(((each + 1) / 2)) ;; machine) least=$((each / 4)) ;; network) least=$((each / 10)) ;; esac
        echo "of $each kills of a $victim ${hits[$victim]:-0} hit, $least must"
        [ "${hits[$victim]:-0}" -ge "$least" ] || return 1
    done
}

# killed_at MOMENTS: at each of so many moments of a life somebody is killed, all of them in turn; the moments are spread over the
# life and not the same in two runs. The next command works, and of what was half done nothing is left then.
killed_at() {
    local i victims=(client machine network)
    local -A hits=()
    measure_life
    for i in $(seq 0 $(($1 - 1))); do
        killed "${victims[i % 3]}" $(((i * life_ms + RANDOM % life_ms) / $1))
        [ $((i % 5)) -ne 0 ] || [ "$(supermachine run "$busybox" echo works)" = works ]
    done
    enough_were_hit "$1"
    family life "$busybox" "$BATS_TEST_TMPDIR/life.snap" >/dev/null
    [ "$(supermachine run "$busybox" echo works)" = works ]
    rm "$BATS_TEST_TMPDIR/life.snap"
    [ -z "$(find "$XDG_DATA_HOME" "$BATS_TEST_TMPDIR" -name '*.partial*')" ]
}

# bats test_tags=all-nested
@test "whoever of a VM's processes is killed, whenever: all others end or go on, nothing is left, the next command works" {
    killed_at "$(fewer 3 30)"
}

# bats test_tags=all
@test "the same at 200 moments" {
    # shellcheck disable=SC2034 # bats reads it
    BATS_TEST_TIMEOUT=7200
    killed_at 200
}

# ---- callers ---------------------------------------------------------------------------------------------------------------

@test "callers that ignore SIGCHLD, wait for any child, fork, have no standard descriptors, few others, another directory" {
    local caller
    for caller in sigchld waits forks closed files elsewhere; do
        echo "$caller"
        family "$caller" "$busybox"
    done
}

@test "a VM ends with who started it, also where a child of his lives on that inherited all he had" {
    local heir got=0
    family heir "$busybox" >"$BATS_TEST_TMPDIR/heir" 3>&- || got=$? # which keeps what is its standard output
    heir=$(cat "$BATS_TEST_TMPDIR/heir")
    [ "$got" -eq 137 ]
    wait_for has_no_machine
    kill -0 "$heir"
    kill -KILL "$heir"
}

# ---- other users -----------------------------------------------------------------------------------------------------------

# bats test_tags=all-native
@test "another user can neither read, signal nor trace a VM's processes, nor reach its sockets" {
    [ "$(id -u)" -eq 0 ] || skip "needs root: two users"
    local client pids sockets
    users=$(mktemp -d /tmp/sm-users-XXXXXX)
    chmod 711 "$users"
    mkdir "$users/guest" "$users/image" "$users/own" "$users/public"
    cp "$SM_BUILD"/supermachine "$SM_BUILD"/supermachine-image "$SM_BUILD"/supermachine-vm "$FAMILY" "$users/"
    cp -L "$SM_BUILD"/guest/{vmlinux,agent.cpio} "$users/guest/"
    cp -rL "$SM_IMAGE_BUSYBOX/oci" "$users/image/"
    mknod -m 666 "/dev/${users##*/}" c 10 232 # where devices may be opened
    chmod -R a+rX "$users/guest" "$users/image"
    chown 60001 "$users/own" "$users/public"
    chmod 700 "$users/own"
    # shellcheck disable=SC2016 # for the shell in there
    unshare -m sh -c 'mount --bind "$0" /dev/kvm && exec setpriv --reuid 60001 --regid 60001 --clear-groups "$@"' "/dev/${users##*/}" \
        env XDG_DATA_HOME="$users/own/data" XDG_RUNTIME_DIR="$users/own" HOME="$users/own" TMPDIR="$users/own" \
        "$users/supermachine" run --name theirs --socket "$users/public/door" "oci:$users/image/oci:latest" \
        sh -c 'wget -q -O - http://10.0.2.2/; echo ready; sleep 1000' >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
    client=$!
    wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
    wait_for is_in_role network
    pids=$(test_processes | grep -E "$our_programs" | cut -d ' ' -f 1)
    [ "$(wc -w <<<"$pids")" -eq 3 ]
    mapfile -t sockets < <(find "$users" -type s)
    [ "${#sockets[@]}" -ge 2 ]
    # shellcheck disable=SC2086 # pids
    run setpriv --reuid 60002 --regid 60002 --clear-groups "$users/run-command" intrude $pids "${sockets[@]}"
    echo "$output"
    [ "$status" -eq 0 ]
    # Whose it is gets in.
    run setpriv --reuid 60001 --regid 60001 --clear-groups "$users/run-command" intrude "${sockets[@]}" "$client"
    [ "$status" -eq 1 ]
    grep -q "^connected to $users/public/door" <<<"$output"
    wait "$client" || true # as who may signal it has seen to
}

teardown() {
    end_test
    nothing_left
    [ -z "${users:-}" ] || rm -rf "$users" "/dev/${users##*/}"
}

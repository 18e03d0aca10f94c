#!/usr/bin/env bats
# supermachine run: streams, exit codes, and what the image and the options say about the command.
load helper

@test "stdout, stderr and exit code are the command's (booted)" {
    run --separate-stderr supermachine run --cold "$busybox" sh -c 'echo out; echo err >&2; exit 7'
    [ "$status" -eq 7 ]
    [ "$output" = out ]
    [ "$stderr" = err ]
}

@test "stdout, stderr and exit code are the command's (baked and restored)" {
    for _ in 1 2; do
        run --separate-stderr supermachine run "$busybox" sh -c 'echo out; echo err >&2; exit 7'
        [ "$status" -eq 7 ]
        [ "$output" = out ]
        [ "$stderr" = err ]
    done
}

@test "stdout, stderr and exit code are the command's (Debian)" {
    needs_debian
    run --separate-stderr supermachine run "$debian" sh -c 'echo out; echo err >&2; grep ^ID= /etc/os-release; exit 7'
    [ "$status" -eq 7 ]
    [ "$output" = $'out\nID=debian' ]
    [ "$stderr" = err ]
}

@test "python3 of a Debian image computes" {
    needs_debian
    run --separate-stderr supermachine run "$debian" python3 -c 'print(6*7)'
    [ "$status" -eq 0 ]
    [ "$output" = 42 ]
    [ -z "$stderr" ]
}

@test "the machine is as asked for: CPUs, memory, host name, user, directory, environment" {
    printf 'FROM_FILE=file\nBOTH=file\n# comment\n' >"$BATS_TEST_TMPDIR/env"
    HOSTVAR=host run --separate-stderr supermachine run --rm --cpus 4 --memory 512m --name probe --hostname box \
        -e A='1 2' -e HOSTVAR -e BOTH=option --env-file "$BATS_TEST_TMPDIR/env" -w /tmp/new -u app "$busybox" sh -c '
        echo "cpus=$(grep -c ^processor /proc/cpuinfo) online=$(cat /sys/devices/system/cpu/online)"
        awk "/MemTotal/ { print \"memory=\" (\$2 > 450000 && \$2 < 524288) }" /proc/meminfo
        echo "host=$(hostname) id=$(id -u):$(id -g) pwd=$PWD home=$HOME"
        echo "env=$A,$HOSTVAR,$BOTH,$FROM_FILE"
        echo "pid=$$"
        echo "args=$#:$1:$2" ' sh 'one arg' ''
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = "cpus=4 online=0-3" ]
    [ "${lines[1]}" = "memory=1" ]
    [ "${lines[2]}" = "host=box id=1000:1000 pwd=/tmp/new home=/home/app" ]
    [ "${lines[3]}" = "env=1 2,host,option,file" ]
    [ "${lines[4]}" = pid=1 ]
    [ "${lines[5]}" = "args=2:one arg:" ]
}

@test "the system in the VM is whole: devices, proc, tmp, loopback, time, randomness, writable root" {
    local before
    before=$(date +%s)
    run --separate-stderr supermachine run "$busybox" sh -c '
        date +%s
        for d in null zero full random urandom tty ptmx; do [ -c /dev/$d ] || echo "no /dev/$d"; done
        [ -d /proc/self ] && [ -d /sys/class ] && [ -d /dev/shm ] && [ -d /dev/pts ] && echo mounts
        echo data >/usr/new && rm /etc/os-release && cat /usr/new
        [ -u /bin/busybox.suid ] && echo setuid
        ip addr show lo | grep -q "inet 127.0.0.1" && echo loopback
        [ "$(head -c 32 /dev/urandom | wc -c)" = 32 ] && echo random
        cat /etc/supermachine-test-image
        mount | grep -c " / "; ls -ld /tmp | cut -c 1-10'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "${lines[0]}" -ge "$before" ]
    [ "${lines[0]}" -le "$(date +%s)" ]
    [ "$(printf '%s\n' "${lines[@]:1}")" = $'mounts\ndata\nsetuid\nloopback\nrandom\nbusybox\n1\ndrwxrwxrwt' ]
}

@test "nothing of one run is seen by the next" {
    run --separate-stderr supermachine run "$busybox" sh -c 'cat /usr/new 2>/dev/null; cat /etc/os-release | head -n 1'
    [ "$status" -eq 0 ]
    [ "$output" = 'NAME="busybox test image"' ]
}

@test "stdin goes through unchanged, and only with -i" {
    local size=1048576
    is_native || size=104857600
    head -c "$size" /dev/urandom >"$BATS_TEST_TMPDIR/in"
    supermachine run -i "$busybox" cat <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
    cmp "$BATS_TEST_TMPDIR/in" "$BATS_TEST_TMPDIR/out"
    run --separate-stderr supermachine run "$busybox" sh -c 'cat; echo end; readlink /proc/self/fd/0' <"$BATS_TEST_TMPDIR/in"
    [ "$status" -eq 0 ]
    [ "$output" = $'end\n/dev/null' ]
}

@test "archives are read as layouts are" {
    run --separate-stderr supermachine run "oci-archive:$SM_IMAGE_BUSYBOX/oci.tar" cat /etc/supermachine-test-image
    [ "$status" -eq 0 ]
    [ "$output" = busybox ]
    run --separate-stderr supermachine run "docker-archive:$SM_IMAGE_BUSYBOX/docker.tar" cat /etc/supermachine-test-image
    [ "$status" -eq 0 ]
    [ "$output" = busybox ]
}

@test "a signal that ends the command is 128 + its number" {
    # Process 1 is spared what it has no handler for.
    run --separate-stderr supermachine run --init "$busybox" sh -c 'kill -SEGV $$'
    [ "$status" -eq 139 ]
    [ -z "$stderr" ]
}

@test "the time limit kills the command: 124" {
    local limit
    for limit in 3 30 300; do # on a busy host the shell may not come to its word within the first
        run --separate-stderr supermachine run --timeout "$limit" "$busybox" sh -c 'echo begun; sleep 1000'
        [ "$status" -eq 124 ]
        [[ $stderr == "supermachine: "*timeout* ]]
        [ -z "$output" ] || break
    done
    [ "$output" = begun ]
}

@test "a reader that goes away ends the command" {
    run bash -o pipefail -c 'supermachine run "$1" yes | head -n 2' _ "$busybox"
    [ "$output" = $'y\ny' ]
    [ "$status" -eq 141 ]
}

@test "a command that is not there is 127, one that cannot be executed 126, an unknown user 125" {
    fails_with 127 'command not found: no-such-command' supermachine run "$busybox" no-such-command
    fails_with 126 'cannot execute /etc/passwd: Permission denied' supermachine run "$busybox" /etc/passwd
    fails_with 126 'cannot execute /etc/passwd: Permission denied' supermachine run --privileged "$busybox" /etc/passwd
    fails_with 126 'cannot execute /etc: Is a directory' supermachine run "$busybox" /etc
    fails_with 125 'nobody-knows' supermachine run -u nobody-knows "$busybox" true
    fails_with 125 'working directory /etc/passwd: Not a directory' supermachine run -w /etc/passwd "$busybox" true
    # What is made for a user is the user's.
    run --separate-stderr supermachine run -u app -w /made/for/app "$busybox" stat -c '%n %u:%g %a' /made/for /made/for/app
    [ "$output" = $'/made/for 0:0 755\n/made/for/app 1000:1000 755' ]
}

# bats test_tags=all-native
@test "files that are no programs, each with its cause" {
    local layout=$BATS_TEST_TMPDIR/layout image file code words
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    mkdir "$BATS_TEST_TMPDIR/t"
    (
        cd "$BATS_TEST_TMPDIR/t"
        printf 'echo hi\n' >text
        printf '#!/bin/sh\r\necho hi\r\n' >crlf
        printf '#!/nope\n' >nope
        : >empty
        cp /bin/true dyn # its dynamic loader is not in the image
        { head -c 18 dyn; printf '\267'; tail -c +20 dyn; } >arm
        { head -c 4 dyn; printf '\1'; head -c 18 dyn | tail -c +6; printf '\3'; tail -c +20 dyn; } >i386 # by its machine, too
        ln -s loop loop
        ln -s /none dangling
        chmod 755 text crlf nope empty dyn arm i386
        printf '#!/bin/sh\n' >closed
        chmod 000 closed
        mkdir zz # umoci does not pad the layer's last file
    )
    umoci insert --image "$layout:latest" "$BATS_TEST_TMPDIR/t" /usr/bin/t
    umoci config --image "$layout:latest" --config.env PATH=/usr/bin/t:/bin:/usr/bin
    image=oci:$layout:latest
    while read -r code file words; do
        echo "$file"
        fails_with "$code" "$words" supermachine run -u app "$image" "$file" </dev/null
    done <<'EOF'
126 text no program, and no script that begins with #!: text
126 /usr/bin/t/text no program, and no script that begins with #!: /usr/bin/t/text
127 crlf interpreter or dynamic loader is missing for crlf
127 /usr/bin/t/nope interpreter or dynamic loader is missing for /usr/bin/t/nope
127 dyn interpreter or dynamic loader is missing for dyn
126 empty an empty file is no program: empty
126 arm damaged, or of another CPU: arm
126 i386 the guest kernel runs no 32-bit programs: i386
126 closed cannot execute closed: Permission denied
126 /usr/bin/t cannot execute /usr/bin/t: Is a directory
126 /usr/bin/t/loop cannot execute /usr/bin/t/loop: Too many levels of symbolic links
127 /usr/bin/t/dangling command not found: /usr/bin/t/dangling
126 t cannot execute t: Permission denied
127 ./none command not found: ./none
EOF
    fails_with 127 'command not found: sh' supermachine run -e PATH= "$image" sh
}

# bats test_tags=all-native
@test "an image from scratch: one static program, and nothing else" {
    local layout=$BATS_TEST_TMPDIR/layout image snap=$BATS_TEST_TMPDIR/snap pid i
    cat >"$BATS_TEST_TMPDIR/hello.c" <<'EOF'
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static void bye(int s) { (void)!write(1, "bye\n", 4); _exit(3); }
int main(int argc, char **argv)
{
    static const char *const files[] = {"/etc/hosts", "/etc/resolv.conf", "/dev/null", "/proc/self", "/sys/kernel", "/tmp", "/bin"};
    signal(SIGTERM, bye);
    printf("hello of %d in %d%s", (int)getuid(), (int)getpid(), isatty(1) ? " on a terminal" : "");
    for (int i = 0; i < 7; i++)
        if (access(files[i], F_OK) == 0)
            printf(" %s", files[i]);
    printf("\n");
    fflush(stdout);
    while (argc == 1)
        pause();
}
EOF
    cc -static -Os -o "$BATS_TEST_TMPDIR/hello" "$BATS_TEST_TMPDIR/hello.c"
    PYTHONPATH=$repo/tests/tools python3 - "$layout" "$BATS_TEST_TMPDIR/hello" <<'EOF'
import sys
from layout import *
l = Layout(sys.argv[1])
l.image("latest", [l.layer([("f", "hello", open(sys.argv[2], "rb").read(), {"mode": 0o755})])], config={"Entrypoint": ["/hello"]})
l.close()
EOF
    image=oci:$layout:latest
    local there='/etc/hosts /etc/resolv.conf /dev/null /proc/self /sys/kernel'
    [ "$(supermachine run "$image" once)" = "hello of 0 in 1 $there" ]
    [ "$(supermachine run -u 65532 "$image" once)" = "hello of 65532 in 1 $there" ]
    [ "$(supermachine run -t "$image" once | tr -d '\r')" = "hello of 0 in 1 on a terminal $there" ]
    fails_with 127 'command not found: sh' supermachine run --entrypoint sh "$image"
    supermachine bake --until idle "$image"
    supermachine run --name "scratch-$$" "$image" >"$BATS_TEST_TMPDIR/out" 3>&- &
    pid=$!
    wait_for supermachine snapshot create "scratch-$$" "$snap"
    kill -TERM "$pid"
    i=0
    wait "$pid" || i=$?
    echo "$i: $(cat "$BATS_TEST_TMPDIR/out")"
    [ "$i" -eq 3 ]
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = "hello of 0 in 1 $there"$'\n'bye ]
}

@test "the command's end is the run's, whatever its standard input is" {
    mkfifo "$BATS_TEST_TMPDIR/in"
    exec 4<>"$BATS_TEST_TMPDIR/in" # never at its end
    [ "$(supermachine run -i "$busybox" echo hi <&4)" = hi ]
    run --separate-stderr supermachine run -i --timeout 1 "$busybox" cat <&4
    [ "$status" -eq 124 ]
    exec 4<&-
    # shellcheck disable=SC2016 # for the shell in there
    run --separate-stderr bash -c '"$@" <&-' _ supermachine run -i "$busybox" cat
    echo "$status $stderr"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

@test "the image config's Entrypoint, Cmd, Env, User, WorkingDir and StopSignal are honoured, and replaced by options" {
    local layout=$BATS_TEST_TMPDIR/layout
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    umoci config --image "$layout:latest" --tag service --config.entrypoint /bin/echo --config.entrypoint entry \
        --config.cmd one --config.cmd two
    umoci config --image "$layout:latest" --tag worker --config.cmd sh --config.cmd -c --config.cmd \
        'trap "echo stopped; exit 5" USR1; echo $COLOUR $(id -un) $PWD; while :; do sleep 0.1; done' \
        --config.env COLOUR=blue --config.user app --config.workingdir /srv/work --config.stopsignal SIGUSR1

    run --separate-stderr supermachine run "oci:$layout:service"
    [ "$status" -eq 0 ]
    [ "$output" = "entry one two" ]
    run --separate-stderr supermachine run "oci:$layout:service" three
    [ "$output" = "entry three" ]
    run --separate-stderr supermachine run --entrypoint /usr/bin/basename "oci:$layout:service" /a/b
    [ "$output" = b ]

    supermachine run "oci:$layout:worker" >"$BATS_TEST_TMPDIR/out" &
    local pid=$!
    wait_for grep -q blue "$BATS_TEST_TMPDIR/out"
    kill -TERM "$pid"
    local got=0
    wait "$pid" || got=$?
    [ "$got" -eq 5 ]
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = $'blue app /srv/work\nstopped' ]
}

@test "--timing tells the stages, and the assist is used where it must and nowhere else" {
    run --separate-stderr supermachine run --timing "$busybox" true
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    grep -q 'agent ready' <<<"$stderr"
    local assists
    assists=$(sed -n 's/.*assists \([0-9]*\)).*/\1/p' <<<"$stderr")
    if is_emulated; then
        [ "$assists" -gt 0 ]
    elif ! is_native; then
        [ "$assists" -eq 0 ]
    fi
}

@test "an image without a command is refused before anything is baked for it" {
    local layout=$BATS_TEST_TMPDIR/layout
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    umoci config --image "$layout:latest" --tag empty --clear=config.cmd --clear=config.entrypoint
    fails_with 125 'names no command' supermachine run "oci:$layout:empty"
    [ -z "$(find "$XDG_DATA_HOME/supermachine/snapshots" -type f 2>/dev/null)" ]
}

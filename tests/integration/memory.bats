#!/usr/bin/env bats
# When memory ends: the writable layer is full before, one process is killed and not the machine, and the user is told why.
load helper

# bats test_tags=all-native
@test "a full writable layer is ENOSPC for who writes, the command lives, and df tells its true size" {
    run --separate-stderr supermachine run "$busybox" sh -c '
        size() { df -k "$1" | awk "END { print \$(NF - 4) }"; }
        memory=$(awk "/^MemTotal/ { print \$2 }" /proc/meminfo); all=$(size /)
        [ $((all * 2)) -ge $memory ] && [ $((all + 49152)) -lt $memory ] && [ $all -ge 65536 ] && echo true size
        for file in /big /tmp/big /dev/shm/big /dev/big; do
            dd if=/dev/zero of=$file bs=1M 2>&1 | grep -o "No space left on device"
            [ "$(du -k $file | cut -f 1)" -gt $((all * 9 / 10)) ] && echo all of it
            rm $file
        done
        echo alive'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    local full=$'No space left on device\nall of it\n'
    [ "$output" = "true size"$'\n'"$full$full$full"$'No space left on device\nalive' ]
}

# bats test_tags=all-native
@test "who is killed for want of memory ends with 137 and a line that says so; others go on" {
    local line="supermachine: the command was killed because the VM ran out of its 256 MiB of memory; -m gives it more"
    run --separate-stderr supermachine run "$busybox" tail /dev/zero
    [ "$status" -eq 137 ]
    [ "$stderr" = "$line" ]
    # A shell that waited for it, with children beside it; on four CPUs.
    run --separate-stderr supermachine run --cpus 4 "$busybox" sh -c '
        i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i + 1)); done
        tail /dev/zero; code=$?; pidof sleep | wc -w; exit $code'
    echo "$output $stderr"
    [ "$status" -eq 137 ]
    [ "$output" = 30 ]
    grep -qx "$line" <<<"$stderr"
    # Nobody is told what he was not killed for.
    run --separate-stderr supermachine run "$busybox" sh -c 'sh -c "kill -9 \$\$"; exit $?'
    [ "$status" -eq 137 ]
    [[ $stderr != *supermachine* ]]
}

# bats test_tags=all-native
@test "a fork bomb is ended by its time limit, on one CPU and on four" {
    for cpus in 1 4; do
        run --separate-stderr supermachine run --cpus "$cpus" --timeout 10 "$busybox" sh -c 'b() { b | b & }; b; sleep 1000'
        [ "$status" -eq 124 ]
    done
}

# bats test_tags=all-native
@test "bombs of descriptors and of inodes: who makes them is told, and lives; the host and the VM beside it do not notice" {
    needs_debian
    local beside=$BATS_TEST_TMPDIR/beside job lines descriptors inodes
    supermachine run "$busybox" sh -c 'while sleep 1; do echo ticks; done' >"$beside" 3>&- &
    job=$!
    wait_for [ -s "$beside" ]
    descriptors=$(cut -f 1 /proc/sys/fs/file-nr)
    inodes=$(df --output=iused "$BATS_TEST_TMPDIR" | tail -n 1)
    run --separate-stderr supermachine run --memory 256m "$debian" python3 -c '
import errno, os, resource, subprocess
def bomb(one):
    held = []
    try:
        while len(held) < 1000000:
            held.append(one(len(held)))
    except OSError as e:
        return held, errno.errorcode[e.errno]
    return held, "no end"
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
held, why = bomb(lambda n: os.open("/dev/null", os.O_RDONLY))
print("descriptors", why, len(held) > 10000)
for fd in held:
    os.close(fd)
os.mkdir("/bomb")
held, why = bomb(lambda n: os.close(os.open("/bomb/%d" % n, os.O_CREAT | os.O_WRONLY)))
print("inodes", why, len(held) > 10000, flush=True)
print(len(os.listdir("/bomb")) == len(held), flush=True)
subprocess.run("echo alive; rm -r /bomb; echo >/more && echo room", shell=True)'
    echo "$status $output $stderr"
    [ "$status" -eq 0 ]
    diff - <<<"$output" <(printf '%s\n' '1048576 1048576' 'descriptors ENFILE True' 'inodes ENOSPC True' True alive room)
    echo "descriptors of the host: $descriptors, then $(cut -f 1 /proc/sys/fs/file-nr); inodes: $inodes, then $(df --output=iused "$BATS_TEST_TMPDIR" | tail -n 1)"
    [ $(($(cut -f 1 /proc/sys/fs/file-nr) - descriptors)) -lt 5000 ]
    [ $(($(df --output=iused "$BATS_TEST_TMPDIR" | tail -n 1) - inodes)) -lt 5000 ]
    lines=$(wc -l <"$beside")
    wait_for sh -c '[ "$(wc -l <"$1")" -gt "$2" ]' _ "$beside" "$lines"
    kill -KILL "$job"
}

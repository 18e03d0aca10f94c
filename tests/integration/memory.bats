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

#!/usr/bin/env bats
# The guest kernel: what it offers, what its boot costs.
load helper

@test "what ordinary programs ask of a kernel is there" {
    needs_debian
    run --separate-stderr supermachine run --privileged "$debian" python3 -c "$(cat "$BATS_TEST_DIRNAME/kernel-features.py")"
    echo "missing: $output $stderr"
    [ "$status" -eq 0 ]
}

# What is counted, and no time: the machine may be busy with something else. An emulating KVM counts instructions, of which a
# tenth is the timer's ticks on a quiet machine. On a busy one they are more than all else: then it is not asked.
@test "what a boot costs: exits and emulated instructions, within bounds" {
    cd "$BATS_TEST_TMPDIR"
    /usr/bin/time -o busy -f '%e %U %S' supermachine run --cold --timing "$busybox" true 2>timing
    # The listing is part of the test's result, whether it passes or not.
    sed 's/^/#   /' timing >&3
    exits=$(sed -n 's/.*guest exits \([0-9]*\) .*/\1/p' timing)
    assists=$(sed -n 's/.*assists \([0-9]*\)).*/\1/p' timing)
    instructions=$(sed -n 's/.*emulated by KVM \([0-9]*\)$/\1/p' timing)
    [ "$((exits - assists))" -le 1000 ]
    if is_native && [ "$assists" -gt 0 ]; then
        if awk '{ exit !(($2 + $3) * 1.5 > $1) }' busy; then
            [ "$instructions" -le 30000000 ]
        fi
    else
        [ "$assists" -eq 0 ]
    fi
}

# bats test_tags=all-native
@test "bzImage boots as vmlinux does, with 16 CPUs" {
    local kernel
    kernel=$(readlink -f "$SM_BUILD/guest/vmlinux")
    run --separate-stderr supermachine run --cold --cpus 16 --kernel "${kernel%/*}/bzImage" "$busybox" \
        sh -c 'cat /sys/devices/system/cpu/online; grep -c ^processor /proc/cpuinfo
            grep -cwE "svm|vmx|perfctr_core" /proc/cpuinfo'
    echo "$output $stderr"
    [ "$output" = $'0-15\n16\n0' ]
}

# Where the kernel's instructions are emulated, SYSCALL arrives as a page fault at that address, and so does such a jump.
@test "a user cannot jump to where system calls enter the kernel" {
    local kernel entry
    musl-gcc -Wall -Wextra -Werror -static -Os -s -o "$BATS_TEST_TMPDIR/jump" "$BATS_TEST_DIRNAME/kernel-jump.c"
    kernel=$(readlink -f "$SM_BUILD/guest/vmlinux")
    entry=$(awk '$3 == "entry_SYSCALL_64" { print $1 }' "${kernel%/*}/System.map")
    [ -n "$entry" ]
    run --separate-stderr supermachine run -i -u 1000 "$busybox" \
        sh -c "cat >/tmp/jump && chmod 755 /tmp/jump && /tmp/jump $entry" <"$BATS_TEST_TMPDIR/jump"
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = $'uid 1000\nplain signal 11\nDF signal 11\nAC signal 11\nTF signal 11' ]
}

#!/usr/bin/env bats
# The guest kernel: what it offers, what its boot costs.
load helper

@test "what ordinary programs ask of a kernel is there" {
    needs_debian
    run --separate-stderr supermachine run "$debian" python3 -c "$(cat "$BATS_TEST_DIRNAME/kernel-features.py")"
    echo "missing: $output $stderr"
    [ "$status" -eq 0 ]
}

# CPU time, not wall time: the machine may be busy with something else, and then wall time says nothing about the kernel.
@test "what a boot costs: CPU time and exits, within bounds" {
    cd "$BATS_TEST_TMPDIR"
    TIMEFORMAT='%U %S'
    { time supermachine run --cold --timing "$busybox" true 2>timing; } 2>cpu
    # The listing is part of the test's result, whether it passes or not.
    sed 's/^/#   /' timing >&3
    read -r user system <cpu
    echo "#   CPU time: $user s user, $system s system" >&3
    cpu_ms=$(awk '{ print int(($1 + $2) * 1000) }' cpu)
    exits=$(sed -n 's/.*guest exits \([0-9]*\) .*/\1/p' timing)
    assists=$(sed -n 's/.*assists \([0-9]*\)).*/\1/p' timing)
    if is_native && [ "$assists" -gt 0 ]; then
        [ "$cpu_ms" -le 15000 ]
        [ "$((exits - assists))" -le 1000 ]
    else
        [ "$assists" -eq 0 ]
        [ "$cpu_ms" -le 6000 ]
        [ "$exits" -le 1000 ]
    fi
}

@test "bzImage boots as vmlinux does, with 16 CPUs" {
    if is_native && grep -q kvm_pvm /proc/modules 2>/dev/null; then
        skip "emulating the kernel that unpacks itself takes minutes"
    fi
    local kernel
    kernel=$(readlink -f "$SM_BUILD/guest/vmlinux")
    run --separate-stderr supermachine run --cold --cpus 16 --kernel "${kernel%/*}/bzImage" "$busybox" \
        sh -c 'cat /sys/devices/system/cpu/online; grep -c ^processor /proc/cpuinfo'
    echo "$output $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = $'0-15\n16' ]
}

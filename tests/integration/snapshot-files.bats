#!/usr/bin/env bats
# bats file_tags=host
# The snapshot writers on real filesystems: with and without clones, holes and room. The tests of
# tests/unit/test_snapshot_*.c are what runs there; a filesystem that cannot be made here is skipped, visibly.
load helper

setup_file() {
    SM_LOOP_DIR=$(mktemp -d "${BATS_RUN_TMPDIR:-/tmp}/loop-XXXXXX")
    export SM_LOOP_DIR
}

teardown_file() {
    umount "$SM_LOOP_DIR/mnt" 2>/dev/null || :
    rm -rf "$SM_LOOP_DIR"
}

# on_disk MIB MKFS...: makes and mounts a filesystem of that size
on_disk() {
    local mib=$1
    shift
    [ "$(id -u)" = 0 ] || skip "mounting needs root"
    command -v "$1" >/dev/null || skip "$1 is not installed"
    mkdir -p "$SM_LOOP_DIR/mnt"
    rm -f "$SM_LOOP_DIR/disk"
    truncate -s "${mib}M" "$SM_LOOP_DIR/disk"
    "$@" "$SM_LOOP_DIR/disk" >/dev/null 2>&1
    mount -o loop "$SM_LOOP_DIR/disk" "$SM_LOOP_DIR/mnt" || skip "no loop device, or the kernel does not have it"
}

off_disk() {
    umount "$SM_LOOP_DIR/mnt"
    rm -f "$SM_LOOP_DIR/disk"
}

# Runs the writers' tests there; $output is what they printed.
write_there() {
    local program
    for program in writers faults; do
        TMPDIR=$SM_LOOP_DIR/mnt run "$SM_BUILD/tests/unit/test_snapshot_$program"
        echo "$output"
        [ "$status" -eq 0 ]
        [ "$program" = faults ] || writers=$output
    done
}

@test "writers on XFS clone their base" {
    on_disk 400 mkfs.xfs -q -m reflink=1
    write_there
    off_disk
    [[ $writers != *"cannot clone"* ]]
}

@test "writers on btrfs clone their base" {
    on_disk 400 mkfs.btrfs -q
    write_there
    off_disk
    [[ $writers != *"cannot clone"* ]]
}

@test "writers on ext4 fall back to writing all" {
    on_disk 200 mkfs.ext4 -q
    write_there
    off_disk
    [[ $writers == *"cannot clone"* ]]
}

@test "writers on a filesystem that neither clones nor punches nor tells of holes" {
    [ "$(id -u)" = 0 ] || skip "mounting needs root"
    mkdir -p "$SM_LOOP_DIR/mnt"
    mount -t ramfs none "$SM_LOOP_DIR/mnt" || skip "no ramfs"
    write_there
    umount "$SM_LOOP_DIR/mnt"
    [[ $writers == *"cannot clone"* ]]
}

@test "writers on a disk that is really full" {
    on_disk 16 mkfs.ext4 -q -m 0
    TMPDIR=$SM_LOOP_DIR/mnt run "$SM_BUILD/tests/unit/test_snapshot_writers"
    echo "$output"
    [ "$status" -ne 0 ]
    [[ $output == *"No space left on device"* ]]
    run find "$SM_LOOP_DIR/mnt" -name '*.partial'
    [ -z "$output" ]
    off_disk
}

@test "golden files are what their description says" {
    command -v python3 >/dev/null || skip "python3 is not installed"
    python3 "$repo/tests/fixtures/snapshot/make_golden.py" --check "$repo/tests/fixtures/snapshot"
}

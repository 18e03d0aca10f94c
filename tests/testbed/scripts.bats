#!/usr/bin/env bats
# bats file_tags=host
# The scripts that install, build, and run the tests, with stand-ins for what they call.
bats_require_minimum_version 1.5.0

repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)

setup() {
    bin=$BATS_TEST_TMPDIR/bin
    mkdir "$bin" "$BATS_TEST_TMPDIR/tmp"
    export TMPDIR=$BATS_TEST_TMPDIR/tmp
    unset MAKEFLAGS SM_PROGRESS
}

# tools NAME...: $bin has these commands and those that scripts are made of; as PATH it has nothing else.
tools() {
    local name
    for name in bash sh env awk sed cut grep cat rm mv cp mkdir mktemp dirname id sort head tail comm "$@"; do
        ln -s "$(PATH=$PATH:/usr/sbin:/sbin command -v "$name")" "$bin/$name"
    done
}

# stand_in FILE TEXT: a shell script.
stand_in() {
    mkdir -p "$(dirname "$1")"
    rm -f "$1"
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod +x "$1"
}

# What the nested machine is made of: a kernel of 4 bytes, packed, whose package has no modules.
kernel_package() {
    local xz=$BATS_TEST_TMPDIR/xz
    printf 'ELF\n' | xz -c >"$xz"
    size=$(($(stat -c %s "$xz") + 4))
    { head -c 584 /dev/zero; printf '\x00\x02\x00\x00'; printf "\\x$(printf %02x "$size")\\x00\\x00\\x00"; head -c 432 /dev/zero
        cat "$xz"; printf '\4\0\0\0'; } >"$BATS_TEST_TMPDIR/vmlinuz"
    stand_in "$bin/apt-cache" 'case $1 in depends) echo "  Depends: linux-image-6.1.0-1-amd64" ;; show) echo "Version: 1" ;; esac'
    stand_in "$bin/apt-get" ': >linux.deb'
    stand_in "$bin/dpkg" "mkdir -p \"\$3/boot\" \"\$3/lib/modules/6.1.0-1-amd64\" && cp '$BATS_TEST_TMPDIR/vmlinuz' \"\$3/boot/vmlinuz-6.1.0-1-amd64\""
    export SM_TESTBED_CACHE=$BATS_TEST_TMPDIR/cache
}

@test "nested: a user's PATH has what makes the machine, and one without modules is not kept" {
    tools od dd xz find cpio busybox basename chmod flock stat
    kernel_package
    PATH=$bin run "$repo/tests/testbed/nested" prepare
    echo "$output"
    [ "$status" -eq 125 ]
    [[ $output != *"command not found"* ]]
    [[ $output == *"nested: no modules in linux-image-6.1.0-1-amd64"* ]]
    [ -z "$(compgen -G "$SM_TESTBED_CACHE/x86_64-1-recipe*[0-9]")" ]
}

@test "nested: a step of making the machine that fails ends the run, and nothing of it is kept" {
    tools od dd xz find cpio busybox basename chmod flock stat install tr touch timeout sleep
    kernel_package
    stand_in "$bin/depmod" 'echo "depmod: broken" >&2; exit 1'
    stand_in "$bin/modprobe" "echo 'insmod $BATS_TEST_TMPDIR/vmlinuz '"
    stand_in "$bin/no-qemu" 'exit 1'
    SM_TESTBED_QEMU=$bin/no-qemu PATH=$bin run "$repo/tests/testbed/nested" run -t 20 -- true
    echo "$output"
    [ "$status" -ne 0 ]
    [[ $output == *"depmod: broken"* ]]
    [[ $output != *"ended without a result"* ]]
    [ -z "$(compgen -G "$SM_TESTBED_CACHE/x86_64-1-recipe*[0-9]")" ]
    # The same with a depmod that works goes on, to a counter that cannot be measured, and then to a QEMU that does not work.
    stand_in "$bin/depmod" ''
    # shellcheck disable=SC2016 # for the shell there
    stand_in "$bin/cc" 'printf "#!/bin/sh\nexit 1\n" >"$3" && chmod +x "$3"'
    SM_TESTBED_QEMU=$bin/no-qemu PATH=$bin run "$repo/tests/testbed/nested" run -t 20 -- true
    echo "$output"
    [ "$status" -eq 125 ]
    [[ $output == *"cannot tell the frequency"* && $output != *"ended without a result"* ]]
    # shellcheck disable=SC2016 # for the shell there
    stand_in "$bin/cc" 'printf "#!/bin/sh\necho 1\n" >"$3" && chmod +x "$3"'
    SM_TESTBED_QEMU=$bin/no-qemu PATH=$bin run "$repo/tests/testbed/nested" run -t 20 -- true
    echo "$output"
    [[ $output == *"ended without a result (QEMU's status 1)"* ]]
}

# prepared: a machine of which no more is asked than to be there, and no package lists.
prepared() {
    local machine
    export SM_TESTBED_CACHE=$BATS_TEST_TMPDIR/cache
    machine=$SM_TESTBED_CACHE/x86_64-1-recipe$(sed -n 's/^recipe=//p' "$repo/tests/testbed/nested")
    mkdir -p "$machine"
    touch "$machine"/{initramfs,vmlinux}
    stand_in "$bin/apt-cache" 'exit 100'
}

@test "nested: --count has its own kind of emulation, whatever SM_TESTBED_TCG says" {
    prepared
    stand_in "$bin/qemu" "echo \"\$*\" >'$BATS_TEST_TMPDIR/qemu-args'; exit 1"
    export SM_TESTBED_QEMU=$bin/qemu SM_TESTBED_TCG=thread=multi
    PATH=$bin:$PATH run "$repo/tests/testbed/nested" run --count -t 20 -- true
    echo "$output"
    grep -q -- '-accel tcg,thread=single,[^ ]* -icount' "$BATS_TEST_TMPDIR/qemu-args"
    PATH=$bin:$PATH run "$repo/tests/testbed/nested" run -t 20 -- true
    grep -q -- '-accel tcg,thread=multi ' "$BATS_TEST_TMPDIR/qemu-args"
}

@test "nested: a clock that is set is no hang" {
    prepared
    stand_in "$bin/date" 'echo 4000000000'
    stand_in "$bin/qemu" 'exec sleep 12'
    SM_TESTBED_QEMU=$bin/qemu PATH=$bin:$PATH run "$repo/tests/testbed/nested" run -t 60 -- true
    echo "$output"
    [[ $output == *"ended without a result (QEMU's status 0)"* ]]
    [[ $output != *"no sign of life"* ]]
}

@test "testbed: without Debian's keyring, too, an installed QEMU has to do" {
    [ "$(id -u)" -eq 0 ] || skip "needs root to hide the keyring"
    stand_in "$bin/qemu-system-x86_64" ''
    # shellcheck disable=SC2016 # for the shell in there
    SM_TESTBED_CACHE=$BATS_TEST_TMPDIR/cache SM_TESTBED_QEMU='' PATH=$bin:$PATH run unshare --mount \
        sh -c 'mount -t tmpfs none /usr/share/keyrings && exec "$1"' sh "$repo/tests/testbed/qemu"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *"no /usr/share/keyrings/"*"going on with $bin/qemu-system-x86_64"* ]]
}

@test "check-debian: -u is a user with a user's PATH and a /dev/kvm, and this machine's stays whose it is" {
    [ "$(id -u)" -eq 0 ] || skip "needs root: a chroot"
    git -C "$repo" rev-parse --git-dir >/dev/null 2>&1 || skip "not a clone"
    local base=$BATS_TEST_TMPDIR/base before name
    before=$(stat -c '%U %a' /dev/kvm) || before=
    mkdir -p "$base"/{bin,usr/bin,usr/sbin,dev,proc,sys,etc/apt,home,root}
    cp "$(command -v busybox)" "$base/bin/busybox"
    for name in bin/sh bin/chown bin/mkdir bin/ls usr/bin/env; do
        ln -s /bin/busybox "$base/$name"
    done
    echo root:x:0:0::/root:/bin/sh >"$base/etc/passwd"
    echo root:x:0: >"$base/etc/group"
    stand_in "$base/usr/sbin/useradd" 'echo tester:x:1234:1234::/home/tester:/bin/sh >>/etc/passwd; echo tester:x:1234: >>/etc/group
        mkdir /home/tester; chown 1234:1234 /home/tester'
    # shellcheck disable=SC2016 # for the shell in there
    stand_in "$base/usr/bin/make" 'echo "PATH $PATH; $*"; ls -ln /dev/kvm; busybox grep -c " / r" /proc/self/mountinfo'
    run "$repo/scripts/check-debian" -u -b "$base" bookworm this
    echo "$output"
    [ "$status" -eq 0 ]
    grep -qx 'PATH /usr/local/bin:/usr/bin:/bin; -C /home/tester/supermachine this' <<<"$output"
    [ ! -c /dev/kvm ] || grep -q '^crw-------.* 1234 ' <<<"$output"
    grep -qx 1 <<<"$output" # its / is a mount
    [ -z "$before" ] || [ "$(stat -c '%U %a' /dev/kvm)" = "$before" ]
}

# another_user: one who is not root, and has neither packages nor, unless there is a sudo in $bin, rights.
another_user() {
    stand_in "$bin/id" 'echo 1000'
    stand_in "$bin/apt-cache" 'exit 0'
    stand_in "$bin/apt-get" 'exit 1'
    stand_in "$bin/dpkg-query" 'exit 1'
}

@test "setup: the compiler that is looked for is the one that finds headers" {
    tools gcc
    PATH=$bin run "$repo/scripts/setup.sh" kernel
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"command flex"* && $output != *"stdio.h"* ]]
}

@test "make run: a user who may not install is told of everything at once" {
    tools
    another_user
    PATH=$bin run "$repo/scripts/demo.sh"
    echo "$output"
    [ "$status" -eq 1 ]
    [ "$(grep -c 'apt-get install' <<<"$output")" -eq 1 ]
    grep -q '^    apt-get .* linux-source-6.12 .* meson .* busybox-static .* kmod' <<<"$output"
}

@test "setup: sudo asks for the password before there is progress to show" {
    tools sleep tput find
    another_user
    # shellcheck disable=SC2016 # for the shell in there
    stand_in "$bin/sudo" 'case $1 in -n) exit 1 ;; -v) echo "password?" ;; esac'
    PATH=$bin run "$(command -v script)" -qec "$repo/scripts/setup.sh --ask fuzz" /dev/null
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == "password?"* && $output != *"setup:"* ]]
    PATH=$bin run "$(command -v script)" -qec "$repo/scripts/setup.sh fuzz" /dev/null
    echo "$output"
    [[ $output == *"password?"*"setup: installing clang"*"still missing"* ]]
}

@test "make run: a stage that fails ends it, with all that builds the kernel" {
    local tree=$BATS_TEST_TMPDIR/tree
    mkdir -p "$tree/scripts"
    cp "$repo"/scripts/{demo,progress}.sh "$tree/scripts/"
    cp "$(command -v sleep)" "$bin/kernels-make"
    stand_in "$tree/scripts/kvm-usable" ''
    # It runs when it is to be ended: a process that its shell has only just forked would not hear of it.
    stand_in "$tree/scripts/setup.sh" "case \$1 in build) until pgrep -f '$bin/kernels-make' >/dev/null; do sleep 0.1; done; exit 1 ;; esac"
    stand_in "$tree/guest/kernel/build.sh" "trap 'exit 129' HUP INT TERM; $bin/kernels-make 1000 | cat"
    run timeout -k 5 600 "$tree/scripts/demo.sh" 3>&-
    echo "$output"
    [ "$status" -eq 1 ]
    run pgrep -f "$bin/kernels-make"
    [ "$status" -eq 1 ]
}

@test "progress: who shows it holds no lock, and ends with a script that was killed" {
    local script shower n
    # A script that lives and has let go of the lock: if the shower holds it, then for ever.
    # shellcheck disable=SC2016 # for the bash in there
    bash -c 'exec 9>"$1/lock"; flock 9; . "$2/scripts/progress.sh"; begin_progress; exec 9>&-; echo "$progress_shower" >"$1/shower"
        kill -STOP $$' bash "$BATS_TEST_TMPDIR" "$repo" 3>&- >/dev/null 2>&1 &
    script=$!
    until [ -s "$BATS_TEST_TMPDIR/shower" ]; do sleep 0.1; done
    shower=$(cat "$BATS_TEST_TMPDIR/shower")
    timeout 600 flock "$BATS_TEST_TMPDIR/lock" true || { kill -KILL "$script" "$shower"; false; }
    kill -KILL "$script"
    wait "$script" 2>/dev/null || true
    for ((n = 0; n < 3000; n++)); do
        [ -d "/proc/$shower" ] || return 0 # it looks every ten seconds
        sleep 0.2
    done
    kill "$shower"
    false
}

# run_tests TEXT ARGUMENT...: tests/run.sh of a tree in which tests/run-files and meson are stand-ins that do this.
run_tests() {
    local tree=$BATS_TEST_TMPDIR/tree
    mkdir -p "$tree"/{tests,scripts,build}
    cp "$repo/tests/run.sh" "$tree/tests/"
    stand_in "$bin/make" ''
    stand_in "$bin/id" 'echo 1000'
    stand_in "$tree/scripts/kvm-usable" ''
    stand_in "$tree/guest/kernel/build.sh" 'echo kernel >>prepared; echo /kernel'
    # Without root, only the first can be made.
    # shellcheck disable=SC2016 # for the shell in there
    stand_in "$tree/tests/images/make.sh" '[ "$1" = busybox ] && echo /busybox'
    # shellcheck disable=SC2016
    stand_in "$tree/tests/testbed/nested" 'while [ "$1" != -- ]; do shift; done; shift; SM_TESTBED=nested exec "$@"'
    stand_in "$tree/tests/run-files" "$1"
    stand_in "$bin/meson" "$1"
    touch "$tree"/{one,two}.bats
    shift
    run env -u SM_TEST_FILTER -u SM_TEST_REPEAT -u SM_TEST_ALL -u SM_IMAGE_DEBIAN -u SM_IMAGE_SERVICES PATH="$bin:$PATH" \
        "$tree/tests/run.sh" "$@"
    echo "$output"
}

# shellcheck disable=SC2016 # for the stand-ins
@test "run.sh: what is made for the tests is made once, and an image that cannot be is told of once" {
    run_tests 'echo "1..1"; echo "ok 1 ${SM_IMAGE_DEBIAN-unset} ${SM_IMAGE_SERVICES-unset}."; for f; do echo "# done $f"; done' \
        native nested one.bats two.bats
    [ "$status" -eq 0 ]
    [ "$(grep -c '^ok 1  \.$' <<<"$output")" -eq 2 ]
    [ "${lines[-1]}" = "2 passed, 0 failed" ]
    [ "$(wc -l <"$BATS_TEST_TMPDIR/tree/prepared")" -eq 1 ]
}

# shellcheck disable=SC2016 # for the stand-ins
@test "run.sh: files of which nothing is told have failed, natively too" {
    run_tests 'echo "1..1"; echo "ok 1 first"; echo "# done $1"' native one.bats two.bats
    [ "$status" -eq 1 ]
    [[ $output == *"after 1 of 2 files"* ]]
    [ "${lines[-1]}" = "1 passed, 1 failed" ]
    run_tests 'echo "1..1"; echo "ok 1 first"; for f; do echo "# done $f"; done; exit 143' native one.bats two.bats
    [ "$status" -eq 1 ]
    run_tests 'for f in "$@" "$@"; do echo "1..1"; echo "ok 1 all"; echo "# done $f"; done' --repeat 2 native one.bats two.bats
    [ "${lines[-1]}" = "4 passed, 0 failed" ]
}

# shellcheck disable=SC2016 # for the stand-ins
@test "run.sh: a meson that dies has failed, whatever the log of an earlier one says" {
    local log='{"name":"t","result":"OK","duration":1,"stdout":"[  PASSED  ] 3 test(s)."}' end='mkdir -p "$3/meson-logs"; cd "$3/meson-logs"'
    stand_in "$bin/setarch" 'shift; exec "$@"'
    run_tests "$end; echo '$log' >testlog.json" unit
    [ "${lines[-1]}" = "6 passed, 0 failed" ]
    run_tests 'exit 1' unit
    [ "$status" -eq 1 ]
    [ "${lines[-1]}" = "0 passed, 2 failed" ]
    run_tests "$end; echo '$log' >testlog.json; exit 1" unit
    [ "$status" -eq 1 ]
    [ "${lines[-1]}" = "6 passed, 2 failed" ]
}

# plant FILE LINE-OR-ADDRESS TEXT: into a copy of the tree, after that line (0: in front).
plant() {
    if [ "$2" = 0 ]; then sed -i "1i $3" "$copy/$1"; else sed -i "$2a $3" "$copy/$1"; fi
}

# refused FILE:LINE WORDS: check-rooms finds this in the copy, and nothing else.
refused() {
    run "$repo/scripts/check-rooms" "$copy"
    echo "$output"
    [ "$status" -eq 1 ]
    [ "${#lines[@]}" -eq 1 ]
    [[ $output == "$1: "*"$2"* ]]
}

rooms_copy() {
    copy=$BATS_TEST_TMPDIR/tree
    mkdir "$copy"
    cp -r "$repo"/{bench,docs,examples,guest,include,scripts,src,tests,meson.build,*.md} "$copy"
}

@test "check-rooms: the tree keeps the rules" {
    run "$repo/scripts/check-rooms"
    echo "$output"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

@test "check-rooms: an include that the table does not allow is refused" {
    rooms_copy
    plant src/devices/serial.c 2 '#include "hypervisor/hypervisor.h"'
    refused src/devices/serial.c:3 "includes hypervisor/hypervisor.h; devices may call util"
}

@test "system-calls: a call that no line says, a line that is none, and a phrase that nobody knows are refused" {
    rooms_copy
    "$copy/scripts/system-calls" check
    plant src/devices/bus.c '$' 'int x(void) { return socket(1, 2, 3); }'
    sed -i 's/System calls of the device thread: getrandom\./System calls of the device thread: get random./' "$copy/src/devices/virtio_rng.c"
    sed -i 's/System calls of the device thread: fdatasync\./System calls at tea: fdatasync./' "$copy/src/devices/virtio_pmem.c"
    run "$copy/scripts/system-calls" check
    echo "$output"
    [ "$status" -eq 1 ]
    [ "${#lines[@]}" -eq 4 ] # of random: the line, and that the call is not said now
    [[ $output == *"src/devices/bus.c:$(wc -l <"$copy/src/devices/bus.c"): calls socket(), and no line \"System calls:\" of it says socket"* ]]
    [[ $output == *'src/devices/virtio_rng.c:1: "get random" is no list of system calls'* ]]
    [[ $output == *'src/devices/virtio_pmem.c:1: "System calls at tea:" is no phrase of src/sandbox/roles'* ]]
}

@test "system-calls: what a list may never have without a bound is refused" {
    rooms_copy
    sed -i 's/System calls of the device thread: getrandom\./System calls of the device thread: ioctl./' "$copy/src/devices/virtio_rng.c"
    run "$copy/scripts/system-calls" generate "$BATS_TEST_TMPDIR/x.c" "$BATS_TEST_TMPDIR/x.d" x86_64 cc
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == "system-calls: ioctl: say of which kind, in parentheses" ]]
}

@test "system-calls: the lists of another architecture are made from the same lines" {
    "$repo/scripts/system-calls" generate "$BATS_TEST_TMPDIR/x.c" "$BATS_TEST_TMPDIR/x.d" aarch64 cc
    grep -q AUDIT_ARCH_AARCH64 "$BATS_TEST_TMPDIR/x.c"
    [ "$(grep -c KVM_SET_XCRS "$BATS_TEST_TMPDIR/x.c")" -eq 0 ]
}

@test "check-rooms: one header of a room may be allowed, the others are not" {
    rooms_copy
    plant src/snapshot/io.h '$' '#include "devices/virtio_mmio.h"'
    refused "src/snapshot/io.h:$(wc -l <"$copy/src/snapshot/io.h")" "includes devices/virtio_mmio.h"
}

@test "check-rooms: what all architectures have does not know one of them" {
    rooms_copy
    plant src/arch/vcpu_state.h '$' '#include "arch/x86_64/state.h"'
    run "$repo/scripts/check-rooms" "$copy"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"includes arch/x86_64/state.h; arch may call util"* ]]
}

@test "check-rooms: whatever the table says, an architecture is known to arch and kvm only" {
    rooms_copy
    sed -i 's/^\(| `src\/devices\/` .*\)| util |$/\1| arch\/x86_64, util |/' "$copy/docs/architecture.md"
    plant src/devices/serial.c 2 '#include "arch/x86_64/boot.h"'
    refused src/devices/serial.c:3 "what one architecture has is for src/arch/x86_64 and src/hypervisor/kvm"
}

@test "check-rooms: KVM and epoll are known in one place each" {
    rooms_copy
    plant src/devices/serial.c '$' '#include <linux/kvm.h>'
    refused "src/devices/serial.c:$(wc -l <"$copy/src/devices/serial.c")" "KVM is known in src/hypervisor/kvm only"
    cp "$repo/src/devices/serial.c" "$copy/src/devices/"
    plant src/net/frame.c '$' 'int sm_frame_fd(void)\n{\n    return epoll_create1(0); /* epoll_wait in a comment is none */\n}'
    refused "src/net/frame.c:$(($(wc -l <"$copy/src/net/frame.c") - 1))" "epoll_create1; epoll and eventfd are for src/util"
}

@test "check-rooms: a VM asks its machine through its engine only" {
    rooms_copy
    plant src/vm/bake.c 2 '#include "vmm/machine.h"'
    refused src/vm/bake.c:3 "a VM asks its machine through vm/engine.h"
}

@test "check-rooms: a file without an opening comment is refused" {
    rooms_copy
    plant tests/unit/test_wire.c 0 '#include <stdarg.h>'
    refused tests/unit/test_wire.c:1 "opens without a comment"
}

@test "check-rooms: a comment of 101 columns is refused, one of 100 is not, nor a string" {
    local dashes
    rooms_copy
    dashes=$(printf '%094d' 0)
    plant src/util/strv.c '$' "/* $dashes */"
    plant src/util/strv.c '$' "const char *sm_long = \"$dashes\";"
    run "$repo/scripts/check-rooms" "$copy"
    echo "$output"
    [ "$status" -eq 0 ]
    plant src/util/strv.c '$' "/* 0$dashes */"
    refused "src/util/strv.c:$(wc -l <"$copy/src/util/strv.c")" "a comment of 101 columns; 100 is the most"
}

@test "check-rooms: an #ifdef for an architecture is refused above it" {
    rooms_copy
    plant src/devices/serial.c '$' '#ifdef __aarch64__'
    refused "src/devices/serial.c:$(wc -l <"$copy/src/devices/serial.c")" "__aarch64__; an #ifdef for an architecture"
}

@test "check-rooms: a function of 60 lines is refused, one of 59 is not" {
    rooms_copy
    { printf 'void longest(void)\n{\n'; for ((n = 0; n < 56; n++)); do echo '    /* a line */'; done; echo '}'; } >>"$copy/src/util/strv.c"
    run "$repo/scripts/check-rooms" "$copy"
    echo "$output"
    [ "$status" -eq 0 ]
    sed -i '/^void longest/i static' "$copy/src/util/strv.c"
    refused "src/util/strv.c:$(grep -n -B1 '^void longest' "$copy/src/util/strv.c" | sed -n '1s/-.*//p')" "longest has 60 lines"
}

@test "check-rooms: a variable that is declared above where it is first used is refused" {
    local end
    rooms_copy
    end=$(wc -l <"$copy/src/util/strv.c")
    plant src/util/strv.c '$' 'void sm_declared(void)\n{\n    int one, two;\n    use(\&two);\n    one = two;\n}'
    refused "src/util/strv.c:$((end + 3))" "one gets its value further down"
    sed -i 's/^    one = two;/    if (two)\n        one = two;\n    int three = two;\n\n    use(\&three);/' "$copy/src/util/strv.c"
    run "$repo/scripts/check-rooms" "$copy"
    echo "$output"
    [ "$status" -eq 0 ]
    sed -i 's/^    int one, two;/&\n    char *three = look(1,\n        2);\n/' "$copy/src/util/strv.c"
    refused "src/util/strv.c:$((end + 3))" "a list of declarations, then an empty line"
}

@test "check-rooms: a circle inside a room is refused, of calls and of headers" {
    rooms_copy
    plant src/util/crc32c.c '$' 'int sm_first(void)\n{\n    return sm_second();\n}'
    plant src/util/strv.c '$' 'int sm_second(void)\n{\n    return sm_first();\n}'
    refused src/util/crc32c.c:1 "in a circle: crc32c.c -> strv.c (sm_second), strv.c -> crc32c.c (sm_first)"
    cp "$repo"/src/util/{crc32c,strv}.c "$copy/src/util/"
    plant src/util/crc32c.h '$' '#include "util/strv.h"'
    plant src/util/strv.h '$' '#include "util/crc32c.h"'
    refused src/util/crc32c.h:1 "headers in a circle: src/util/crc32c.h src/util/strv.h"
}

@test "check-rooms: a row may call rows below it only, and every file has a row" {
    rooms_copy
    sed -i 's/^\(| `src\/devices\/` .*\)| util |$/\1| net, util |/' "$copy/docs/architecture.md"
    refused "docs/architecture.md:$(grep -n '^| `src/devices/`' "$copy/docs/architecture.md" | cut -d: -f1)" "devices may call net, which is no row below it"
    cp "$repo/docs/architecture.md" "$copy/docs/"
    mkdir "$copy/src/new"
    echo '/* It is new. */' >"$copy/src/new/new.h"
    refused src/new/new.h:1 "is in no room"
}

# matches PATTERN: a line of the output does.
matches() {
    local line
    for line in "${lines[@]}"; do
        # shellcheck disable=SC2053
        if [[ $line == $1 ]]; then return 0; fi
    done
    echo "no line is $1"
    return 1
}

# expect FILE:LINE WORDS: what check-rooms is to find in the copy, beside the rest.
expect() {
    expected+=("$1: "*"$2"*)
}

@test "check-rooms: what went around its rules once is refused" {
    local file text words want expected=()
    rooms_copy
    while IFS='~' read -r file text words; do
        plant "$file" '$' "$text"
        expect "$file:$(wc -l <"$copy/$file")" "$words"
    done <<'END'
src/vm/bake.c~#include "../vmm/machine.h"~a VM asks its machine through vm/engine.h
src/devices/serial.c~#include <hypervisor/hypervisor.h>~includes hypervisor/hypervisor.h; devices may call util
src/devices/serial.h~#include HYPERVISOR~cannot be judged
src/devices/virtqueue.c~#import "devices/virtqueue.h"~cannot be judged
src/devices/virtqueue.h~#include "dispose.h"~includes dispose.h, which is neither beside it nor below src/
src/util/strv.c~#include "error.c"~a .c file is compiled by itself
src/vm/capture.c~#include "snapshot/writer_internal.h"~which is for the files of its room and for tests
src/devices/bus.c~#define OPEN sm_hv_open(0)~calls sm_hv_open of src/hypervisor/hypervisor.h; devices may call util
src/rootfs/tree.c~int sm_gone(void *other, int (*call)(void));~declares sm_gone
src/rootfs/ext4.c~extern int sm_gone;~what another file has stands in that one's header
tests/unit/test_error.c~#\tinclude <asm/kvm.h>~KVM is known in src/hypervisor/kvm only
src/net/frame.c~#define WAIT SYS_epoll_create1~epoll and eventfd are for src/util
src/net/names.c~#include <linux/eventpoll.h>~epoll and eventfd are for src/util
src/net/policy.c~#define WAIT syscall(291, 0)~a system call has a name
src/vmm/memory.c~#if defined(__amd64__)~an #ifdef for an architecture
src/vmm/state.c~#include <x86intrin.h>~instructions are for src/arch
src/vmm/vcpus.c~#define PAUSE __asm__("pause")~instructions are for src/arch
src/util/error.c~#define END exit(1)~a library neither prints nor exits
src/util/file.c~static unsigned counter;~no state is global
src/util/file.h~static const char *last_seen;~no state is global
src/util/thread.c~int sm_counter_of_all;~no state is global
src/util/thread.h~static _Atomic(int) n;~no state is global
src/util/text.c~static int (*hook)(int);~no state is global
src/util/text.h~_Thread_local static int t;~no state is global
src/net/addr.c~static\nint two_lines;~no state is global
src/net/tap.c~#define SAY dprintf(2, "")~a library neither prints nor exits
src/net/slirp.c~#define SAY write(1, "", 1)~a library neither prints nor exits
src/net/flows.c~#define END quick_exit(1)~a library neither prints nor exits
src/net/backlog.c~#define END raise(9)~a library neither prints nor exits
tests/unit/test_wire.c~#define START pthread_create(0, 0, 0, 0)~wire belongs to threaded_tests
END
    for file in src/util tests/unit tests/fuzz; do
        echo '/* It is new. */' >"$copy/$file/${file##*/}_gone.c"
        expect "$file/${file##*/}_gone.c:1" "is in no meson.build"
    done
    echo '/* */' >"$copy/src/util/none.h"
    expect src/util/none.h:1 "opens without a comment"
    mkdir "$copy/tests/fuzz/corpus/lost"
    expect tests/fuzz/corpus/lost:1 "belongs to no fuzz target"
    sed -i "s/^subdir('bench')/&\nsubdir('lib')/" "$copy/meson.build"
    expect meson.build:1 "builds lib, into which scripts/check-rooms does not look"
    sed -i 's/^| `src\/util\/` .*/&\n&/' "$copy/docs/architecture.md"
    expect "docs/architecture.md:$(grep -n '^| `src/util/`' "$copy/docs/architecture.md" | sed -n '2s/:.*//p')" "util has a row already"
    run "$repo/scripts/check-rooms" "$copy"
    echo "$output"
    [ "$status" -eq 1 ]
    for want in "${expected[@]}"; do
        matches "$want"
    done
    [ "${#lines[@]}" -eq "${#expected[@]}" ]
}

@test "check-rooms: a page that names a file which is not there is refused" {
    rooms_copy
    echo 'See `util/strv.h`, `src/util/str*.c`, [style](style.md#names) and `util/gone.c`.' >>"$copy/docs/store.md"
    refused "docs/store.md:$(wc -l <"$copy/docs/store.md")" "names util/gone.c, which is not there"
}

# abi_differs WORDS: the copy of the header does not say what the list says; this is told.
abi_differs() {
    run "$repo/scripts/abi" --header "$BATS_TEST_TMPDIR/supermachine.h"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"$1"* ]]
    [[ $output == *"scripts/abi -u"* ]]
    cp "$repo/include/supermachine.h" "$BATS_TEST_TMPDIR/"
}

@test "abi: what the header declares is what the list says" {
    run "$repo/scripts/abi"
    echo "$output"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

@test "abi: a member, a type, a constant or a function that changes is told" {
    local header=$BATS_TEST_TMPDIR/supermachine.h
    cp "$repo/include/supermachine.h" "$header"
    sed -i 's/^    unsigned vcpus;  .*/    unsigned threads, vcpus;/' "$header"
    abi_differs '+    threads at 24: 4'
    sed -i 's/^SM_API int sm_exec_fd(sm_exec \*exec, int stream)/SM_API int sm_exec_fd(sm_exec *exec, long stream)/' "$header"
    abi_differs '+function int sm_exec_fd(sm_exec *exec, long stream)'
    sed -i 's/^    SM_EEXIST, .*/    SM_ENEW, SM_EEXIST,/' "$header"
    abi_differs '+constant SM_EEXIST = 4'
    sed -i '/^SM_API const char \*sm_version(void);/d' "$header"
    abi_differs '-function const char *sm_version(void)'
}

@test "abi: a library that exports more or less is told" {
    echo 'int sm_extra(void); int sm_extra(void) { return 0; }' >"$BATS_TEST_TMPDIR/extra.c"
    cc -shared -fPIC -o "$BATS_TEST_TMPDIR/extra.so" "$BATS_TEST_TMPDIR/extra.c"
    run "$repo/scripts/abi" "$BATS_TEST_TMPDIR/extra.so"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"sm_extra is exported, and not in the header"* ]]
    [[ $output == *"sm_version is in the header, and the library does not export it"* ]]
}

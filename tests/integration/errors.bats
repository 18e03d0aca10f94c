#!/usr/bin/env bats
# Bad input: each a clear sentence, a status of 125 to 127, nothing on stdout, nothing left behind.
load helper

@test "words of the command line that make no sense" {
    fails_with 125 "which image" supermachine run
    fails_with 125 "'frobnicate'" supermachine frobnicate
    fails_with 125 "'--frobnicate'" supermachine run --frobnicate "$busybox"
    fails_with 125 "not a size" supermachine run --memory lots "$busybox"
    fails_with 125 "1 to 16" supermachine run --cpus 17 "$busybox"
    fails_with 125 "not a time" supermachine run --timeout soon "$busybox"
    fails_with 125 "NAME=VALUE" supermachine run -e =x "$busybox"
    fails_with 125 "no host name" supermachine run --hostname 'a b' "$busybox"
    fails_with 125 "cannot read the environment file" supermachine run --env-file /nowhere "$busybox"
    fails_with 125 "volumes" supermachine run -v /tmp:/tmp "$busybox"
    run supermachine
    [ "$status" -eq 125 ]
}

@test "a VM that is named runs by its name or not at all" {
    XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR/nowhere fails_with 125 "cannot have the name 'web': No such file" \
        supermachine run --name web --kernel /nowhere "$busybox" true
    fails_with 125 "no name for a VM" supermachine run --name a/b "$busybox" true
    # one that nobody has named goes on to the next step
    XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR/nowhere fails_with 125 "/nowhere" supermachine run --kernel /nowhere "$busybox" true
}

@test "what is no snapshot is not copied, whoever may write it" {
    supermachine image inspect "$busybox" >/dev/null
    head -c 4M /dev/zero >"$BATS_TEST_TMPDIR/big"
    chmod 666 "$BATS_TEST_TMPDIR/big"
    ulimit -f 64 # KiB
    fails_with 125 "not a snapshot" supermachine run --snapshot "$BATS_TEST_TMPDIR/big" "$busybox" true
}

@test "too little and too much memory" {
    fails_with 125 "memory" supermachine run --memory 1m "$busybox" true
    fails_with 125 "memory" supermachine run --memory 100t "$busybox" true
}

@test "an image that is not there" {
    fails_with 125 "/no/such/dir" supermachine run oci:/no/such/dir true
    fails_with 125 "no-such-ref" supermachine run "oci:$SM_IMAGE_BUSYBOX/oci:no-such-ref" true
    fails_with 125 "nothing.tar" supermachine run oci-archive:/nothing.tar true
    fails_with 125 "unheard-of" supermachine image inspect "$(printf 'sha256:%064d' 1)unheard-of"
}

@test "truncated archives" {
    local size
    size=$(stat -c %s "$SM_IMAGE_BUSYBOX/oci.tar")
    head -c $((size / 2)) "$SM_IMAGE_BUSYBOX/oci.tar" >"$BATS_TEST_TMPDIR/oci.tar"
    fails_with 125 "oci.tar|truncated|digest|short" supermachine run "oci-archive:$BATS_TEST_TMPDIR/oci.tar" true
    head -c $((size / 2)) "$SM_IMAGE_BUSYBOX/docker.tar" >"$BATS_TEST_TMPDIR/docker.tar"
    fails_with 125 "docker.tar|truncated|digest|short" supermachine run "docker-archive:$BATS_TEST_TMPDIR/docker.tar" true
    : >"$BATS_TEST_TMPDIR/empty.tar"
    fails_with 125 "empty.tar" supermachine run "oci-archive:$BATS_TEST_TMPDIR/empty.tar" true
}

@test "a layer whose digest is wrong, and one that is missing" {
    local layout=$BATS_TEST_TMPDIR/layout manifest layer
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$layout"
    manifest=$(jq -r '.manifests[0].digest' "$layout/index.json")
    layer=$(jq -r '.layers[0].digest' "$layout/blobs/sha256/${manifest#sha256:}")
    chmod u+w "$layout/blobs/sha256/${layer#sha256:}"
    printf x | dd of="$layout/blobs/sha256/${layer#sha256:}" bs=1 seek=1000 conv=notrunc 2>/dev/null
    XDG_DATA_HOME=$BATS_TEST_TMPDIR/data fails_with 125 "digest|corrupt|[Dd]amaged" supermachine run "oci:$layout:latest" true
    rm -f "$layout/blobs/sha256/${layer#sha256:}"
    XDG_DATA_HOME=$BATS_TEST_TMPDIR/data fails_with 125 "${layer:7:8}|missing" supermachine run "oci:$layout:latest" true
    [ -z "$(find "$BATS_TEST_TMPDIR/data" -type f -size +1M)" ]
}

# hostile NAME PYTHON: an image whose layer is what the statements put into the tar `t`.
hostile() {
    local layout=$BATS_TEST_TMPDIR/$1
    python3 - "$layout" "$2" <<'PY'
import hashlib, io, json, os, sys, tarfile
layout, code = sys.argv[1:]
os.makedirs(layout + "/blobs/sha256")
def blob(data):
    digest = hashlib.sha256(data).hexdigest()
    open(f"{layout}/blobs/sha256/{digest}", "wb").write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}
out = io.BytesIO()
t = tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT)
def entry(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    t.addfile(info, io.BytesIO(data))
exec(code)
t.close()
data = out.getvalue()
layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", **blob(data)}
config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
          "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
config = {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(json.dumps(config).encode())}
manifest = blob(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode())
manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json", **manifest,
            "annotations": {"org.opencontainers.image.ref.name": "latest"}}
json.dump({"schemaVersion": 2, "manifests": [manifest]}, open(layout + "/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(layout + "/oci-layout", "w"))
PY
    echo "oci:$layout:latest"
}

@test "layers that reach out of the root are refused, and write nothing outside" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    command -v python3 >/dev/null || skip "needs python3"
    fails_with 125 "\.\." supermachine run "$(hostile dots 'entry("../../escaped", b"x")')" true
    fails_with 125 "escaped|link|loop|\.\." supermachine run \
        "$(hostile hard 'entry("x", type=tarfile.LNKTYPE, linkname="../../../etc/passwd")')" true
    [ -z "$(find "$BATS_TEST_TMPDIR" -name 'escaped*')" ]
}

@test "a missing, broken and unsuitable guest kernel" {
    fails_with 125 "/no/kernel" supermachine run --kernel /no/kernel "$busybox" true
    head -c 100000 /dev/zero >"$BATS_TEST_TMPDIR/zeros"
    fails_with 125 "zeros" supermachine run --kernel "$BATS_TEST_TMPDIR/zeros" "$busybox" true
    head -c 100000 "$SM_BUILD/guest/vmlinux" >"$BATS_TEST_TMPDIR/half"
    fails_with 125 "half" supermachine run --kernel "$BATS_TEST_TMPDIR/half" "$busybox" true
    SUPERMACHINE_GUEST_DIR=$BATS_TEST_TMPDIR fails_with 125 "vmlinux" supermachine run "$busybox" true
}

@test "a kernel that panics: the reason, and the console's end" {
    cp -L "$SM_BUILD/guest/vmlinux" "$BATS_TEST_TMPDIR/"
    # An initramfs that is none: the kernel finds nothing to run.
    printf 'not an archive' >"$BATS_TEST_TMPDIR/agent.cpio"
    SUPERMACHINE_GUEST_DIR=$BATS_TEST_TMPDIR fails_with 125 "panic" supermachine run "$busybox" true
}

@test "what a guest's root writes to the console is no panic, and only text in a message" {
    local in=$BATS_TEST_TMPDIR/in out=$BATS_TEST_TMPDIR/out pid
    mkfifo "$in"
    exec 4<>"$in" # read too: a VM that has ended is no failure to write
    supermachine run -i --cap-add SYS_BOOT "$busybox" sh -c '
        printf "<0>\033]0;evil\007\302\233 PWNED\n" >/dev/kmsg
        printf "<0>Kernel panic - not syncing: fake\n" >/dev/kmsg
        sleep 6 # time enough to be taken for a panic that hangs
        echo alive
        read -r _ # it has arrived: what the agent has not sent yet would be lost
        reboot -f' <"$in" >"$out" 2>"$BATS_TEST_TMPDIR/err" 3>&- 4>&- &
    pid=$!
    said_or_over() { grep -qx alive "$out" || ! kill -0 "$pid" 2>/dev/null; }
    wait_for said_or_over
    echo >&4
    wait "$pid" || true
    stderr=$(cat "$BATS_TEST_TMPDIR/err")
    echo "$(cat "$out") $stderr"
    [ "$(cat "$out")" = alive ]
    [[ $stderr == *shut\ itself\ down* ]]
    [[ $stderr != *panic* ]]
    [ -z "$(tr -d '\n\40-\176' <<<"$stderr")" ]
}

# Runs a command with /dev replaced by an almost empty one.
without_kvm() {
    unshare --mount sh -c '
        mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 &&
        { [ -z "$SM_TEST_KVM_MODE" ] || mknod -m "$SM_TEST_KVM_MODE" /dev/kvm c 10 "${SM_TEST_KVM_MINOR:-232}"; } && ln -s /proc/self/fd /dev/fd && exec "$@"' sh "$@"
}

@test "no /dev/kvm, no permission, no KVM behind it" {
    [ "$(id -u)" -eq 0 ] || skip "needs root to hide /dev/kvm"
    supermachine image inspect "$busybox" >/dev/null
    fails_with 125 "/dev/kvm" without_kvm supermachine run "$busybox" true
    # root that may not override permission bits is as good as anybody else
    SM_TEST_KVM_MODE=0 fails_with 125 "ermission" without_kvm setpriv --bounding-set=-dac_override --inh-caps=-dac_override \
        supermachine run "$busybox" true
    # a device node without a driver
    SM_TEST_KVM_MINOR=251 SM_TEST_KVM_MODE=666 fails_with 125 "/dev/kvm" without_kvm supermachine run "$busybox" true
}

@test "a store that cannot be written" {
    printf x >"$BATS_TEST_TMPDIR/file"
    XDG_DATA_HOME=$BATS_TEST_TMPDIR/file fails_with 125 "file" supermachine run "$busybox" true
}

@test "output that cannot be written" {
    run supermachine version
    [ "$status" -eq 0 ]
    run bash -c 'supermachine version >/dev/full'
    [ "$status" -eq 125 ]
    [[ $output == "supermachine: "* ]]
}

#!/usr/bin/env bats
# bats file_tags=host
# Local images become root filesystems: equal to what umoci unpacks, whole or not at all, shared, removed.
load helper
load image_helper

@test "busybox and debian: every path, mode, owner, link, time and digest as umoci unpacks them" {
    needs_debian
    built "$busybox"
    same_as_umoci "$SM_IMAGE_BUSYBOX/oci:latest"
    built "$debian"
    same_as_umoci "$SM_IMAGE_DEBIAN/oci:latest"
}

@test "layers with whiteouts, links, attributes, devices; gzip, zstd and plain" {
    local layers='
base = l.layer([("d", "etc"), ("f", "etc/keep", b"1"), ("f", "etc/gone", b"2"), ("d", "opq"), ("f", "opq/a", b"a"),
    ("d", "opq/sub"), ("f", "opq/sub/b", b"b"), ("f", "file-to-dir", b"x"), ("d", "dir-to-file"),
    ("f", "dir-to-file/in", b"y"), ("f", "hard1", b"hard" * 5000), ("h", "hard2", "hard1"), ("l", "sym", "etc/keep"),
    ("f", "suid", b"s", {"mode": 0o6755, "uid": 1000, "gid": 70000}),
    ("c", "null", None, {"devmajor": 1, "devminor": 3, "mode": 0o666}), ("p", "fifo"),
    ("d", "x" * 200), ("f", "x" * 200 + "/" + "y" * 200, b"long"),
    ("f", "attr", b"", {"pax_headers": {"SCHILY.xattr.user.one": "1", "SCHILY.xattr.user.two": "zwei"}})], how)
second = l.layer([("f", "etc/.wh.gone"), ("d", "opq"), ("f", "opq/new", b"n"), ("f", "opq/.wh..wh..opq"),
    ("d", "file-to-dir"), ("f", "file-to-dir/in", b"z"), ("f", "dir-to-file", b"w"), ("h", "hard3", "hard1")], how)
third = l.layer([("f", "hard1", b"new"), ("d", "etc", None, {"mode": 0o700, "uid": 5}), ("f", ".wh.fifo")])
l.image("latest", [base, second, third])'
    layout "how = 'zstd' $layers"
    built "oci:$BATS_TEST_TMPDIR/layout"
    mv "$rootfs" "$BATS_TEST_TMPDIR/zstd"
    layout "how = 'gzip' $layers"
    built "oci:$BATS_TEST_TMPDIR/layout"
    cmp "$rootfs" "$BATS_TEST_TMPDIR/zstd"
    same_as_umoci "$BATS_TEST_TMPDIR/layout:latest"
    grep -q '^/attr .* xattr:user.one=31 xattr:user.two=7a776569$' "$BATS_TEST_TMPDIR/ours"
}

@test "modes beside ACLs, and times before 1970 with fractions" {
    layout '
acl = "SCHILY.acl.access"
l.image("latest", [l.layer([
    ("f", "named", b"x", {"mode": 0o660, "pax_headers": {acl: "user::rw-,user:1000:rw-,group::---,mask::rw-,other::---"}}),
    ("f", "masked", b"x", {"mode": 0o606, "pax_headers": {acl: "user::rw-,user:1000:rw-,group::rw-,mask::---,other::rw-"}}),
    ("f", "minimal", b"x", {"mode": 0o640, "pax_headers": {acl: "user::rw-,group::r--,other::---"}}),
    ("f", "special", b"x", {"mode": 0o6570, "pax_headers": {acl: "user::r-x,user:0:r-x,group::r--,mask::rwx,other::---"}}),
    ("f", "before", b"x", {"pax_headers": {"mtime": "-5.25"}}),
    ("f", "long-before", b"x", {"pax_headers": {"mtime": "-1000000000.000000001"}}),
    ("f", "whole", b"x", {"pax_headers": {"mtime": "-7"}}),
    ("f", "after", b"x", {"pax_headers": {"mtime": "5.75"}})])])'
    built "oci:$BATS_TEST_TMPDIR/layout"
    same_as_umoci "$BATS_TEST_TMPDIR/layout:latest"
    grep -q '^/masked [^ ]* 0*606 ' "$BATS_TEST_TMPDIR/ours" || { cat "$BATS_TEST_TMPDIR/ours"; false; }
}

@test "layers with odd ends: frames, members, headers of packers, nothing, no end" {
    layout '
whole = tar([("f", "a", b"1" * 700), ("f", "b", os.urandom(3000))])
half = len(whole) // 2
def zstd(d): return compress(d, "zstd")
def named(d): # FEXTRA, FNAME, FCOMMENT
    raw = compress(d, "gzip")
    return raw[:3] + bytes([4 | 8 | 16]) + raw[4:10] + b"\4\0abcd" + b"name\0" + b"comment\0" + raw[10:]
skip = b"\x50\x2a\x4d\x18" + (300).to_bytes(4, "little") + bytes(300)
def add(name, packed, data, kind="tar"):
    d = l.blob(packed, "application/vnd.oci.image.layer.v1." + kind)
    l.image(name, [(d, digest(data))])
add("frames", zstd(whole[:half]) + zstd(whole[half:]), whole, "tar+zstd")
add("skippable", skip + zstd(whole[:half]) + skip + zstd(whole[half:]) + skip, whole, "tar+zstd")
add("members", compress(whole[:half], "gzip") + compress(whole[half:], "gzip"), whole, "tar+gzip")
add("named", named(whole), whole, "tar+gzip")
add("wrong-type", compress(whole, "gzip"), whole, "tar+zstd")
end = whole[:512 + 1024 + 512 + 3072]
add("no-blocks", end, end)
add("one-block", end + bytes(512), end + bytes(512))
for name, data in [("nothing", b""), ("zeros", bytes(1024)), ("tape", bytes(10240))]:
    add(name, data, data)
    add(name + "-gzip", compress(data, "gzip"), data, "tar+gzip")
    add(name + "-zstd", zstd(data), data, "tar+zstd")
add("garbage", compress(whole, "gzip") + b"trailing garbage", whole, "tar+gzip")
add("zgarbage", zstd(whole) + b"trailing garbage", whole, "tar+zstd")'
    local name kind layout=oci:$BATS_TEST_TMPDIR/layout
    built "$layout:frames"
    [ "$("$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -c '^/[ab] file ')" -eq 2 ]
    cp "$rootfs" "$BATS_TEST_TMPDIR/same"
    for name in skippable members named wrong-type garbage; do
        echo "$name"
        rm -rf "$store"
        built "$layout:$name"
        cmp "$rootfs" "$BATS_TEST_TMPDIR/same"
    done
    for name in no-blocks one-block; do
        built "$layout:$name"
        [ "$("$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -c '^/[ab] file ')" -eq 2 ]
    done
    for name in nothing zeros tape; do
        for kind in "$name" "$name-gzip" "$name-zstd"; do
            built "$layout:$kind"
            [ "$("$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | wc -l)" -eq 1 ]
        done
    done
    rm -rf "$store"
    refused "layer 1 of 1(: the layer cannot be decompressed| unpacks to )" "$layout:zgarbage"
}

@test "names that are not UTF-8, long ones, and those with odd characters: bytes as they are" {
    layout '
latin = "caf\udce9"
names = [latin, "line\nbreak", "back\\slash", "-rf", " ", "*", "x" * 255, "/".join(["d" * 39] * 100), "\u00e9"]
def raw_pax(kind, **records): # a header without hdrcharset
    body = b""
    for key, value in records.items():
        line = b" " + key.encode() + b"=" + value + b"\n"
        n = len(line)
        n += len(str(n + len(str(n))))
        body += str(n).encode() + line
    head = tarfile.TarInfo("pax")
    head.type, head.size = b"x", len(body)
    info = tarfile.TarInfo("short")
    info.type, info.linkname = kind, "short-target"
    return head.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + info.tobuf(tarfile.USTAR_FORMAT)
def members(form):
    parents = ["/".join(["d" * 39] * i) for i in range(1, 100)] if form != tarfile.USTAR_FORMAT else []
    return [("d", n) for n in parents] + [("f", n, b"x") for n in names if form != tarfile.USTAR_FORMAT or len(n) < 100] + [
        ("l", "link-" + str(i), n) for i, n in enumerate(names) if form != tarfile.USTAR_FORMAT or len(n) < 100] + [("h", "hard", latin)]
for name, form in ("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT):
    l.image(name, [l.layer(tar(members(form), form))])
l.image("raw", [l.layer(raw_pax(b"0", path=b"caf\xe9") + raw_pax(b"2", path=b"link", linkpath=b"caf\xe9") + bytes(1024))])'
    local name
    for name in ustar gnu pax raw; do
        echo "$name"
        built "oci:$BATS_TEST_TMPDIR/layout:$name"
        same_as_umoci "$BATS_TEST_TMPDIR/layout:$name"
        LC_ALL=C grep -aq $'^/caf\xe9 file' "$BATS_TEST_TMPDIR/ours"
    done
}

@test "capabilities, setuid, ACLs and attributes as umoci has them; overlay's own are no business of an image" {
    layout '
caps = "SCHILY.xattr.security.capability"
acl = "SCHILY.xattr.system.posix_acl_access"
def entry(tag, perm, who=0xffffffff): return tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little")
access = (2).to_bytes(4, "little") + entry(1, 6) + entry(2, 6, 1000) + entry(4, 4) + entry(16, 6) + entry(32, 4)
def text(b): return b.decode("utf-8", "surrogateescape")
l.image("latest", [l.layer([
    ("f", "ping", b"x", {"mode": 0o755, "pax_headers": {caps: text(bytes.fromhex("0100000200200000000000000000000000000000"))}}),
    ("f", "su", b"x", {"mode": 0o4755}),
    ("f", "user", b"x", {"pax_headers": {"SCHILY.xattr.user.large": "v" * 3800}})])])
l.image("acl", [l.layer([("f", "acl", b"x", {"mode": 0o664, "pax_headers": {acl: text(access)}})])])
l.image("overlay", [l.layer([("d", "d", None, {"pax_headers": {"SCHILY.xattr.trusted.overlay.opaque": "y"}}),
    ("f", "d/f", b"x", {"pax_headers": {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.whiteout": "y"}})])])
l.image("large", [l.layer([("f", "large", b"x", {"pax_headers": {"SCHILY.xattr.user.large": "v" * 4000}})])])'
    built "oci:$BATS_TEST_TMPDIR/layout:latest"
    same_as_umoci "$BATS_TEST_TMPDIR/layout:latest"
    grep -q '^/ping .* xattr:security.capability=0100000200200000000000000000000000000000$' "$BATS_TEST_TMPDIR/ours"
    grep -q '^/su file 0*4755 ' "$BATS_TEST_TMPDIR/ours"
    built "oci:$BATS_TEST_TMPDIR/layout:acl" # on the disk it has ext4's form: version 1, and no id where there is none
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" |
        grep -q '^/acl .* xattr:system.posix_acl_access=010000000100060002000600e8030000040004001000060020000400$'
    built "oci:$BATS_TEST_TMPDIR/layout:overlay"
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" >"$BATS_TEST_TMPDIR/overlay"
    run ! grep -q 'trusted.overlay' "$BATS_TEST_TMPDIR/overlay"
    rm -rf "$store"
    refused "large.* 3900" "oci:$BATS_TEST_TMPDIR/layout:large"
}

# Some of them sum another tar than they write (containers/storage#1771).
@test "a layer that skopeo compresses as zstd, and as zstd:chunked" {
    built "$busybox"
    cp "$rootfs" "$BATS_TEST_TMPDIR/same"
    local format
    for format in zstd zstd:chunked; do
        rm -rf "$store" "$BATS_TEST_TMPDIR/oci"
        skopeo copy -q --insecure-policy --dest-compress-format "$format" "docker-archive:$SM_IMAGE_BUSYBOX/docker.tar" "oci:$BATS_TEST_TMPDIR/oci:x" ||
            skip "this skopeo does not write $format"
        build "oci:$BATS_TEST_TMPDIR/oci:x"
        if [ "$format" = zstd ] || [ "$status" -eq 0 ]; then
            built "oci:$BATS_TEST_TMPDIR/oci:x"
            cmp "$rootfs" "$BATS_TEST_TMPDIR/same"
        else
            refused "layer 1 of 1 unpacks to .*, but the image's config says .*podman and skopeo write such layers as zstd:chunked" "oci:$BATS_TEST_TMPDIR/oci:x"
        fi
    done
}

@test "127 layers of one file, and 20,000 files of which each takes a block" {
    local files
    files=$(fewer 20000 300000)
    layout '
l.image("layers", [l.layer([("f", "f%d" % i, b"%d" % i)]) for i in range(127)])
l.image("files", [l.layer([("f", "d%d/f%d" % (i % 200, i), b"x") for i in range('"$files"')], "gzip")])'
    built "oci:$BATS_TEST_TMPDIR/layout:layers"
    [ "$("$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -c '^/f[0-9]* file ')" -eq 127 ]
    built "oci:$BATS_TEST_TMPDIR/layout:files"
    [ "$("$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -c '^/d[0-9]*/f[0-9]* file ')" -eq "$files" ]
    PATH=$PATH:/sbin:/usr/sbin e2fsck -fn "$rootfs"
}

@test "the same layers give the same bytes, whoever packed them" {
    built "$busybox"
    cp "$rootfs" "$BATS_TEST_TMPDIR/first"
    rm -rf "$BATS_TEST_TMPDIR/store"
    built "docker-archive:$SM_IMAGE_BUSYBOX/docker.tar"
    cmp "$rootfs" "$BATS_TEST_TMPDIR/first"
    rm -rf "$BATS_TEST_TMPDIR/store"
    gzip -c "$SM_IMAGE_BUSYBOX/docker.tar" >"$BATS_TEST_TMPDIR/docker.tar.gz"
    built "docker-archive:$BATS_TEST_TMPDIR/docker.tar.gz:busybox"
    cmp "$rootfs" "$BATS_TEST_TMPDIR/first"
    rm -rf "$BATS_TEST_TMPDIR/store"
    xz -c -0 "$SM_IMAGE_BUSYBOX/docker.tar" >"$BATS_TEST_TMPDIR/docker.tar.xz"
    built "docker-archive:$BATS_TEST_TMPDIR/docker.tar.xz"
    cmp "$rootfs" "$BATS_TEST_TMPDIR/first"
    rm -rf "$BATS_TEST_TMPDIR/store"
    bzip2 -c -1 "$SM_IMAGE_BUSYBOX/docker.tar" >"$BATS_TEST_TMPDIR/docker.tar.bz2"
    built "docker-archive:$BATS_TEST_TMPDIR/docker.tar.bz2"
    cmp "$rootfs" "$BATS_TEST_TMPDIR/first"
    built "oci-archive:$SM_IMAGE_BUSYBOX/oci.tar:latest"
    cmp "$rootfs" "$BATS_TEST_TMPDIR/first"
    [ "$(find "$BATS_TEST_TMPDIR/store/rootfs" -type f | wc -l)" -eq 1 ]
}

# archives: one of every age in archives/, and one layout of the same layers.
archives() {
    mkdir "$BATS_TEST_TMPDIR/archives"
    layout '
layers = [tar([("d", "etc"), ("f", "etc/a", b"1" * 3000)]), tar([("f", "b", b"2")]), tar([]), tar([("f", "b", b"2")])]
config = {"Cmd": ["/b"], "Labels": {"a": "x\0y"}, "Memory": 0}
for age in DOCKER_AGES:
    docker_archive(os.environ["BATS_TEST_TMPDIR"] + "/archives/" + age + ".tar", layers, config, "team/app:1.0", age)
l.image("latest", [l.layer(d) for d in layers], config=config)'
}

@test "docker-archives of every age, packed by each packer, from a file and from standard input" {
    local archive packers=('gzip -n' 'zstd -q' 'xz -0' 'bzip2 -1' cat) n=0 packed
    archives
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    built "oci:$BATS_TEST_TMPDIR/layout"
    cp "$rootfs" "$BATS_TEST_TMPDIR/same"
    for archive in "$BATS_TEST_TMPDIR"/archives/*.tar; do
        echo "$archive"
        rm -rf "$store" "$XDG_DATA_HOME"
        built "docker-archive:$archive:team/app:1.0"
        cmp "$rootfs" "$BATS_TEST_TMPDIR/same"
        packed=$archive.packed
        ${packers[n++ % 5]} <"$archive" >"$packed"
        rm -rf "$store"
        built "docker-archive:$packed"
        cmp "$rootfs" "$BATS_TEST_TMPDIR/same"
        supermachine image inspect docker-archive:- <"$packed" >"$BATS_TEST_TMPDIR/inspected"
        jq -e '.[0].config.config.Cmd == ["/b"]' "$BATS_TEST_TMPDIR/inspected"
        grep -q '"Memory": *0\(,\|$\)' "$BATS_TEST_TMPDIR/inspected" # Go takes no 0.0 for an integer
        supermachine image ls | grep '^docker-archive:- '
        [ "$(supermachine image load -q <"$packed")" = docker.io/team/app:1.0 ]
        cmp "$XDG_DATA_HOME"/supermachine/rootfs/*.ext4 "$BATS_TEST_TMPDIR/same"
    done
    [ "$n" -eq 6 ]
    tar -C "$BATS_TEST_TMPDIR/layout" -c . | supermachine image inspect oci-archive:-:latest | jq -e '.[0].reference == "oci-archive:-:latest"'
    [ -z "$(find "$XDG_DATA_HOME" -name '*.partial')" ]
    # what was read once is not there for another time
    truncate -s 0 "$XDG_DATA_HOME"/supermachine/rootfs/*.ext4
    rm -rf "$XDG_DATA_HOME/supermachine/blobs"
    fails_with 125 "came over the standard input, and is not kept: give the archive again" supermachine image inspect \
        "$(supermachine image ls --format json | jq -r '.[] | select(.source | startswith("oci-archive:-")) | .digest')"
    fails_with 125 "archive .*: " supermachine image inspect docker-archive:- </dev/null
}

@test "archives from before manifest.json that lie" {
    archives
    local dir=$BATS_TEST_TMPDIR/v1 id top
    mkdir "$dir"
    tar -C "$dir" -xf "$BATS_TEST_TMPDIR/archives/v1.tar"
    top=$(jq -r '.[][]' "$dir/repositories")
    # lie WORDS: what is in $dir is refused
    lie() {
        tar -C "$dir" -cf "$BATS_TEST_TMPDIR/lie.tar" .
        refused "$1" "docker-archive:$BATS_TEST_TMPDIR/lie.tar"
    }
    cp "$dir/$top/json" "$BATS_TEST_TMPDIR/json"
    jq -c --arg id "$top" '.parent = $id' "$BATS_TEST_TMPDIR/json" >"$dir/$top/json"
    lie "more than 1000 layers"
    jq -c '.parent = "../../etc"' "$BATS_TEST_TMPDIR/json" >"$dir/$top/json"
    lie "names no valid parent"
    jq -c '.parent = "none"' "$BATS_TEST_TMPDIR/json" >"$dir/$top/json"
    lie "the archive has no none/json"
    jq -c '.os = "windows"' "$BATS_TEST_TMPDIR/json" >"$dir/$top/json"
    lie "is for windows/amd64, not for linux/amd64"
    cp "$BATS_TEST_TMPDIR/json" "$dir/$top/json"
    gzip -c "$dir/$top/layer.tar" >"$BATS_TEST_TMPDIR/gz" && mv "$BATS_TEST_TMPDIR/gz" "$dir/$top/layer.tar"
    lie "layer 4 of 4 unpacks to .*, but the image's config says"
    rm "$dir/$top/layer.tar"
    lie "has no $top/layer.tar"
    for id in '{}' '{"a": 1}' '{"a": {"b": "../x"}}' '{"a": {"b": ""}}' '[]'; do
        echo "$id" >"$dir/repositories"
        lie "repositories (names no|is not a JSON object)"
    done
    jq -cn --arg id "$top" '{("a" * 600): {b: $id}}' >"$dir/repositories"
    lie "a name of more than 599 bytes"
    for id in {0..1000}; do
        mkdir "$dir/image$id"
        echo '{}' >"$dir/image$id/json"
    done
    jq -cn '{a: ([range(1001) | {key: "v\(.)", value: "image\(.)"}] | from_entries)}' >"$dir/repositories"
    lie "more than 1000 images"
    head -c 3000000 /dev/zero | tr '\0' ' ' >>"$dir/image0/json"
    jq -cn '{a: ([range(6) | {key: "v\(.)", value: "image\(.)"}] | from_entries)}' >"$dir/repositories"
    for id in {1..5}; do ln -f "$dir/image0/json" "$dir/image$id/json"; done
    lie "have more than 16 MiB"
    jq -cn --arg id "$top" '[{LegacyConfig: ($id + "/json"), RepoTags: null, Layers: []}]' >"$dir/manifest.json"
    lie "manifest.json names no config"
}

# loads INDEX_FILTER NAME: of the layout with that index, image load tells this name and no other.
loads() {
    rm -rf "$BATS_TEST_TMPDIR/loaded"
    cp -r "$BATS_TEST_TMPDIR/layout" "$BATS_TEST_TMPDIR/loaded"
    jq -c "$1" "$BATS_TEST_TMPDIR/layout/index.json" >"$BATS_TEST_TMPDIR/loaded/index.json"
    run --separate-stderr supermachine image load -q < <(tar -C "$BATS_TEST_TMPDIR/loaded" -c .)
    echo "$status $output $stderr"
    [ "$output" = "$2" ]
}

@test "a layout is loaded by docker's name alone, and without its attestations" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    layout 'l.image("latest", [l.layer([("f", "a")])])'
    loads '.manifests[0].annotations = {"io.containerd.image.name": "docker.io/team/app:2"}' docker.io/team/app:2
    loads '.manifests[0].annotations = {"org.opencontainers.image.ref.name": "team/app:3"}
        | .manifests += [.manifests[0] | del(.annotations) | .platform = {os: "unknown", architecture: "unknown"}]' docker.io/team/app:3
}

@test "an index gives the host's platform, --platform another, and what is not there is named" {
    layout '
a = l.manifest([l.layer([("f", "amd64")])])
b = l.manifest([l.layer([("f", "arm64")])], arch="arm64")
l.add(l.index([b, a]), "multi")
l.image("single-arm", [l.layer([("f", "arm64")])], arch="arm64")'
    built "oci:$BATS_TEST_TMPDIR/layout:multi" --platform linux/amd64
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -q '^/amd64 '
    built --platform linux/arm64 "oci:$BATS_TEST_TMPDIR/layout:multi"
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -q '^/arm64 '
    rm -rf "$BATS_TEST_TMPDIR/store"
    refused "not there for linux/s390x, but for: linux/arm64, linux/amd64" --platform linux/s390x \
        "oci:$BATS_TEST_TMPDIR/layout:multi"
    refused "is for linux/arm64, not for linux/amd64" --platform linux/amd64 "oci:$BATS_TEST_TMPDIR/layout:single-arm"
    refused "holds 2 images, say which one" "oci:$BATS_TEST_TMPDIR/layout"
    refused "no image \"none\", but: multi, single-arm" "oci:$BATS_TEST_TMPDIR/layout:none"
}

# chosen FILE REFERENCE...: the image that is built is the one that has FILE.
chosen() {
    rm -rf "$BATS_TEST_TMPDIR/store"
    built "${@:2}"
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -q "^/$1 "
}

@test "indexes as BuildKit and others write them" {
    local common='
def image(name, arch="amd64", platform={}, **more):
    d = l.manifest([l.layer([("f", name)])], arch=arch, **more)
    if platform is None: del d["platform"]
    else: d["platform"].update(platform)
    return d
attestation = dict(l.manifest([l.layer([("f", "att")])], arch="unknown", os_name="unknown"),
    annotations={"vnd.docker.reference.type": "attestation-manifest"})
def nameless(d): return {k: v for k, v in d.items() if k != "platform"}
' layout=oci:$BATS_TEST_TMPDIR/layout
    layout "$common"'
l.add(l.index([image("alone", platform=None)]), "alone")
l.add(l.index([attestation, image("beside", platform=None), attestation]), "attested")
l.add(l.index([image("other", "arm64"), image("this", platform=None)]), "other")
l.add(l.index([image("twice", platform=None)] * 2), "twice")
l.add(l.index([l.index([l.index([image("nested")])])]), "nested")
l.add(l.index([image("v3", platform={"variant": "v3"}), image("base"), attestation]), "variant")
l.add(l.index([image("v3", platform={"variant": "v3"})]), "only-v3")
l.add(l.index([image("erofs", platform={"os.features": ["erofs"]}), image("plain")]), "features")
l.add(l.index([image("erofs", platform={"os.features": ["erofs"]}), image("v2", platform={"variant": "v2"})]), "both")
l.add(l.index([image("arm", "arm64", platform=None)]), "unfit")
l.add(l.index([image("a", platform=None), image("b", platform=None)]), "several")
l.add(l.index([attestation]), "nothing")
l.add(l.index([]), "empty")'
    chosen alone "$layout:alone"
    chosen beside "$layout:attested"
    chosen this "$layout:other"
    chosen twice "$layout:twice"
    chosen nested "$layout:nested"
    chosen base "$layout:variant"
    chosen v3 "$layout:only-v3"
    chosen plain "$layout:features"
    chosen v2 "$layout:both"
    rm -rf "$store"
    refused "the image is for linux/arm64, not for linux/amd64" "$layout:unfit"
    refused "none for linux/amd64, and several that tell no platform" "$layout:several"
    refused "not there for linux/amd64, but for: no platform at all" "$layout:nothing"
    refused "not there for linux/amd64, but for: no platform at all" "$layout:empty"
    # an index.json that is the index itself
    layout "$common"'l.add(image("beside", platform=None)); l.add(attestation)'
    chosen beside "$layout"
    tar -C "$BATS_TEST_TMPDIR/layout" -cf "$BATS_TEST_TMPDIR/whole.tar" .
    supermachine-image load --store "$store" "$BATS_TEST_TMPDIR/whole.tar" | tail -n 1 | jq -e '.result.loaded | startswith("sha256:")'
    layout "$common"'l.add(image("a", platform=None)); l.add(image("b"))'
    rm -rf "$store"
    refused "holds 2 images, say which one" "$layout"
}

@test "damage is found and named" {
    layout 'l.image("a", [l.layer([("f", "x", bytes(100000))], "gzip"), l.layer([("f", "y", os.urandom(100000))], "gzip")])'
    local blobs=$BATS_TEST_TMPDIR/layout/blobs/sha256 big
    big=$(find "$blobs" -size +50k)
    cp -r "$blobs" "$BATS_TEST_TMPDIR/good"
    dd if=/dev/zero of="$big" bs=1 seek=5000 count=9 conv=notrunc status=none
    refused "layer 2 of 2: the blob sha256:${big##*/} has the digest sha256:.*damaged" "oci:$BATS_TEST_TMPDIR/layout"
    truncate -s 50000 "$big"
    refused "layer 2 of 2: the blob sha256:${big##*/} has 50000 bytes and not" "oci:$BATS_TEST_TMPDIR/layout"
    rm "$big"
    refused "layer 2 of 2: cannot open the blob sha256:${big##*/}: No such file" "oci:$BATS_TEST_TMPDIR/layout"
    mkfifo "$big"
    refused "not a regular file" "oci:$BATS_TEST_TMPDIR/layout"
    rm -r "$blobs"
    cp -r "$BATS_TEST_TMPDIR/good" "$blobs"
    local manifest
    manifest=$(jq -r '.manifests[0].digest' "$BATS_TEST_TMPDIR/layout/index.json")
    sed -i 's/linux/lunix/' "$blobs/${manifest#sha256:}"
    sed -i 's/schemaVersion/schemaVerslon/' "$blobs/${manifest#sha256:}"
    refused "manifest $manifest has the digest sha256:.*damaged" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'a = l.layer([("f", "x")]); l.image("a", [(a[0], "sha256:" + "1" * 64)])'
    refused "layer 1 of 1 unpacks to sha256:.*, but the image's config says sha256:1111" "oci:$BATS_TEST_TMPDIR/layout"
}

@test "manifests that lie or mean something else" {
    layout 'a = l.layer([("f", "x")]); l.image("a", [a], manifests=[])'
    refused "both an index and an image" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'l.add(l.json({"schemaVersion": 1, "name": "x", "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+json"))'
    refused "schema 1, which is obsolete" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'd = l.manifest([l.layer([("f", "x")])])
for i in range(6): d = dict(l.index([d]), platform={"os": "linux", "architecture": "amd64"})
l.add(d)'
    refused "indexes lead to indexes" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'a = l.layer([("f", "x")]); a[0]["mediaType"] += "+encrypted"; l.image("a", [a])'
    refused "layer 1 of the manifest is of type .*encrypted, which is not supported" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'a = l.layer([("f", "x")]); a[0]["digest"] = "sha256:../../../../etc/passwd"; l.image("a", [a])'
    refused "which is not SHA-256" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'a = l.layer([("f", "x")]); l.image("a", [a] * 1001)'
    refused "1001 layers, more than 1000" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'l.add(l.blob(b"[" * 100000, "application/vnd.oci.image.manifest.v1+json"))'
    refused "nested deeper than 32" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'l.add(l.blob(b"{\"a\":[" + b"1," * 300000 + b"1]}", "application/vnd.oci.image.manifest.v1+json"))'
    refused "more than 200000 values" "oci:$BATS_TEST_TMPDIR/layout"
    layout 'l.add(l.blob(b" " * 5000000, "application/vnd.oci.image.manifest.v1+json"))'
    refused "larger than 4194304 bytes" "oci:$BATS_TEST_TMPDIR/layout"
}

@test "bombs end at their bounds" {
    layout 'z = bytes(64 << 20); l.image("a", [l.layer([("f", "x%d" % i, z) for i in range(4)], "gzip")])'
    refused "need more than 100 MiB" --max-bytes $((100 << 20)) "oci:$BATS_TEST_TMPDIR/layout"
    layout 'z = bytes(64 << 20); l.image("a", [l.layer([("f", "x", z)] * 4, "zstd")])'
    refused "unpack to more than 200 MiB|need more than 100 MiB" --max-bytes $((100 << 20)) "oci:$BATS_TEST_TMPDIR/layout"
    layout 'l.image("a", [l.layer(tar([("f", "x", bytes(1000))])[:-1] + bytes(64 << 20), "gzip")])'
    refused "unpack to more than 20 MiB" --max-bytes $((10 << 20)) "oci:$BATS_TEST_TMPDIR/layout"
}

@test "layers that claim to be larger than an image may be are not even looked at" {
    layout 'a = [l.layer([("f", "x")]), l.layer([("f", "y")])]
for i in a: i[0]["size"] = 40 << 30
l.image("a", a)'
    refused "layers are larger than 65536 MiB" "oci:$BATS_TEST_TMPDIR/layout"
    refused "layers are larger than 100 MiB" --max-bytes $((100 << 20)) "oci:$BATS_TEST_TMPDIR/layout"
}

@test "a builder that is killed leaves nothing that matters" {
    needs_debian
    local i
    for i in 1 2 3 4 5 6; do
        supermachine-image build --store "$BATS_TEST_TMPDIR/store" "$debian" >/dev/null 3>&- &
        sleep "0.$i"
        kill -KILL $! 2>/dev/null || true
        wait $! 2>/dev/null || true
    done
    built "$debian"
    PATH=$PATH:/sbin:/usr/sbin e2fsck -fn "$rootfs"
    [ -z "$(find "$BATS_TEST_TMPDIR/store" -name '*.partial')" ]
}

# gone PID...: none of them is there, or only to be reaped.
gone() {
    local pid
    for pid; do
        [ ! -e "/proc/$pid" ] || grep -q '^State:.Z' "/proc/$pid/status" || return 1
    done
}

@test "while an archive comes, who will parse it is confined, and the program has given up what it has no need of" {
    local pid child children pipe=$BATS_TEST_TMPDIR/pipe
    mkfifo "$pipe"
    supermachine-image load --store "$BATS_TEST_TMPDIR/store" - 3<>"$pipe" >/dev/null &
    pid=$!
    wait_for grep -q '^NoNewPrivs:.1' "/proc/$pid/status"
    [ "$(id -u)" -ne 0 ] || grep -q '^CapEff:.000000000000000e$' "/proc/$pid/status" # those to files
    mapfile -t children < <(pgrep -P "$pid")
    [ "${#children[@]}" -eq 2 ]
    for child in "${children[@]}"; do
        wait_for grep -q '^Seccomp:.2' "/proc/$child/status"
        grep -q '^NoNewPrivs:.1' "/proc/$child/status"
        grep -q '^CapEff:.0*$' "/proc/$child/status"
        # nowhere, thrice; a socket to the program; where a refused call is told
        [ "$(id -u)" -ne 0 ] || [ "$(find "/proc/$child/fd" -type l -printf '%l\n' | sed 's/:.*//' | sort | uniq -c | xargs)" = "3 /dev/null 1 pipe 1 socket" ]
    done
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null || true
    wait_for gone "${children[@]}"
}

@test "two builders of one image: one works, the other takes its result" {
    needs_debian
    local i pids=()
    for i in 1 2 3; do
        supermachine-image build --store "$BATS_TEST_TMPDIR/store" "$debian" >"$BATS_TEST_TMPDIR/out.$i" 3>&- &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i"; done
    [ "$(tail -qn 1 "$BATS_TEST_TMPDIR"/out.* | sort -u | wc -l)" -eq 1 ]
    [ "$(cat "$BATS_TEST_TMPDIR"/out.* | grep -c '"writing the file system"')" -eq 1 ]
    [ "$(find "$BATS_TEST_TMPDIR/store/rootfs" -type f | wc -l)" -eq 1 ]
}

@test "a load waits for who writes the same blob as long as he lives, and says so" {
    local store=$BATS_TEST_TMPDIR/store blob
    tar -C "$SM_IMAGE_BUSYBOX/oci" -cf "$BATS_TEST_TMPDIR/archive.tar" .
    blob=$(jq -r '.manifests[0].digest' "$SM_IMAGE_BUSYBOX/oci/index.json")
    blob=blobs/sha256/${blob#sha256:}
    mkdir -p "$store/${blob%/*}"
    (umask 077 && : >"$store/$blob.partial")
    exec 7<"$store/$blob.partial"
    flock 7
    supermachine-image load --store "$store" "$BATS_TEST_TMPDIR/archive.tar" >"$BATS_TEST_TMPDIR/lines" 3>&- 7<&- &
    wait_for grep -q 'waiting for another process that writes a blob' "$BATS_TEST_TMPDIR/lines"
    exec 7<&-
    wait "$!"
    tail -n 1 "$BATS_TEST_TMPDIR/lines" | jq -e .result.loaded
    cmp "$store/$blob" "$SM_IMAGE_BUSYBOX/oci/$blob"
}

@test "what another user planted beside a target is left alone, and so is a store of his" {
    [ "$(id -u)" -eq 0 ] || skip "needs root: a second user"
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    local shared=$BATS_TEST_TMPDIR/shared
    mkdir -m 0777 "$shared"
    echo secret >"$BATS_TEST_TMPDIR/secret"
    supermachine image inspect "$busybox" >/dev/null
    supermachine image save -o "$shared/out.tar" "$busybox"
    [ "$(stat -c %a "$shared/out.tar")" = 600 ]
    rm "$shared/out.tar"
    ln -s ../secret "$shared/out.tar.partial"
    chown -h 65534 "$shared/out.tar.partial"
    fails_with 125 "out.tar.partial is in the way" supermachine image save -o "$shared/out.tar" "$busybox"
    [ "$(cat "$BATS_TEST_TMPDIR/secret")" = secret ]
    [ ! -e "$shared/out.tar" ]
    chown 65534 "$XDG_DATA_HOME/supermachine"
    fails_with 125 "image store .* belongs to another user" supermachine image ls
    chown 0 "$XDG_DATA_HOME/supermachine"
    chmod 0777 "$XDG_DATA_HOME/supermachine"
    fails_with 125 "others may write into the image store" supermachine image ls
}

# changed DAMAGE...: the root filesystem is damaged so, and made anew by whatever uses the image next (as a user's command
# would: by its name, or by its digest).
changed() {
    cp --preserve=all "$rootfs" "$BATS_TEST_TMPDIR/whole"
    chmod 600 "$rootfs"
    "$@"
    run ! cmp -s "$rootfs" "$BATS_TEST_TMPDIR/whole"
    for by in "$busybox" "${digest:7:12}"; do
        supermachine image inspect "$by" >/dev/null
        cmp "$rootfs" "$BATS_TEST_TMPDIR/whole"
    done
    [ "$(stat -c %a "$rootfs")" = 400 ]
    [ "$(supermachine image verify)" = "$busybox: ok" ]
}

# What a program does that writes into it, and what a disk does: the file's time stays.
flip() { printf '\001' | dd of="$rootfs" bs=1 seek="$1" conv=notrunc status=none; }
flip_silently() { flip "$1"; touch -r "$BATS_TEST_TMPDIR/whole" "$rootfs"; }
# Nobody looks at all of it at each start.
rot() { flip_silently "$1"; fails_with 125 "is damaged: bytes .* have changed" supermachine image verify "$busybox"; }

@test "a damaged root filesystem is found, and made anew" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    store=$XDG_DATA_HOME/supermachine built "$busybox"
    local last
    supermachine image verify "$busybox"
    # the last byte that is no hole
    last=$(python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
at = 0
while True:
    try: data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError: break
    at = os.lseek(fd, data, os.SEEK_HOLE)
print(at - 1)' "$rootfs")
    changed flip "$last"
    changed flip_silently 1150
    changed truncate -s 2M "$rootfs"
    changed truncate -s 0 "$rootfs"
    changed truncate -s +2M "$rootfs"
    changed rot "$last"
    # what is whole stays, whatever its time is, and is not read again and again for that
    local inode time
    inode=$(stat -c %i "$rootfs")
    time=$(stat -c %y "$rootfs")
    touch "$rootfs"
    supermachine image inspect "$busybox" >/dev/null
    [ "$(stat -c %i "$rootfs")" = "$inode" ]
    [ "$(stat -c %y "$rootfs")" = "$time" ]
    # no seal: it could be anything
    rm "$XDG_DATA_HOME"/supermachine/seals/*
    supermachine image inspect "$busybox" >/dev/null
    [ "$(supermachine image verify "$busybox")" = "$busybox: ok" ]
    # where it came from is gone: that is told, beside what is wrong
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$BATS_TEST_TMPDIR/oci"
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data2
    supermachine image inspect "oci:$BATS_TEST_TMPDIR/oci:latest" >/dev/null
    rm -r "$BATS_TEST_TMPDIR/oci"
    truncate -s 0 "$XDG_DATA_HOME"/supermachine/rootfs/*.ext4
    fails_with 125 "damaged: .*making it anew.*cannot open .*/oci" supermachine image inspect "${digest:7:12}"
    # and removal takes the seal along
    supermachine image rm "$digest"
    [ -z "$(find "$XDG_DATA_HOME/supermachine/seals" -type f)" ]
}

@test "a disk that is full while an image is built, loaded or read from a pipe" {
    [ "$(id -u)" -eq 0 ] || skip "needs root: a mount"
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/full
    mkdir "$XDG_DATA_HOME"
    local size build="supermachine image inspect $busybox" load="supermachine image load -q $SM_IMAGE_BUSYBOX/oci.tar"
    for size in 64k 1m 3m; do
        full "$size" "cannot write the root filesystem" "$build"
        full "$size" "cannot write the root filesystem" "$load"
        full "$size" "cannot write into the store" "supermachine image load -q <$SM_IMAGE_BUSYBOX/docker.tar"
    done
    full 5m "cannot write into the store" "$load"
    full 6m "cannot write the root filesystem" "supermachine image load -q <$SM_IMAGE_BUSYBOX/docker.tar"
    full 64m "" "$build"
    full 64m "" "$load"
}

@test "a configuration of 4 MiB, of which nobody reads the most, and labels with NUL" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    layout '
def image(name, size):
    d = {"Cmd": ["/bin/sh"], "Labels": {"nul": "x\0y", "quotes": ""}, "Memory": 2 ** 64, "Shell": ["/bin/false"]}
    def text(): return json.dumps({"architecture": "amd64", "os": "linux", "config": d,
                                   "rootfs": {"type": "layers", "diff_ids": [a[1]]}})
    d["Labels"]["quotes"] = chr(34) * ((size - len(text())) // 2)
    d["Labels"]["quotes"] += "x" * (size - len(text()))
    c = l.blob(text().encode(), "application/vnd.oci.image.config.v1+json")
    l.add(l.json({"schemaVersion": 2, "config": c, "layers": [a[0]]}, "application/vnd.oci.image.manifest.v1+json"), name)
a = l.layer([("f", "x")])
image("most", 4 << 20)
image("more", (4 << 20) + 1)'
    supermachine image inspect "oci:$BATS_TEST_TMPDIR/layout:most" >"$BATS_TEST_TMPDIR/said"
    jq -e '.[0].config.config.Labels | .nul == "x\u0000y" and (.quotes | length) > 2000000' "$BATS_TEST_TMPDIR/said"
    fails_with 125 "config is larger than 4194304 bytes" supermachine image inspect "oci:$BATS_TEST_TMPDIR/layout:more"
}

@test "an image that names no command, where none is given, is told before anything is booted" {
    layout 'l.image("latest", [l.layer([("f", "x")])], config={"WorkingDir": "/"})'
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    fails_with 125 "names no command of its own" supermachine run --kernel /dev/null "oci:$BATS_TEST_TMPDIR/layout"
    fails_with 125 "names no command of its own" supermachine bake --until idle "oci:$BATS_TEST_TMPDIR/layout"
    [ -z "$(find "$XDG_DATA_HOME" -name '*.snap*')" ]
}

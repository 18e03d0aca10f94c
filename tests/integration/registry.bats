#!/usr/bin/env bats
# bats file_tags=host
# Pulling: from a real registry (TLS, passwords), and from one that misbehaves in every way we could think of.
load helper
load image_helper

setup_file() {
    command -v docker-registry skopeo python3 >/dev/null || skip "needs docker-registry, skopeo and python3"
    export REG=$BATS_FILE_TMPDIR/registry HOSTILE=$BATS_FILE_TMPDIR/hostile
    mkdir -p "$REG" "$HOSTILE"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,DNS:registry.test,DNS:registry-1.docker.io,IP:127.0.0.1 \
        -keyout "$REG/key.pem" -out "$REG/cert.pem" 2>/dev/null
    htpasswd -Bbn user geheim >"$REG/htpasswd"
    REG_PORT=$((20000 + RANDOM % 10000))
    export REG_PORT
    cat >"$REG/config.yml" <<YML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $REG/data}}
http: {addr: "127.0.0.1:$REG_PORT", tls: {certificate: $REG/cert.pem, key: $REG/key.pem}}
auth: {htpasswd: {realm: test, path: $REG/htpasswd}}
YML
    docker-registry serve "$REG/config.yml" >"$REG/log" 2>&1 3>&- &
    echo $! >"$REG/pid"
    "$BATS_TEST_DIRNAME/../tools/hostile_registry.py" "$HOSTILE" 2>"$HOSTILE/errors" 3>&- &
    echo $! >"$HOSTILE/pid"
    "$BATS_TEST_DIRNAME/../tools/proxy.py" "$HOSTILE" "$REG_PORT" 3>&- &
    echo $! >"$HOSTILE/proxy.pid"
    wait_for [ -s "$HOSTILE/elsewhere" ]
    wait_for [ -s "$HOSTILE/proxy" ]
    wait_for curl -sko /dev/null "https://localhost:$REG_PORT/v2/"
    local auth
    auth=$(printf user:geheim | base64)
    printf '{"auths": {"localhost:%s": {"auth": "%s"}, "registry.test:%s": {"auth": "%s"}}}' "$REG_PORT" "$auth" "$REG_PORT" \
        "$auth" >"$REG/auth.json"
    HOSTILE_AT=127.0.0.1:$(cat "$HOSTILE/port")
    export HOSTILE_AT
    printf '{"auths": {"%s": {"auth": "%s"}}}' "$HOSTILE_AT" "$auth" >"$HOSTILE/auth.json"
}

teardown_file() {
    kill "$(cat "$REG/pid")" "$(cat "$HOSTILE/pid")" "$(cat "$HOSTILE/proxy.pid")" 2>/dev/null || true
}

secure() { built --tls-ca "$REG/cert.pem" --authfile "$REG/auth.json" "$@"; }

to_registry() {
    skopeo copy -q "${@:3}" --dest-cert-dir "$REG/certs" --dest-creds user:geheim "$1" "docker://localhost:$REG_PORT/$2"
}

certs() {
    mkdir -p "$REG/certs"
    cp "$REG/cert.pem" "$REG/certs/ca.crt"
}

@test "over TLS and with a password: what is pulled is what umoci unpacks" {
    needs_debian
    certs
    to_registry "$busybox" test/busybox:1
    to_registry "$debian" debian
    secure "localhost:$REG_PORT/test/busybox:1"
    same_as_umoci "$SM_IMAGE_BUSYBOX/oci:latest"
    secure "localhost:$REG_PORT/debian"
    same_as_umoci "$SM_IMAGE_DEBIAN/oci:latest"
    # and by digest, from another tool's format
    to_registry "$busybox" test/docker:1 --format v2s2
    secure "localhost:$REG_PORT/test/docker:1"
    same_as_umoci "$SM_IMAGE_BUSYBOX/oci:latest"
    secure "localhost:$REG_PORT/test/docker@$digest"
}

@test "a disk that is full while an image is pulled" {
    [ "$(id -u)" -eq 0 ] || skip "needs root: a mount"
    certs
    to_registry "$busybox" test/full
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/full
    mkdir "$XDG_DATA_HOME"
    local size pull="supermachine pull -q --tls-ca $REG/cert.pem --authfile $REG/auth.json localhost:$REG_PORT/test/full"
    full 64k "cannot write into the store" "$pull"
    for size in 512k 1m 2500k; do full "$size" "cannot write the root filesystem" "$pull"; done
    full 64m "" "$pull"
}

@test "60 layers, zstd, and an index of two platforms" {
    certs
    layout 'l.image("many", [l.layer([("f", "f%d" % (i % 20), os.urandom(20000)), ("f", "d%d/x" % i, b"1")] +
    ([("f", ".wh.d%d" % (i - 2))] if i > 1 else []), "gzip" if i % 2 else "zstd") for i in range(60)])
l.add(l.index([l.manifest([l.layer([("f", "amd64")], "gzip")]), l.manifest([l.layer([("f", "arm64")], "gzip")], arch="arm64")]), "multi")'
    to_registry "oci:$BATS_TEST_TMPDIR/layout:many" many
    to_registry "oci:$BATS_TEST_TMPDIR/layout:multi" multi --all
    secure "localhost:$REG_PORT/many"
    [ "$("$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -c ' file ')" -eq 22 ]
    secure --platform linux/arm64 "localhost:$REG_PORT/multi"
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -q '^/arm64 '
    secure --platform linux/amd64 "localhost:$REG_PORT/multi"
    "$SM_BUILD/tests/unit/ext4-dump" "$rootfs" | grep -q '^/amd64 '
}

@test "no password, a wrong one, an unknown CA, no such name" {
    refused "localhost:$REG_PORT asks for a user and password: log in" --tls-ca "$REG/cert.pem" "localhost:$REG_PORT/x"
    printf '{"auths": {"localhost:%s": {"auth": "%s"}}}' "$REG_PORT" "$(printf user:wrong | base64)" >"$BATS_TEST_TMPDIR/wrong.json"
    refused "refuses access to localhost:$REG_PORT/x:latest" --tls-ca "$REG/cert.pem" --authfile "$BATS_TEST_TMPDIR/wrong.json" \
        "localhost:$REG_PORT/x"
    refused "tls-ca" --authfile "$REG/auth.json" "localhost:$REG_PORT/x"
    refused "does not have localhost:$REG_PORT/nothing:here" --tls-ca "$REG/cert.pem" --authfile "$REG/auth.json" \
        "localhost:$REG_PORT/nothing:here"
    nothing_partial
}

@test "credentials come from helpers, too" {
    certs
    to_registry "$busybox" helped
    mkdir -p "$BATS_TEST_TMPDIR/bin"
    cat >"$BATS_TEST_TMPDIR/bin/docker-credential-test" <<'SH'
#!/bin/sh
read -r server
echo "$1 $server" >>"$HELPER_LOG"
printf '{"ServerURL": "%s", "Username": "user", "Secret": "geheim"}' "$server"
SH
    chmod +x "$BATS_TEST_TMPDIR/bin/docker-credential-test"
    export HELPER_LOG=$BATS_TEST_TMPDIR/helper.log PATH=$BATS_TEST_TMPDIR/bin:$PATH
    printf '{"credHelpers": {"localhost:%s": "test"}}' "$REG_PORT" >"$BATS_TEST_TMPDIR/helped.json"
    built --tls-ca "$REG/cert.pem" --authfile "$BATS_TEST_TMPDIR/helped.json" "localhost:$REG_PORT/helped"
    grep -qx "get localhost:$REG_PORT" "$HELPER_LOG"
    printf '{"credsStore": "../../bin/sh"}' >"$BATS_TEST_TMPDIR/evil.json"
    rm -rf "$BATS_TEST_TMPDIR/store"
    refused "name of a credential helper is not valid" --tls-ca "$REG/cert.pem" --authfile "$BATS_TEST_TMPDIR/evil.json" \
        "localhost:$REG_PORT/helped"
}

@test "a registry that lies about contents" {
    built "$HOSTILE_AT/good/x"
    refused_at_once \
        "has the digest sha256:.*damaged" "$HOSTILE_AT/wrong-digest/x" \
        "longer than the [0-9]+ bytes it should have" "$HOSTILE_AT/too-long/x" \
        "ends after [0-9]+ of [0-9]+ bytes" "$HOSTILE_AT/too-short/x" \
        "longer than the [0-9]+ bytes it should have" "$HOSTILE_AT/endless-blob/x" \
        "manifest is larger than 4194304 bytes" "$HOSTILE_AT/endless-manifest/x" \
        "sends another part" "$HOSTILE_AT/wrong-range/x" \
        "is not valid JSON" "$HOSTILE_AT/not-json/x" \
        "has the digest sha256:[0-9a-f]* and not sha256:1111" "$HOSTILE_AT/lying-header/x" \
        "schema 1, which is obsolete" "$HOSTILE_AT/schema1/x" \
        "indexes lead to indexes" "$HOSTILE_AT/deep-index/x" \
        "leads out of the image's root" "$HOSTILE_AT/traversal/x" \
        "need more than 200 MiB|unpack to more than" "--max-bytes $((200 << 20)) $HOSTILE_AT/bomb/x"
    nothing_partial
}

@test "a registry that sends too much, too slowly, in circles" {
    # what came of a blob is kept for the next time
    batch=kept refused_at_once "imeout" "--stall-timeout 1 $HOSTILE_AT/slow-body/x" \
        "cannot get the blob" "$HOSTILE_AT/always-cut/x" "cannot get the blob" "$HOSTILE_AT/drip/x" 3>&- &
    local kept=$!
    refused_at_once \
        "sends too much" "$HOSTILE_AT/endless-headers/x" \
        "sends too much" "$HOSTILE_AT/endless-error/x" \
        "redirects us more than 5 times" "$HOSTILE_AT/redirect-loop/x" \
        "redirects us to what is not HTTP" "$HOSTILE_AT/redirect-file/x" \
        "redirects us to a place without TLS" "$HOSTILE_AT/redirect-plain/x" \
        "sends us for a token to a place without TLS" "--authfile $HOSTILE/auth.json $HOSTILE_AT/auth-plain/x" \
        "refuses access" "$HOSTILE_AT/auth-loop/x" \
        "token server's answer is larger than 262144 bytes" "$HOSTILE_AT/auth-huge/x" \
        "authentication that we do not know" "$HOSTILE_AT/auth-nonsense/x" \
        "answers 503" "$HOSTILE_AT/broken/x" \
        "answers 429" "$HOSTILE_AT/much-too-many/x" \
        "imeout" "--stall-timeout 1 $HOSTILE_AT/slow-manifest/x" \
        "imeout" "--stall-timeout 1 $HOSTILE_AT/slow-headers/x"
    nothing_partial
    wait "$kept"
    [ -n "$(find "$BATS_TEST_TMPDIR" -path '*/kept.1/*.partial' -size +0)" ]
}

@test "credentials go to their registry and nowhere else" {
    : >"$HOSTILE/log"
    built --authfile "$HOSTILE/auth.json" "$HOSTILE_AT/redirect-elsewhere/x"
    grep -q "^$(cat "$HOSTILE/elsewhere") GET /signed/.* -$" "$HOSTILE/log"
    rm -rf "$BATS_TEST_TMPDIR/store"
    refused "does not have" --authfile "$HOSTILE/auth.json" "$HOSTILE_AT/unauthorized-elsewhere/x"
    built --authfile "$HOSTILE/auth.json" "$HOSTILE_AT/auth-private/x"
    rm -rf "$BATS_TEST_TMPDIR/store"
    built --authfile "$HOSTILE/auth.json" "$HOSTILE_AT/auth-basic/x"
    rm -rf "$BATS_TEST_TMPDIR/store"
    refused "does not accept the anonymous access: log in" "$HOSTILE_AT/auth-private/x"
    # shellcheck disable=SC2016 # for the inner shell
    run ! bash -c 'grep "^$(cat "$1") " "$2" | grep -v " -\$"' - "$HOSTILE/elsewhere" "$HOSTILE/log"
    run ! grep -rl geheim "$BATS_TEST_TMPDIR/store"
    supermachine login --authfile "$BATS_TEST_TMPDIR/login.json" -u user --password-stdin "$HOSTILE_AT" <<<geheim
    grep -q " GET /v2/ " "$HOSTILE/log"
    [ ! -e "$HOSTILE/leaks" ]
}

@test "a registry elsewhere cannot send us to this machine" {
    local proxy
    proxy=http://127.0.0.1:$(cat "$HOSTILE/proxy")
    export HTTP_PROXY=$proxy https_proxy=$proxy
    refused "sends us for a token to this machine" --insecure-registry "plain.test:${HOSTILE_AT#*:}/auth-loop/x"
    refused "redirects us to this machine" --insecure-registry "plain.test:${HOSTILE_AT#*:}/unauthorized-elsewhere/x"
}

@test "Retry-After is honoured" {
    SECONDS=0
    built "$HOSTILE_AT/too-many/x"
    [ "$SECONDS" -ge 2 ]
}

@test "connections that break 50 times at random points: the pull ends right, and continues what it has" {
    local i pids=()
    : >"$HOSTILE/log"
    for i in $(seq 20); do
        # shellcheck disable=SC2034 # for built
        (store=$BATS_TEST_TMPDIR/store.$i && built "$HOSTILE_AT/cut-at-random/$i") 3>&- &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i"; done
    # each image has four blobs
    [ "$(grep -c 'cut-at-random/.*/blobs/' "$HOSTILE/log")" -ge $((20 * 4 + 50)) ]
    grep -q 'cut-at-random.* bytes=[1-9][0-9]*- ' "$HOSTILE/log"
    built "$HOSTILE_AT/cut-no-ranges/x"
}

@test "a client that is killed 50 times at random points: the next pull resumes and ends right" {
    local i pid wait_us here=$BATS_TEST_TMPDIR/store start whole
    store=$BATS_TEST_TMPDIR/store.good built "$HOSTILE_AT/good/x"
    local good=$rootfs
    start=${EPOCHREALTIME/./}
    store=$BATS_TEST_TMPDIR/store.timed built "$HOSTILE_AT/paced/timed"
    whole=$((${EPOCHREALTIME/./} - start))
    : >"$HOSTILE/log"
    for i in $(seq 50); do
        supermachine-image build --store "$here" "$HOSTILE_AT/paced/x" >/dev/null 3>&- &
        pid=$!
        wait_us=$((RANDOM * whole / 65536))
        sleep "$((wait_us / 1000000)).$(printf %06d $((wait_us % 1000000)))"
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        # One that was quick enough leaves nothing to interrupt.
        [ -z "$(find "$here" -name '*.ext4')" ] || rm -r "$here"
    done
    store=$here built "$HOSTILE_AT/paced/x"
    cmp "$rootfs" "$good"
    [ -z "$(find "$here" -name '*.partial' -not -path "$here/tmp/*")" ]
    # At which points that was is chance. This one is killed when it has a part of a layer.
    here=$BATS_TEST_TMPDIR/store.held
    supermachine-image build --store "$here" "$HOSTILE_AT/held/x" >/dev/null 3>&- &
    pid=$!
    has_a_part() { [ -n "$(find "$here" -name '*.partial' -size +100k -not -path "$here/tmp/*" 2>/dev/null)" ]; }
    wait_for has_a_part
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null || true
    store=$here built "$HOSTILE_AT/paced/resumed"
    cmp "$rootfs" "$good"
    grep -q 'paced/resumed/blobs.* bytes=[1-9][0-9]*- ' "$HOSTILE/log"
    [ -z "$(find "$here" -name '*.partial' -not -path "$here/tmp/*")" ]
}

@test "proxies of the environment are used, but not for this machine, and get no credentials of the registry" {
    certs
    to_registry "$busybox" proxied
    local proxy dead=http://127.0.0.1:9
    proxy=http://127.0.0.1:$(cat "$HOSTILE/proxy")
    HTTPS_PROXY=$proxy secure "registry.test:$REG_PORT/proxied"
    grep -qx "CONNECT registry.test:$REG_PORT -" "$HOSTILE/proxy.log"
    HTTP_PROXY=$proxy https_proxy=$proxy store=$BATS_TEST_TMPDIR/plain built --insecure-registry "plain.test:${HOSTILE_AT#*:}/good/x"
    grep -q "^GET http://plain.test:${HOSTILE_AT#*:}/v2/good/x/blobs/" "$HOSTILE/proxy.log"
    run ! grep -v -- ' -$' "$HOSTILE/proxy.log"
    HTTPS_PROXY=$dead HTTP_PROXY=$dead store=$BATS_TEST_TMPDIR/direct secure "localhost:$REG_PORT/proxied"
    HTTPS_PROXY=$dead NO_PROXY=registry.test store=$BATS_TEST_TMPDIR/none refused "resolve host" "registry.test:$REG_PORT/proxied"
    HTTPS_PROXY=$proxy store=$BATS_TEST_TMPDIR/refused refused "proxy answers 403 .* refused.test:5000" "refused.test:5000/x"
}

@test "a name without a registry is one of docker.io, and an error says so" {
    certs
    to_registry "$busybox" library/short:latest
    HTTPS_PROXY=http://127.0.0.1:$(cat "$HOSTILE/proxy")
    export HTTPS_PROXY
    refused "docker.io asks for a user and password: log in; a name without a registry in front means docker.io" \
        --tls-ca "$REG/cert.pem" short
    printf '{"auths": {"https://index.docker.io/v1/": {"auth": "%s"}}}' "$(printf user:geheim | base64)" >"$BATS_TEST_TMPDIR/hub.json"
    built --tls-ca "$REG/cert.pem" --authfile "$BATS_TEST_TMPDIR/hub.json" short
    [ -f "$store/refs/docker.io/library/short/:latest" ]
    built --tls-ca "$REG/cert.pem" --authfile "$BATS_TEST_TMPDIR/hub.json" docker://docker.io/library/short:latest
    store=$BATS_TEST_TMPDIR/none refused "does not have docker.io/library/nothing:latest; a name without" --tls-ca "$REG/cert.pem" \
        --authfile "$BATS_TEST_TMPDIR/hub.json" nothing
}

@test "two processes that pull one image download each blob once" {
    : >"$HOSTILE/log"
    local i pids=()
    for i in 1 2 3; do
        supermachine-image build --store "$BATS_TEST_TMPDIR/store" "$HOSTILE_AT/good/once" >"$BATS_TEST_TMPDIR/out.$i" 3>&- &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i"; done
    [ "$(grep -c 'GET /v2/good/once/blobs/' "$HOSTILE/log")" -eq 4 ]
}

cli() {
    XDG_DATA_HOME=$BATS_TEST_TMPDIR/data supermachine "$@"
}

@test "pull, tag, history, rm, prune; pull policies" {
    needs_debian
    certs
    to_registry "$busybox" cli:1
    local from=localhost:$REG_PORT/cli:1 how=(--tls-ca "$REG/cert.pem" --authfile "$REG/auth.json") data=$BATS_TEST_TMPDIR/data
    export XDG_DATA_HOME=$data
    fails_with 125 "does not have it|has no image" supermachine run --pull never "${how[@]}" "$from" true
    cli image ls --format json | jq -e '. == []'
    run --separate-stderr cli pull "${how[@]}" "$from"
    [ "$status" -eq 0 ]
    [[ $output == sha256:* && $stderr == *"unpacking layer 1 of 1"* ]]
    local first=$output
    run --separate-stderr cli pull -q "${how[@]}" "$from"
    [ -z "$stderr" ]
    cli image tag "$from" example.com/mine
    cli image ls --format json | jq -e '.[0].names | sort == ["example.com/mine:latest", "'"$from"'"]'
    cli image history --format json example.com/mine
    cli cache ls --format json | jq -e '.blobs.files == 3 and .blobs.bytes > 0 and .rootfs.files == 1 and .snapshots.files == 0'
    cli cache ls | grep -q '^rootfs  *1  *[0-9.]* MiB$'
    # the name moves: a pull follows, a run does not
    to_registry "$debian" cli:1
    [ "$(cli pull -q "${how[@]}" "$from")" != "$first" ]
    # garbage: the old image still has a name
    cli image prune
    cli image inspect example.com/mine >/dev/null
    cli image rm example.com/mine
    run cli image prune
    [[ $output == *" 3 blobs: "* ]]
    # asked for by its digest it has no name
    cli pull -q "${how[@]}" "localhost:$REG_PORT/cli@$first"
    cli image ls | grep -q "^<none>  *${first:0:19} "
    cli image ls --format json | jq -e --arg first "$first" 'map(select(.digest == $first).names) == [[]]'
    cli image rm "$first"
    cli image prune
    cli image inspect "$from" >/dev/null
    cli image rm "$from"
    cli image prune --all
    [ -z "$(find "$data/supermachine/blobs" "$data/supermachine/rootfs" "$data/supermachine/refs" -type f)" ]
}

@test "image inspect and history look into the store alone, whatever the name" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    : >"$HOSTILE/log"
    fails_with 125 "does not have it|has no image" supermachine image inspect "$HOSTILE_AT/good/never"
    fails_with 125 "does not have it|has no image" supermachine image history "$HOSTILE_AT/good/never"
    [ ! -s "$HOSTILE/log" ]
    cli pull -q "$HOSTILE_AT/good/never"
    : >"$HOSTILE/log"
    cli image inspect "$HOSTILE_AT/good/never" | jq -e '.[0].digest | startswith("sha256:")'
    [ ! -s "$HOSTILE/log" ]
}

@test "progress: a bar for each layer on a terminal, wiped at the end; lines elsewhere; nothing with -q" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data TERM=xterm
    local from=$HOSTILE_AT/unhurried/x
    script -qec "stty cols 60; supermachine pull $from" /dev/null </dev/null >"$BATS_TEST_TMPDIR/terminal"
    local i
    for i in 1 2 3; do
        grep -q "layer $i of 3 [0-9a-f]\{12\} \[#*-*\]" "$BATS_TEST_TMPDIR/terminal"
    done
    # the end of it: all is wiped, then the digest
    tail -c 100 "$BATS_TEST_TMPDIR/terminal" | grep -q $'\033\\[Jsha256:[0-9a-f]*'
    # no line is longer than the terminal is wide
    [ "$(sed 's/\x1b\[[0-9]*[A-Z]//g' "$BATS_TEST_TMPDIR/terminal" | tr '\r' '\n' | grep -v ^sha256 | wc -L)" -le 59 ]
    rm -r "$XDG_DATA_HOME"
    # layers are unpacked as they come: of the first, which has 700 kB, a part is unpacked before the rest is here
    supermachine-image build --store "$BATS_TEST_TMPDIR/store" "$from" >"$BATS_TEST_TMPDIR/lines"
    jq -se 'any(.[]; .progress == "unpacking layer 1 of 3" and .done > 0 and .done < 500000)' "$BATS_TEST_TMPDIR/lines"
    run --separate-stderr supermachine pull "$from"
    [[ $output == sha256:* ]]
    [ "$(sort -u <<<"$stderr")" = "$(printf '%s\n' 'asking the registry' 'unpacking layer '{1,2,3}' of 3' 'writing the file system')" ]
    rm -r "$XDG_DATA_HOME"
    run --separate-stderr supermachine pull -q "$from"
    [ -z "$stderr" ]
}

@test "garbage collection leaves alone what is in use" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    cli image inspect "$busybox" >/dev/null
    local rootfs
    rootfs=$(find "$XDG_DATA_HOME" -name '*.ext4')
    exec 7<"$rootfs"
    flock -s 7
    fails_with 125 "is in use" supermachine image rm "$busybox"
    cli image prune --all
    [ -e "$rootfs" ]
    exec 7<&-
    cli image prune --all
    [ ! -e "$rootfs" ]
}

@test "login and logout: checked, kept like other tools keep it, in nobody's sight" {
    certs
    unset XDG_RUNTIME_DIR
    local auth=$HOME/.config/containers/auth.json
    run supermachine login --tls-ca "$REG/cert.pem" -u user --password-stdin "localhost:$REG_PORT" <<<hidden
    [ "$status" -eq 125 ]
    [[ $output == *"refuses access: user or password is wrong" && $output != *hidden* ]]
    fails_with 125 "cannot get an answer from the registry 127.0.0.1:9: .*connect" supermachine login -u user --password-stdin 127.0.0.1:9 <<<x
    [ ! -e "$auth" ]
    supermachine login --tls-ca "$REG/cert.pem" -u user --password-stdin "localhost:$REG_PORT" <<<geheim
    [ "$(stat -c %a "$auth")" = 600 ]
    to_registry "$busybox" private
    XDG_DATA_HOME=$BATS_TEST_TMPDIR/data supermachine pull -q --tls-ca "$REG/cert.pem" "localhost:$REG_PORT/private"
    # skopeo finds what we keep, and we what it keeps
    skopeo inspect --cert-dir "$REG/certs" --authfile "$auth" "docker://localhost:$REG_PORT/private" >/dev/null
    supermachine logout "localhost:$REG_PORT"
    [ "$(jq '.auths | length' "$auth")" -eq 0 ]
    fails_with 125 "nobody is logged in" supermachine logout "localhost:$REG_PORT"
    skopeo login --cert-dir "$REG/certs" --authfile "$auth" -u user --password-stdin "localhost:$REG_PORT" <<<geheim
    XDG_DATA_HOME=$BATS_TEST_TMPDIR/data2 supermachine pull -q --tls-ca "$REG/cert.pem" "localhost:$REG_PORT/private"
    fails_with 125 "not the name of a registry" supermachine logout nohost
}

@test "save and load: the same image comes back, and other tools read it" {
    certs
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    to_registry "$busybox" saved:1
    local from=localhost:$REG_PORT/saved:1 digest
    digest=$(supermachine pull -q --tls-ca "$REG/cert.pem" --authfile "$REG/auth.json" "$from")
    supermachine image save -o "$BATS_TEST_TMPDIR/saved.tar" "$from"
    skopeo inspect "oci-archive:$BATS_TEST_TMPDIR/saved.tar" | jq -e ".Digest == \"$digest\""
    # by several at once
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data1
    local i pids=()
    for i in 1 2 3 4; do
        supermachine image load -q "$BATS_TEST_TMPDIR/saved.tar" >/dev/null 3>&- &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i"; done
    supermachine image save -o "$BATS_TEST_TMPDIR/again.tar" "$from"
    # again from an empty store, and once more from what that has kept
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data2
    [ "$(supermachine image load "$BATS_TEST_TMPDIR/saved.tar")" = "$from" ]
    rm "$BATS_TEST_TMPDIR/saved.tar"
    [ "$(supermachine image inspect "$from" | jq -r '.[0].digest')" = "$digest" ]
    supermachine image save -o "$BATS_TEST_TMPDIR/again.tar" "$from"
    skopeo inspect "oci-archive:$BATS_TEST_TMPDIR/again.tar" | jq -e ".Digest == \"$digest\""
    # from a layout that is still there; from one that is not
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$BATS_TEST_TMPDIR/oci"
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data3
    supermachine image inspect "oci:$BATS_TEST_TMPDIR/oci:latest" >/dev/null
    supermachine image save -o "$BATS_TEST_TMPDIR/local.tar" "${digest:7:12}"
    skopeo inspect "oci-archive:$BATS_TEST_TMPDIR/local.tar" | jq -e ".Digest == \"$digest\""
    rm -r "$BATS_TEST_TMPDIR/oci"
    fails_with 125 "cannot open the OCI layout" supermachine image save -o "$BATS_TEST_TMPDIR/no.tar" "${digest:7:12}"
    [ -z "$(find "$BATS_TEST_TMPDIR" -name 'no.tar*')" ]
    # an image that is here stays what it is; a damaged one is made anew from the blobs, whatever its name leads to now
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data2
    supermachine image tag "$from" example.com/again
    supermachine image load -q "$BATS_TEST_TMPDIR/again.tar" # the archive that it came from is gone
    cp "$BATS_TEST_TMPDIR/again.tar" "$BATS_TEST_TMPDIR/copy.tar"
    supermachine image load -q "$BATS_TEST_TMPDIR/copy.tar"
    supermachine image ls --format json | jq -e --arg d "$digest" \
        'map(select(.digest == $d)) | length == 1 and (.[0].source | startswith("oci-archive:") and endswith("again.tar:@0"))' ||
        { supermachine image ls --format json; false; }
    truncate -s 0 "$XDG_DATA_HOME"/supermachine/rootfs/*.ext4
    supermachine image inspect "${digest:7:12}" >/dev/null
    supermachine image verify
    # through pipes
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data5
    (XDG_DATA_HOME=$BATS_TEST_TMPDIR/data2 supermachine image save "$from") | supermachine image load -q >"$BATS_TEST_TMPDIR/loaded"
    [ "$(cat "$BATS_TEST_TMPDIR/loaded")" = "$from" ]
    supermachine image save -o - "$from" >"$BATS_TEST_TMPDIR/piped.tar"
    cmp "$BATS_TEST_TMPDIR/piped.tar" "$BATS_TEST_TMPDIR/again.tar"
    [ -z "$(find "$XDG_DATA_HOME/supermachine/tmp" -type f)" ]
    fails_with 125 "not a valid tar archive" supermachine image load -i - </etc/passwd
    # what docker save wrote
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data4
    [ "$(supermachine image load "$SM_IMAGE_BUSYBOX/docker.tar")" = docker.io/library/busybox:latest ]
    supermachine image inspect busybox >/dev/null
    fails_with 125 "not a valid tar archive" supermachine image load /etc/passwd
}

# Without legacy names: what reads those is older than 2016.
@test "save as docker's archive: other tools read it, and load gives the image back" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    local tar=$BATS_TEST_TMPDIR/docker.tar config layer
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$BATS_TEST_TMPDIR/oci"
    # a layer more, and one that is there twice
    mkdir -p "$BATS_TEST_TMPDIR/more"
    echo more >"$BATS_TEST_TMPDIR/more/more"
    tar -C "$BATS_TEST_TMPDIR/more" -cf "$BATS_TEST_TMPDIR/layer.tar" more
    for _ in 1 2; do umoci raw add-layer --image "$BATS_TEST_TMPDIR/oci:latest" "$BATS_TEST_TMPDIR/layer.tar"; done
    supermachine image inspect "oci:$BATS_TEST_TMPDIR/oci:latest" >"$BATS_TEST_TMPDIR/inspect"
    config=$(skopeo inspect --config --raw "oci:$BATS_TEST_TMPDIR/oci:latest" | sha256sum | cut -d ' ' -f 1)
    supermachine image tag "$(jq -r '.[0].digest' "$BATS_TEST_TMPDIR/inspect")" example.com/saved:1
    supermachine image save --format docker-archive -q -o "$tar" example.com/saved:1
    tar xOf "$tar" manifest.json | jq -e --arg config "$config.json" \
        'length == 1 and (.[0] | .Config == $config and .RepoTags == ["example.com/saved:1"] and (.Layers | length == 3 and (unique | length) == 2))'
    tar xOf "$tar" manifest.json | jq -r '.[0].Layers[]' | while read -r layer; do
        [ "$(tar xOf "$tar" "$layer" | sha256sum | cut -d ' ' -f 1).tar" = "$layer" ]
    done
    [ "$(tar tf "$tar" | sort | uniq -d)" = "" ]
    skopeo inspect --config --raw "docker-archive:$tar:example.com/saved:1" | sha256sum | grep -q "^$config "
    skopeo copy --insecure-policy "docker-archive:$tar" "oci:$BATS_TEST_TMPDIR/copied:x"
    # ours reads it: the same root file system, under the name that was saved
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data1
    supermachine image load -q "$tar" >"$BATS_TEST_TMPDIR/loaded"
    [ "$(cat "$BATS_TEST_TMPDIR/loaded")" = example.com/saved:1 ]
    cmp "$BATS_TEST_TMPDIR"/data/supermachine/rootfs/*.ext4 "$XDG_DATA_HOME"/supermachine/rootfs/*.ext4
    # and saves it again as long as the archive is there; it has no manifest of oci's
    supermachine image save --format docker-archive example.com/saved:1 >"$BATS_TEST_TMPDIR/again.tar"
    cmp "$tar" "$BATS_TEST_TMPDIR/again.tar"
    fails_with 125 "not its layers: .*, or save it as a docker-archive" supermachine image save -o "$BATS_TEST_TMPDIR/no.tar" example.com/saved:1
    fails_with 125 "'docker-dir' is no format" supermachine image save --format docker-dir -o "$BATS_TEST_TMPDIR/no.tar" example.com/saved:1
    # a layer that is not what its config says is no archive of anybody's
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    layer=$(jq -r '.layers[2].digest' "$BATS_TEST_TMPDIR/oci/blobs/sha256/$(jq -r '.manifests[0].digest' "$BATS_TEST_TMPDIR/oci/index.json" | cut -d : -f 2)")
    layer=$BATS_TEST_TMPDIR/oci/blobs/sha256/${layer#*:}
    chmod u+w "$layer"
    printf x | dd of="$layer" bs=1 seek=20 conv=notrunc status=none
    fails_with 125 "layer 2 of 3" supermachine image save --format docker-archive -o "$BATS_TEST_TMPDIR/no.tar" example.com/saved:1
    [ -z "$(find "$BATS_TEST_TMPDIR" -name 'no.tar*')" ]
}

@test "save: a layer that changes while it is written is told of" {
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    local changing=$BATS_TEST_DIRNAME/changing-layer.py
    python3 "$changing" "$BATS_TEST_TMPDIR/oci"
    supermachine image inspect "oci:$BATS_TEST_TMPDIR/oci:latest"
    fails_with 125 "layer 1 of 1: it has changed while it was saved" \
        python3 "$changing" "$BATS_TEST_TMPDIR/oci" supermachine image save --format docker-archive "oci:$BATS_TEST_TMPDIR/oci:latest"
}

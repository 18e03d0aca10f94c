#!/usr/bin/env bats
# What listens in a guest is found by itself and reached from the host: by ports, and by the front door.
load helper

# The host port that leads to a port of a VM: port_of VM PORT
port_of() {
    supermachine port "$1" "$2" 2>/dev/null | head -n 1 | sed 's/.*://'
}

leads_to() { [ -n "$(port_of "$1" "$2")" ]; }
leads_nowhere() { ! leads_to "$1" "$2"; }

# talk TARGET [LINE...]: connects to a port of 127.0.0.1 or to a unix socket, sends the lines, ends its half when a first line
# was answered, and prints all of the answer.
talk() {
    timeout 600 python3 - "$@" <<'PY'
import socket, sys
target, say = sys.argv[1], sys.argv[2:]
if target.isdigit():
    s = socket.create_connection(("127.0.0.1", int(target)))
else:
    s = socket.socket(socket.AF_UNIX)
    s.connect(target)
for word in say:
    s.sendall(word.encode() + b"\n")
f = s.makefile("rb")
sys.stdout.write(f.readline().decode())
s.shutdown(socket.SHUT_WR)
sys.stdout.write(f.read().decode())
PY
}

# An image whose command is a service at port 7777, which it exposes.
service_image() {
    cp -r "$SM_IMAGE_BUSYBOX/oci" "$1"
    umoci config --image "$1:latest" --tag service --config.exposedports 7777/tcp \
        --config.cmd nc --config.cmd -ll --config.cmd -p --config.cmd 7777 --config.cmd -e --config.cmd cat
}

@test "what begins to listen gets a port, and loses it; the front door leads to it, by name and without" {
    local vm=found-$$ door=$XDG_RUNTIME_DIR/door in=$BATS_TEST_TMPDIR/in get=$'GET /none HTTP/1.0\n' pid port
    mkfifo "$in"
    # A service that speaks first, later one that does not and has nothing to give, and one for the guest itself.
    supermachine run -i --name "$vm" --socket "$door" "$busybox" sh -c '
        nc -ll -p 7000 -e sh -c "echo hello; exec cat" & first=$!
        read -r _; httpd -f -p 127.0.0.1:7003 -h /proc & until grep -q :1B5B /proc/net/tcp; do sleep 0.1; done # 7003
        httpd -f -p "$(hostname -i):7001" -h /proc & # as many images do: at the card
        read -r _; kill "$first"
        read -r _' <"$in" 3>&- &
    pid=$!
    exec 4>"$in"
    wait_for leads_to "$vm" 7000
    [ "$(talk "$(port_of "$vm" 7000)")" = hello ]
    echo >&4
    wait_for leads_to "$vm" 7001
    [[ $(talk "$(port_of "$vm" 7001)" "$get") == "HTTP/1."?" 404"* ]]
    run supermachine port "$vm"
    echo "$output"
    [[ $output =~ ^"7000/tcp -> 127.0.0.1:"[0-9]+$'\n'"7001/tcp -> 127.0.0.1:"[0-9]+$ ]]
    [ "$(supermachine port --format json "$vm" | jq -c '[.[] | [.guest_port, .protocol, .host_ip, .found]]')" = \
        '[[7000,"tcp","127.0.0.1",true],[7001,"tcp","127.0.0.1",true]]' ]
    fails_with 125 "port 53/udp" supermachine port "$vm" 53/udp
    # Another user of this host is sent away from what nobody has published.
    if [ "$(id -u)" -eq 0 ]; then
        port=$(port_of "$vm" 7000)
        [ -n "$port" ]
        # shellcheck disable=SC2016 # for the shell there
        run --separate-stderr setpriv --reuid 65534 --clear-groups \
            bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && echo in && timeout 600 cat <&3' "$port"
        [ "$status" -ne 124 ]
        [ "$output" = in ]
    fi

    # The client waits for the service to speak; it speaks at once; it names a port; one that nobody listens on.
    [ "$(talk "$door")" = hello ]
    [ "$(talk "$door" ping)" = $'hello\nping' ]
    [[ $(talk "$door" 'CONNECT 7001' "$get") == $'OK 7001\nHTTP/1.'?" 404"* ]]
    [ -z "$(talk "$door" 'CONNECT 7002' 2>/dev/null)" ]
    [[ $(talk "$door" 'CONNECT 7003' "$get") == $'OK 7003\nHTTP/1.'?" 404"* ]]
    [[ $(talk "$door" 'CONNECT abc') == "ERR "* ]]
    [[ $(talk "$door" 'CONNECT 99999') == "ERR "* ]]

    echo >&4
    wait_for leads_nowhere "$vm" 7000
    [[ $(talk "$door" "$get") == "HTTP/1."?" 404"* ]]
    echo >&4
    exec 4>&-
    wait "$pid"
    [ ! -e "$door" ]
    fails_with 125 "no VM.* runs" supermachine port "$vm"
}

@test "-P publishes what the image exposes, and --no-auto-ports no more than that" {
    local layout=$BATS_TEST_TMPDIR/layout vm=exposed-$$ pid
    service_image "$layout"
    supermachine run --name "$vm" -P -p 7779 --no-auto-ports "oci:$layout:service" \
        sh -c 'nc -ll -p 7778 -e cat & exec nc -ll -p 7777 -e cat' 3>&- &
    pid=$!
    wait_for leads_to "$vm" 7777
    answers() { [ "$(talk "$(port_of "$vm" 7777)" ping 2>/dev/null)" = ping ]; }
    wait_for answers
    sleep 2 # in which 7778 would have been found
    [ "$(supermachine port --format json "$vm" | jq -c '[.[] | [.guest_port, .found]] | sort')" = '[[7777,false],[7779,false]]' ]
    # Nobody listens there yet: no empty success.
    python3 - "$(port_of "$vm" 7779)" <<'PY'
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
try:
    sys.exit("an end, and no reset: %r" % s.recv(1))
except ConnectionResetError:
    pass
PY
    kill -TERM "$pid"
    wait "$pid" || true
}

@test "clones of a warm service listen at once, each at a port of its own; a live capture knows its listeners" {
    local layout=$BATS_TEST_TMPDIR/layout snap=$BATS_TEST_TMPDIR/live.snap i pids=() ports=()
    local listeners='[.listeners[] | [.vm_port, .socktype]]'
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR/data
    service_image "$layout"
    supermachine bake --until listening "oci:$layout:service"
    for i in 1 2; do
        supermachine run --name "clone$i-$$" "oci:$layout:service" 3>&- &
        pids+=($!)
    done
    for i in 1 2; do
        wait_for leads_to "clone$i-$$" 7777
        ports+=("$(port_of "clone$i-$$" 7777)")
        [ "$(talk "${ports[-1]}" "ping $i")" = "ping $i" ]
    done
    [ "${ports[0]}" != "${ports[1]}" ]
    supermachine snapshot create "clone1-$$" "$snap"
    [ "$(supermachine snapshot inspect --format json "$snap" | jq -c "$listeners")" = '[[7777,1]]' ]
    [ "$(supermachine port "clone1-$$" 7777)" = "127.0.0.1:${ports[0]}" ]
    kill -TERM "${pids[@]}"
    wait "${pids[@]}" || true
}

#!/usr/bin/env bats
# Programs of the host and of the guest meet on vsock ports, by the front door (--socket) and unix sockets beside it.
load helper

@test "the front door leads to a vsock port of the guest, and the guest's own connections come out beside it" {
    needs_debian
    local door=$XDG_RUNTIME_DIR/door pid
    # In the guest: answer one connection in upper case, then call the host's port 7000.
    supermachine run --socket "$door" "$debian" python3 -c '
import socket
listener = socket.socket(socket.AF_VSOCK)
listener.bind((socket.VMADDR_CID_ANY, 5000))
listener.listen()
print("ready", flush=True)
client, _ = listener.accept()
client.sendall(client.recv(100).upper())
client.close()
caller = socket.socket(socket.AF_VSOCK)
caller.connect((socket.VMADDR_CID_HOST, 7000))
caller.sendall(b"from the guest")
caller.close()' >"$BATS_TEST_TMPDIR/out" 3>&- &
    pid=$!
    wait_for grep -q ready "$BATS_TEST_TMPDIR/out"
    run python3 - "$door" <<'PY'
import socket, sys
out = socket.socket(socket.AF_UNIX)
out.bind(sys.argv[1] + "_7000")
out.listen()
door = socket.socket(socket.AF_UNIX)
door.connect(sys.argv[1])
door.sendall(b"CONNECT vsock:5000\n")
f = door.makefile("rb")
print(f.readline().decode().split()[0])
door.sendall(b"to the guest")
print(f.read().decode())
print(out.accept()[0].makefile().read())
PY
    echo "$output"
    [ "$output" = $'OK\nTO THE GUEST\nfrom the guest' ]
    wait "$pid"
    rm "$door"_7000
    [ ! -e "$door" ]
}

@test "a front door that cannot be made" {
    : >"$BATS_TEST_TMPDIR/file"
    fails_with 125 "there already" supermachine run --socket "$BATS_TEST_TMPDIR/file" "$busybox" true
}

#!/usr/bin/env python3
"""An HTTP proxy on 127.0.0.1 that finds every host there.

    proxy.py DIR PORT

(port 443 of every host is PORT) writes its port to DIR/proxy and one line a request to DIR/proxy.log: METHOD TARGET AUTHORIZATION. CONNECT to a host
"refused.*" is answered by 403.
"""
import os
import select
import socket
import sys
import threading
import time
import urllib.parse

DIR, HTTPS_PORT = sys.argv[1:]
LOCK = threading.Lock()


def log(line):
    with LOCK, open(DIR + "/proxy.log", "a", encoding="latin-1") as f:
        f.write(line + "\n")


def read_head(client):
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 65536:
        data = client.recv(4096)
        if not data:
            return None
        head += data
    return head


def relay(a, b):
    """Both directions until one side ends."""
    while True:
        for sock in select.select([a, b], [], [])[0]:
            data = sock.recv(65536)
            if not data:
                return
            (b if sock is a else a).sendall(data)


def serve(client):
    try:
        head = read_head(client)
        if not head:
            return
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        auth = [line.split(": ", 1)[1] for line in lines if line.lower().startswith("authorization: ")]
        log(f"{method} {target} {auth[0] if auth else '-'}")
        if method == "CONNECT":
            host, port = target.rsplit(":", 1)
            if host.startswith("refused."):
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            server = socket.create_connection(("127.0.0.1", int(HTTPS_PORT if port == "443" else port)))
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            url = urllib.parse.urlsplit(target)
            server = socket.create_connection(("127.0.0.1", url.port or 80))
            path = url.path + ("?" + url.query if url.query else "")
            rest = [line for line in lines[1:] if not line.lower().startswith(("connection:", "proxy-"))]
            server.sendall("\r\n".join([f"{method} {path} HTTP/1.1", "Connection: close"] + rest).encode("latin-1"))
        relay(client, server)
        server.close()
    except OSError:
        pass
    finally:
        client.close()


listener = socket.create_server(("127.0.0.1", 0))
with open(DIR + "/proxy.tmp", "w", encoding="ascii") as out:
    out.write(str(listener.getsockname()[1]))
os.rename(DIR + "/proxy.tmp", DIR + "/proxy")


def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
while os.getppid() != 1:
    time.sleep(1)

#!/usr/bin/env python3
"""Runs in a guest: tries TCP and UDP port 8000 of every address or name of its command line, and says which of them
the witness (witness.py) answered at: "tcp 10.1.2.3 reached", "udp 10.1.2.3 -"."""
import socket
import sys


def attempt(kind, target):
    try:
        family, _, _, _, address = socket.getaddrinfo(target, 8000, type=kind)[0]
        with socket.socket(family, kind) as s:
            s.settimeout(60 if kind == socket.SOCK_STREAM else 10)
            s.connect(address)
            if kind == socket.SOCK_DGRAM:
                s.send(b"hello\n")
            return s.recv(100) == b"reached\n"
    except OSError:
        return False


for target in sys.argv[1:]:
    for kind, name in (socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp"):
        print(name, target, "reached" if attempt(kind, target) else "-", flush=True)

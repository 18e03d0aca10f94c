#!/usr/bin/env python3
"""Runs in a guest: tries TCP and UDP port 8000 of every address or name of its command line, in this order, and says at
the end which of them the witness (witness.py) answered at: "tcp 10.1.2.3 reached", "udp 10.1.2.3 -".

Silence is what most of them answer. It is waited for once, for all that was sent, and begins anew with every answer."""
import select
import socket
import sys

SILENCE = 15


def connect(kind, target):
    family, _, _, _, address = socket.getaddrinfo(target, 8000, type=kind)[0]
    s = socket.socket(family, kind)
    s.settimeout(600)  # for what hangs
    s.connect(address)
    return s


def tcp(target):
    try:
        with connect(socket.SOCK_STREAM, target) as s:
            return s.recv(100) == b"reached\n"
    except OSError:
        return False


def ask_by_udp(target):
    try:
        s = connect(socket.SOCK_DGRAM, target)
        s.send(b"hello\n")
        return s
    except OSError:
        return None


def answered(asked):
    got, open_ones = set(), {s for s in asked.values() if s}
    while open_ones:
        ready = select.select(list(open_ones), [], [], SILENCE)[0]
        if not ready:
            break
        for s in ready:
            open_ones.remove(s)
            try:
                if s.recv(100) == b"reached\n":
                    got.add(s)
            except OSError:
                pass
    return got


results, asked = [], {}
for n, target in enumerate(sys.argv[1:]):
    results.append(tcp(target))
    asked[n] = ask_by_udp(target)
got = answered(asked)
for n, target in enumerate(sys.argv[1:]):
    print("tcp", target, "reached" if results[n] else "-")
    print("udp", target, "reached" if asked[n] in got else "-")

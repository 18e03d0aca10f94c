#!/usr/bin/env python3
"""Runs in a guest: tries TCP and UDP port 8000 of every address or name of its command line, in this order, and says at
the end which of them the witness (witness.py) answered at: "tcp 10.1.2.3 reached", "udp 10.1.2.3 -". usage: reach.py COUNT TARGET...

COUNT answers must come, and are waited for however long that takes on a busy host. Silence is what all others answer: it is
waited for once, for all that was tried, and begins anew with every answer."""
import errno
import select
import socket
import sys

PATIENCE = 300  # for what hangs
SILENCE = 15


def attempt(kind, target):
    """A socket that is on its way there; None if the guest itself knows of none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(target, 8000, type=kind)[0]
        s = socket.socket(family, kind)
        s.setblocking(False)
        if s.connect_ex(address) not in (0, errno.EINPROGRESS):
            return None
        if kind == socket.SOCK_DGRAM:
            s.send(b"hello\n")
        return s
    except OSError:
        return None


def reached(count, sockets):
    got, waiting = set(), set(sockets)
    while waiting:
        ready = select.select(list(waiting), [], [], PATIENCE if len(got) < count else SILENCE)[0]
        if not ready:
            break
        for s in ready:
            waiting.remove(s)
            try:
                if s.recv(100) == b"reached\n":
                    got.add(s)
            except OSError:
                pass
    return got


tried, targets = {}, sys.argv[2:]
for target in targets:
    tried.setdefault(target, []).append([(name, attempt(kind, target))
        for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM))])
got = reached(int(sys.argv[1]), (s for times in tried.values() for pair in times for _, s in pair if s))
for target in targets:
    for name, s in tried[target].pop(0):
        print(name, target, "reached" if s in got else "-")

#!/usr/bin/env python3
"""A terminal whose user is in a hurry: 500 changes of its size in a second, then a paste of SIZE bytes.
Arguments: SIZE, image. Ends with 0 when the guest knows the last size and has got every byte.
"""
import fcntl
import hashlib
import os
import pty
import select
import struct
import sys
import termios
import time

size, image = int(sys.argv[1]), sys.argv[2]
lines = b"".join(b"line %070d\n" % i for i in range(size // 76 + 1))
end = time.monotonic() + 900  # for what hangs
# Both modes of a terminal: what is pasted into a program that takes keys, and into one that takes lines.
command = (
    "stty -echo; echo rea''dy; read go; stty size; stty raw; echo ra''w; "
    f"head -c {len(lines)} | md5sum; stty -raw; echo coo''ked; md5sum"
)


def set_size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(fd, words, seen):
    while words not in seen:
        if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit(f"no {words!r} but {seen[-300:]!r}")
        try:
            seen += os.read(fd, 65536)
        except OSError:
            sys.exit(f"the end, and no {words!r} but {seen[-300:]!r}")
    return seen[seen.index(words) + len(words):]


def paste(fd, data):
    while data:
        if time.monotonic() > end:
            sys.exit(f"{len(data)} bytes were not taken")
        if select.select([], [fd], [], 1)[1]:
            data = data[os.write(fd, data[:4096]):]


pid, terminal = pty.fork()
if pid == 0:
    os.execvp("supermachine", ["supermachine", "run", "-it", image, "sh", "-c", command])
os.set_blocking(terminal, False)
seen = read_until(terminal, b"ready\r\n", b"")
begin = time.monotonic()
for i in range(1000):
    set_size(terminal, 20 + i % 100, 50 + i % 77)
    time.sleep(max(0, begin + (i + 1) / 500 - time.monotonic()))
set_size(terminal, 33, 99)
time.sleep(5)
os.write(terminal, b"go\n")
seen = read_until(terminal, b"33 99\r\n", seen)
seen = read_until(terminal, b"raw", seen)
wanted = hashlib.md5(lines).hexdigest().encode()
paste(terminal, lines)
seen = read_until(terminal, wanted, seen)
seen = read_until(terminal, b"cooked", seen)
paste(terminal, lines + b"\x04")
read_until(terminal, wanted, seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

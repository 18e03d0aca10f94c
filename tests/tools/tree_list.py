#!/usr/bin/env python3
"""Lists a directory tree as ext4_dump lists an image (see ext4_dump.h): what `umoci unpack` made is
compared with what we made."""
import hashlib
import os
import stat
import sys

TYPES = [(stat.S_ISREG, "file"), (stat.S_ISDIR, "dir"), (stat.S_ISLNK, "symlink"),
         (stat.S_ISCHR, "char"), (stat.S_ISBLK, "block"), (stat.S_ISFIFO, "fifo")]


def what(path, st):
    if stat.S_ISREG(st.st_mode):
        with open(path, "rb") as f:
            return "sha256:" + hashlib.sha256(f.read()).hexdigest()
    if stat.S_ISLNK(st.st_mode):
        return os.readlink(path)
    if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        return f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}"
    return "-"


def show(root, path, first, out):
    full = root + path
    st = os.lstat(full)
    if st.st_ino in first and not stat.S_ISDIR(st.st_mode):
        out.write(f"{path} hardlink {first[st.st_ino]}\n")
        return
    first[st.st_ino] = path
    kind = next(name for test, name in TYPES if test(st.st_mode))
    size = 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    out.write(f"{path} {kind} {st.st_mode & 0o7777:04o} {st.st_uid} {st.st_gid} {size} "
              f"{int(st.st_mtime_ns // 10**9)} {what(full, st)}")
    for name in sorted(os.listxattr(full, follow_symlinks=False)):
        value = os.getxattr(full, name, follow_symlinks=False)
        out.write(f" xattr:{name}={value.hex()}")
    out.write("\n")
    if stat.S_ISDIR(st.st_mode):
        base = "" if path == "/" else path
        for name in sorted(os.listdir(full), key=os.fsencode):
            show(root, f"{base}/{name}", first, out)


sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
show(sys.argv[1].rstrip("/"), "/", {}, sys.stdout)

#!/usr/bin/env python3
"""Adds a layer with a file "large" of 1 GiB, a sixteenth of it random, to an OCI layout's image.

    large_image.py LAYOUT NEW_LAYOUT

The new image is called "large"; what sample.py must say of the file is printed.
"""
import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile

from layout import Layout

SIZE = 1 << 30
CHUNK = 1 << 20
old, path = sys.argv[1:]
rng = random.Random(5)
sample = hashlib.sha256()


def contents():
    """In chunks, none like another."""
    for i in range(SIZE // CHUNK):
        data = rng.randbytes(CHUNK) if i % 16 == 0 else (b"%08d and so on\n" % i * (CHUNK // 16))[:CHUNK]
        if i % 16 == 0:
            sample.update(data[12288:16384])
        yield data


def stored(digest):
    with open(f"{old}/blobs/sha256/{digest[7:]}", "rb") as f:
        return f.read()


def large_layer(layout):
    """Streamed through zstd: (descriptor, diff ID)."""
    plain, packed, name = hashlib.sha256(), hashlib.sha256(), path + "/blobs/sha256/large"
    with open(name, "wb") as out, subprocess.Popen(["zstd", "-qc1"], stdin=subprocess.PIPE, stdout=out) as zstd:
        info = tarfile.TarInfo("large")
        info.size = SIZE
        for data in stream(info):
            plain.update(data)
            zstd.stdin.write(data)
        zstd.stdin.close()
    with open(name, "rb") as f:
        for data in iter(lambda: f.read(CHUNK), b""):
            packed.update(data)
    size = os.path.getsize(name)
    os.rename(name, path + "/blobs/sha256/" + packed.hexdigest())
    return ({"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": "sha256:" + packed.hexdigest(),
             "size": size}, "sha256:" + plain.hexdigest())


def stream(info):
    yield info.tobuf()
    yield from contents()
    yield bytes(1024)


with open(old + "/index.json", encoding="utf-8") as index:
    manifest = json.loads(stored(json.load(index)["manifests"][0]["digest"]))
config = json.loads(stored(manifest["config"]["digest"]))
new = Layout(path)
layers = []
for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
    new.blob(stored(layer["digest"]), layer["mediaType"])
    layers.append((layer, diff_id))
layers.append(large_layer(new))
new.image("large", layers)
new.close()
print(SIZE, sample.hexdigest())

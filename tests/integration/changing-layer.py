#!/usr/bin/env python3
"""A layer that unpacks to more when it is read again: changing-layer.py DIR COMMAND...

Makes an OCI layout in DIR, whose layer is two members of gzip; runs COMMAND, an 'image save' of docker's archive to its standard
output; once the layer is being written there, its second member, empty until then, becomes one of as many bytes that has zeros.
Exits like COMMAND. Without COMMAND the layout alone is made, nothing is run.
"""
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zlib

TAIL = 1000


def member(data, size=0):
    """As many bytes, of which its name is what is left."""
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    name = b"n" * max(size - len(body) - 19, 1)
    return (b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + name + b"\0" + body
            + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little"))


def blob(folder, data, kind):
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(folder, "blobs/sha256", digest), "wb") as file:
        file.write(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": "sha256:" + digest, "size": len(data)}


def layout(folder):
    os.makedirs(os.path.join(folder, "blobs/sha256"), exist_ok=True)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        info = tarfile.TarInfo("random")
        info.size = 4 << 20  # much more than a pipe and all buffers take
        out.addfile(info, io.BytesIO(os.urandom(info.size)))
    layer = blob(folder, member(tar.getvalue()) + member(b"", TAIL), "layer.v1.tar+gzip")
    diff_id = "sha256:" + hashlib.sha256(tar.getvalue()).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    manifest = {"schemaVersion": 2, "config": blob(folder, json.dumps(config).encode(), "config.v1+json"), "layers": [layer]}
    top = blob(folder, json.dumps(manifest).encode(), "manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    for name, content in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", {"schemaVersion": 2, "manifests": [top]})):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file)


def change(folder):
    blobs = os.path.join(folder, "blobs/sha256")
    layer = max((os.path.join(blobs, name) for name in os.listdir(blobs)), key=os.path.getsize)
    with open(layer, "r+b") as file:
        file.seek(-TAIL, os.SEEK_END)
        file.write(member(bytes(100000), TAIL))


if len(sys.argv) == 2:
    layout(sys.argv[1])
else:
    with subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE) as save:
        save.stdout.read(1024)
        change(sys.argv[1])
        while save.stdout.read(1 << 20):
            pass
    sys.exit(save.returncode)

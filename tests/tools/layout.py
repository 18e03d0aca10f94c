"""Makes OCI layouts for tests, honest ones and others. As a module:

    from layout import Layout
    l = Layout("/tmp/x")
    l.image("latest", [l.layer([("d", "etc"), ("f", "etc/a", b"text")], "gzip")])
    l.close()
"""
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

TYPES = {"d": tarfile.DIRTYPE, "f": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE,
         "c": tarfile.CHRTYPE, "b": tarfile.BLKTYPE, "p": tarfile.FIFOTYPE}


def tar(members, form=tarfile.PAX_FORMAT):
    """members: (kind, path[, contents or target[, {attribute: value}]])"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as t:
        for member in members:
            kind, path, *rest = member
            info = tarfile.TarInfo(path)
            info.type = TYPES[kind]
            info.mode = 0o755 if kind == "d" else 0o644
            info.mtime = 1700000000
            data = b""
            if kind == "f" and rest:
                data = rest[0]
                info.size = len(data)
            elif kind in "lh":
                info.linkname = rest[0]
            for key, value in (rest[1] if len(rest) > 1 else {}).items():
                setattr(info, key, value)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    def __init__(self, path):
        self.path = path
        self.manifests = []
        os.makedirs(path + "/blobs/sha256")

    def blob(self, data, media_type, **more):
        d = digest(data)
        with open(f"{self.path}/blobs/sha256/{d[7:]}", "wb") as f:
            f.write(data)
        return {"mediaType": media_type, "digest": d, "size": len(data), **more}

    def json(self, value, media_type, **more):
        return self.blob(json.dumps(value).encode(), media_type, **more)

    def layer(self, members, how=None):
        data = members if isinstance(members, bytes) else tar(members)
        suffix = f"+{how}" if how else ""
        made = self.blob(compress(data, how), "application/vnd.oci.image.layer.v1.tar" + suffix)
        return made, digest(data)

    def manifest(self, layers, arch="amd64", config=None, os_name="linux", **more):
        made = self.json({"architecture": arch, "os": os_name, "config": config or {"Cmd": ["/bin/sh"]},
                          "rootfs": {"type": "layers", "diff_ids": [l[1] for l in layers]}},
                         "application/vnd.oci.image.config.v1+json")
        return self.json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                          "config": made, "layers": [l[0] for l in layers], **more},
                         "application/vnd.oci.image.manifest.v1+json",
                         platform={"os": os_name, "architecture": arch})

    def index(self, manifests):
        return self.json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                          "manifests": manifests}, "application/vnd.oci.image.index.v1+json")

    def add(self, descriptor, name=None):
        if name:
            descriptor = dict(descriptor, annotations={"org.opencontainers.image.ref.name": name})
        self.manifests.append(descriptor)
        return descriptor

    def image(self, name, layers, **more):
        return self.add(self.manifest(layers, **more), name)

    def close(self):
        with open(self.path + "/oci-layout", "w", encoding="ascii") as f:
            f.write('{"imageLayoutVersion": "1.0.0"}')
        with open(self.path + "/index.json", "w", encoding="ascii") as f:
            json.dump({"schemaVersion": 2, "manifests": self.manifests}, f)


DOCKER_AGES = ["v1", "1.10", "links", "25", "podman", "packed"]


def docker_archive(path, layers, config, name, age):
    """A docker-archive as it was written at some time: before 1.10 ("v1"), then with a manifest.json, with links where a layer is
    there twice ("links"), as a layout since 25; by podman, and by builders that leave the layers packed. layers: tars."""
    members = []
    def add(member, data):
        members.append(("f", member, data if isinstance(data, bytes) else json.dumps(data).encode()))
    ids = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(len(layers))]
    base = {"architecture": "amd64", "os": "linux", "config": config}
    whole = json.dumps({**base, "rootfs": {"type": "layers", "diff_ids": [digest(d) for d in layers]}}).encode()
    hexed = [digest(d)[7:] for d in layers]
    image = {"Config": digest(whole)[7:] + ".json", "RepoTags": [name]}
    if age in ("v1", "1.10", "links"):
        image["Layers"] = [i + "/layer.tar" for i in ids]
        for i, data in enumerate(layers):
            members.append(("d", ids[i] + "/"))
            add(ids[i] + "/VERSION", b"1.0")
            add(ids[i] + "/json", {"id": ids[i], **({"parent": ids[i - 1]} if i else {}), **(base if i + 1 == len(layers) else {})})
            if age == "links" and data in layers[:i]:
                members.append(("l", ids[i] + "/layer.tar", "../" + ids[layers.index(data)] + "/layer.tar"))
            else:
                add(ids[i] + "/layer.tar", data)
        repository, tag = name.rsplit(":", 1)
        add("repositories", {repository: {tag: ids[-1]}})
    elif age == "25":
        image = {**image, "Config": "blobs/sha256/" + digest(whole)[7:], "Layers": ["blobs/sha256/" + h for h in hexed]}
        layer = "application/vnd.oci.image.layer.v1.tar"
        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(whole),
                                          "size": len(whole)},
                               "layers": [{"mediaType": layer, "digest": digest(d), "size": len(d)} for d in layers]}).encode()
        for data in [whole, manifest, *dict.fromkeys(layers)]:
            add("blobs/sha256/" + digest(data)[7:], data)
        add("oci-layout", {"imageLayoutVersion": "1.0.0"})
        add("index.json", {"schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
             "annotations": {"io.containerd.image.name": "docker.io/" + name, "org.opencontainers.image.ref.name": name.split(":")[1]}}]})
    else:
        packed = [compress(d, "gzip" if age == "packed" else None) for d in layers]
        image["Layers"] = [h + (".tar.gz" if age == "packed" else ".tar") for h in hexed]
        for member, data in dict(zip(image["Layers"], packed)).items():
            add(member, data)
    if age != "v1":
        add("manifest.json", [image])
        if age != "25":
            add(image["Config"], whole)
    with open(path, "wb") as f:
        f.write(tar(members))

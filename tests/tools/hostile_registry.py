#!/usr/bin/env python3
"""A registry that misbehaves, on two ports of 127.0.0.1: the registry itself and "elsewhere", to which it may redirect.

    hostile_registry.py DIR

writes the ports to DIR/port and DIR/elsewhere, and one line a request to DIR/log: PORT METHOD PATH RANGE AUTHORIZATION.
While it answers, it looks for its secrets in the command lines of all processes, and names who shows them in DIR/leaks.
The first component of the repository's name says how it misbehaves (the methods named after it below); `good` does not.
"""
import base64
import hashlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from layout import Layout, digest, tar  # noqa: E402

DIR = sys.argv[1]
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PORTS = {}
LOCK = threading.Lock()
BOMB = threading.Lock()  # making it takes a while, in which others are answered
COUNTS = {}


def count(key):
    with LOCK:
        COUNTS[key] = COUNTS.get(key, 0) + 1
        return COUNTS[key]


def make(members_of_layers, how="gzip"):
    """An image: (digest of its manifest, blobs by digest)."""
    with tempfile.TemporaryDirectory() as tmp:
        layout = Layout(tmp + "/l")
        top = layout.manifest([layout.layer(m, how) for m in members_of_layers])
        blobs = {}
        for name in os.listdir(tmp + "/l/blobs/sha256"):
            with open(f"{tmp}/l/blobs/sha256/{name}", "rb") as f:
                blobs["sha256:" + name] = f.read()
        return top["digest"], blobs


RNG = random.Random(7)
GOOD = make([[("f", f"file{i}", RNG.randbytes(700000))] for i in range(3)])
TRAVERSAL = make([[("f", "../../../../tmp/escaped", b"x")]])
IMAGES = {"traversal": TRAVERSAL}
LAST = json.loads(GOOD[1][GOOD[0]])["layers"][-1]["digest"]


def find_leaks():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read()
        except OSError:
            continue
        if b"supermachine" in words.split(b"\0")[0] and (b"geheim" in words or b"tok-en" in words):
            with open(DIR + "/leaks", "ab") as f:
                f.write(words + b"\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def log(self):
        with LOCK, open(DIR + "/log", "a", encoding="ascii") as f:
            f.write(f"{self.server.server_port} {self.command} {self.path} {self.headers.get('Range', '-')} "
                    f"{self.headers.get('Authorization', '-')}\n")
        if self.headers.get("Authorization") or self.path == "/v2/":
            find_leaks()

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def endless(self, chunk, pause=0.0, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
            time.sleep(pause)

    def do_POST(self):
        self.do_GET()

    def do_GET(self):
        self.log()
        try:
            self.route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def route(self):
        if self.server.server_port == PORTS["elsewhere"]:
            return self.elsewhere()
        if self.path.startswith("/token"):
            return self.token()
        parts = self.path.split("?")[0].split("/")
        if len(parts) < 6 or parts[1] != "v2":
            return self.answer(200, b"{}")
        mode, kind, what = parts[2], parts[-2], parts[-1]
        special = getattr(self, mode.replace("-", "_"), None)
        if special and special(kind, what) is not False:
            return None
        return self.honest(mode, kind, what)

    def bomb(self, kind, what):
        with BOMB:
            if "bomb" not in IMAGES:
                IMAGES["bomb"] = make([[("f", f"zero{i}", bytes(100 << 20)) for i in range(3)]], "zstd")
        return False

    def honest(self, mode, kind, what):
        top, blobs = IMAGES.get(mode, GOOD)
        if kind == "manifests":
            data = blobs.get(top if what == "latest" else what)
            return self.answer(200, data, Content_Type=MANIFEST) if data else self.answer(404)
        data = blobs.get(what)
        if data is None:
            return self.answer(404)
        return self.blob(data)

    def blob(self, data, ranges=True):
        wanted = self.headers.get("Range")
        if wanted and ranges:
            first = int(wanted[len("bytes="):-1])
            if first >= len(data):
                return self.answer(416)
            return self.answer(206, data[first:], Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")
        return self.answer(200, data)

    def begin_blob(self, data, ranges=True):
        """The head of an answer whose body the caller writes, from the byte that is returned."""
        wanted = self.headers.get("Range")
        first = int(wanted[len("bytes="):-1]) if wanted and ranges else 0
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        return first

    def elsewhere(self):
        data = GOOD[1].get(self.path.split("/")[-1].split("?")[0])
        return self.blob(data) if data else self.answer(404)

    def token(self):
        if "huge" in self.path:
            return self.endless(b"x" * 65536)
        want = "Basic " + base64.b64encode(b"user:geheim").decode()
        if "private" in self.path and self.headers.get("Authorization") != want:
            return self.answer(401)
        return self.answer(200, json.dumps({"token": "tok-en"}).encode())

    # --- ways to misbehave: return False to go on honestly

    def good(self, kind, what):
        return False

    def wrong_digest(self, kind, what):
        if kind == "blobs" and what == LAST:
            data = bytearray(GOOD[1][what])
            data[len(data) // 2] ^= 1
            return self.blob(bytes(data))
        return False

    def too_long(self, kind, what):
        return self.answer(200, GOOD[1][what] + b"more") if kind == "blobs" and what == LAST else False

    def too_short(self, kind, what):
        return self.answer(200, GOOD[1][what][:-5]) if kind == "blobs" and what == LAST else False

    def always_cut(self, kind, what):
        if kind != "blobs" or what != LAST:
            return False
        self.send_response(200)
        self.send_header("Content-Length", str(len(GOOD[1][what])))
        self.end_headers()
        self.wfile.write(GOOD[1][what][:1000])
        self.close_connection = True
        return True

    def cut_at_random(self, kind, what, ranges=True):
        """Answers break off somewhere, two of three times; but no blob's so often that a client may give up."""
        if kind != "blobs" or random.random() < 0.33 or count("cut " + self.path) > 4:
            return False
        data = GOOD[1][what]
        first = self.begin_blob(data, ranges)
        self.wfile.write(data[first:first + random.randrange(len(data) - first + 1)])
        self.close_connection = True
        return True

    def paced(self, kind, what, pause=0.002):
        """Blobs come slowly enough to be interrupted."""
        if kind != "blobs":
            return False
        data = GOOD[1][what]
        first = self.begin_blob(data)
        for at in range(first, len(data), 16384):
            self.wfile.write(data[at:at + 16384])
            time.sleep(pause)
        return True

    def held(self, kind, what):
        """Half of a layer, and no more until the client goes."""
        if kind != "blobs" or len(GOOD[1][what]) < 100000:
            return False
        data = GOOD[1][what]
        first = self.begin_blob(data)
        self.wfile.write(data[first:(first + len(data)) // 2])
        self.wfile.flush()
        self.rfile.read(1)
        self.close_connection = True
        return True

    def unhurried(self, kind, what):
        """Slowly enough to be watched."""
        return self.paced(kind, what, 0.03)

    def drip(self, kind, what):
        """A byte an attempt: the download moves on, and would take for ever."""
        if kind != "blobs" or what != LAST:
            return False
        first = self.begin_blob(GOOD[1][what])
        self.wfile.write(GOOD[1][what][first:first + 1])
        self.close_connection = True
        return True

    def cut_no_ranges(self, kind, what):
        if kind == "blobs" and count(self.path) > 3:
            return self.blob(GOOD[1][what], ranges=False) if what in GOOD[1] else False
        return self.cut_at_random(kind, what, ranges=False)

    def wrong_range(self, kind, what):
        if kind != "blobs" or what != LAST:
            return False
        if self.headers.get("Range"):
            return self.answer(206, b"x" * 100, Content_Range="bytes 600000-600099/700000")
        return self.always_cut(kind, what)

    def endless_blob(self, kind, what):
        return self.endless(b"z" * 65536) if kind == "blobs" and what == LAST else False

    def endless_manifest(self, kind, what):
        return self.endless(b" " * 65536, Content_Type=MANIFEST) if kind == "manifests" else False

    def endless_headers(self, kind, what):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            self.wfile.write(b"X-Padding: " + b"p" * 8000 + b"\r\n")

    def endless_error(self, kind, what):
        return self.endless(b"e" * 65536, status=404)

    def redirect_loop(self, kind, what):
        return self.answer(307, Location=self.path)

    def redirect_file(self, kind, what):
        return self.answer(307, Location="file:///etc/passwd")

    def redirect_plain(self, kind, what):
        return self.answer(307, Location="http://example.com/v2/x")

    def auth_plain(self, kind, what):
        return self.answer(401, WWW_Authenticate='Bearer realm="http://127.0.0.1.example.com/token"')

    def redirect_elsewhere(self, kind, what):
        if self.headers.get("Authorization") is None:
            return self.answer(401, WWW_Authenticate=f'Bearer realm="http://127.0.0.1:{PORTS["port"]}/token"')
        if kind == "blobs":
            return self.answer(307, Location=f"http://127.0.0.1:{PORTS['elsewhere']}/signed/{what}?sig=s3cret-sig")
        return False

    def unauthorized_elsewhere(self, kind, what):
        """The other place asks for credentials as if it were the registry."""
        return self.answer(307, Location=f"http://127.0.0.1:{PORTS['elsewhere']}/nothing")

    def auth_loop(self, kind, what):
        return self.answer(401, WWW_Authenticate=f'Bearer realm="http://127.0.0.1:{PORTS["port"]}/token",service="s"')

    def auth_private(self, kind, what):
        if self.headers.get("Authorization") == "Bearer tok-en":
            return False
        return self.answer(401, WWW_Authenticate=f'Bearer realm="http://127.0.0.1:{PORTS["port"]}/token?private",'
                           'service="s",scope="repository:x:pull"')

    def auth_huge(self, kind, what):
        return self.answer(401, WWW_Authenticate=f'Bearer realm="http://127.0.0.1:{PORTS["port"]}/token/huge"')

    def auth_basic(self, kind, what):
        if self.headers.get("Authorization") == "Basic " + base64.b64encode(b"user:geheim").decode():
            return False
        return self.answer(401, WWW_Authenticate='Basic realm="x"')

    def auth_nonsense(self, kind, what):
        return self.answer(401, WWW_Authenticate='Bearer realm="unfinished')

    def slow_body(self, kind, what):
        return self.endless(b"s", 0.9) if kind == "blobs" and what == LAST else False

    def slow_manifest(self, kind, what):
        return self.endless(b" ", 0.3, Content_Type=MANIFEST) if kind == "manifests" else False

    def slow_headers(self, kind, what):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            self.wfile.write(b"X: y\r\n")
            time.sleep(0.3)

    def too_many(self, kind, what):
        return self.answer(429, Retry_After="1") if count(self.path) < 3 else False

    def much_too_many(self, kind, what):
        return self.answer(429, Retry_After="100000")

    def broken(self, kind, what):
        return self.answer(503)

    def not_json(self, kind, what):
        return self.answer(200, b"<html>no</html>", Content_Type="text/html") if kind == "manifests" else False

    def lying_header(self, kind, what):
        top, blobs = GOOD
        if kind != "manifests":
            return False
        return self.answer(200, blobs[top], Content_Type=MANIFEST, Docker_Content_Digest="sha256:" + "1" * 64)

    def schema1(self, kind, what):
        return self.answer(200, json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(),
                           Content_Type="application/vnd.docker.distribution.manifest.v1+prettyjws")

    def deep_index(self, kind, what):
        """An index that leads to an index that leads ..., each made when it is asked for."""
        depth = 0 if what == "latest" else None
        for i in range(20):
            if what == digest(self.nested(i)):
                depth = i
        return self.answer(200, self.nested(depth), Content_Type=INDEX) if depth is not None else self.answer(404)

    @staticmethod
    def nested(depth):
        inner = b"{}" if depth >= 19 else Handler.nested(depth + 1)
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": INDEX, "digest": "sha256:" + hashlib.sha256(inner).hexdigest(), "size": len(inner),
             "platform": {"os": "linux", "architecture": "amd64"}}]}).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # beyond it a client would wait for a second, and longer


def serve(name):
    server = Server(("127.0.0.1", 0), Handler)
    PORTS[name] = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()


serve("port")
serve("elsewhere")
for key, value in PORTS.items():
    with open(f"{DIR}/{key}.tmp", "w", encoding="ascii") as out:
        out.write(str(value))
    os.rename(f"{DIR}/{key}.tmp", f"{DIR}/{key}")
while os.getppid() != 1:
    time.sleep(1)

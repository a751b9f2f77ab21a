"""A wheel and a package index on this machine, for tests that install a user's requirements."""

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WHEEL_NAME = "tiny-1.0-py3-none-any.whl"
INDEX_CONTENT_TYPE = "application/vnd.pypi.simple.v1+json"
METADATA = b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"


def make_wheel(folder: Path) -> Path:
    """Write a wheel with the module `tiny`, whose `value` is 7, and return its path."""
    path = folder / WHEEL_NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", "value = 7\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return path


@dataclass
class FakePackageIndex:
    """A package index with one wheel, and the requests that it received."""

    wheel: bytes
    sha256: str
    url: str = ""
    metadata: bytes | None = None
    """The metadata that the index serves; None: it serves no metadata.

    If the index serves metadata, it states the hash of `METADATA`. A client can therefore detect other metadata.
    """
    file_url: str = f"../../files/{WHEEL_NAME}"
    requested_paths: list[str] = field(default_factory=list)
    """The path of each request, in the order of the requests."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    """The headers of each request."""
    is_down: bool = False

    def respond(self, path: str) -> tuple[int, str, bytes]:
        file: dict[str, Any] = {"filename": WHEEL_NAME, "url": self.file_url, "hashes": {"sha256": self.sha256}}
        if self.metadata is not None:
            file["core-metadata"] = {"sha256": hashlib.sha256(METADATA).hexdigest()}
        evil = {"filename": "../evil.whl", "url": "evil.whl", "hashes": {}}
        pages = {
            "/simple/tiny/": (INDEX_CONTENT_TYPE, json.dumps({"files": [file, evil]}).encode()),
            f"/files/{WHEEL_NAME}": ("application/zip", self.wheel),
        }
        if self.metadata is not None:
            pages[f"/files/{WHEEL_NAME}.metadata"] = ("text/plain", self.metadata)
        if self.is_down:
            return 500, "text/plain", b""
        return (200, *pages[path]) if path in pages else (404, "text/plain", b"")


@contextmanager
def run_package_index(folder: Path) -> Iterator[FakePackageIndex]:
    """Serve an index with the wheel of `make_wheel` until the end of the block."""
    wheel = make_wheel(folder).read_bytes()
    index = FakePackageIndex(wheel, hashlib.sha256(wheel).hexdigest())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requested_paths.append(self.path)
            index.headers.append(dict(self.headers))
            status, content_type, body = index.respond(self.path)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.url = f"http://user:password@127.0.0.1:{server.server_port}/simple"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()

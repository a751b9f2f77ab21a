"""The files of the console, in memory, so that a request cannot read other files of this machine.

All paths except the path of the index contain a hash of all files, so browsers never need to check whether a file at
such a path has changed.
"""

import gzip
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError

FOLDER = Path(__file__).parent / "assets"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Media types by the suffix of a file. The console does not serve files with other suffixes, such as licences."""
INDEX = "index.html"
IMMUTABLE_CACHE_CONTROL = "max-age=31536000, immutable"
PREFIX = "assets/"
"""The beginning of the paths in the index. The server adds the hash."""


@dataclass(frozen=True)
class Asset:
    """A file, as browsers receive it."""

    content_type: str
    compressed_content: bytes
    """The content in gzip's format."""
    etag: str


class Assets:
    """All files of a folder and its subfolders."""

    def __init__(self, folder: Path = FOLDER) -> None:
        files = sorted(path for path in folder.rglob("*") if path.suffix in CONTENT_TYPES)
        contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        content_hash = sha256(b"".join(contents.values())).hexdigest()[:16]
        index = contents.pop(INDEX).replace(PREFIX.encode(), f"{PREFIX}{content_hash}/".encode())
        assets = {f"{PREFIX}{content_hash}/{name}": _make_asset(name, content) for name, content in contents.items()}
        self._assets = {"": _make_asset(INDEX, index), **assets}

    def list_all(self) -> Collection[Asset]:
        return self._assets.values()

    def respond(self, request: Request, path: str) -> Response:
        """Return the file of a path below the console's path, or status 304 if the browser already has the file.

        Raises:
            ServiceError: there is no such file, or the request would change it.
        """
        if request.method not in ("GET", "HEAD"):
            raise ServiceError("MethodNotAllowed", "the console's files cannot be changed", 405)
        if (asset := self._assets.get(path)) is None:
            raise ServiceError("NotFound", f"the console has no file {path!r:.100}", 404)
        headers = {"Cache-Control": IMMUTABLE_CACHE_CONTROL if path else "no-cache", "Vary": "Accept-Encoding"}
        response = Response(headers=headers, content_type=asset.content_type)
        if request.accept_encodings.quality("gzip"):
            response.set_data(asset.compressed_content)
            response.headers["Content-Encoding"] = "gzip"
        else:
            response.set_data(gzip.decompress(asset.compressed_content))
        response.set_etag(asset.etag, weak=True)
        return response.make_conditional(request)


def _make_asset(name: str, content: bytes) -> Asset:
    return Asset(CONTENT_TYPES[Path(name).suffix], gzip.compress(content, mtime=0), sha256(content).hexdigest()[:32])

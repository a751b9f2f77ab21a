"""The files of the console, in memory: no path of a request leads to the file system.

The paths contain a hash of all files, so that browsers need not ask for changes of a file that they have.
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
"""Other files, such as licences, are not served."""
INDEX = "index.html"
IMMUTABLE = "max-age=31536000, immutable"
PREFIX = "assets/"
"""The beginning of the paths in the index. The server adds the hash."""


@dataclass(frozen=True)
class Asset:
    """A file, as browsers receive it."""

    content_type: str
    compressed: bytes
    """The content, compressed with gzip."""
    etag: str


class Assets:
    """All files of a folder and its subfolders."""

    def __init__(self, folder: Path = FOLDER) -> None:
        files = sorted(path for path in folder.rglob("*") if path.suffix in CONTENT_TYPES)
        contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        version = sha256(b"".join(contents.values())).hexdigest()[:16]
        index = contents.pop(INDEX).replace(PREFIX.encode(), f"{PREFIX}{version}/".encode())
        found = {f"{PREFIX}{version}/{name}": _make(name, content) for name, content in contents.items()}
        self._assets = {"": _make(INDEX, index), **found}

    def list_all(self) -> Collection[Asset]:
        return self._assets.values()

    def respond(self, request: Request, path: str) -> Response:
        """Return the file of a path below the console's path; status 304 if the browser has it.

        Raises:
            ServiceError: there is no such file, or the request would change it.
        """
        if request.method not in ("GET", "HEAD"):
            raise ServiceError("MethodNotAllowed", "the console's files cannot be changed", 405)
        if (asset := self._assets.get(path)) is None:
            raise ServiceError("NotFound", f"the console has no file {path!r:.100}", 404)
        headers = {"Cache-Control": IMMUTABLE if path else "no-cache", "Vary": "Accept-Encoding"}
        response = Response(headers=headers, content_type=asset.content_type)
        if request.accept_encodings.quality("gzip"):
            response.set_data(asset.compressed)
            response.headers["Content-Encoding"] = "gzip"
        else:
            response.set_data(gzip.decompress(asset.compressed))
        response.set_etag(asset.etag, weak=True)
        return response.make_conditional(request)


def _make(name: str, content: bytes) -> Asset:
    return Asset(CONTENT_TYPES[Path(name).suffix], gzip.compress(content, mtime=0), sha256(content).hexdigest()[:32])

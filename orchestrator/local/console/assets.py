"""The files of the console, in memory: no path of a request leads to the file system."""

import gzip
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
PREFIX = "assets/"


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
        found = {path.relative_to(folder).as_posix(): _read(path) for path in files}
        self._assets = {"": found.pop(INDEX), **{f"{PREFIX}{name}": asset for name, asset in found.items()}}

    def respond(self, request: Request, path: str) -> Response:
        """Return the file of a path below the console's path; status 304 if the browser has it.

        Raises:
            ServiceError: there is no such file, or the request would change it.
        """
        if request.method not in ("GET", "HEAD"):
            raise ServiceError("MethodNotAllowed", "the console's files cannot be changed", 405)
        if (asset := self._assets.get(path)) is None:
            raise ServiceError("NotFound", f"the console has no file {path!r:.100}", 404)
        headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        response = Response(headers=headers, content_type=asset.content_type)
        if request.accept_encodings.quality("gzip"):
            response.set_data(asset.compressed)
            response.headers["Content-Encoding"] = "gzip"
        else:
            response.set_data(gzip.decompress(asset.compressed))
        response.set_etag(asset.etag, weak=True)
        return response.make_conditional(request)


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(CONTENT_TYPES[path.suffix], gzip.compress(content, mtime=0), sha256(content).hexdigest()[:32])

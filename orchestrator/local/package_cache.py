"""Python packages for hosts: a cache between the hosts and the package index of this machine.

Hosts install their users' requirements from this cache, through `pip` or `uv`. Packages that were installed
before are not downloaded again, and can be installed without a network. Hosts can read the cache, but not change it.
"""

import contextlib
import hashlib
import html
import json
import logging
import os
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from microjobs.files import write_text
from microjobs_orchestrator.local.package_settings import choose_certificates, hide_password
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.space import FreeSpace
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

DEFAULT_INDEX = "https://pypi.org/simple"
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
PROJECT_NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
"""A project's normalized name (PEP 503)."""
FILE_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
METADATA_SUFFIX = ".metadata"
"""Suffix of the address of the file with a wheel's metadata (PEP 658)."""

FRESH_SECONDS = 600.0
"""Maximum age of a cached page that is used without a request to the index. PyPI's pages state the same limit."""
PAUSE_SECONDS = 60.0
"""Seconds after a failed request during which cached pages are used without another request."""
DEFAULT_PORTS = {"http": 80, "https": 443}
TIMEOUTS = (5.0, 60.0)
"""Seconds to connect to the index, and between two bytes."""
BLOCK_BYTES = 1 << 18
MAX_PAGE_BYTES = 64 << 20


class PackageError(Exception):
    """A page or a file cannot be returned. The message states the cause."""

    status = 502
    """HTTP status of the answer."""


class IndexFailedError(PackageError):
    """The index does not answer, or its answer cannot be used."""


class NotFoundError(PackageError):
    """The index has no such project or file."""

    status = 404


class NoSpaceError(PackageError):
    """The file does not fit on the device of the cache."""

    status = 507


@dataclass(frozen=True)
class IndexFile:
    """One file of a project, with the attributes of PEP 503, PEP 592 (yanked files) and PEP 658 (metadata)."""

    name: str
    url: str
    sha256: str = ""
    requires_python: str = ""
    yanked: str | None = None
    """The reason why the project withdrew the file, which may be empty; None if the file is not withdrawn."""
    has_metadata: bool = False
    """Whether the index also has the wheel's metadata as a file of its own."""
    metadata_sha256: str = ""


class PackageCache:
    """A cache of the pages and files of a package index.

    Args:
        folder: the cache. It is created when it is needed.
        environ: INDEX_URL or PIP_INDEX_URL names the index; see also `choose_certificates`.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._partial_folder = folder / "partial"
        self._url = (environ.get("INDEX_URL") or environ.get("PIP_INDEX_URL") or DEFAULT_INDEX).rstrip("/")
        self._verify = choose_certificates(environ)
        self._paused_until = 0.0
        self._lock = threading.Lock()

    def remove_partial_files(self) -> None:
        """Remove the incomplete downloads of a killed server. No other server may use the folder."""
        discard(self._partial_folder)

    @property
    def display_address(self) -> str:
        """The address of the index without user and password."""
        return hide_password(self._url)

    def list_files(self, project: str) -> Sequence[IndexFile]:
        """Return the files of a project from the index, or from a cached page if the page is fresh or the index fails.

        Raises:
            NotFoundError: the index has no such project.
            IndexFailedError: the index does not answer, or sends no valid page, and the project is not in the cache.
        """
        page_path = self._folder / "pages" / f"{project}.json"
        cached_files = _read_page(page_path)
        if cached_files is not None and (
            _measure_age(page_path) < FRESH_SECONDS or time.monotonic() < self._paused_until
        ):
            return cached_files
        try:
            files = self._request_page(project)
        except IndexFailedError as error:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            if cached_files is None:
                logger.warning("%s; the page of %s is not cached", error, project)  # pip does not print the error
                raise
            logger.warning("%s; using the cached page of %s", error, project)
            return cached_files
        with self._lock:
            write_text(page_path, json.dumps([asdict(item) for item in files]))
        return files

    def open(self, project: str, name: str) -> Path | Generator[bytes]:
        """Return the path of a cached file. If the file is not cached, return a generator of its content.

        The generator stores the file in the cache when the content is complete.

        Raises:
            NotFoundError: the project has no such file.
            IndexFailedError: the index does not answer, and the file is not in the cache.
            NoSpaceError: the file does not fit on the device.
        """
        files_by_name = {item.name: item for item in self.list_files(project)}
        source = files_by_name.get(name.removesuffix(METADATA_SUFFIX))
        if source is None:
            raise NotFoundError(f"{project} has no file {name}")
        is_metadata = name != source.name
        key = source.sha256 or hashlib.sha256(source.url.encode()).hexdigest()
        path = self._folder / "files" / key / name
        if path.is_file():
            return path
        response = self._get(source.url + (METADATA_SUFFIX if is_metadata else ""), {"Accept-Encoding": "identity"})
        for new_folder in (path.parent, self._partial_folder):
            new_folder.mkdir(parents=True, exist_ok=True)
        space = FreeSpace(path.parent, "Package download")
        try:
            space.reserve(name, int(response.headers.get("Content-Length") or 0))
        except CannotRunError as error:
            response.close()
            raise NoSpaceError(str(error)) from error
        return self._download(response, path, source.metadata_sha256 if is_metadata else source.sha256, space)

    def _request_page(self, project: str) -> list[IndexFile]:
        with self._get(f"{self._url}/{project}/", {"Accept": ACCEPT}) as response:
            try:
                body = response.raw.read(MAX_PAGE_BYTES, decode_content=True)
                return list(parse_page(response.headers.get("Content-Type", ""), body, response.url))
            except (HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise IndexFailedError(
                    f"the page of {project} in {self.display_address} cannot be read: {error}"
                ) from error

    def _get(self, url: str, headers: Mapping[str, str] | None = None) -> requests.Response:
        try:
            auth = self._choose_credentials(url)
            response = requests.get(url, headers=headers, auth=auth, timeout=TIMEOUTS, verify=self._verify, stream=True)
        except (OSError, ValueError) as error:  # missing certificates and invalid addresses cause these errors, too
            raise IndexFailedError(f"{self.display_address} does not answer ({type(error).__name__})") from error
        if response.status_code in (404, 410):
            response.close()
            raise NotFoundError(f"{self.display_address} has no {urlsplit(url).path.rstrip('/').rpartition('/')[2]}")
        if not response.ok:
            response.close()
            raise IndexFailedError(f"{self.display_address} answers {response.status_code} {response.reason}")
        return response

    def _choose_credentials(self, url: str) -> tuple[str, str] | None:
        """Return the user and the password of the index for an address on its server; None for other addresses, or if
        the index has no user."""
        index = urlsplit(self._url)
        if not index.username or _parse_origin(self._url) != _parse_origin(url):
            return None
        return unquote(index.username), unquote(index.password or "")

    def _download(self, response: requests.Response, path: Path, sha256: str, space: FreeSpace) -> Generator[bytes]:
        """Yield a file's content, and store it if it is complete and has the index's hash.

        Raises:
            CannotRunError: the device is full.
            IndexFailedError: the file has another hash.
        """
        digest = hashlib.sha256()
        # Several jobs may download the same file at the same time, so the name of the partial file is unique.
        with contextlib.closing(response), NamedTemporaryFile(dir=self._partial_folder, delete=False) as partial:
            try:
                for chunk in response.iter_content(BLOCK_BYTES):
                    space.check(path.name)
                    digest.update(chunk)
                    partial.write(chunk)
                    yield chunk
                partial.flush()
                os.fsync(partial.fileno())  # without fsync, a crash could leave a damaged file in the cache
                if sha256 and digest.hexdigest() != sha256:
                    raise IndexFailedError(
                        f"{path.name} has another hash than the page of {self.display_address} states"
                    )
                Path(partial.name).replace(path)
            finally:
                Path(partial.name).unlink(missing_ok=True)


def parse_page(content_type: str, body: bytes, url: str) -> Iterator[IndexFile]:
    """Yield the files on an index's page, in JSON (PEP 691) or HTML (PEP 503).

    Files with unusual names or invalid hashes are left out.
    """
    parse = _parse_json if content_type.partition(";")[0].strip().endswith("+json") else _parse_html
    return filter(_is_usable, parse(body, url))


def _is_usable(item: IndexFile) -> bool:
    """Return whether an item's name and hashes are valid, so that they can be parts of a path in the cache."""
    are_hashes_valid = all(not text or SHA256_PATTERN.fullmatch(text) for text in (item.sha256, item.metadata_sha256))
    return bool(are_hashes_valid and FILE_NAME_PATTERN.fullmatch(item.name) and not item.name.endswith(METADATA_SUFFIX))


def _parse_json(body: bytes, url: str) -> Iterator[IndexFile]:
    for item in json.loads(body)["files"]:
        yanked = item.get("yanked", False)
        metadata = item.get("core-metadata", item.get("dist-info-metadata", False))
        yield IndexFile(
            name=item["filename"],
            url=urljoin(url, item["url"]),
            sha256=item["hashes"].get("sha256", ""),
            requires_python=item.get("requires-python") or "",
            yanked=None if yanked is False else yanked if isinstance(yanked, str) else "",
            has_metadata=bool(metadata),
            metadata_sha256=metadata.get("sha256", "") if isinstance(metadata, dict) else "",
        )


def _parse_html(body: bytes, url: str) -> Iterator[IndexFile]:
    parser = _AnchorParser()
    parser.feed(body.decode())
    for attributes, text in parser.anchors:
        target, _, fragment = urljoin(url, attributes.get("href") or "").partition("#")
        metadata = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata", "false"))
        yanked = attributes.get("data-yanked", False)
        yield IndexFile(
            name=text.strip(),
            url=target,
            sha256=_parse_hash(fragment),
            requires_python=attributes.get("data-requires-python") or "",
            yanked=None if yanked is False else yanked or "",
            has_metadata=metadata != "false",
            metadata_sha256=_parse_hash(metadata or ""),
        )


def _parse_hash(text: str) -> str:
    """Return the digest in `sha256=DIGEST`; the empty string for other texts."""
    return text.removeprefix("sha256=") if text.startswith("sha256=") else ""


class _AnchorParser(HTMLParser):
    """Collects the attributes and the text of each anchor."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[tuple[dict[str, Any], str]] = []
        self._is_open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._is_open = True
            self.anchors.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._is_open = self._is_open and tag != "a"

    def handle_data(self, data: str) -> None:
        if self._is_open:
            attributes, text = self.anchors[-1]
            self.anchors[-1] = (attributes, text + data)


def format_page(project: str, files: Sequence[IndexFile]) -> str:
    """Return a project's page in HTML, which all versions of pip can read. Its links lead to this server."""
    anchors = "".join(f"{_format_anchor(project, item)}<br>\n" for item in files)
    return f"<!DOCTYPE html>\n<html><head><title>{project}</title></head><body>\n{anchors}</body></html>\n"


def _format_anchor(project: str, item: IndexFile) -> str:
    fragment = f"#sha256={item.sha256}" if item.sha256 else ""
    attributes = {"href": f"../../files/{project}/{quote(item.name)}{fragment}"}
    if item.requires_python:
        attributes["data-requires-python"] = item.requires_python
    if item.yanked is not None:
        attributes["data-yanked"] = item.yanked
    if item.has_metadata:
        attributes["data-core-metadata"] = f"sha256={item.metadata_sha256}" if item.metadata_sha256 else "true"
    text = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
    return f"<a {text}>{html.escape(item.name)}</a>"


def _read_page(path: Path) -> list[IndexFile] | None:
    try:
        items = [IndexFile(**item) for item in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    return list(filter(_is_usable, items))


def _parse_origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, host and port of an address. Raise ValueError if the address is invalid."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)


def _measure_age(path: Path) -> float:
    """Return the seconds since the last change of a file."""
    return time.time() - path.stat().st_mtime

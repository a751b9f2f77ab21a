"""The cache of Python packages, with a package index on this machine in place of PyPI."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.auth import HTTPBasicAuth

from microjobs_orchestrator.local import package_cache
from microjobs_orchestrator.local.gateway.chain import Gateway
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.gateway.packages import make_package_interceptor
from microjobs_orchestrator.local.identity import PACKAGES_PATH, PACKAGES_USER
from microjobs_orchestrator.local.package_cache import NotFoundError, PackageCache, parse_page
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.space import FreeSpace
from tests.packages import INDEX_CONTENT_TYPE, METADATA, WHEEL_NAME, FakePackageIndex, run_package_index

TOKEN = "token-of-the-tests"  # noqa: S105  of the tests


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[FakePackageIndex]:
    with run_package_index(tmp_path) as upstream:
        yield upstream


@pytest.fixture
def address(upstream: FakePackageIndex, tmp_path: Path) -> Iterator[str]:
    """The address of a server that serves packages only."""
    cache = PackageCache(tmp_path / "cache", {"INDEX_URL": upstream.url})
    server = Server(("127.0.0.1", 0), server_name="localhost")
    server.wsgi_app = Gateway([make_package_interceptor(cache, TOKEN)])
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield f"127.0.0.1:{server.bind_addr[1]}"
    server.stop()
    thread.join()


def get(address: str, path: str, password: str = TOKEN, method: str = "GET") -> requests.Response:
    auth = HTTPBasicAuth(PACKAGES_USER, password)
    return requests.request(method, f"http://{address}{PACKAGES_PATH}/{path}", auth=auth, timeout=30)


def list_cached_files(folder: Path) -> list[Path]:
    folders = (folder / "cache" / "files", folder / "cache" / "partial")
    return [path for part in folders for path in part.rglob("*") if path.is_file()]


def install(address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    url = f"http://{PACKAGES_USER}:{TOKEN}@{address}{PACKAGES_PATH}/simple"
    command = [uv, "pip", "install", "--python", sys.executable, "--target", folder, "--no-cache", "--no-config"]
    environment = {"UV_DEFAULT_INDEX": url, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run([*map(str, command), "tiny"], env=environment, capture_output=True, text=True, check=False)


def test_packages_are_installed_again_without_the_index(
    address: str, upstream: FakePackageIndex, tmp_path: Path
) -> None:
    first_result = install(address, tmp_path / "first")
    assert (tmp_path / "first" / "tiny.py").is_file(), first_result.stderr
    upstream.is_down = True
    upstream.requested_paths.clear()
    second_result = install(address, tmp_path / "second")
    assert (tmp_path / "second" / "tiny.py").is_file(), second_result.stderr
    assert upstream.requested_paths == []


def test_old_page_is_used_if_the_index_fails(
    address: str, upstream: FakePackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = get(address, "simple/tiny/")
    monkeypatch.setattr(package_cache, "FRESH_SECONDS", 0.0)
    upstream.is_down = True
    assert get(address, "simple/tiny/").text == page.text
    assert get(address, "simple/tiny/").text == page.text
    # after a failure, no request is sent to the index for some time
    assert upstream.requested_paths == ["/simple/tiny/"] * 2


def test_failing_index_is_reported_without_its_password(
    address: str, upstream: FakePackageIndex, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.is_down = True
    response = get(address, "simple/tiny/")
    url_without_password = upstream.url.replace("user:password@", "")
    error = f"{url_without_password} answers 500 Internal Server Error"
    assert (response.status_code, response.reason) == (502, error)
    assert f"{error}; the page of tiny is not cached" in caplog.text


def test_certificates_come_from_the_folder_of_packages(
    upstream: FakePackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate_files = []
    send_get = requests.get

    def record_and_send_get(url: str, **options: Any) -> requests.Response:
        certificate_files.append(options["verify"])
        return send_get(url, **options)

    monkeypatch.setattr(requests, "get", record_and_send_get)
    folder = tmp_path / "packages"
    folder.mkdir()
    variables = {"INDEX_URL": upstream.url, "LOCAL_PACKAGES": str(folder), "SSL_CERT_FILE": "of-the-system.crt"}
    for content in ("", "certificates"):
        (folder / "ca-certificates.crt").write_text(content)
        PackageCache(tmp_path / f"cache{content}", variables).list_files("tiny")
    assert certificate_files == ["of-the-system.crt", str(folder / "ca-certificates.crt")]


def test_unknown_project_and_file_have_status_404(address: str) -> None:
    response = get(address, "simple/missing/")
    assert response.status_code == 404
    assert response.reason.endswith("/simple has no missing")
    assert get(address, "files/tiny/other-1.0.whl").status_code == 404


@pytest.mark.parametrize("path", ["simple/tiny/", f"files/tiny/{WHEEL_NAME}"])
@pytest.mark.parametrize("password", ["", "wrong", TOKEN[:-1], f"{TOKEN}é"])
def test_wrong_token_is_refused(address: str, upstream: FakePackageIndex, path: str, password: str) -> None:
    assert get(address, path, password).status_code == 401
    assert upstream.requested_paths == []


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_packages_cannot_be_changed(address: str, method: str) -> None:
    assert get(address, f"files/tiny/{WHEEL_NAME}", method=method).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "simple/",
        "simple/Tiny/",
        "simple/..%2f/",
        "files/tiny/..%2f..%2fpages%2ftiny.json",
        "files/tiny/../evil.whl",
        "",
    ],
)
def test_invalid_paths_have_status_404(address: str, path: str) -> None:
    get(address, "simple/tiny/")
    assert get(address, path).status_code == 404


def test_unusual_file_names_are_left_out(address: str) -> None:
    page = get(address, "simple/tiny/").text
    assert WHEEL_NAME in page
    assert "evil" not in page


@pytest.mark.parametrize("source", ["index", "cache"])
@pytest.mark.parametrize("name", [WHEEL_NAME, f"{WHEEL_NAME}.metadata"])
def test_file_whose_hash_is_a_path_is_left_out(
    source: str, name: str, upstream: FakePackageIndex, tmp_path: Path
) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / name).write_text("content of this machine")
    if source == "index":
        upstream.sha256 = str(folder)
    else:
        (tmp_path / "cache" / "pages").mkdir(parents=True)
        item = {"name": WHEEL_NAME, "url": upstream.url, "sha256": str(folder)}
        (tmp_path / "cache" / "pages" / "tiny.json").write_text(json.dumps([item]))
    with pytest.raises(NotFoundError):
        PackageCache(tmp_path / "cache", {"INDEX_URL": upstream.url}).open("tiny", name)


@pytest.mark.parametrize("content", [METADATA, b"log in to this network"])
def test_metadata_is_cached_if_it_has_the_hash_of_the_page(
    content: bytes, address: str, upstream: FakePackageIndex, tmp_path: Path
) -> None:
    upstream.metadata = content
    assert 'data-core-metadata="sha256=' in get(address, "simple/tiny/").text
    with contextlib.nullcontext() if content == METADATA else pytest.raises(requests.RequestException):
        assert get(address, f"files/tiny/{WHEEL_NAME}.metadata").content == METADATA
    assert len(list_cached_files(tmp_path)) == (content == METADATA)


def test_credentials_are_decoded(upstream: FakePackageIndex, tmp_path: Path) -> None:
    url = upstream.url.replace("user:password@", "me%40example.org:a%2Fb@")
    PackageCache(tmp_path / "cache", {"INDEX_URL": url}).list_files("tiny")
    assert upstream.headers[0]["Authorization"] == "Basic " + b64encode(b"me@example.org:a/b").decode()


def test_credentials_reach_the_server_of_the_index_only(upstream: FakePackageIndex, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with run_package_index(tmp_path / "other") as other_index:
        address = urlsplit(other_index.url)
        upstream.file_url = f"http://{address.hostname}:{address.port}/files/{WHEEL_NAME}"
        content = PackageCache(tmp_path / "cache", {"INDEX_URL": upstream.url}).open("tiny", WHEEL_NAME)
        assert b"".join(content) == other_index.wheel  # type: ignore[arg-type]  # a generator
    assert "Authorization" in upstream.headers[0]
    assert "Authorization" not in other_index.headers[0]


def test_invalid_address_of_a_file_is_reported(address: str, upstream: FakePackageIndex) -> None:
    upstream.file_url = "http://index:port/file"
    assert get(address, f"files/tiny/{WHEEL_NAME}").status_code == 502


def test_download_ends_if_the_device_is_full(
    upstream: FakePackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = PackageCache(tmp_path / "cache", {"INDEX_URL": upstream.url}).open("tiny", WHEEL_NAME)
    assert not isinstance(content, Path)
    monkeypatch.setattr(FreeSpace, "measure_available_bytes", lambda _: -1)
    with pytest.raises(CannotRunError, match="Package download failed"):
        list(content)
    # the request forbids compression, so that Content-Length is the size of the file
    assert upstream.headers[-1]["Accept-Encoding"] == "identity"
    assert list_cached_files(tmp_path) == []


def test_incomplete_files_of_a_killed_server_are_removed(upstream: FakePackageIndex, tmp_path: Path) -> None:
    cache = PackageCache(tmp_path / "cache", {"INDEX_URL": upstream.url})
    list(cache.open("tiny", WHEEL_NAME))  # type: ignore[arg-type]  # a generator
    (complete_file,) = list_cached_files(tmp_path)
    folder, unrelated_folder = tmp_path / "cache" / "partial", tmp_path / "unrelated"
    (folder / "file").touch()
    unrelated_folder.mkdir()
    (unrelated_folder / ".file").touch()
    (folder / "link").symlink_to(unrelated_folder)
    (tmp_path / "cache" / "files" / "link").symlink_to(unrelated_folder)
    cache.remove_partial_files()
    assert (list_cached_files(tmp_path), folder.exists()) == ([complete_file], False)
    assert (unrelated_folder / ".file").exists()


def test_download_is_written_to_the_disk_before_it_is_renamed(
    upstream: FakePackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure leaves no damaged file."""
    folders: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: folders.append(Path(f"/proc/self/fd/{number}").readlink().parent))
    list(PackageCache(tmp_path / "cache", {"INDEX_URL": upstream.url}).open("tiny", WHEEL_NAME))  # type: ignore[arg-type]
    assert folders == [tmp_path / "cache" / "partial"]


def test_file_with_another_hash_is_neither_delivered_nor_cached(
    address: str, upstream: FakePackageIndex, tmp_path: Path
) -> None:
    get(address, "simple/tiny/")
    upstream.wheel = b"other"
    with pytest.raises(requests.RequestException):
        _ = get(address, f"files/tiny/{WHEEL_NAME}").content
    assert list_cached_files(tmp_path) == []


def test_aborted_download_leaves_no_file(upstream: FakePackageIndex, tmp_path: Path) -> None:
    upstream.wheel = bytes(package_cache.BLOCK_BYTES * 3)
    cache = PackageCache(tmp_path / "cache", {"INDEX_URL": upstream.url})
    content = cache.open("tiny", WHEEL_NAME)
    assert not isinstance(content, Path)
    next(content)
    content.close()
    assert list_cached_files(tmp_path) == []


def test_html_and_json_pages_have_the_same_meaning() -> None:
    content = {
        "files": [
            {
                "filename": WHEEL_NAME,
                "url": "a/x.whl",
                "hashes": {"sha256": "0" * 64},
                "requires-python": ">=3.8",
                "yanked": "broken",
                "core-metadata": {"sha256": "1" * 64},
            },
            {"filename": "tiny-0.1.tar.gz", "url": "https://else.where/tiny-0.1.tar.gz", "hashes": {}},
        ]
    }
    page = (
        f'<a href="a/x.whl#sha256={"0" * 64}" data-requires-python="&gt;=3.8" data-yanked="broken"'
        f' data-core-metadata="sha256={"1" * 64}">{WHEEL_NAME}</a>'
        '<a href="https://else.where/tiny-0.1.tar.gz">tiny-0.1.tar.gz</a>'
    )
    from_json = list(parse_page(INDEX_CONTENT_TYPE, json.dumps(content).encode(), "https://index/simple/tiny/"))
    assert list(parse_page("text/html; charset=utf-8", page.encode(), "https://index/simple/tiny/")) == from_json
    cached_page = package_cache.format_page("tiny", from_json).encode()
    assert [item.url for item in parse_page("text/html", cached_page, "https://index/simple/tiny/")] == [
        f"https://index/files/tiny/{WHEEL_NAME}",
        "https://index/files/tiny/tiny-0.1.tar.gz",
    ]
    assert [item.metadata_sha256 for item in from_json] == ["1" * 64, ""]
    assert from_json[0].requires_python == ">=3.8"
    assert from_json[0].yanked == "broken"
    assert from_json[1].yanked is None

"""Tests in Chromium of the console's pages of buckets and objects."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations


def make_png() -> bytes:
    """Return an image with one pixel."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)  # the width, the height, 8 bits per colour, RGB, and defaults
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(bytes(4)), b"IEND": b""}
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def make_npy() -> bytes:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }".ljust(117) + "\n"
    values = bytes.fromhex("0000c03f00000040000020c0")  # the values 1.5, 2 and -2.5
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values


def make_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("model/weights.bin")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"12345"))
    return buffer.getvalue()


FILES = {
    "notes.txt": b"some text",
    "config.json": b'{"rate":0.1}',
    "table.csv": b'a,"b, c"\n1,2\n',
    "x.npy": make_npy(),
    "plot.png": make_png(),
    "model.tar.gz": make_archive(),
    "page.html": b"<script>alert(1)</script><b>bold</b>",
    "broken.tar.gz": b"no archive",
    "data.bin": bytes(range(256)),
    "empty": b"",
}


@pytest.fixture(scope="module", autouse=True)
def bucket_url(server: LocalServer) -> str:
    """Store FILES in the default bucket; return the address of the bucket's page."""
    for name, content in FILES.items():
        server.s3.put_object(Bucket=server.address.bucket, Key=f"preview/a b/{name}", Body=content)
    return f"{server.address.url}/_microjobs/console/#/buckets/{server.address.bucket}"


def open_object(page: Page, bucket_url: str, name: str) -> None:
    page.goto(f"{bucket_url}/preview%2Fa%20b%2F{name}")
    expect(page.get_by_role("heading", name="Preview")).to_be_visible()


@pytest.mark.slow
def test_folders_lead_to_an_object(page: Page, server: LocalServer, console_url: str) -> None:
    page.goto(f"{console_url}#/buckets")
    for name in (server.address.bucket, "preview/", "a b/"):
        page.get_by_role("table").get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("table").get_by_role("link")).to_have_count(len(FILES))
    assert find_accessibility_violations(page) == []
    page.get_by_role("link", name="notes.txt").click()
    expect(page.locator("pre")).to_have_text("some text")
    expect(page.get_by_text("9 B", exact=True)).to_be_visible()
    assert find_accessibility_violations(page) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '"rate": 0.1'),
        ("x.npy", "<f4"),
        ("x.npy", "(1, 3)"),
        ("x.npy", "1.5 2 -2.5"),
        ("model.tar.gz", "model/weights.bin"),
        ("page.html", "<script>alert(1)</script>"),
        ("broken.tar.gz", "not a tar archive"),
        ("data.bin", "No preview exists"),
        ("empty", "The object is empty."),
    ],
)
def test_object_is_previewed(page: Page, bucket_url: str, name: str, text: str) -> None:
    open_object(page, bucket_url, name)
    expect(page.locator("main")).to_contain_text(text)


def test_csv_is_a_table(page: Page, bucket_url: str) -> None:
    open_object(page, bucket_url, "table.csv")
    expect(page.get_by_role("cell")).to_have_text(["a", "b, c", "1", "2"])


def test_image_is_shown(page: Page, bucket_url: str) -> None:
    open_object(page, bucket_url, "plot.png")
    image = page.get_by_role("img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1


def test_object_is_downloaded(page: Page, bucket_url: str, tmp_path: Path) -> None:
    open_object(page, bucket_url, "data.bin")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILES["data.bin"]
    assert download.value.suggested_filename == "data.bin"


def test_large_text_shows_its_beginning(page: Page, server: LocalServer, bucket_url: str) -> None:
    server.s3.put_object(Bucket=server.address.bucket, Key="large/a.csv", Body=b"first,2\n" + b"1,2\n" * 200_000)
    page.goto(f"{bucket_url}/large%2Fa.csv")
    expect(page.get_by_role("row")).to_have_count(201)
    expect(page.get_by_text("The beginning of the object is shown.")).to_be_visible()


def test_missing_object_is_reported(page: Page, bucket_url: str) -> None:
    page.goto(f"{bucket_url}/absent")
    expect(page.get_by_role("alert")).to_contain_text("does not exist")

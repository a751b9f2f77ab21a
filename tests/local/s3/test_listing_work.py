"""Tests for the cost of a page of a listing: it reads its own entries, and each unchanged folder once."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from microjobs_orchestrator.local.s3 import folders
from microjobs_orchestrator.local.s3.database import Database
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.s3.uploads import Uploads
from tests.local.s3.conftest import BUCKET

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FILES = 3000
PAGE = 100


@dataclass
class ReadCounts:
    folders_read: int = 0
    entries_read: int = 0
    files_read: int = 0
    rows: int = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> ReadCounts:
    """Count the folders, files and rows that the server reads."""
    counts, scandir, lstat, select = ReadCounts(), os.scandir, os.lstat, Database.select

    @contextmanager
    def scan(path: Any) -> Iterator[Iterator[os.DirEntry[Any]]]:
        counts.folders_read += 1

        def entries(found: Iterator[os.DirEntry[Any]]) -> Iterator[os.DirEntry[Any]]:
            for entry in found:
                counts.entries_read += 1
                yield entry

        with scandir(path) as found:
            yield entries(found)

    def count_lstat(path: Any) -> os.stat_result:
        counts.files_read += 1
        return lstat(path)

    def read(database: Database, *arguments: Any) -> Any:
        found = select(database, *arguments)
        counts.rows += len(found)
        return found

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "lstat", count_lstat)
    monkeypatch.setattr(Database, "select", read)
    return counts


def fill(store: ObjectStore, keys: list[str]) -> None:
    root = store.home.buckets / BUCKET
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).touch()


def shorten_settled_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the age from which the cache accepts folders, and wait until all folders have that age."""
    monkeypatch.setattr(folders, "SETTLED_AGE_NS", 10_000_000)
    time.sleep(0.05)


def pages(s3: "S3Client", **members: Any) -> Iterator[Any]:
    paginator = s3.get_paginator("list_objects_v2")
    return iter(paginator.paginate(Bucket=BUCKET, PaginationConfig={"PageSize": PAGE}, **members))


def test_cost_of_a_page_does_not_depend_on_the_folder_size(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, [f"data/{number:05}" for number in range(FILES)])
    shorten_settled_age(monkeypatch)
    found = 0
    for number, page in enumerate(pages(s3)):
        found += page["KeyCount"]
        assert counts.files_read <= PAGE + 1  # one more shows that there is another page
        if number:
            assert (counts.folders_read, counts.entries_read) == (0, 0)
        else:
            assert (counts.folders_read, counts.entries_read) == (2, FILES + 1)
        counts.folders_read = counts.entries_read = counts.files_read = 0
    assert found == FILES


def test_page_reads_only_the_folders_of_its_keys(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, [f"{folder:03}/{number:02}" for folder in range(100) for number in range(30)])
    shorten_settled_age(monkeypatch)
    for page in pages(s3):
        touched = {content["Key"].partition("/")[0] for content in page["Contents"]}
        assert counts.folders_read <= len(touched) + 2  # plus the bucket's folder and the next folder
        counts.folders_read = 0
    next(pages(s3, StartAfter="050/10"))
    assert counts.folders_read == 0


@pytest.mark.parametrize("delimiter", ["/", "-"])
def test_common_prefix_reads_one_key(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch, delimiter: str
) -> None:
    fill(store, [f"{group:03}{delimiter}{number:02}" for group in range(150) for number in range(20)])
    shorten_settled_age(monkeypatch)
    first, second = pages(s3, Delimiter=delimiter)
    assert (len(first["CommonPrefixes"]), len(second["CommonPrefixes"])) == (PAGE, 50)
    assert counts.files_read <= 152
    # With `/`, it reads one file per folder; with `-`, it reads the bucket's folder once.
    assert counts.entries_read <= (150 + 151 if delimiter == "/" else FILES)


def test_page_after_a_marker_skips_earlier_folders(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, [f"a/{folder:03}/{number}" for folder in range(200) for number in range(5)])
    shorten_settled_age(monkeypatch)
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="a/", StartAfter="a/150/3", MaxKeys=3)
    assert [content["Key"] for content in page["Contents"]] == ["a/150/4", "a/151/0", "a/151/1"]
    assert counts.folders_read == 3


def test_page_reads_only_its_folder_markers(
    s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        s3.put_object(Bucket=BUCKET, Key=f"{number:03}/")
    shorten_settled_age(monkeypatch)
    counts.rows = 0
    page = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=10)
    assert page["Contents"][-1]["Key"] == "009/"
    assert counts.rows < 60
    counts.rows = 0
    s3.delete_object(Bucket=BUCKET, Key="005/")
    assert counts.rows < 10


def test_page_of_uploads_reads_only_its_rows(store: ObjectStore, s3: "S3Client", counts: ReadCounts) -> None:
    uploads = Uploads(store)
    for number in range(400):
        uploads.create(BUCKET, f"{'ab'[number % 2]}/{number:03}", "", Details(""))
    counts.rows = 0
    page = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="b/", KeyMarker="a/200", MaxUploads=10)
    assert [upload["Key"] for upload in page["Uploads"]] == [f"b/{number:03}" for number in range(1, 21, 2)]
    assert counts.rows <= 11
    (plan,) = store.database.select(
        "EXPLAIN QUERY PLAN SELECT * FROM uploads WHERE bucket = ? AND (key, id) > (?, ?) AND key < ? ORDER BY key, id",
        (BUCKET, "", "", ""),
    )
    assert "USING INDEX by_key (bucket=? AND (key,id)>(?,?) AND key<?)" in str(plan)


@pytest.mark.parametrize("is_settled", [True, False])
def test_next_page_shows_changes_since_the_first_page(
    store: ObjectStore, s3: "S3Client", monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    fill(store, [f"{number:03}" for number in range(250)])
    if is_settled:
        shorten_settled_age(monkeypatch)
    listing = pages(s3)
    assert next(listing)["Contents"][-1]["Key"] == "099"
    folder = store.home.buckets / BUCKET
    before = folder.stat()
    (folder / "150b").write_text("added by hand")
    (folder / "151").unlink()
    (folder / "152").unlink()
    (folder / "152").symlink_to("/etc/passwd")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync and tar restore it
    keys = [content["Key"] for content in next(listing)["Contents"]]
    assert ("150b" in keys, "151" in keys, "152" in keys) == (True, False, False)


def test_cache_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_NAMES", 10)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / str(number)).touch()
    shorten_settled_age(monkeypatch)
    cache = folders.FolderCache()
    for folder in (b"a/", b"b/", b"c/", b"c/"):
        assert len(cache.names(os.fsencode(tmp_path), folder)) == 6
    assert [path.rpartition(b"/")[0][-1:] for path in cache._listings] == [b"c"]


NAMES = ["a", "b", "a-", "a.b", "a0", "é", "\uffee", "\U0001f600", "a b", "~"]


@pytest.mark.parametrize("seed", range(20))
def test_pages_contain_all_keys_sorted(store: ObjectStore, s3: "S3Client", seed: int) -> None:
    """Each page has the keys and common prefixes in the order of their UTF-8, for random prefixes and delimiters."""
    generator = random.Random(seed)  # noqa: S311  the same keys in every run
    keys: set[str] = set()
    for _ in range(60):
        key = "/".join(generator.choices(NAMES, k=generator.randrange(1, 5)))
        if not any(other.startswith(f"{key}/") or key.startswith(f"{other}/") for other in keys):
            keys.add(key)
    fill(store, sorted(keys))
    for _ in range(12):
        prefix = generator.choice(sorted(keys))[: generator.randrange(4)]
        delimiter = generator.choice(["", "/", "-", "a/", "b"])
        after = generator.choice(["", *sorted(keys)])[: generator.randrange(6)]
        expected_keys = expected(keys, prefix, delimiter, after)
        members: dict[str, Any] = {"Prefix": prefix, "StartAfter": after} | (
            {"Delimiter": delimiter} if delimiter else {}
        )
        assert list_all_pages(s3, generator.randrange(1, 8), members) == expected_keys, (members, sorted(keys))


def expected(keys: set[str], prefix: str, delimiter: str, after: str) -> list[str]:
    found: dict[str, None] = {}
    for key in sorted(keys, key=str.encode):
        if key.startswith(prefix) and key.encode() > after.encode():
            head, end, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            found[prefix + head + end if end else key] = None
    return list(found)


def list_all_pages(s3: "S3Client", size: int, members: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for page in s3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, PaginationConfig={"PageSize": size}, **members
    ):
        contents = [content["Key"] for content in page.get("Contents", [])]
        prefixes = [common["Prefix"] for common in page.get("CommonPrefixes", [])]
        assert len(contents) + len(prefixes) <= size
        found += sorted(contents + prefixes, key=str.encode)
    return found

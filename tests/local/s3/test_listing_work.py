"""Tests for the cost of a page of a listing: the server reads only the entries of the page, and each unchanged folder
once."""

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

FILE_COUNT = 1000
PAGE_SIZE = 100


@dataclass
class ReadCounts:
    """Numbers of system calls and database rows."""

    folders_read: int = 0
    entries_read: int = 0
    files_read: int = 0
    rows_read: int = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> ReadCounts:
    """Count the folders, files and rows that the server reads."""
    counts, scandir, lstat, select = ReadCounts(), os.scandir, os.lstat, Database.select

    @contextmanager
    def count_scandir(path: Any) -> Iterator[Iterator[os.DirEntry[Any]]]:
        counts.folders_read += 1

        def count_entries(entries: Iterator[os.DirEntry[Any]]) -> Iterator[os.DirEntry[Any]]:
            for entry in entries:
                counts.entries_read += 1
                yield entry

        with scandir(path) as entries:
            yield count_entries(entries)

    def count_lstat(path: Any) -> os.stat_result:
        counts.files_read += 1
        return lstat(path)

    def count_rows(database: Database, *arguments: Any) -> Any:
        rows = select(database, *arguments)
        counts.rows_read += len(rows)
        return rows

    monkeypatch.setattr(os, "scandir", count_scandir)
    monkeypatch.setattr(os, "lstat", count_lstat)
    monkeypatch.setattr(Database, "select", count_rows)
    return counts


def create_files(store: ObjectStore, keys: list[str]) -> None:
    bucket_folder = store.home.buckets / BUCKET
    for key in keys:
        (bucket_folder / key).parent.mkdir(parents=True, exist_ok=True)
        (bucket_folder / key).touch()


def shorten_settled_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the age that folders must have for the cache, and wait until all folders have this age."""
    monkeypatch.setattr(folders, "SETTLED_AGE_NS", 10_000_000)
    time.sleep(0.05)


def iterate_pages(s3: "S3Client", **members: Any) -> Iterator[Any]:
    paginator = s3.get_paginator("list_objects_v2")
    return iter(paginator.paginate(Bucket=BUCKET, PaginationConfig={"PageSize": PAGE_SIZE}, **members))


def test_cost_of_a_page_does_not_depend_on_the_folder_size(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_files(store, [f"data/{number:05}" for number in range(FILE_COUNT)])
    shorten_settled_age(monkeypatch)
    key_count = 0
    for number, page in enumerate(iterate_pages(s3)):
        key_count += page["KeyCount"]
        assert counts.files_read <= PAGE_SIZE + 1  # one more file, to find out whether there is another page
        if number:
            assert (counts.folders_read, counts.entries_read) == (0, 0)
        else:
            assert (counts.folders_read, counts.entries_read) == (2, FILE_COUNT + 1)
        counts.folders_read = counts.entries_read = counts.files_read = 0
    assert key_count == FILE_COUNT


def test_page_reads_only_the_folders_of_its_keys(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_files(store, [f"{folder:03}/{number:02}" for folder in range(40) for number in range(30)])
    shorten_settled_age(monkeypatch)
    for page in iterate_pages(s3):
        key_folders = {content["Key"].partition("/")[0] for content in page["Contents"]}
        # the server also reads the bucket's folder and the next folder
        assert counts.folders_read <= len(key_folders) + 2
        counts.folders_read = 0
    next(iterate_pages(s3, StartAfter="020/10"))
    assert counts.folders_read == 0


@pytest.mark.parametrize("delimiter", ["/", "-"])
def test_common_prefix_reads_one_key(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch, delimiter: str
) -> None:
    create_files(store, [f"{group:03}{delimiter}{number}" for group in range(150) for number in range(5)])
    shorten_settled_age(monkeypatch)
    first, second = iterate_pages(s3, Delimiter=delimiter)
    assert (len(first["CommonPrefixes"]), len(second["CommonPrefixes"])) == (PAGE_SIZE, 50)
    assert counts.files_read <= 152
    # With `/`, the server reads one file per folder; with `-`, the server reads the bucket's folder once.
    assert counts.entries_read <= (150 + 151 if delimiter == "/" else 150 * 5)


def test_page_after_a_marker_skips_earlier_folders(
    store: ObjectStore, s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_files(store, [f"a/{folder:03}/{number}" for folder in range(200) for number in range(5)])
    shorten_settled_age(monkeypatch)
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="a/", StartAfter="a/150/3", MaxKeys=3)
    assert [content["Key"] for content in page["Contents"]] == ["a/150/4", "a/151/0", "a/151/1"]
    assert counts.folders_read == 3


def test_page_and_deletion_read_only_their_folder_markers(
    s3: "S3Client", counts: ReadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        s3.put_object(Bucket=BUCKET, Key=f"{number:03}/")
    shorten_settled_age(monkeypatch)
    counts.rows_read = 0
    page = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=10)
    assert page["Contents"][-1]["Key"] == "009/"
    assert counts.rows_read < 60
    counts.rows_read = 0
    s3.delete_object(Bucket=BUCKET, Key="005/")
    assert counts.rows_read < 10


def test_page_of_uploads_reads_only_its_rows(store: ObjectStore, s3: "S3Client", counts: ReadCounts) -> None:
    uploads = Uploads(store)
    for number in range(400):
        uploads.create(BUCKET, f"{'ab'[number % 2]}/{number:03}", "", Details(""))
    counts.rows_read = 0
    page = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="b/", KeyMarker="a/200", MaxUploads=10)
    assert [upload["Key"] for upload in page["Uploads"]] == [f"b/{number:03}" for number in range(1, 21, 2)]
    assert counts.rows_read <= 11
    (plan,) = store.database.select(
        "EXPLAIN QUERY PLAN SELECT * FROM uploads WHERE bucket = ? AND (key, id) > (?, ?) AND key < ? ORDER BY key, id",
        (BUCKET, "", "", ""),
    )
    assert "USING INDEX by_key (bucket=? AND (key,id)>(?,?) AND key<?)" in str(plan)


@pytest.mark.parametrize("is_settled", [True, False])
def test_next_page_shows_changes_since_the_first_page(
    store: ObjectStore, s3: "S3Client", monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    create_files(store, [f"{number:03}" for number in range(250)])
    if is_settled:
        shorten_settled_age(monkeypatch)
    pages = iterate_pages(s3)
    assert next(pages)["Contents"][-1]["Key"] == "099"
    folder = store.home.buckets / BUCKET
    original_status = folder.stat()
    (folder / "150b").write_text("added by hand")
    (folder / "151").unlink()
    (folder / "152").unlink()
    (folder / "152").symlink_to("/etc/passwd")
    # rsync and tar also restore the time of the folder, so the time alone does not show the changes
    os.utime(folder, ns=(original_status.st_atime_ns, original_status.st_mtime_ns))
    keys = [content["Key"] for content in next(pages)["Contents"]]
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
        assert len(cache.list_names(os.fsencode(tmp_path), folder)) == 6
    assert [path.rpartition(b"/")[0][-1:] for path in cache._listings] == [b"c"]


NAMES = ["a", "b", "a-", "a.b", "a0", "é", "\uffee", "\U0001f600", "a b", "~"]


@pytest.mark.parametrize("seed", range(20))
def test_pages_contain_all_keys_sorted(store: ObjectStore, s3: "S3Client", seed: int) -> None:
    """Each page has keys and common prefixes in the order of their UTF-8 bytes, for random prefixes and delimiters."""
    generator = random.Random(seed)  # noqa: S311  the same keys in every run
    keys: set[str] = set()
    for _ in range(60):
        key = "/".join(generator.choices(NAMES, k=generator.randrange(1, 5)))
        if not any(other.startswith(f"{key}/") or key.startswith(f"{other}/") for other in keys):
            keys.add(key)
    create_files(store, sorted(keys))
    for _ in range(12):
        prefix = generator.choice(sorted(keys))[: generator.randrange(4)]
        delimiter = generator.choice(["", "/", "-", "a/", "b"])
        start_after = generator.choice(["", *sorted(keys)])[: generator.randrange(6)]
        expected_entries = find_expected_entries(keys, prefix, delimiter, start_after)
        members: dict[str, Any] = {"Prefix": prefix, "StartAfter": start_after} | (
            {"Delimiter": delimiter} if delimiter else {}
        )
        assert list_all_pages(s3, generator.randrange(1, 8), members) == expected_entries, (members, sorted(keys))


def find_expected_entries(keys: set[str], prefix: str, delimiter: str, start_after: str) -> list[str]:
    """Return the keys and the common prefixes that a listing must contain."""
    entries: dict[str, None] = {}
    for key in sorted(keys, key=str.encode):
        if key.startswith(prefix) and key.encode() > start_after.encode():
            head, end, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            entries[prefix + head + end if end else key] = None
    return list(entries)


def list_all_pages(s3: "S3Client", size: int, members: dict[str, Any]) -> list[str]:
    """Return the keys and the common prefixes of all pages, page after page. Those of one page are sorted together."""
    entries: list[str] = []
    for page in s3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, PaginationConfig={"PageSize": size}, **members
    ):
        contents = [content["Key"] for content in page.get("Contents", [])]
        prefixes = [common["Prefix"] for common in page.get("CommonPrefixes", [])]
        assert len(contents) + len(prefixes) <= size
        entries += sorted(contents + prefixes, key=str.encode)
    return entries

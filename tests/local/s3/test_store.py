"""Tests for the object store: its files and folders, as users and jobs see them."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3.database import Version
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.store import Condition, ObjectStore
from tests.local.s3.conftest import BUCKET


def put(
    store: ObjectStore,
    key: str,
    content: bytes = b"x",
    details: Details | None = None,
    condition: Condition | None = None,
) -> StoredObject:
    with store.new_file() as path:
        path.write_bytes(content)
        return store.put(BUCKET, key, path, details, condition)


def try_put(store: ObjectStore, key: str) -> bool:
    """Store an empty object; return whether the store accepts the key."""
    try:
        put(store, key, b"")
    except ServiceError as error:
        if error.status != 400:
            raise
        return False
    return True


def list_keys(objects: Iterable[StoredObject]) -> list[str]:
    return [stored_object.key for stored_object in objects]


def read_details(store: ObjectStore, key: str) -> Details:
    opened_object = store.open(BUCKET, key)
    opened_object.file.close()
    return opened_object.details


# Few characters, so that keys often share prefixes or folders. Some characters sort directly before or after the slash.
KEYS = st.text(st.sampled_from("ab./-0é\0\ud800\U0001f600"), max_size=8) | st.text(max_size=300)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS)
def test_any_key_is_returned_unchanged_or_refused(store: ObjectStore, key: str) -> None:
    if not try_put(store, key):
        assert not list((store.home.buckets / BUCKET).iterdir())
        return
    assert list(store.walk(BUCKET, "", b"", groups_by_folder=False)) == [store.get(BUCKET, key)]
    assert store.get(BUCKET, key).key == key
    assert store.delete(BUCKET, key)
    assert not list((store.home.buckets / BUCKET).iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(names=st.sets(KEYS, max_size=12), prefix=KEYS, start_after=KEYS)
def test_list_equals_sorted_and_filtered_keys(
    store: ObjectStore, names: set[str], prefix: str, start_after: str
) -> None:
    stored_keys = [name for name in names if try_put(store, name) and not name.endswith("/")]
    expected = sorted((key for key in stored_keys if key.startswith(prefix)), key=str.encode)
    assert list_keys(store.list(BUCKET, prefix)) == expected
    expected_after = [key for key in expected if key.encode() > start_after.encode("utf-8", "surrogatepass")]
    assert list_keys(store.list(BUCKET, prefix, start_after)) == expected_after
    for name in names:
        store.delete(BUCKET, name)
    assert not list((store.home.buckets / BUCKET).iterdir())


def test_prefix_matches_keys_and_not_only_folders(store: ObjectStore) -> None:
    for key in ("train/a", "train-01/x", "train.csv", "test/a"):
        put(store, key)
    assert list_keys(store.list(BUCKET, "train")) == ["train-01/x", "train.csv", "train/a"]


def test_list_reads_only_folders_that_can_match(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a/b/c", "a/d/e", "f/g"):
        put(store, key)
    scan = MagicMock(side_effect=os.scandir)
    monkeypatch.setattr(os, "scandir", scan)
    assert list_keys(store.list(BUCKET, "a/b/")) == ["a/b/c"]
    scan.assert_called_once_with(os.fsencode(store.home.buckets / BUCKET) + b"/a/b/")


def test_object_is_a_file_in_the_bucket_folder(store: ObjectStore, home: Home) -> None:
    put(store, "a/b.txt", b"content")
    assert (home.buckets / BUCKET / "a/b.txt").read_bytes() == b"content"


def test_file_added_by_hand_is_an_object(store: ObjectStore, home: Home) -> None:
    (home.buckets / BUCKET / "data.csv").write_bytes(b"two")
    assert list_keys(store.list(BUCKET)) == ["data.csv"]
    assert read_details(store, "data.csv") == Details("b8a9f715dbb64fd5c56e7783c6820a61", {"ContentType": "text/csv"})


def test_file_replaced_by_hand_gets_new_details(store: ObjectStore, home: Home) -> None:
    put(store, "a.txt", b"one", Details("not its MD5", {"ContentType": "text/x"}))
    assert read_details(store, "a.txt").etag == "not its MD5"
    (home.buckets / BUCKET / "a.txt").write_bytes(b"two")
    assert read_details(store, "a.txt") == Details("b8a9f715dbb64fd5c56e7783c6820a61", {"ContentType": "text/plain"})


def test_md5_of_an_old_file_is_computed_once(store: ObjectStore, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.buckets / BUCKET / "a.txt"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first_details = read_details(store, "a.txt")
    monkeypatch.setattr("microjobs_orchestrator.local.s3.reader.guess_details", None)
    assert read_details(store, "a.txt") == first_details


def test_md5_of_a_new_file_is_computed_each_time(store: ObjectStore, home: Home) -> None:
    """A new file can change again within one tick of the file system's clock, and then has the same time."""
    path, next_minute_ns = home.buckets / BUCKET / "a.txt", time.time_ns() + 60 * 10**9
    etags = []
    for content in (b"one", b"two"):
        path.write_bytes(content)
        os.utime(path, ns=(next_minute_ns, next_minute_ns))
        etags.append(read_details(store, "a.txt").etag)
    assert etags == ["f97c5d29941bfb1b2fdab0874906ab82", "b8a9f715dbb64fd5c56e7783c6820a61"]


def test_objects_written_at_the_same_time_have_different_modification_times(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    assert put(store, "a").modified_ns < put(store, "a").modified_ns


@pytest.mark.parametrize("key", ["out", "out/a"])
def test_links_are_not_followed(store: ObjectStore, home: Home, tmp_path: Path, key: str) -> None:
    (tmp_path / "a").write_text("secret")
    (home.buckets / BUCKET / "out").symlink_to(tmp_path if "/" in key else tmp_path / "a")
    assert not list(store.list(BUCKET)) + list(store.list(BUCKET, key))
    for access in (store.get, store.open, lambda bucket, key: store.check_writable(bucket, f"{key}/x")):
        with pytest.raises(ServiceError):
            access(BUCKET, key)
    assert not store.delete(BUCKET, key)
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("prefix", ["../", "../../", "/etc/", "a/../../", "./"])
def test_prefix_cannot_leave_the_bucket(store: ObjectStore, prefix: str) -> None:
    store.create_bucket("other")
    (store.home.buckets / "other" / "x").touch()
    assert not list(store.list(BUCKET, prefix))


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b", "a/b/c"), ("a/", "a"), ("a", "a/")])
def test_key_that_is_a_folder_of_another_key_raises(store: ObjectStore, first: str, second: str) -> None:
    put(store, first, b"")
    for write in (put, lambda store, key: store.check_writable(BUCKET, key)):
        with pytest.raises(ServiceError, match=f"no file can have the key '{second}': .*a") as raised:
            write(store, second)
        assert raised.value.code == "InvalidArgument"
    assert store.get(BUCKET, first).key == first


def test_object_replaces_an_empty_folder(store: ObjectStore, home: Home) -> None:
    (home.buckets / BUCKET / "a/b").mkdir(parents=True)
    put(store, "a", b"content")
    assert (home.buckets / BUCKET / "a").read_bytes() == b"content"


def test_folder_with_marker_is_kept_when_empty(store: ObjectStore, home: Home) -> None:
    put(store, "a/b/", b"")
    put(store, "a/b/c")
    assert store.delete(BUCKET, "a/b/c")
    assert (home.buckets / BUCKET / "a/b").is_dir()
    assert store.get(BUCKET, "a/b/").path.read_bytes() == b""
    assert list_keys(store.list(BUCKET)) == []
    assert store.delete(BUCKET, "a/b/")
    assert not list((home.buckets / BUCKET).iterdir())


def test_folder_marker_with_content_raises(store: ObjectStore, home: Home) -> None:
    with pytest.raises(ServiceError, match="which cannot have content"):
        put(store, "a/", b"x")
    assert not list((home.buckets / BUCKET).iterdir())


def test_put_moves_the_file(store: ObjectStore, home: Home) -> None:
    file = home.work / "output"
    file.write_bytes(b"content")
    inode = file.stat().st_ino
    stored_object = store.put(BUCKET, "a/b", file)
    assert (stored_object.path.stat().st_ino, stored_object.size, file.exists()) == (inode, 7, False)
    assert stored_object.modification_time == pytest.approx(time.time(), abs=5)


def test_put_copies_hard_links(store: ObjectStore, home: Home) -> None:
    """A job can return its input as its output, which is then a hard link to another object."""
    original = put(store, "in", b"content", Details("its own"))
    (home.work / "link").hardlink_to(original.path)
    stored_object = store.put(BUCKET, "out", home.work / "link")
    assert stored_object.path.stat().st_ino != original.path.stat().st_ino
    assert read_details(store, "in").etag == "its own"
    assert not (home.work / "link").exists()


def test_failed_put_changes_nothing(store: ObjectStore, home: Home) -> None:
    put(store, "a", b"old")
    file = home.work / "output"
    file.write_bytes(b"new")
    with pytest.raises(ServiceError):
        store.put(BUCKET, "a/b", file)
    assert file.read_bytes() == b"new"
    assert store.get(BUCKET, "a").path.read_bytes() == b"old"


def test_put_that_cannot_move_the_file_removes_new_folders(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store._files, "replace", MagicMock(side_effect=PermissionError))
    with pytest.raises(PermissionError):
        put(store, "a/b/c")
    assert not list((store.home.buckets / BUCKET).iterdir())


@pytest.mark.parametrize("change", [put, lambda store, condition: store.delete(BUCKET, "a", condition)])
def test_condition_is_checked_after_the_earlier_write(store: ObjectStore, change: Callable[..., object]) -> None:
    checked_details: list[Details | None] = []
    arguments = {"store": store, "condition": checked_details.append} | ({"key": "a"} if change is put else {})
    second_change = threading.Thread(target=change, kwargs=arguments)

    def start_second_change(_: Details | None) -> None:
        second_change.start()
        second_change.join(0.2)

    put(store, "a", b"1", Details("first"), start_second_change)
    second_change.join()
    assert [details and details.etag for details in checked_details] == ["first"]


def test_bucket_is_not_deleted_while_an_object_is_written(store: ObjectStore) -> None:
    codes: list[str] = []

    def delete() -> None:
        try:
            store.delete_bucket(BUCKET)
        except ServiceError as error:
            codes.append(error.code)

    thread = threading.Thread(target=delete)

    def start_deletion(_: Details | None) -> None:
        thread.start()
        thread.join(0.2)

    put(store, "a", condition=start_deletion)
    thread.join()
    assert codes == ["BucketNotEmpty"]


def test_replaced_object_keeps_the_content_of_old_links(store: ObjectStore, home: Home) -> None:
    (home.work / "input").hardlink_to(put(store, "a", b"old").path)
    put(store, "a", b"new")
    assert (home.work / "input").read_bytes() == b"old"


def test_readers_get_one_complete_version_with_its_details(store: ObjectStore) -> None:
    versions = {name * 50_000: Details(name.decode()) for name in (b"a", b"b", b"c")}
    put(store, "k", b"a" * 50_000, versions[b"a" * 50_000])
    stop_event = threading.Event()

    def write() -> None:
        while not stop_event.is_set():
            for content, details in versions.items():
                put(store, "k", content, details)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            opened_object = store.open(BUCKET, "k")
            with opened_object.file:
                assert versions[opened_object.file.read()] == opened_object.details
    finally:
        stop_event.set()
        writer.join()


def test_open_returns_the_new_version_of_a_replaced_object(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a", b"old", Details("old"))
    find_details_in_database, found_versions = store.database.find_details, list[Version]()

    def replace_object_first(version: Version) -> Details | None:
        if not found_versions:
            found_versions.append(version)
            put(store, "a", b"new", Details("new"))
        return find_details_in_database(version)

    monkeypatch.setattr(store.database, "find_details", replace_object_first)
    opened_object = store.open(BUCKET, "a")
    with opened_object.file:
        assert (opened_object.file.read(), opened_object.details.etag) == (b"new", "new")


def test_details_of_replaced_and_deleted_objects_are_removed(store: ObjectStore) -> None:
    for content in (b"1", b"22"):
        put(store, "a", content, Details("x"))
    assert store.database.select("SELECT size FROM objects") == [(2,)]
    store.delete(BUCKET, "a")
    assert store.database.select("SELECT size FROM objects") == []


def test_start_removes_incomplete_files_of_a_killed_server(store: ObjectStore, home: Home) -> None:
    put(store, "a", b"whole", Details("known"))
    (home.objects / "incoming" / "half").write_bytes(b"ha")
    restarted_store = ObjectStore(home)
    assert not list((home.objects / "incoming").iterdir())
    assert read_details(restarted_store, "a").etag == "known"
    restarted_store.close()


@pytest.mark.parametrize("bucket", ["no-such-bucket", "..", "", "A"])
def test_missing_bucket_raises(store: ObjectStore, bucket: str) -> None:
    for access in (store.get, store.check_writable, store.delete, store.list):
        with pytest.raises(ServiceError) as raised:
            access(bucket, "key")
        assert (raised.value.code, raised.value.status) == ("NoSuchBucket", 404)


def test_bucket_with_a_file_without_a_key_is_not_deleted(store: ObjectStore, home: Home) -> None:
    path = Path(os.fsdecode(os.fsencode(home.buckets / BUCKET) + b"/\xff"))
    path.touch()
    assert not list(store.list(BUCKET))
    with pytest.raises(ServiceError, match="not empty"):
        store.delete_bucket(BUCKET)
    path.unlink()
    store.delete_bucket(BUCKET)
    assert not store.has_bucket(BUCKET)


def test_names_that_differ_only_in_case_are_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, the name `A` opens the file `a`."""
    put(store, "a")
    monkeypatch.setattr(store._files, "_ignores_case", True)
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: stat(str(path).replace("/A", "/a"), **options))
    with pytest.raises(ServiceError, match="ignores case, and 'a' exists already"):
        store.check_writable(BUCKET, "A")
    with pytest.raises(ServiceError, match="does not exist"):
        store.get(BUCKET, "A")
    assert store.get(BUCKET, "a").key == "a"

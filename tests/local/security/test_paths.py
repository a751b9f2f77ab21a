"""Names that could be paths to other folders: keys, and names of buckets, jobs, images and members of archives."""

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from microjobs.archives import unpack as unpack_model
from microjobs.errors import UserError
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.runtimes.archives import unpack
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.process.environments import Environments
from microjobs_orchestrator.local.s3.keys import is_bucket_name
from microjobs_orchestrator.local.s3.store import ObjectStore
from tests.local.clients import LocalServer
from tests.local.security.wire import Sender
from tests.local.trees import write_tree

PATH_PARTS = [
    *(
        "..",
        ".",
        "",
        "a",
        "b",
        "A",
        "etc",
        "passwd",
        "\0",
        "a\0",
        "~",
        "%2e%2e",
        "..%2f",
        "\\",
        "..\\",
        "C:",
        "nul",
        "-r",
        "*",
    ),
    *(
        "\uff0e\uff0e",
        "\u2025",
        "\u2024\u2024",
        "\uff0f",
        "\u2215",
        "\xe9",
        "e\u0301",
        "\u0130",
        "\xdf",
        "\u202e",
        "x" * 256,
        "\u6f22" * 90,
        "\ud800",
        " ",
        "\n",
    ),
]
paths = st.lists(st.sampled_from(PATH_PARTS), min_size=1, max_size=6).map("/".join) | st.just("/" * 3).flatmap(
    lambda slashes: st.sampled_from(["etc/passwd", "tmp"]).map(slashes.__add__)
)
SETTINGS = settings(max_examples=100, suppress_health_check=list(HealthCheck))


def read_modes_and_contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and the content of all files and folders in a folder, by path. Do not follow links."""
    entries = {}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            entries[str(path)] = (path.lstat().st_mode, content)
    return entries


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An object store in a new home."""
    home = Home(tmp_path_factory.mktemp("outer") / "home")
    home.create()
    store = ObjectStore(home)
    store.create_bucket("bucket")
    yield store
    store.close()


@SETTINGS
@given(paths)
def test_key_stays_in_its_bucket(store: ObjectStore, key: str) -> None:
    bucket, initial_tree = store.home.buckets / "bucket", read_modes_and_contents(store.home.root.parent)
    with store.new_file() as file:
        file.write_bytes(b"content")
        try:
            stored_object = store.put("bucket", key, file)
        except ServiceError:
            assert read_modes_and_contents(store.home.root.parent) == {
                **initial_tree,
                str(file): read_modes_and_contents(file.parent)[str(file)],
            }
            return
    assert stored_object.path.resolve().is_relative_to(bucket)
    assert store.get("bucket", key).path.read_bytes() == b"content"
    # the store lists exactly this name, and no similar name
    assert [item.key for item in store.list("bucket")] == [key]
    assert store.delete("bucket", key)
    initial_names = {name for name in initial_tree if name.startswith(f"{store.home.buckets}/")}
    assert read_modes_and_contents(store.home.buckets).keys() == initial_names


@SETTINGS
@given(
    paths.map(lambda text: text.encode(errors="replace").decode()), st.sampled_from(["GET", "PUT", "DELETE", "COPY"])
)
def test_key_of_a_request_stays_in_its_bucket(
    process_server: LocalServer, sender: Sender, key: str, method: str
) -> None:
    secret = process_server.home.buckets.parent / "secret"
    secret.write_text("secret")
    target = f"/{process_server.address.bucket}/{quote(key, safe='/%.')}"
    headers = {"x-amz-copy-source": quote(f"{process_server.address.bucket}/{key}")} if method == "COPY" else {}
    if method == "COPY":
        method, target = "PUT", f"/{process_server.address.bucket}/copied"
    answer = sender.send_signed("s3", method, target, headers, b"planted" if method == "PUT" and not headers else b"")
    assert answer.status < 500
    assert b"secret" not in answer.body.replace(key.encode(), b"")
    assert secret.read_text() == "secret"


@SETTINGS
@given(
    paths
    | st.sampled_from(["..", "a..b", "bucket\0", "\u0430bc", "bu\u200bcket", "BUCKET", "x" * 64, "127.0.0.1", "abc\n"])
)
def test_accepted_bucket_name_is_a_plain_folder_name(name: str) -> None:
    if is_bucket_name(name):
        assert name.isascii()
        assert name == name.lower()
        assert Path("/root", name).resolve() == Path("/root") / name


DESCRIBE_OPERATIONS = [
    ("DescribeTrainingJob", "TrainingJobName"),
    ("DescribeProcessingJob", "ProcessingJobName"),
    ("DescribeTransformJob", "TransformJobName"),
    ("DescribeHyperParameterTuningJob", "HyperParameterTuningJobName"),
    ("DescribeModel", "ModelName"),
    ("DescribeEndpoint", "EndpointName"),
    ("DescribeEndpointConfig", "EndpointConfigName"),
]


@pytest.mark.parametrize(("operation", "member"), DESCRIBE_OPERATIONS)
@SETTINGS
@given(name=paths | st.sampled_from(["\u0430", "a\n", "a\0", "\uff41", "x" * 64, "a/b", "a.b", "-a", "\u0661"]))
def test_accepted_resource_name_is_a_plain_file_name(operation: str, member: str, name: str) -> None:
    try:
        validate(load_operation_model("sagemaker", operation), {member: name})
    except ServiceError:
        return
    assert name.isascii()
    assert name.replace("-", "").isalnum()


@SETTINGS
@given(paths)
def test_image_name_cannot_be_a_path(tmp_path_factory: pytest.TempPathFactory, image: str) -> None:
    root = tmp_path_factory.getbasetemp() / "images"
    (root / "jobs" / "real").mkdir(parents=True, exist_ok=True)
    for folder in (root, root / "jobs"):  # an image name that leaves the jobs' folder would find these files
        (folder / "image.yml").touch()
        (folder / "cpu.lock").touch()
    with pytest.raises(CannotRunError, match="is not a job of this repository"):
        Environments(root / "environments", root / "jobs").ensure(image)


@pytest.mark.parametrize("channel", [".", ".."])
def test_invalid_channel_name_is_refused(process_server: LocalServer, channel: str) -> None:
    process_server.put({"in/a": "a"})
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": process_server.uri("in")}}
    with pytest.raises(ClientError, match="ChannelName"):
        process_server.start_training("true", InputDataConfig=[{"ChannelName": channel, "DataSource": source}])


# --- archives ---


def make_member(
    name: str, member_type: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"evil"
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = member_type, target
    info.size = len(content) if member_type == tarfile.REGTYPE else 0
    info.mode = 0o6777
    return info, content


def make_archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


MEMBER_TYPES = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
names = st.lists(
    st.sampled_from(["..", ".", "a", "b", "c", "A", "\xe9", "e\u0301", "x" * 200]), min_size=1, max_size=5
).map("/".join)
names |= st.sampled_from(["/etc/evil", "../evil", "a/../../evil", "//a", "a" * 300])
members = st.lists(st.builds(make_member, names.map("top/".__add__), st.sampled_from(MEMBER_TYPES), names), max_size=8)


def make_escape_by_long_path(depth: int = 16) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return members of an archive: links whose real path exceeds PATH_MAX, and a link that leaves the folder through
    them (CVE-2025-4517)."""
    long_name, members, path = "d" * 247, [], "top"
    for letter in "abcdefghijklmnop"[:depth]:
        members.append(make_member(f"{path}/{long_name}", tarfile.DIRTYPE))
        members.append(make_member(f"{path}/{letter}", tarfile.SYMTYPE, long_name))
        path += f"/{long_name}"
    short_path = "/".join("abcdefghijklmnop"[:depth])
    members.append(make_member(f"top/{short_path}/{'l' * 254}", tarfile.SYMTYPE, "../" * depth))
    members.append(make_member("top/escape", tarfile.SYMTYPE, f"{short_path}/{'l' * 254}/../outside"))
    return [*members, make_member("top/through", tarfile.LNKTYPE, "top/escape"), make_member("top/escape/evil")]


def check_nothing_escaped(folder: Path) -> None:
    """Check that no file is outside of the folder, and that no link in it leads out."""
    assert sorted(path.name for path in folder.parent.iterdir()) == ["outside", folder.name]
    assert list((folder.parent / "outside").iterdir()) == []
    for _, folders, files, descriptor in os.fwalk(folder):  # paths may be longer than Python can follow
        for name in folders + files:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            assert stat.S_IFMT(status.st_mode) in (stat.S_IFLNK, stat.S_IFREG, stat.S_IFDIR)
            assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o6000
            assert f"{_resolve(name, descriptor) or folder}/".startswith(f"{folder}/")


def _resolve(name: str, folder_descriptor: int) -> str:
    """Return the path to which the kernel resolves a name; empty if this path does not exist."""
    try:
        descriptor = os.open(name, os.O_PATH, dir_fd=folder_descriptor)
    except OSError:
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:  # the path is too long, so it is in the test's folder: no other folder is so deep
        return ""
    finally:
        os.close(descriptor)


@SETTINGS
@example(make_escape_by_long_path())
@example(
    [
        make_member("top/x", tarfile.SYMTYPE, "y/../outside"),
        make_member("top/y", tarfile.SYMTYPE, "."),
        make_member("top/x/evil"),
    ]
)
@example([make_member("top/a", tarfile.SYMTYPE, "../outside"), make_member("top/a/evil")])
@example([make_member("top/q", tarfile.SYMTYPE, "."), make_member("top/q/q/q/x", tarfile.SYMTYPE, "../outside")])
@example(
    [
        make_member("top/s", tarfile.SYMTYPE, "../outside"),
        make_member("top/t", tarfile.LNKTYPE, "top/s"),
        make_member("top/t/evil"),
    ]
)
@given(members)
def test_archive_of_a_container_stays_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    outer = tmp_path_factory.mktemp("left")
    (outer / "outside").mkdir()
    try:
        tree = unpack([make_archive(make_member("top", tarfile.DIRTYPE), *members)], outer / "contents")
        write_tree({name: replace(entry, content=Path(os.devnull)) for name, entry in tree.items()}, outer / "to")
    except (OSError, tarfile.TarError, CannotRunError):  # the file system refuses such names: the job fails
        (outer / "to").mkdir(exist_ok=True)
    shutil.rmtree(outer / "contents")  # `unpack` has stored the files here, named by numbers; the check is about `to`
    check_nothing_escaped(outer / "to")


@SETTINGS
@example(make_escape_by_long_path())
@example([make_member("x", tarfile.SYMTYPE, "y/../outside"), make_member("y", tarfile.SYMTYPE, ".")])
@example([make_member("q", tarfile.SYMTYPE, "."), make_member("q/q/q/x", tarfile.SYMTYPE, "../outside")])
@given(members)
def test_model_archive_stays_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    outer = tmp_path_factory.mktemp("model")
    (outer / "outside").mkdir()
    archive = tmp_path_factory.getbasetemp() / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    try:
        unpack_model(archive, outer / "to")
    except (OSError, UserError):
        (outer / "to").mkdir(exist_ok=True)
    check_nothing_escaped(outer / "to")


def test_zip_as_model_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.tar.gz", "w") as file:
        file.writestr("../evil", "evil")
    with pytest.raises(UserError, match="is not a complete tar archive"):
        unpack_model(tmp_path / "model.tar.gz", tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tar.gz"]

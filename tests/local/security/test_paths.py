"""Names that could leave their folder: of keys, buckets, jobs, images, and members of archives."""

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
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.runtimes.archives import unpack
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.process.environments import Environments
from microjobs_orchestrator.local.s3.keys import is_bucket_name
from microjobs_orchestrator.local.s3.store import ObjectStore
from tests.local.clients import LocalServer
from tests.local.security.wire import Sender
from tests.local.trees import write_tree

PARTS = [
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
paths = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("/".join) | st.just("/" * 3).flatmap(
    lambda slashes: st.sampled_from(["etc/passwd", "tmp"]).map(slashes.__add__)
)
SETTINGS = settings(max_examples=100, suppress_health_check=list(HealthCheck))


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all files in a folder. Do not follow links."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (path.lstat().st_mode, content)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Return a store, with secret files next to its folder."""
    home = Home(tmp_path_factory.mktemp("outer") / "home")
    home.create()
    store = ObjectStore(home)
    store.create_bucket("bucket")
    yield store
    store.close()


@SETTINGS
@given(paths)
def test_key_stays_in_its_bucket(store: ObjectStore, key: str) -> None:
    bucket, before = store.home.buckets / "bucket", tree(store.home.root.parent)
    with store.new_file() as file:
        file.write_bytes(b"content")
        try:
            stored = store.put("bucket", key, file)
        except ServiceError:
            assert tree(store.home.root.parent) == {**before, str(file): tree(file.parent)[str(file)]}
            return
    assert stored.path.resolve().is_relative_to(bucket)
    assert store.get("bucket", key).path.read_bytes() == b"content"
    assert [item.key for item in store.list("bucket")] == [key]  # by exactly this name, and no other that looks like it
    assert store.delete("bucket", key)
    assert tree(store.home.buckets).keys() == {name for name in before if name.startswith(f"{store.home.buckets}/")}


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
        validate(operation_model("sagemaker", operation), {member: name})
    except ServiceError:
        return
    assert name.isascii()
    assert name.replace("-", "").isalnum()


@SETTINGS
@given(paths)
def test_image_name_cannot_be_a_path(tmp_path_factory: pytest.TempPathFactory, image: str) -> None:
    root = tmp_path_factory.getbasetemp() / "images"
    (root / "jobs" / "real").mkdir(parents=True, exist_ok=True)
    for folder in (root, root / "jobs"):  # an image name that leaves the jobs' folder would find these
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


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"evil"
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    info.mode = 0o6777
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
names = st.lists(
    st.sampled_from(["..", ".", "a", "b", "c", "A", "\xe9", "e\u0301", "x" * 200]), min_size=1, max_size=5
).map("/".join)
names |= st.sampled_from(["/etc/evil", "../evil", "a/../../evil", "//a", "a" * 300])
members = st.lists(st.builds(member, names.map("top/".__add__), st.sampled_from(KINDS), names), max_size=8)


def make_too_long_path(depth: int = 16) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return links whose real path exceeds PATH_MAX, and one that leaves the folder through them (CVE-2025-4517)."""
    long, found, path = "d" * 247, [], "top"
    for letter in "abcdefghijklmnop"[:depth]:
        found += [member(f"{path}/{long}", tarfile.DIRTYPE), member(f"{path}/{letter}", tarfile.SYMTYPE, long)]
        path += f"/{long}"
    short = "/".join("abcdefghijklmnop"[:depth])
    found.append(member(f"top/{short}/{'l' * 254}", tarfile.SYMTYPE, "../" * depth))
    found.append(member("top/escape", tarfile.SYMTYPE, f"{short}/{'l' * 254}/../outside"))
    return [*found, member("top/through", tarfile.LNKTYPE, "top/escape"), member("top/escape/evil")]


def check_nothing_escaped(folder: Path) -> None:
    """Check that no file is outside of the folder, and that no link in it leads out."""
    assert sorted(path.name for path in folder.parent.iterdir()) == ["outside", folder.name]
    assert list((folder.parent / "outside").iterdir()) == []
    for _, folders, files, at in os.fwalk(folder):  # paths may be longer than Python can follow
        for name in folders + files:
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            assert stat.S_IFMT(found.st_mode) in (stat.S_IFLNK, stat.S_IFREG, stat.S_IFDIR)
            assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o6000
            assert f"{_real(name, at) or folder}/".startswith(f"{folder}/")


def _real(name: str, at: int) -> str:
    """Return the path to which the kernel resolves a name; empty if it does not exist."""
    try:
        found = os.open(name, os.O_PATH, dir_fd=at)
    except OSError:
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{found}")  # noqa: PTH115
    except OSError:  # the path is too long, so it is in our folder: no other folder is so deep
        return ""
    finally:
        os.close(found)


@SETTINGS
@example(make_too_long_path())
@example(
    [member("top/x", tarfile.SYMTYPE, "y/../outside"), member("top/y", tarfile.SYMTYPE, "."), member("top/x/evil")]
)
@example([member("top/a", tarfile.SYMTYPE, "../outside"), member("top/a/evil")])
@example([member("top/q", tarfile.SYMTYPE, "."), member("top/q/q/q/x", tarfile.SYMTYPE, "../outside")])
@example(
    [member("top/s", tarfile.SYMTYPE, "../outside"), member("top/t", tarfile.LNKTYPE, "top/s"), member("top/t/evil")]
)
@given(members)
def test_archive_of_a_container_stays_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    outer = tmp_path_factory.mktemp("left")
    (outer / "outside").mkdir()
    try:
        tree = unpack([archive(member("top", tarfile.DIRTYPE), *members)], outer / "contents")
        write_tree({name: replace(entry, content=Path(os.devnull)) for name, entry in tree.items()}, outer / "to")
    except (OSError, tarfile.TarError, CannotRunError):  # the file system refuses such names: the job fails
        (outer / "to").mkdir(exist_ok=True)
    shutil.rmtree(outer / "contents")  # the contents of the files, in files whose names are numbers
    check_nothing_escaped(outer / "to")


@SETTINGS
@example(make_too_long_path())
@example([member("x", tarfile.SYMTYPE, "y/../outside"), member("y", tarfile.SYMTYPE, ".")])
@example([member("q", tarfile.SYMTYPE, "."), member("q/q/q/x", tarfile.SYMTYPE, "../outside")])
@given(members)
def test_model_archive_stays_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    outer = tmp_path_factory.mktemp("model")
    (outer / "outside").mkdir()
    packed = tmp_path_factory.getbasetemp() / "model.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    try:
        unpack_model(packed, outer / "to")
    except (OSError, UserError):
        (outer / "to").mkdir(exist_ok=True)
    check_nothing_escaped(outer / "to")


def test_zip_as_model_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.tar.gz", "w") as file:
        file.writestr("../evil", "evil")
    with pytest.raises(UserError, match="is not a complete tar archive"):
        unpack_model(tmp_path / "model.tar.gz", tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tar.gz"]

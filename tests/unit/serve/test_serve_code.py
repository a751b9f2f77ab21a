"""Sources of a user's code (folders, archives, S3), and its requirements."""

import io
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from microjobs.contract import DEFAULT_ROOT
from microjobs.hosting import user_requirements
from tests.unit.serve.conftest import Server, run_server

PROGRAM = "import helper\ndef model_fn(model_dir): return 1\ndef transform_fn(m, b, c, a): return helper.WORD\n"
CODE = {"mine.py": PROGRAM, "helper.py": "WORD = 'fetched'\n"}
OTHER_FOLDER = f"{DEFAULT_ROOT}/elsewhere"


def make_archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@contextmanager
def run_server_with_code(root: Path, uri: str, **environment: str) -> Iterator[Server]:
    with run_server(root, SAGEMAKER_PROGRAM="mine.py", SAGEMAKER_SUBMIT_DIRECTORY=uri, **environment) as server:
        yield server


CODE_URIS = [
    "{root}/elsewhere",
    "file://{root}/elsewhere",
    OTHER_FOLDER,
    f"file://{OTHER_FOLDER}",
    f"{OTHER_FOLDER}/source.tar.gz",
]


@pytest.mark.parametrize("uri", CODE_URIS)
def test_code_is_read_from_a_folder_or_an_archive(root: Path, uri: str) -> None:
    write_files(root / "elsewhere", CODE)
    (root / "elsewhere" / "source.tar.gz").write_bytes(make_archive(CODE))
    with run_server_with_code(root, uri.format(root=root)) as server:
        server.wait_until_ready()
        assert server.invoke("x").body == b"fetched"


@pytest.mark.parametrize("uri", ["{ml}/model/code", "file://{ml}/model/code", "{ml}/model/other"])
@pytest.mark.parametrize("is_archive", [False, True])
def test_code_is_read_from_the_model(tmp_path: Path, uri: str, is_archive: bool) -> None:
    """The model folder can also contain the archive that a training job made."""
    uri = uri.format(ml=DEFAULT_ROOT)
    files = {f"{uri.rpartition('/')[2]}/{name}": text for name, text in CODE.items()}
    model = tmp_path / "model"
    model.mkdir()
    if is_archive:
        (model / "model.tar.gz").write_bytes(make_archive(files))
    else:
        write_files(model / uri.rpartition("/")[2], CODE)
    with run_server_with_code(tmp_path, uri) as server:
        server.wait_until_ready()
        assert server.invoke("x").body == b"fetched"


@pytest.fixture(scope="module")
def s3_variables() -> Iterator[dict[str, str]]:
    """Environment variables with the address and the credentials of an S3 server, which contains code."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106
    )
    client.create_bucket(Bucket="bucket")
    evil_files = {**CODE, "../../helper.py": "WORD = 'evil'\n"}
    for key, body in {
        "code.tar.gz": make_archive(CODE),
        "evil.tar.gz": make_archive(evil_files),
        "text": b"no archive",
    }.items():
        client.put_object(Bucket="bucket", Key=f"some/folder/{key}", Body=body)
    yield {"AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true", **keys}
    server.stop()


@pytest.mark.parametrize("region", ["", "eu-west-1"])
def test_code_is_fetched_from_s3(root: Path, s3_variables: dict[str, str], region: str) -> None:
    write_files(root / "model" / "code", {"helper.py": "WORD = 'in the model'\n"})
    with run_server_with_code(
        root, "s3://bucket/some/folder/code.tar.gz", SAGEMAKER_REGION=region, **s3_variables
    ) as server:
        server.wait_until_ready()
        assert server.invoke("x").body == b"fetched"


UNAVAILABLE_CODE = {
    "s3://bucket/some/folder/absent.tar.gz": "cannot be fetched: An error occurred (404)",
    "s3://nobody/code.tar.gz": "cannot be fetched",
    "s3://bucket": "is not the address of an object",
    "s3://bucket/some/folder/": "is not the address of an object",
    "s3://bucket/some/folder/text": "text is not a complete tar archive",
    "s3://bucket/some/folder/evil.tar.gz": "leaves the archive's folder: refused",
    f"{DEFAULT_ROOT}/absent": "does not exist: use a folder, a .tar.gz file or an S3 address",
    "https://bucket.s3.amazonaws.com/code.tar.gz": "does not exist: use a folder, a .tar.gz file or an S3 address",
}


@pytest.mark.parametrize(("uri", "reason"), UNAVAILABLE_CODE.items())
def test_unavailable_code_ends_the_job(root: Path, s3_variables: dict[str, str], uri: str, reason: str) -> None:
    with run_server_with_code(root, uri, **s3_variables) as server:
        assert server.wait() == 2
    assert reason in (server.failure or "")


@pytest.mark.parametrize("variables", [{"AWS_ACCESS_KEY_ID": ""}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}])
def test_error_explains_network_isolation(
    root: Path, s3_variables: dict[str, str], variables: dict[str, str], tmp_path: Path
) -> None:
    offline = {**s3_variables, "HOME": str(tmp_path), **variables}
    with run_server_with_code(root, "s3://bucket/some/folder/code.tar.gz", **offline) as server:
        assert server.wait(60) == 2
    assert "SAGEMAKER_SUBMIT_DIRECTORY 's3://bucket/some/folder/code.tar.gz'" in (server.failure or "")
    assert "EnableNetworkIsolation forbids" in (server.failure or "")


def test_missing_program_error_names_the_files_in_the_folder(root: Path) -> None:
    write_files(root / "elsewhere", {"other.py": ""})
    with run_server_with_code(root, OTHER_FOLDER) as server:
        assert server.wait() == 2
    assert "'mine.py' is not in" in (server.failure or "")
    assert "which holds other.py" in (server.failure or "")


# --- requirements ---

PROGRAM_WITH_REQUIREMENT = (
    "import tiny_words\ndef model_fn(model_dir): return 1\ndef transform_fn(m, b, c, a): return tiny_words.WORD\n"
)


def write_wheel(folder: Path, version: str = "1.0", name: str = "tiny_words") -> None:
    """Write a package without dependencies. Its only module has a constant WORD, which contains the version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"WORD = 'word {version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)


@contextmanager
def run_server_with_requirements(
    root: Path, requirements: str, program: str = PROGRAM_WITH_REQUIREMENT, **environment: str
) -> Iterator[Server]:
    """Run a server whose program has requirements; its temporary folder is below the root."""
    write_files(root / "model" / "code", {"inference.py": program, "requirements.txt": requirements})
    (root / "tmp").mkdir(exist_ok=True)
    with run_server(root, TMPDIR=str(root / "tmp"), **environment) as server:
        yield server


LOCAL_WHEELS_OPTIONS = "--no-index\n--find-links .\n"


def test_requirements_are_installed_once(root: Path) -> None:
    """All workers and a restarted container find the installed packages."""
    (root / "model" / "code").mkdir()
    write_wheel(root / "model" / "code")
    for expected_installations in (1, 0):
        with run_server_with_requirements(
            root, f"{LOCAL_WHEELS_OPTIONS}tiny_words\n", SAGEMAKER_MODEL_SERVER_WORKERS="2"
        ) as server:
            server.wait_until_ready(60)
            assert {server.invoke("x").body for _ in range(8)} == {b"word 1.0"}
            assert server.stop() == 0
        assert server.log.count("installing code/requirements.txt") == expected_installations
        assert server.find_logged_problems() == []


@pytest.mark.slow
def test_changed_requirements_are_installed_again(root: Path) -> None:
    for version in ("1.0", "2.0"):
        (root / "model" / "code").mkdir(exist_ok=True)
        write_wheel(root / "model" / "code", version)
        with run_server_with_requirements(
            root, f"{LOCAL_WHEELS_OPTIONS}tiny_words\n"
        ) as server:  # the requirements have the same text, but the wheel is another file
            server.wait_until_ready(60)
            assert server.invoke("x").body == f"word {version}".encode()


def test_requirement_replaces_a_package_of_the_image(root: Path) -> None:
    (root / "model" / "code").mkdir()
    write_wheel(root / "model" / "code", "99.0", "jmespath")
    program = PROGRAM_WITH_REQUIREMENT.replace("tiny_words", "jmespath")
    with run_server_with_requirements(root, f"{LOCAL_WHEELS_OPTIONS}jmespath>=99\n", program) as server:
        server.wait_until_ready(60)
        assert server.invoke("x").body == b"word 99.0"


UNINSTALLABLE_REQUIREMENTS = {
    "--no-index\nno-such-package>=2\n": ("no-such-package>=2", "put the packages into the image"),
    "--no-index\ngranian==1.0\n": ("granian==1.0", ""),
    "not a requirement\n": ("not a requirement", ""),
    "./nothing-of-this-name\n": ("nothing-of-this-name", ""),
}


@pytest.mark.parametrize(("requirements", "reasons"), UNINSTALLABLE_REQUIREMENTS.items())
def test_error_names_a_requirement_that_cannot_be_installed(
    root: Path, requirements: str, reasons: tuple[str, str]
) -> None:
    with run_server_with_requirements(root, requirements) as server:
        assert server.wait(60) == 2
    reason = server.failure or ""
    assert reason.startswith("code/requirements.txt cannot be installed: ")
    assert [part for part in reasons if part not in reason] == []
    assert not (root / "model" / "code" / "build").exists()


def test_folder_that_other_users_can_write_to_is_not_used(root: Path) -> None:
    """All users of a machine can write to its temporary folder."""
    (root / "model" / "code").mkdir()
    write_wheel(root / "model" / "code")
    with run_server_with_requirements(root, f"{LOCAL_WHEELS_OPTIONS}tiny_words\n") as server:
        server.wait_until_ready(60)
    (cache,) = (root / "tmp").glob("microjobs-requirements-*")
    (cached_module,) = cache.rglob("tiny_words.py")
    cached_module.write_text("WORD = 'evil'\n")
    cache.chmod(0o777)
    with run_server_with_requirements(root, f"{LOCAL_WHEELS_OPTIONS}tiny_words\n") as server:
        server.wait_until_ready(60)
        assert server.invoke("x").body == b"word 1.0"
    assert "other users have access to" in server.log


@pytest.mark.parametrize(
    ("text", "depends_on_files"),
    [
        ("numpy\n# comment\n\nscipy[extra]>=1 ; python_version > '3'\n", False),
        ("./local\n", True),
        ("package.whl\n", True),
        ("-r other.txt\n", True),
        ("numpy\nhttps://example.com/package.zip\n", True),
    ],
)
def test_environment_depends_on_files_only_if_a_requirement_names_one(
    tmp_path: Path, text: str, depends_on_files: bool
) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    (tmp_path / "model.py").write_text("1")
    name = user_requirements.make_environment_name(tmp_path)
    (tmp_path / "model.py").write_text("2")
    assert (user_requirements.make_environment_name(tmp_path) != name) == depends_on_files


@pytest.mark.parametrize(
    ("mode", "is_link", "is_used"), [(0o700, False, True), (0o710, False, False), (0o700, True, False)]
)
def test_only_a_private_folder_is_used_for_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_link: bool, is_used: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"microjobs-requirements-{os.getuid()}"
    target = tmp_path / "target" if is_link else folder
    target.mkdir()
    target.chmod(mode)
    if is_link:
        folder.symlink_to(target)
    assert (user_requirements.make_cache_folder() == folder) == is_used

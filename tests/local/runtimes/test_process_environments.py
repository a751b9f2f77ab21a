"""Tests of the virtual environments that the process runtime makes from lock files."""

import hashlib
import os
import re
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest

from microjobs import layered_environment
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.process.environments import (
    MAX_UNUSED_SECONDS,
    Environment,
    Environments,
    locked_file,
)
from microjobs_orchestrator.local.runtimes.process.packages import Installer, merge_locks
from tests.conftest import CONTAINERS, JOBS
from tests.local.runtimes.processes import make_tiny_repository, names


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    make_tiny_repository(tmp_path, "")
    return tmp_path / "repository" / "containers"


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    make_tiny_repository(place, "")
    return place


@pytest.fixture
def environments(tmp_path: Path, jobs: Path) -> Environments:
    return Environments(tmp_path / "environments", jobs)


@pytest.fixture
def wheel(tmp_path: Path, jobs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a package that the tiny job requires, in the folder of local packages; the package index is empty."""
    packages = tmp_path / "packages"
    packages.mkdir()
    path = packages / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = "greeting-1.0.dist-info"
        archive.writestr("greeting.py", "print('hello')")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (jobs / "tiny" / "cpu.lock").write_text(f"greeting==1.0 \\\n    --hash=sha256:{digest}\n    # via -r tiny/cpu.in\n")
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("LOCAL_PACKAGES", str(packages))
    monkeypatch.setenv("INDEX_URL", (tmp_path / "index").as_uri())
    return path


@pytest.mark.parametrize(
    "image",
    [
        "tiny",
        "microjobs/tiny:dev",
        "localhost:5000/microjobs/tiny",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/microjobs/tiny:dev",
        f"microjobs/tiny:dev@sha256:{'0' * 64}",
    ],
)
def test_image_name_selects_the_job(image: str, shared_place: Path) -> None:
    jobs = shared_place / "repository" / "containers"
    assert Environments(shared_place / "environments", jobs).ensure(image).job == jobs / "tiny"


@pytest.mark.parametrize("image", ["sagemaker-scikit-learn:1.2-1", "bin", ".", "", "microjobs/tiny:dev-cuda"])
def test_unknown_image_raises_with_the_available_jobs(image: str, environments: Environments) -> None:
    with pytest.raises(
        CannotRunError, match=rf"^image {re.escape(image)} is not a job of this repository \(tiny\).*Docker"
    ):
        environments.ensure(image)


def test_framework_image_error_names_the_option(environments: Environments) -> None:
    uri = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3-gpu-py311"
    remedy = "start the server with --framework-images to run train-pytorch in its place, or use one of them"
    with pytest.raises(CannotRunError, match=remedy):
        environments.ensure(uri)


@pytest.mark.parametrize("uv", [True, False], ids=["uv", "pip"])
def test_packages_come_from_the_local_folder(
    uv: bool, wheel: Path, environments: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = Installer.find(wheel.parent)
    if uv and installer.uv is None:
        pytest.skip("uv is not installed")
    monkeypatch.setattr(Installer, "find", lambda _: installer if uv else Installer(None, wheel.parent))
    python = environments.ensure("tiny").bin / "python"
    done = subprocess.run([python, "-c", "import greeting"], capture_output=True, text=True, check=True)
    assert done.stdout == "hello\n"


def test_passwords_of_indexes_are_not_shown() -> None:
    variables = {"INDEX_URL": "https://me:secret@one/simple", "TORCH_INDEX_URL": "https://me:a@secret@two/cpu"}
    text = Installer(None, Path("packages")).describe_sources("torch==2.0+cpu", variables)
    assert "https://one/simple (INDEX_URL)" in text
    assert "https://two/cpu (TORCH_INDEX_URL)" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({"SSL_CERT_FILE": "/a.crt"}, "/a.crt"),
        ({"SSL_CERT_FILE": "/a.crt", "PIP_CERT": "/b.crt"}, "/b.crt"),
        ({}, None),
    ],
)
def test_pip_accepts_the_certificates_of_other_programs(
    tmp_path: Path, variables: dict[str, str], file: str | None
) -> None:
    assert Installer(None, tmp_path).make_environment("", variables).get("PIP_CERT") == file


def test_pip_ignores_modules_in_the_current_folder(tmp_path: Path) -> None:
    below, current = tmp_path / "below", tmp_path / "current"
    for packages, text in ((layered_environment.find_packages(below), "right"), (current, "wrong")):
        (packages / "pip").mkdir(parents=True)
        (packages / "pip" / "__main__.py").write_text(f"print('{text}')")
    environment = Environment(tmp_path, below).extend(tmp_path / "above")
    done = subprocess.run([environment.bin / "pip"], cwd=current, capture_output=True, text=True, check=True)
    assert done.stdout == "right\n"


def test_wrong_package_hash_raises_and_leaves_no_environment(
    wheel: Path, environments: Environments, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more.py", "print('something else')")
    with pytest.raises(CannotRunError, match=r"(?is)cannot be made:.*hash.*docs/maintaining/building\.md"):
        environments.ensure("tiny")
    assert not any(path.is_dir() for path in (tmp_path / "environments").iterdir())


def test_parallel_requests_make_an_environment_once(environments: Environments, wheel: Path) -> None:
    del wheel
    stamps = set[float]()

    def get() -> None:
        stamps.add((environments.ensure("tiny").folder / "pyvenv.cfg").stat().st_mtime)

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stamps) == 1


def test_incomplete_environment_is_made_again(environments: Environments, wheel: Path) -> None:
    del wheel
    made = environments.ensure("tiny")
    (made.folder / "complete").unlink()
    (made.folder / "lib").rename(made.folder / "half")
    assert names(environments.ensure("tiny").folder.iterdir()) >= {"lib", "complete"}
    assert not (made.folder / "half").exists()


def test_incomplete_environment_is_removed_at_start(environments: Environments, wheel: Path) -> None:
    made = environments.ensure("tiny")
    broken = made.folder.with_name("tiny-cpu-broken")
    (broken / "lib").mkdir(parents=True)
    environments.clean()
    assert (wheel.exists(), made.folder.exists(), broken.exists()) == (True, True, False)


def test_environment_that_is_being_made_is_not_removed_at_start(environments: Environments, wheel: Path) -> None:
    folder = environments.ensure("tiny").folder
    (folder / "complete").unlink()
    with locked_file(folder.with_suffix(".lock")):
        environments.clean()
    assert (wheel.exists(), folder.exists()) == (True, True)


def test_changed_lock_file_makes_another_environment(environments: Environments, jobs: Path, wheel: Path) -> None:
    folder = environments.ensure("tiny").folder
    lock = jobs / "tiny" / "cpu.lock"
    lock.write_text(lock.read_text().replace("--hash", "--hash=sha256:" + "0" * 64 + " \\\n    --hash"))
    assert wheel.exists()
    assert environments.ensure("tiny").folder != folder


def test_close_ends_installations(environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Installer, "make_commands", lambda *_: [["/bin/sh", "-c", "echo Downloading; sleep 600"]])
    errors: list[CannotRunError] = []

    def get() -> None:
        with pytest.raises(CannotRunError) as caught:
            environments.ensure("tiny")
        errors.append(caught.value)

    thread = threading.Thread(target=get)
    thread.start()
    while not list((tmp_path / "environments").glob("*/install.log")):
        thread.join(0.01)
    environments.close()
    thread.join(10)
    assert len(errors) == 1


@pytest.mark.parametrize("job", JOBS)
def test_only_dependencies_of_script_mode_are_left_out(job: str) -> None:
    lock = (CONTAINERS / job / "cpu.lock").read_text()
    left_out = [line for line in lock.splitlines() if "==" in line and line not in merge_locks(lock)]
    assert any("sagemaker-training==" in line for line in left_out) == ("sagemaker-training==" in lock)
    assert not left_out or "sagemaker-training" in lock


def test_shared_dependencies_are_kept() -> None:
    lock = """
sagemaker-training==1 \\
    --hash=sha256:00
    # via -r requirements.in
alone==1 \\
    --hash=sha256:00
    # via sagemaker-training
both==1 \\
    --hash=sha256:00
    # via
    #   -c shared/requirements.lock
    #   job
    #   sagemaker-training
job[extra]==1 \\
    --hash=sha256:00
    # via -r cpu.in
"""
    assert re.findall(r"^(\S+)==", merge_locks(lock), re.MULTILINE) == ["both", "job[extra]"]


def test_old_environment_is_removed_at_start_if_its_lock_file_has_changed(
    environments: Environments, jobs: Path, wheel: Path
) -> None:
    assert wheel.exists()
    old, lock = environments.ensure("tiny").folder, jobs / "tiny" / "cpu.lock"
    os.utime(old / "complete", (0, time.time() - MAX_UNUSED_SECONDS - 1))
    environments.clean()
    assert old.exists()  # there is no newer one
    lock.write_text(lock.read_text().replace("--hash", "--hash=sha256:" + "0" * 64 + " \\\n    --hash"))
    new = environments.ensure("tiny").folder
    environments.clean()
    assert (old.exists(), new.exists()) == (False, True)


def test_environment_that_was_used_lately_is_kept(environments: Environments, jobs: Path, wheel: Path) -> None:
    assert wheel.exists()
    old, lock = environments.ensure("tiny").folder, jobs / "tiny" / "cpu.lock"
    os.utime(old / "complete", (0, 1.0))
    environments.ensure("tiny")
    lock.write_text(lock.read_text().replace("--hash", "--hash=sha256:" + "0" * 64 + " \\\n    --hash"))
    environments.ensure("tiny")
    environments.clean()
    assert old.exists()

"""Tests of the virtual environments that the process runtime makes from lock files."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from microjobs import layered_environment
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.process import environments as environments_module
from microjobs_orchestrator.local.runtimes.process import packages
from microjobs_orchestrator.local.runtimes.process.environments import (
    MAX_UNUSED_SECONDS,
    Environment,
    Environments,
    hold_file_lock,
)
from microjobs_orchestrator.local.runtimes.process.packages import Installer, merge_locks
from tests.local.runtimes.processes import get_names, make_tiny_repository


@pytest.fixture
def jobs_folder(tmp_path: Path) -> Path:
    make_tiny_repository(tmp_path, "")
    return tmp_path / "repository" / "containers"


@pytest.fixture(scope="module")
def shared_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("workspace")
    make_tiny_repository(workspace, "")
    return workspace


@pytest.fixture
def environments(tmp_path: Path, jobs_folder: Path) -> Environments:
    return Environments(tmp_path / "environments", jobs_folder)


def write_package(folder: Path, name: str, file: str, content: str, lock: Path) -> Path:
    """Write a wheel with one executable file, and a lock that contains only this wheel."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = f"{name}-1.0.dist-info"
        archive.writestr(program := zipfile.ZipInfo(file), content)
        program.external_attr = 0o100755 << 16
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lock.write_text(f"{name}==1.0 \\\n    --hash=sha256:{digest}\n    # via -r {lock.stem}.in\n")
    return path


@pytest.fixture
def wheel(tmp_path: Path, jobs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that the job `tiny` requires, in the folder of local packages. The package index is empty."""
    folder = tmp_path / "packages"
    folder.mkdir()
    path = write_package(folder, "greeting", "greeting.py", "print('hello')", jobs_folder / "tiny" / "cpu.lock")
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("LOCAL_PACKAGES", str(folder))
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
def test_image_name_selects_the_job(image: str, shared_workspace: Path) -> None:
    jobs = shared_workspace / "repository" / "containers"
    assert Environments(shared_workspace / "environments", jobs).ensure(image).job_folder == jobs / "tiny"


@pytest.mark.parametrize("image", ["sagemaker-scikit-learn:1.2-1", "bin", ".", ""])
def test_unknown_image_raises_with_the_available_jobs(image: str, environments: Environments) -> None:
    with pytest.raises(
        CannotRunError, match=rf"^image {re.escape(image)} is not a job of this repository \(tiny\).*Docker"
    ):
        environments.ensure(image)


def test_missing_variant_raises(environments: Environments) -> None:
    message = "^image microjobs/tiny:dev-cuda cannot be used: the job tiny has no cuda.lock; use another tag"
    with pytest.raises(CannotRunError, match=message):
        environments.ensure("microjobs/tiny:dev-cuda")


def test_framework_image_error_names_the_option(environments: Environments) -> None:
    uri = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3-gpu-py311"
    remedy = "start the server with --framework-images to run train-pytorch in its place, or use one of them"
    with pytest.raises(CannotRunError, match=remedy):
        environments.ensure(uri)


@pytest.mark.slow
@pytest.mark.parametrize("is_uv_installed", [True, False], ids=["uv", "pip"])
def test_packages_come_from_the_local_folder(
    is_uv_installed: bool, wheel: Path, environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = Installer.find(wheel.parent)
    if installer.uv is None:
        pytest.skip("uv is not installed")
    if not is_uv_installed:  # pip installs the package `uv`
        lock = tmp_path / "installer.lock"
        write_package(wheel.parent, "uv", "uv-1.0.data/scripts/uv", f'#!/bin/sh\nexec {installer.uv} "$@"\n', lock)
        monkeypatch.setattr(packages, "INSTALLER_LOCK", lock)
        monkeypatch.setattr(Installer, "find", lambda _: Installer(None, wheel.parent))
    environment = environments.ensure("tiny")
    result = subprocess.run([environment.python, "-c", "import greeting"], capture_output=True, text=True, check=True)
    assert result.stdout == "hello\n"
    assert get_names(environment.folder.iterdir()) - {".lock", "lib64"} == {
        *("bin", "complete", "include", "install.log", "lib", "pyvenv.cfg", "requirements.txt")
    }
    assert get_names(environment.bin.iterdir()).isdisjoint({"pip", "uv"})
    assert not (layered_environment.get_site_packages(environment.folder) / "pip").exists()


def test_settings_of_builds_select_the_environment(
    environments: Environments, jobs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sources of packages do not select the environment: each source has the same files, because the lock contains
    the hashes of the files."""
    monkeypatch.setattr(Installer, "make_commands", lambda *_: [[sys.executable, "-c", ""]])
    monkeypatch.setattr(environments_module, "_add_shared_code", lambda _: None)
    lock = jobs_folder / "tiny" / "cpu.lock"
    lock.write_text("inotify-simple==1.3.5 \\\n    --hash=sha256:00\n")

    def make() -> Path:
        return environments.ensure("tiny").folder

    folder = make()
    monkeypatch.setenv("INDEX_URL", "https://another/simple")
    monkeypatch.setenv("LOCAL_PACKAGES", str(tmp_path))
    assert make() == folder
    monkeypatch.setattr(packages, "INSTALLER_LOCK", tmp_path / "installer.lock")
    (tmp_path / "installer.lock").write_text("setuptools==1\n")
    folder_with_other_setuptools = make()
    monkeypatch.setattr(packages, "EMPTY_MODULE_COMPILER", "cc")
    assert len({folder, folder_with_other_setuptools, make()}) == 3
    # This package is not built, so the version of setuptools has no effect.
    lock.write_text("greeting==1.0 \\\n    --hash=sha256:00\n")
    folder = make()
    (tmp_path / "installer.lock").write_text("setuptools==2\n")
    assert make() == folder


def test_users_settings_do_not_change_the_packages(
    wheel: Path, environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wheel.exists()
    (tmp_path / "constraints.txt").write_text("greeting==2.0\n")
    for name in ("UV_CONSTRAINT", "UV_OVERRIDE", "PIP_CONSTRAINT"):
        monkeypatch.setenv(name, str(tmp_path / "constraints.txt"))
    python = environments.ensure("tiny").python
    assert subprocess.check_output([python, "-c", "import greeting"], text=True) == "hello\n"


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
    assert Installer(None, tmp_path).make_variables("", variables).get("PIP_CERT") == file


def test_pip_ignores_modules_in_the_current_folder(tmp_path: Path) -> None:
    below, current = tmp_path / "below", tmp_path / "current"
    for site_packages, text in ((layered_environment.get_site_packages(below), "right"), (current, "wrong")):
        (site_packages / "pip").mkdir(parents=True)
        (site_packages / "pip" / "__main__.py").write_text(f"print('{text}')")
    environment = Environment(tmp_path, below).extend(tmp_path / "above")
    result = subprocess.run([environment.bin / "pip"], cwd=current, capture_output=True, text=True, check=True)
    assert result.stdout == "right\n"


def test_wrong_package_hash_raises_and_leaves_no_environment(
    wheel: Path, environments: Environments, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more.py", "print('something else')")
    with pytest.raises(CannotRunError, match=r"(?is)cannot be made:.*hash.*docs/maintaining/building\.md"):
        environments.ensure("tiny")
    assert not any(path.is_dir() for path in (tmp_path / "environments").iterdir())


def test_error_of_the_installer_comes_first_in_the_reason(
    environments: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "seq 100; echo error: cannot install; echo '  cause: No space left on device'; exit 2"
    monkeypatch.setattr(Installer, "make_commands", lambda *_: [["/bin/sh", "-c", script]])
    with pytest.raises(
        CannotRunError,
        match=r"and printed\nerror: cannot install\n  cause: No space left on device\nPackages come from",
    ):
        environments.ensure("tiny")


def test_parallel_requests_make_an_environment_once(environments: Environments, wheel: Path) -> None:
    del wheel
    creation_times = set[float]()

    def request_environment() -> None:
        creation_times.add((environments.ensure("tiny").folder / "pyvenv.cfg").stat().st_mtime)

    threads = [threading.Thread(target=request_environment) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(creation_times) == 1


def test_incomplete_environment_is_made_again(environments: Environments, wheel: Path) -> None:
    del wheel
    environment = environments.ensure("tiny")
    (environment.folder / "complete").unlink()
    (environment.folder / "lib").rename(environment.folder / "half")
    assert get_names(environments.ensure("tiny").folder.iterdir()) >= {"lib", "complete"}
    assert not (environment.folder / "half").exists()


def test_incomplete_environment_is_removed_at_start(environments: Environments, wheel: Path) -> None:
    environment = environments.ensure("tiny")
    incomplete = environment.folder.with_name("tiny-cpu-incomplete")
    (incomplete / "lib").mkdir(parents=True)
    environments.clean()
    assert (wheel.exists(), environment.folder.exists(), incomplete.exists()) == (True, True, False)


def test_environment_that_is_being_made_is_not_removed_at_start(environments: Environments, wheel: Path) -> None:
    folder = environments.ensure("tiny").folder
    (folder / "complete").unlink()
    with hold_file_lock(folder.with_suffix(".lock")):
        environments.clean()
    assert (wheel.exists(), folder.exists()) == (True, True)


def test_changed_lock_file_makes_another_environment(
    environments: Environments, jobs_folder: Path, wheel: Path
) -> None:
    folder = environments.ensure("tiny").folder
    lock = jobs_folder / "tiny" / "cpu.lock"
    lock.write_text(lock.read_text().replace("--hash", "--hash=sha256:" + "0" * 64 + " \\\n    --hash"))
    assert wheel.exists()
    assert environments.ensure("tiny").folder != folder


def test_close_ends_installations(environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Installer, "make_commands", lambda *_: [["/bin/sh", "-c", "echo Downloading; sleep 600"]])
    errors: list[CannotRunError] = []

    def request_environment() -> None:
        with pytest.raises(CannotRunError) as caught:
            environments.ensure("tiny")
        errors.append(caught.value)

    thread = threading.Thread(target=request_environment)
    thread.start()
    while not list((tmp_path / "environments").glob("*/install.log")):
        thread.join(0.01)
    environments.close()
    thread.join(10)
    assert len(errors) == 1


def test_last_lock_has_priority() -> None:
    shared_lock = "one==1 \\\n    --hash=sha256:00\n    # via -r shared.in\n"
    own_lock = "# made by scripts/lock\ntwo[extra]==2 \\\n    --hash=sha256:00\none==1 \\\n    --hash=sha256:01\n"
    merged = re.findall(r"^(\S+)==.*\n.*:(\d+)", merge_locks(shared_lock, own_lock), re.MULTILINE)
    assert merged == [("one", "01"), ("two[extra]", "00")]


def test_old_environment_is_removed_at_start_if_its_lock_file_has_changed(
    environments: Environments, jobs_folder: Path, wheel: Path
) -> None:
    assert wheel.exists()
    old, lock = environments.ensure("tiny").folder, jobs_folder / "tiny" / "cpu.lock"
    os.utime(old / "complete", (0, time.time() - MAX_UNUSED_SECONDS - 1))
    environments.clean()
    assert old.exists()  # the lock file has no newer environment
    lock.write_text(lock.read_text().replace("--hash", "--hash=sha256:" + "0" * 64 + " \\\n    --hash"))
    new = environments.ensure("tiny").folder
    environments.clean()
    assert (old.exists(), new.exists()) == (False, True)


def test_environment_that_was_used_recently_is_kept(environments: Environments, jobs_folder: Path, wheel: Path) -> None:
    assert wheel.exists()
    old, lock = environments.ensure("tiny").folder, jobs_folder / "tiny" / "cpu.lock"
    os.utime(old / "complete", (0, 1.0))
    environments.ensure("tiny")
    lock.write_text(lock.read_text().replace("--hash", "--hash=sha256:" + "0" * 64 + " \\\n    --hash"))
    environments.ensure("tiny")
    environments.clean()
    assert old.exists()

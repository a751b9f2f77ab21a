"""Tests of `microjobs clean`: it lists items, asks, removes only the listed items, and fails while a server runs."""

import fcntl
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from microjobs_orchestrator import cleaning
from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local import home_lock
from microjobs_orchestrator.local.home import HOME_ENTRIES, HOME_VARIABLE, Home
from microjobs_orchestrator.local.state import State
from tests.conftest import make_image_name

OLD_RUN, NEW_RUN, UNFINISHED_RUN = "housing-20200101-000000", "housing-20200102-000000", "housing-20200103-000000"


class Terminal(io.StringIO):
    """A standard input that claims to be a terminal, and that contains an answer."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with an old run, a new run, and an old run with an unfinished job."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv(HOME_VARIABLE, str(home.root))
    home.create()
    home.credentials()
    state = State(home.state)
    for name in (OLD_RUN, NEW_RUN, UNFINISHED_RUN):
        log = f"logs/aws/sagemaker/TrainingJobs/{name}-train/algo-1"
        for path in (f"runs/{name}/report.html", f"s3/b/{name}/model", log):
            (home.root / path).parent.mkdir(parents=True)
            (home.root / path).write_text(name)
        journal = home.root / "runs" / f"{name}.json"
        journal.write_text("{}")
        if name != NEW_RUN:
            os.utime(journal, (0, 0))
        status = "InProgress" if name == UNFINISHED_RUN else "Completed"
        state.add("training-job", f"{name}-train", f"arn:{name}", status, {}, {}, tags=[{"Key": "k", "Value": "v"}])
    state.close()
    (home.buckets / "b" / "mine.csv").write_text("1,2")
    (home.environments / "serve-cpu-1" / "bin").mkdir(parents=True)
    return home


def find_runs(home: Home) -> set[str]:
    """Return the runs that have files or resources in a home."""
    paths = [path for path in home.root.rglob("*") if "housing-" in path.name]
    state = State(home.state)
    names_in_state = [name for name in (OLD_RUN, NEW_RUN, UNFINISHED_RUN) if state.get("training-job", f"{name}-train")]
    state.close()
    return {"-".join(path.name.removesuffix(".json").split("-")[:3]) for path in paths} | set(names_in_state)


def test_old_runs_are_removed_completely(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "runs", "--yes"]) == 0
    assert find_runs(home) == {NEW_RUN, UNFINISHED_RUN}
    assert (home.buckets / "b" / "mine.csv").exists()
    output = capsys.readouterr().out
    assert OLD_RUN in output
    assert NEW_RUN not in output


def test_deep_and_read_only_folders_are_removed(home: Home) -> None:
    output = home.buckets / "b" / OLD_RUN
    folder = os.open(output, os.O_DIRECTORY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=folder)
        inner_folder = os.open("deep", os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = inner_folder
    os.close(folder)
    (output / "closed").mkdir()
    (output / "closed" / "file").touch()
    (output / "closed").chmod(0o500)
    assert main(["clean", "runs", "--yes"]) == 0
    assert find_runs(home) == {NEW_RUN, UNFINISHED_RUN}


def test_older_than_selects_runs(home: Home) -> None:
    shutil.rmtree(home.root / "runs" / OLD_RUN)  # now this run has no report
    assert main(["clean", "runs", "--older-than", "0", "--yes"]) == 0
    assert find_runs(home) == {UNFINISHED_RUN}


@pytest.mark.parametrize("days", ["many", "-1", "inf", "nan", ""])
def test_invalid_age_is_refused(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["clean", "runs", "--older-than", days])
    assert error.value.code == 2
    assert f"{days!r} is not a number of days, such as 7 or 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code", "exists"),
    [("y\n", 0, False), ("Yes\n", 0, False), ("\n", 1, True), ("n\n", 1, True), ("yessir\n", 1, True)],
)
def test_clean_asks_before_it_removes(
    home: Home,
    answer: str,
    code: int,
    exists: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["clean", "environments"]) == code
    assert (home.environments / "serve-cpu-1").exists() == exists
    assert "Remove 8 KB? [y/N]" in capsys.readouterr().out


def test_clean_without_a_terminal_needs_yes(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["clean", "home"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert home.state.exists()


def test_summary_removes_nothing(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    paths = sorted(home.root.rglob("*"))
    assert main(["clean"]) == 0
    assert sorted(home.root.rglob("*")) == paths
    (runs,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("runs")]
    assert runs.split()[:2] == ["runs", "1"]
    assert runs.endswith("(older than 7 days)")  # the newer run and the unfinished run are not counted


def test_home_is_removed(home: Home) -> None:
    assert main(["clean", "home", "--yes"]) == 0
    assert not home.root.exists()


def test_other_files_are_not_removed(home: Home, tmp_path: Path) -> None:
    other_folder = tmp_path / "elsewhere"
    other_folder.mkdir()
    (other_folder / "thesis.tex").write_text("text")
    (home.buckets / "linked").symlink_to(other_folder)
    (home.root / "notes.txt").write_text("mine")
    assert main(["clean", "home", "--yes"]) == 0
    assert [path.name for path in home.root.iterdir()] == ["notes.txt"]
    assert (other_folder / "thesis.tex").exists()


def test_clean_does_not_follow_a_bucket_that_is_a_symlink(home: Home, tmp_path: Path) -> None:
    (tmp_path / "linked" / OLD_RUN).mkdir(parents=True)
    (home.buckets / "linked").symlink_to(tmp_path / "linked")
    assert main(["clean", "runs", "--yes"]) == 0
    assert (tmp_path / "linked" / OLD_RUN).exists()


def test_home_is_removed_without_an_engine(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert main(["clean", "images", "--yes"]) == 1
    assert "no Docker engine answers" in capsys.readouterr().err
    assert main(["clean", "images", "home", "--yes"]) == 0
    assert "no Docker engine answers" in capsys.readouterr().err
    assert not home.root.exists()


def test_clean_knows_all_paths_of_a_home(home: Home) -> None:
    paths = {value for name in dir(Home) if isinstance(value := getattr(home, name), Path)} - {home.root}
    assert {path.relative_to(home.root).parts[0] for path in paths} <= set(HOME_ENTRIES)


@pytest.mark.parametrize("word", ["runs", "environments", "home"])
def test_clean_fails_while_a_server_uses_the_home(home: Home, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with home.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["clean", word, "--yes", "--older-than", "0"]) == 2
    assert f"a server uses {home.root}: stop it with `microjobs local down`" in capsys.readouterr().err
    assert find_runs(home) == {OLD_RUN, NEW_RUN, UNFINISHED_RUN}
    assert any(home.environments.iterdir())


def test_no_server_starts_during_clean_of_a_home_without_a_lock_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_lock, "LOCK_TIMEOUT_SECONDS", 0.0)
    with cleaning.lock_home(home), pytest.raises(home_lock.HeldError), home_lock.hold(home):
        pass
    assert not home.lock.exists()
    with home_lock.hold(home):
        assert home_lock.find_holder(home) == os.getpid()


def test_server_that_waited_for_clean_creates_the_home_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    was_refused, try_lock = threading.Event(), home_lock._try_lock

    def try_lock_and_report(descriptor: int, lock_type: int) -> bool:
        is_locked = try_lock(descriptor, lock_type)
        if not is_locked:
            was_refused.set()
        return is_locked

    def start_server() -> int | None:
        with home_lock.hold(home):
            return home_lock.find_holder(home)

    monkeypatch.setattr(home_lock, "_try_lock", try_lock_and_report)
    monkeypatch.setattr(home_lock, "LOCK_TIMEOUT_SECONDS", 20.0)
    with ThreadPoolExecutor() as pool:
        with cleaning.lock_home(home):
            holder = pool.submit(start_server)
            assert was_refused.wait(20)
            for item in cleaning.list_home(home):
                item.remove()
        assert holder.result() == os.getpid()
    assert home.buckets.is_dir()


def test_lock_file_is_removed_after_all_other_files(home: Home) -> None:
    home.lock.write_text("1 1")
    *_, last_file, folder = cleaning.list_home(home)
    assert (last_file.title, folder.title) == (str(home.lock), str(home.root))


def test_folder_without_files_of_a_server_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    assert main(["clean", "home", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert list(tmp_path.iterdir()) == []


def test_failed_removal_is_reported_and_the_rest_is_removed(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remove = cleaning.remove_tree

    def remove_or_raise(path: Path) -> None:
        if path.name == "logs":
            raise PermissionError(13, "Permission denied", str(path))
        remove(path)

    monkeypatch.setattr(cleaning, "remove_tree", remove_or_raise)
    assert main(["clean", "home", "--yes"]) == 1
    output = capsys.readouterr()
    assert f"Permission denied: '{home.logs}'" in output.err
    assert (match := re.search(r"^removed (\d+) of (\d+)$", output.out, re.MULTILINE))
    assert int(match[2]) - int(match[1]) == 1
    assert [path.name for path in home.root.iterdir()] == ["logs"]


def test_missing_home_has_nothing_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "none"))
    assert main(["clean", "home", "runs", "environments", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert list(tmp_path.iterdir()) == []


def test_size_counts_hard_links_once_and_follows_no_links(tmp_path: Path) -> None:
    folder, other_folder = tmp_path / "folder", tmp_path / "other"
    for path in (folder, other_folder):
        path.mkdir()
        (path / "a").write_bytes(b"x" * 100_000)
    size = cleaning.measure_bytes(folder)
    (folder / "b").hardlink_to(folder / "a")
    (folder / "c").symlink_to(other_folder)
    assert cleaning.measure_bytes(folder) - size < 50_000


@pytest.mark.engine
def test_images_of_jobs_are_removed_by_tag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    registry = f"microjobs-test-{uuid.uuid4().hex[:8]}"
    job_image, other_image = f"{registry}/serve:dev", f"{registry}/other:dev"
    for name in (job_image, other_image):
        subprocess.run(["docker", "tag", make_image_name("serve"), name], check=True)
    monkeypatch.setenv("REGISTRY", registry)
    try:
        assert main(["clean", "images", "--yes"]) == 0
        result = subprocess.run(
            ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"], capture_output=True, text=True, check=True
        )
        assert job_image not in result.stdout.splitlines()
        assert other_image in result.stdout.splitlines()
    finally:
        subprocess.run(["docker", "rmi", other_image], capture_output=True, check=True)
    assert job_image in capsys.readouterr().out

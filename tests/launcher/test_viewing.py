"""Commands that only read use the files of a home: they create no file, start no server, and import little."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.home import HOME, Home
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.runs.backend_view import BackendView
from microjobs_orchestrator.runs.home_view import HomeView
from microjobs_orchestrator.runs.kinds import ENDPOINT, KINDS, PROCESSING, TRAINING, Kind
from microjobs_orchestrator.runs.view import Filter, View
from tests.launcher.cloud import Cloud

HEAVY = ("asyncio", "boto3", "botocore", "docker", "numpy", "optuna", "requests", "rich", "urllib.request")
"""Imports that take longer than the command itself."""

ROWS: tuple[tuple[Kind, str, str, dict[str, str]], ...] = (
    (PROCESSING, "raw", "Completed", {}),
    (TRAINING, "spot", "InProgress", {"SecondaryStatus": "Interrupted"}),
    (TRAINING, "first", "Failed", {"SecondaryStatus": "MaxRuntimeExceeded"}),
    (TRAINING, "second", "Completed", {"SecondaryStatus": "Completed"}),
    (ENDPOINT, "up", "InService", {}),
    (ENDPOINT, "broken", "Failed", {}),
)
"""Oldest first."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home without a server."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    home.make()
    state = State(home.state)
    for kind, name, status, members in ROWS:
        state.add(kind.arn_type, name, f"arn:{name}", status, {}, {kind.status_member: status, **members})
    state.close()
    return home


@pytest.fixture(params=["home", "place"])
def view(request: pytest.FixtureRequest, home: Home, cloud: Cloud) -> View:
    if request.param == "home":
        return HomeView(home)
    for kind, name, status, members in ROWS:
        thing = {kind.name_member: name, kind.status_member: status, "CreationTime": cloud._now(), **members}
        cloud.resources[kind.noun, name] = thing
    return BackendView(cloud.backend(), "memory")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Filter(), ["broken", "up", "second", "first", "spot", "raw"]),
        (Filter(limit=2), ["broken", "up"]),
        (Filter(kinds=(TRAINING,)), ["second", "first", "spot"]),
        (Filter(name="o"), ["broken", "second", "spot"]),
        (Filter(name="zzz"), []),
        (Filter(status="Failed"), ["broken", "first"]),
        (Filter(status="Interrupted"), ["spot"]),
        (Filter(status="InService"), ["up"]),
        (Filter(running=True), ["up", "spot"]),
        (Filter(running=True, limit=1), ["up"]),
        (Filter(kinds=(TRAINING,), running=True, limit=1), ["spot"]),
    ],
)
def test_filters_apply_before_the_limit(view: View, wanted: Filter, names: list[str]) -> None:
    assert [row.name for row in view.newest(wanted)] == names


def test_both_statuses_are_shown_if_they_differ(view: View) -> None:
    shown = {row.name: row.full_status for row in view.newest(Filter(kinds=(TRAINING,)))}
    assert shown["spot"] == "InProgress: Interrupted"
    assert shown["second"] == "Completed"


def test_statuses_match_the_api() -> None:
    model: Any = get_session().get_service_model("sagemaker")
    assert {kind.title: set(model.shape_for(kind.status_member).enum) for kind in KINDS} == {
        kind.title: set(kind.statuses) for kind in KINDS
    }
    assert set(model.shape_for("SecondaryStatus").enum) - set(TRAINING.statuses) == set(TRAINING.life.secondary)


def test_log_of_all_hosts_is_read_from_the_files(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    store = LogStore(home.logs)
    for host, when in (("algo-2", 2.0), ("algo-1", 1.0)):
        store.create(TRAINING.log_group(""), f"first/{host}-1763778749000").append(when, f"line of {host}".encode())
    store.create(TRAINING.log_group(""), "first-of-another/algo-1-1763778749000").append(1.5, b"not this")
    assert main(["logs", "--follow", "first"]) == 0
    assert capsys.readouterr().out == "algo-1  line of algo-1\nalgo-2  line of algo-2\n"


def test_following_ends_without_a_server(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    LogStore(home.logs).create(TRAINING.log_group(""), "spot/algo-1-1763778749000").append(1.0, b"step 1")
    assert main(["logs", "-f", "spot"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "algo-1  step 1\n"
    assert f"no server runs for {home.root}" in captured.err


def test_log_ends_with_the_reason_of_a_failed_job(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    state = State(home.state)
    members = {"TrainingJobStatus": "Failed", "FailureReason": "ClientError: no data\x1b[2J"}
    state.add("training-job", "without-data", "arn:1", "Failed", {}, members)
    state.close()
    assert main(["logs", "without-data"]) == 0
    assert capsys.readouterr() == ("", "microjobs: training without-data is Failed: ClientError: no data\n")


@pytest.mark.usefixtures("home")
def test_case_of_status_is_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--status", "interrupted", "--kind", "training"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["training", "spot", "InProgress:", "Interrupted"]
    assert main(["ps", "--status", "Exploded"]) == 2
    assert "no job or endpoint can have status 'Exploded': choose one of Completed, " in capsys.readouterr().err


def listing(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


READING = (("ps",), ("ps", "--running"), ("logs", "first"), ("logs", "nothing"), ("stop", "nothing"), ("stop", "raw"))


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_changes_nothing_in_a_home(home: Home, words: tuple[str, ...]) -> None:
    before = listing(home.root)
    main(words)
    assert listing(home.root) == before


@pytest.mark.parametrize(
    "words",
    [
        *READING,
        ("stop", "--run", "housing-1"),
        ("interrupt", "first"),
        *(("local", verb) for verb in ("status", "env", "down")),
    ],
    ids=" ".join,
)
def test_command_in_another_folder_names_it_and_creates_nothing(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(HOME, raising=False)
    monkeypatch.chdir(tmp_path)
    code = main(words)
    captured = capsys.readouterr()
    assert str(tmp_path / ".microjobs") in captured.out + captured.err
    assert code == 0 if words in (("ps",), ("ps", "--running"), ("local", "down")) else code in (1, 2)
    assert list(tmp_path.iterdir()) == []


def test_home_without_jobs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    home.make()
    State(home.state).close()
    assert main(["ps"]) == 0
    assert f"{home.root} has no jobs" in capsys.readouterr().err


def test_state_of_a_killed_server_is_read(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import os; from pathlib import Path; from microjobs_orchestrator.local.state import State;"
        f"state = State(Path({str(home.state)!r}));"
        "state.add('training-job', 'last', 'arn:last', 'InProgress', {}, {'SecondaryStatus': 'Uploading'}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert home.state.with_name("state.db-wal").stat().st_size > 0
    assert main(["ps"]) == 0
    assert "InProgress: Uploading" in capsys.readouterr().out


def test_damaged_state_is_reported(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.state.write_bytes(b"no database" * 1000)
    assert main(["ps"]) == 1
    assert f"{home.state} cannot be read (file is not a database)" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [("ps",), ("ps", "--status", "failed"), ("logs", "first")], ids=" ".join)
def test_reading_imports_no_client_libraries(words: tuple[str, ...]) -> None:
    program = f"import sys; from microjobs_orchestrator.cli import main; main({words!r}); print([*sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = answer.stdout.splitlines()[-1]
    assert [name for name in HEAVY if f"'{name}'" in modules] == []


@pytest.mark.parametrize(
    "damage",
    [
        "description = '{\"a\": '",
        "description = CAST(x'ff' AS TEXT)",
        "name = CAST(x'ff' AS TEXT), description = '['",
        "created = 1e300",
        "created = 'x'",
    ],
)
def test_damaged_row_hides_no_other(home: Home, damage: str) -> None:
    with closing(sqlite3.connect(home.state)) as database, database:
        database.execute(f"UPDATE resources SET {damage} WHERE name = 'first'")  # noqa: S608  a constant
    assert [row.name for row in HomeView(home).newest(Filter())] == ["broken", "up", "second", "spot", "raw"]
    with pytest.raises(UsageError, match="no job or endpoint"):
        HomeView(home).find("no-such")

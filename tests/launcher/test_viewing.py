"""Tests of read-only commands: they read a home's files, create no file, start no server, and import no slow module."""

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
from microjobs_orchestrator.local.home import HOME_VARIABLE, Home
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.runs.backend_view import BackendView
from microjobs_orchestrator.runs.home_view import HomeView
from microjobs_orchestrator.runs.kinds import ENDPOINT, KINDS, PROCESSING, TRAINING, Kind
from microjobs_orchestrator.runs.view import Filter, View
from tests.launcher.cloud import Cloud
from tests.local.log_lines import append_line

SLOW_IMPORTS = ("asyncio", "boto3", "botocore", "docker", "numpy", "optuna", "requests", "rich", "urllib.request")
"""Modules whose import takes longer than a whole read-only command without them."""

RESOURCES: tuple[tuple[Kind, str, str, dict[str, str]], ...] = (
    (PROCESSING, "raw", "Completed", {}),
    (TRAINING, "spot", "InProgress", {"SecondaryStatus": "Interrupted"}),
    (TRAINING, "first", "Failed", {"SecondaryStatus": "MaxRuntimeExceeded"}),
    (TRAINING, "second", "Completed", {"SecondaryStatus": "Completed"}),
    (ENDPOINT, "up", "InService", {}),
    (ENDPOINT, "broken", "Failed", {}),
)
"""Kind, name, status and other members of each resource in the tests, oldest first."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with the resources in RESOURCES. No server runs for it."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    home.create()
    state = State(home.state)
    for kind, name, status, members in RESOURCES:
        state.add(kind.arn_type, name, f"arn:{name}", status, {}, {kind.status_member: status, **members})
    state.close()
    return home


@pytest.fixture(params=["home", "backend"])
def view(request: pytest.FixtureRequest, home: Home, cloud: Cloud) -> View:
    if request.param == "home":
        return HomeView(home)
    for kind, name, status, members in RESOURCES:
        resource = {
            kind.name_member: name,
            kind.status_member: status,
            "CreationTime": cloud.make_creation_time(),
            **members,
        }
        cloud.resources[kind.noun, name] = resource
    return BackendView(cloud.make_backend(), "memory")


@pytest.mark.parametrize(
    ("row_filter", "names"),
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
def test_filters_apply_before_the_limit(view: View, row_filter: Filter, names: list[str]) -> None:
    assert [row.name for row in view.list_newest(row_filter)] == names


def test_both_statuses_are_shown_if_they_differ(view: View) -> None:
    statuses = {row.name: row.full_status for row in view.list_newest(Filter(kinds=(TRAINING,)))}
    assert statuses["spot"] == "InProgress: Interrupted"
    assert statuses["second"] == "Completed"


def test_statuses_match_the_api() -> None:
    model: Any = get_session().get_service_model("sagemaker")
    for kind in KINDS:
        description = model.operation_model(kind.operations["Describe"]).output_shape
        assert set(description.members[kind.status_member].enum) == set(kind.lifecycle.statuses), kind.title
    assert set(model.shape_for("SecondaryStatus").enum) - set(TRAINING.lifecycle.statuses) == set(
        TRAINING.lifecycle.secondary_statuses
    )


def test_log_of_all_hosts_is_read_from_the_files(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    store = LogStore(home.logs)
    for host, timestamp in (("algo-2", 2.0), ("algo-1", 1.0)):
        stream = store.create(TRAINING.log_group(""), f"first/{host}-1763778749000")
        append_line(stream, timestamp, f"line of {host}".encode())
    other_stream = store.create(TRAINING.log_group(""), "first-of-another/algo-1-1763778749000")
    append_line(other_stream, 1.5, b"line of another job")
    assert main(["logs", "--follow", "first"]) == 0
    assert capsys.readouterr().out == "algo-1  line of algo-1\nalgo-2  line of algo-2\n"


def test_follow_ends_if_no_server_runs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    append_line(LogStore(home.logs).create(TRAINING.log_group(""), "spot/algo-1-1763778749000"), 1.0, b"step 1")
    assert main(["logs", "-f", "spot"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "algo-1  step 1\n"
    assert f"no server runs for {home.root}" in captured.err


def test_logs_print_the_failure_reason_of_a_job(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
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


def read_modification_times(root: Path) -> dict[str, int]:
    """Return the modification time of each path below a folder, in nanoseconds."""
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


COMMANDS_WITHOUT_EFFECT = (
    ("ps",),
    ("ps", "--running"),
    ("logs", "first"),
    ("logs", "nothing"),
    ("stop", "nothing"),
    ("stop", "raw"),
)
"""Commands that only read, and commands that stop a job which does not exist or has ended."""


@pytest.mark.parametrize("arguments", COMMANDS_WITHOUT_EFFECT, ids=" ".join)
def test_commands_without_effect_change_no_file_of_a_home(home: Home, arguments: tuple[str, ...]) -> None:
    times_before = read_modification_times(home.root)
    main(arguments)
    assert read_modification_times(home.root) == times_before


@pytest.mark.parametrize(
    "arguments",
    [
        *COMMANDS_WITHOUT_EFFECT,
        ("stop", "--run", "housing-1"),
        ("interrupt", "first"),
        *(("local", verb) for verb in ("status", "env", "down")),
    ],
    ids=" ".join,
)
def test_commands_without_a_home_print_its_path_and_create_no_file(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    exit_code = main(arguments)
    captured = capsys.readouterr()
    assert str(tmp_path / ".microjobs") in captured.out + captured.err
    expected_codes = (0,) if arguments in (("ps",), ("ps", "--running"), ("local", "down")) else (1, 2)
    assert exit_code in expected_codes
    assert list(tmp_path.iterdir()) == []


def test_ps_prints_the_path_of_a_home_without_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    home.create()
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
@pytest.mark.parametrize("arguments", [("ps",), ("ps", "--status", "failed"), ("logs", "first")], ids=" ".join)
def test_read_only_commands_import_no_slow_module(arguments: tuple[str, ...]) -> None:
    program = f"import sys; from microjobs_orchestrator.cli import main; main({arguments!r}); print([*sys.modules])"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = process.stdout.splitlines()[-1]
    assert [name for name in SLOW_IMPORTS if f"'{name}'" in modules] == []


@pytest.mark.parametrize(
    "assignment",
    [
        "description = '{\"a\": '",
        "description = CAST(x'ff' AS TEXT)",
        "name = CAST(x'ff' AS TEXT), description = '['",
        "created = 1e300",
        "created = 'x'",
    ],
)
def test_damaged_row_does_not_hide_other_rows(home: Home, assignment: str) -> None:
    with closing(sqlite3.connect(home.state)) as database, database:
        database.execute(f"UPDATE resources SET {assignment} WHERE name = 'first'")  # noqa: S608  constants
    assert [row.name for row in HomeView(home).list_newest(Filter())] == ["broken", "up", "second", "spot", "raw"]
    with pytest.raises(UsageError, match="no job or endpoint"):
        HomeView(home).find("no-such")

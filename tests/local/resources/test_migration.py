"""A home that an older server wrote: its state is migrated completely, and a new server resumes its jobs.

`home_version_1.sql` is the state of a server of commit 2daa2d7 that was killed while jobs of all kinds ran.
"""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.resources.operations import get_runnable_makers_by_kind, load_operations
from microjobs_orchestrator.local.schema import INTERNAL_MEMBERS, NewerStateError
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.state import Owner, Query, State
from microjobs_orchestrator.runs.home_view import HomeView
from microjobs_orchestrator.runs.view import Filter
from tests.conftest import REPOSITORY
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeRuntime, ImageBehaviour
from tests.polling import wait_until

DUMP = Path(__file__).with_name("home_version_1.sql").read_text()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    new_home = Home(tmp_path / "home")
    new_home.create()
    with closing(sqlite3.connect(new_home.state)) as database:
        database.executescript(DUMP)
    return new_home


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return all resources of a state, without opening it as a State."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM resources ORDER BY kind, name")]


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_migrated_state_keeps_all_values(home: Home) -> None:
    old_rows = read_rows(home.state)
    State(home.state).close()
    new_rows = read_rows(home.state)
    for name in ("kind", "name", "arn", "status", "created", "modified", "request"):
        assert [row[name] for row in new_rows] == [row[name] for row in old_rows]
    for before, after in zip(old_rows, new_rows, strict=True):
        description, internal = json.loads(after["description"]), json.loads(after["internal"])
        assert {**description, **internal} == json.loads(before["description"])
        assert description.keys().isdisjoint(INTERNAL_MEMBERS.get(after["kind"], ()))
    assert {name for row in new_rows for name in json.loads(row["internal"])} == {
        *("CreationMoment", "StartMoment", "Attempts", "Deployment", "NextDeployment", "QueueMoment")
    }


def test_migrated_resources_have_owners_and_tags(home: Home) -> None:
    state = State(home.state)
    query = Query("training-job", owner=Owner("hyper-parameter-tuning-job", "tuned"))
    assert [record.name[:9] for record in state.find(query)] == ["tuned-002", "tuned-001"]
    assert len(state.find(Query("async-invocation", owner=Owner("endpoint", "queue")))) == 3
    record = state.get("training-job", "trained")
    assert record is not None
    assert state.get_by_arn(record.arn) == record
    assert state.tags(record.arn) == [{"Key": "k", "Value": "v"}, {"Key": "team", "Value": "é"}]
    state.close()


def test_killed_migration_is_repeated(home: Home) -> None:
    dump_before = dump(home.state)
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom microjobs_orchestrator.local import schema, state\n"
        "split = schema._split_description\n"
        "def kill(kind, text):\n    return os._exit(9) if kind == 'training-job' else split(kind, text)\n"
        "schema._split_description = kill\nstate.State(Path(sys.argv[1]))"
    )
    process = subprocess.run([sys.executable, "-c", program, home.state], cwd=REPOSITORY, check=False)
    assert process.returncode == 9
    assert dump(home.state) == dump_before
    state = State(home.state)
    assert len(state.find(Query("training-job", limit=100))) == 9
    state.close()


def test_damaged_rows_are_moved_unchanged_to_the_table_broken(home: Home) -> None:
    with closing(sqlite3.connect(home.state)) as database, database:
        # Rows that were moved earlier must stay in the table.
        database.execute("INSERT INTO broken SELECT * FROM resources WHERE name = 'failed'")
        database.execute("UPDATE resources SET description = '{\"a\": ' WHERE name = 'trained'")
        database.execute("UPDATE resources SET description = CAST(x'7bff' AS TEXT) WHERE name = 'to-stop'")
    state = State(home.state)
    names = [record.name for record in state.find(Query("training-job", limit=100))]
    assert {"trained", "to-stop"}.isdisjoint(names)
    assert len(names) == 7
    state.close()
    with closing(sqlite3.connect(home.state)) as database:
        broken = database.execute("SELECT name, CAST(description AS BLOB) FROM broken ORDER BY name").fetchall()
    assert [name for name, _ in broken] == ["failed", "to-stop", "trained"]
    assert broken[1][1] == b"{\xff"


def test_state_of_a_newer_server_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    State(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerStateError, match="later version"):
        State(path)


def test_commands_that_only_read_accept_an_old_home(home: Home) -> None:
    dump_before = dump(home.state)
    view = HomeView(home)
    statuses = {row.name: row.status for row in view.list_newest(Filter(limit=100))}
    assert (len(statuses), statuses["trained"], statuses["spot"], statuses["e"]) == (
        18,
        "Completed",
        "InProgress",
        "InService",
    )
    assert view.find("tuned")[1]["HyperParameterTuningJobStatus"] == "Completed"
    assert dump(home.state) == dump_before


@pytest.fixture
def server(home: Home) -> Iterator[ServerParts]:
    """A new server on the home of the older server, whose hosts are lost."""
    home.credentials()
    (home.buckets / "bucket" / "in").mkdir(parents=True)
    (home.buckets / "bucket" / "in" / "a").write_text("1,2\n")
    runtime = FakeRuntime()
    runtime.behaviours |= {"slow": ImageBehaviour(), "forever": ImageBehaviour()}  # images of resources in the old home
    parts = ServerParts.from_home(home, runtime)
    parts.registry.recover(get_runnable_makers_by_kind(load_operations(parts.context, parts.registry)))
    yield parts
    parts.close()
    runtime.close()


def test_server_resumes_jobs_of_an_old_home(server: ServerParts) -> None:
    def read_status(kind: str, name: str) -> str:
        record = server.context.state.get(kind, name)
        return record.status if record else ""

    for name in ("e", "queue", "broken"):
        wait_until(lambda name=name: read_status("endpoint", name) == "InService")  # type: ignore[misc]
    wait_until(lambda: read_status("transform-job", "transforming") == "Completed")
    wait_until(lambda: len(list(server.context.store.list("bucket", "answers/"))) == 3)
    assert server.context.state.find(Query("async-invocation", limit=10)) == []
    wait_until(lambda: read_status("training-job", "training") == "Failed")
    wait_until(lambda: read_status("processing-job", "processing") == "Failed")
    operations = SageMaker(server.context, load_operations(server.context, server.registry)).list_handlers()
    description = operations["DescribeTrainingJob"]({"TrainingJobName": "training"})
    assert "the local server ended while the job ran" in description["FailureReason"]
    trials = operations["ListTrainingJobsForHyperParameterTuningJob"]({"HyperParameterTuningJobName": "tuning"})
    assert {job["TuningJobName"] for job in trials["TrainingJobSummaries"]} == {"tuning"}
    assert operations["DescribeEndpoint"]({"EndpointName": "e"})["EndpointConfigName"] == "c"
    with suppress(ValidationError):  # the job may have failed already, because its trials were lost
        operations["StopHyperParameterTuningJob"]({"HyperParameterTuningJobName": "tuning"})
    wait_until(lambda: read_status("hyper-parameter-tuning-job", "tuning") in ("Stopped", "Failed"))

"""Tests of servers that start with a damaged home: they skip or remove the damaged parts, or mark them as failed."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.processing import job as processing
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.training import job as training
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.transform.job import TransformJob
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.s3.uploads import Uploads
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.runs.journal import Journal, find_last_unfinished
from tests.local.jobs.conftest import ServerParts, make_transform_request
from tests.polling import wait_until

MAKERS_BY_KIND: Mapping[str, Any] = {
    PROCESSING_JOB.arn_type: processing.ProcessingJob,
    TRAINING_JOB.arn_type: training.TrainingJob,
    TRANSFORM_JOB.arn_type: TransformJob,
    ENDPOINT.arn_type: Endpoint,
}


def read_status_and_reason(parts: ServerParts, kind: str, name: str) -> tuple[str, str]:
    record = parts.context.state.get(kind, name)
    assert record is not None
    return record.status, str(record.description.get("FailureReason", ""))


@pytest.mark.parametrize(
    ("kind", "request_", "description"),
    [
        (TRAINING_JOB.arn_type, {}, {}),
        (TRAINING_JOB.arn_type, {"AlgorithmSpecification": {}}, {"SecondaryStatusTransitions": None}),
        (TRAINING_JOB.arn_type, {"AlgorithmSpecification": 5}, {"SecondaryStatusTransitions": []}),
        (PROCESSING_JOB.arn_type, {}, {"ProcessingStartTime": "yesterday"}),
        (TRANSFORM_JOB.arn_type, {}, {}),
        (ENDPOINT.arn_type, {}, {}),
    ],
)
def test_malformed_record_fails_and_the_others_are_resumed(
    parts: ServerParts, kind: str, request_: dict[str, Any], description: dict[str, Any]
) -> None:
    first_status = "Creating" if kind == ENDPOINT.arn_type else "InProgress"
    parts.context.state.add(kind, "bad", "arn:bad", first_status, request_, description)
    parts.make_model()
    parts.put("in/a", b"x")
    parts.transform_jobs.add(make_transform_request())  # the job is stored, but not started
    registry = Registry(parts.context)
    registry.recover(MAKERS_BY_KIND)
    wait_until(lambda: read_status_and_reason(parts, kind, "bad")[0] == "Failed")
    assert read_status_and_reason(parts, kind, "bad")[1].startswith("InternalServerError: ")
    wait_until(lambda: read_status_and_reason(parts, TRANSFORM_JOB.arn_type, "t")[0] == "Completed")
    registry.shut_down()


def make_users_folder(folder: Path) -> Path:
    """Create a folder with ten files outside of the server's folders. The caller links to it from `folder`."""
    users_folder = folder.parent.parent / f"linked from {folder.name}"
    users_folder.mkdir()
    # the folder has several files, because a removal that follows the link may stop after some of them
    for number in range(10):
        (users_folder / str(number)).touch()
    return users_folder


def check_users_folder(folder: Path) -> None:
    """Check that the removal of the link in `folder` has removed no file of the user's folder."""
    assert len(list((folder.parent.parent / f"linked from {folder.name}").iterdir())) == 10


def create_unexpected_files(folder: Path) -> None:
    """Create files that a server does not expect in `folder`, which is one of the server's folders."""
    (folder / "training-job-file").write_text("a file")
    (folder / "training-job-link").symlink_to(make_users_folder(folder))
    (folder / "training-job-loop").symlink_to("training-job-loop")
    os.mkfifo(folder / "training-job-pipe")
    (folder / "not utf8-\udcff").mkdir()
    (folder / "process").mkdir()
    (folder / "process" / "file").touch()
    deep_folder = folder / "processing-job-deep"
    deep_folder.mkdir()
    folder_descriptor = os.open(deep_folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder_descriptor)
        child_descriptor = os.open("d", os.O_RDONLY, dir_fd=folder_descriptor)
        os.close(folder_descriptor)
        folder_descriptor = child_descriptor
    os.close(folder_descriptor)


def test_unknown_files_in_the_work_folder_are_removed(parts: ServerParts) -> None:
    create_unexpected_files(parts.home.work)
    Registry(parts.context).recover({})
    # The process runtime's folder remains: it is not the work folder of a job.
    assert [path.name for path in parts.home.work.iterdir()] == ["process"]
    check_users_folder(parts.home.work)


def test_server_starts_although_a_plan_cannot_be_removed(parts: ServerParts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(plan_name: str) -> None:
        raise OSError(f"{plan_name} cannot be removed")

    hosts: dict[str, list[Host]] = {"training-job/half": [], "training-job/left": [object()]}  # type: ignore[list-item]
    monkeypatch.setattr(parts.runtime, "find_hosts", lambda: hosts)
    monkeypatch.setattr(parts.runtime, "remove", fail)
    (parts.home.work / "training-job-old").mkdir()
    Registry(parts.context).recover({})
    assert list(parts.home.work.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff", '{"steps": 5}', "[" * 100_000])
def test_damaged_run_is_skipped(tmp_path: Path, content: str) -> None:
    Journal(tmp_path / "w-1.json", id="w-1", workflow="w", options={}).save()
    (tmp_path / "w-2.json").write_text(content, encoding="latin-1")
    (tmp_path / "w-3.json").mkdir()
    assert find_last_unfinished(tmp_path, "w").name == "w-1.json"


def test_nan_in_a_stored_description_is_removed(parts: ServerParts) -> None:
    """Older servers could store NaN."""
    parts.context.state.add(TRAINING_JOB.arn_type, "done", "arn:done", "Completed", {}, {"FinalMetricDataList": []})
    metric = '{"FinalMetricDataList": [{"MetricName": "loss", "Value": NaN, "Timestamp": 1.5}]}'
    with closing(sqlite3.connect(parts.home.state)) as database, database:
        database.execute("UPDATE resources SET description = ?", (metric,))
    with closing(State(parts.home.state)) as state:
        record = state.get(TRAINING_JOB.arn_type, "done")
    assert record is not None
    assert record.description == {"FinalMetricDataList": []}


def test_unknown_files_in_the_folders_of_uploads_are_removed(parts: ServerParts) -> None:
    Uploads(parts.context.store)  # creates the folder `uploads`
    folders = [path for path in parts.home.objects.iterdir() if path.is_dir()]
    assert {folder.name for folder in folders} == {"incoming", "uploads"}
    for folder in folders:
        create_unexpected_files(folder)
    with closing(ObjectStore(parts.home)) as store:
        Uploads(store)  # removes files that belong to no upload
    assert [list(folder.iterdir()) for folder in folders] == [[]] * len(folders)
    for folder in folders:
        check_users_folder(folder)

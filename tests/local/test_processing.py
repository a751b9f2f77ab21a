"""Tests of processing jobs: a boto3 client sends requests to a server that runs containers."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from tests.conftest import make_image_name
from tests.local.clients import LocalServer, make_processing_input, make_processing_output, run_server
from tests.packages import WHEEL_NAME, run_package_index
from tests.polling import wait_until

pytestmark = pytest.mark.engine

LAYOUT = Layout()
INPUT_PATH, OUTPUT_PATH = str(LAYOUT.processing("input")), str(LAYOUT.processing("output"))


def make_output_config(server: LocalServer, prefix: str, **options: Any) -> dict[str, Any]:
    return {
        "ProcessingOutputConfig": {
            "Outputs": [make_processing_output("out", server.uri(prefix), OUTPUT_PATH, **options)]
        }
    }


def read_files(server: LocalServer, prefix: str) -> dict[str, str]:
    folder = server.bucket / prefix
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_hosts_get_shards_and_their_outputs_are_merged(server: LocalServer) -> None:
    server.put({f"raw/{number}": f"{number}" for number in range(4)})
    job = server.process(
        f"for f in {INPUT_PATH}/*; do cp $f {OUTPUT_PATH}/$(basename $f); done; hostname > {OUTPUT_PATH}/clash",
        instances=4,
        ProcessingInputs=[make_processing_input("raw", server.uri("raw"), INPUT_PATH, "ShardedByS3Key")],
        **make_output_config(server, "merged"),
    )
    assert job["ProcessingJobStatus"] == "Completed"
    assert read_files(server, "merged") == {"0": "0", "1": "1", "2": "2", "3": "3", "clash": "algo-1\n"}
    notes = [
        line for line in server.read_logs("ProcessingJobs", job["ProcessingJobName"])["algo-1"] if "[microjobs]" in line
    ]
    assert len(notes) == 3  # one per host whose file `clash` was not stored


def test_job_reads_its_request_and_hosts(server: LocalServer) -> None:
    job = server.process(
        f"cd {LAYOUT.processing_config}; cat processingjobconfig.json; echo; cat resourceconfig.json",
        Environment={"COLOUR": "blue"},
    )
    request, resources = server.read_logs("ProcessingJobs", job["ProcessingJobName"])["algo-1"]
    assert json.loads(request)["ProcessingJobArn"] == job["ProcessingJobArn"]
    assert json.loads(request)["Environment"] == {"COLOUR": "blue"}
    assert json.loads(resources) == {"current_host": "algo-1", "hosts": ["algo-1"]}


def test_input_is_a_folder_with_all_objects_of_its_key_prefix(server: LocalServer) -> None:
    server.put({"one/model.tar.gz": "m", "one/model.tar.gz.bak": "b"})
    job = server.process(
        f"ls {INPUT_PATH}", ProcessingInputs=[make_processing_input("one", server.uri("one/model.tar.gz"), INPUT_PATH)]
    )
    # S3Uri is a key prefix, as on AWS, so it also matches the other object.
    assert server.read_logs("ProcessingJobs", job["ProcessingJobName"])["algo-1"] == [
        "model.tar.gz",
        "model.tar.gz.bak",
    ]


def test_exit_message_and_failure_reason_are_described(server: LocalServer) -> None:
    job = server.process(
        f"printf 'no rows' > {LAYOUT.message}; echo 'empty input' > {LAYOUT.failure}; exit 2",
        **make_output_config(server, "none"),
    )
    assert (job["ProcessingJobStatus"], job["ExitMessage"]) == ("Failed", "no rows")
    assert job["FailureReason"] == "AlgorithmError: empty input, exit code: 2"


def test_failed_job_leaves_no_output(server: LocalServer) -> None:
    server.process(f"echo half > {OUTPUT_PATH}/half; exit 1", **make_output_config(server, "half"))
    assert read_files(server, "half") == {}


def test_exit_message_with_invalid_utf8_fails_the_job(server: LocalServer) -> None:
    job = server.process(f"printf '\\377' > {LAYOUT.message}")
    assert job["FailureReason"].startswith("ClientError: the exit message is not UTF-8")


def test_continuous_output_appears_while_the_job_runs(server: LocalServer) -> None:
    name = server.start_processing(
        f"trap 'echo late > {OUTPUT_PATH}/last; exit 0' TERM; echo 1 > {OUTPUT_PATH}/first; "
        "while :; do sleep 0.1; done",
        **make_output_config(server, "continuous", mode="Continuous"),
    )
    wait_until(lambda: read_files(server, "continuous"), lambda files: files == {"first": "1\n"})
    assert server.sagemaker.describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"] == "InProgress"
    server.sagemaker.stop_processing_job(ProcessingJobName=name)
    server.sagemaker.get_waiter("processing_job_completed_or_stopped").wait(
        ProcessingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    assert read_files(server, "continuous") == {"first": "1\n", "last": "late\n"}


def test_missing_input_fails_the_job(server: LocalServer) -> None:
    job = server.process("true", ProcessingInputs=[make_processing_input("x", server.uri("not-there/"), INPUT_PATH)])
    assert "No S3 objects found under S3 URL" in job["FailureReason"]


def test_failure_reason_explains_that_pip_is_missing(server: LocalServer) -> None:
    """FrameworkProcessor of the SDK runs such a command for a script with requirements."""
    application = {
        "ImageUri": make_image_name("batch-score"),
        "ContainerEntrypoint": ["/bin/bash", "-c"],
        "ContainerArguments": ["set -e; pip uninstall --yes typing; pip install -r requirements.txt"],
    }
    job = server.process("", AppSpecification=application)
    assert "image batch-score has no pip, so requirements of your script cannot be installed" in job["FailureReason"]


def test_jobs_share_a_cache_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    application = {
        "ImageUri": make_image_name("preprocess"),
        "ContainerEntrypoint": ["/bin/sh", "-c"],
        "ContainerArguments": ["pip install tiny && python3 -c 'import tiny'"],
    }
    with run_package_index(tmp_path) as index:
        monkeypatch.setenv("INDEX_URL", index.url)
        with run_server(tmp_path / "home", runtime="docker") as server:
            first_job = server.process("", AppSpecification=application)
            index.is_down = True
            second_job = server.process("", AppSpecification=application)
    assert [job["ProcessingJobStatus"] for job in (first_job, second_job)] == ["Completed", "Completed"], (
        first_job,
        second_job,
    )
    assert sorted(index.requested_paths) == [f"/files/{WHEEL_NAME}", "/simple/tiny/"]


def test_local_path_outside_the_contract_raises(server: LocalServer) -> None:
    with pytest.raises(ClientError, match=r"LocalPath '/data' of input 'x' must be .*/processing or a folder below it"):
        server.start_processing("true", ProcessingInputs=[make_processing_input("x", server.uri("raw"), "/data")])


def test_local_path_may_contain_special_characters(server: LocalServer) -> None:
    """A colon ends a path in the engine's short mount syntax. `..` is the parent folder only if it is a whole name."""
    server.put({"odd/a.csv": "a"})
    path = f"{INPUT_PATH}/a:b,c=d e..f"
    job = server.process(f"cat '{path}/a.csv'", ProcessingInputs=[make_processing_input("x", server.uri("odd/"), path)])
    assert job["ProcessingJobStatus"] == "Completed", job["FailureReason"]


def test_input_may_contain_another_input_and_an_output(server: LocalServer) -> None:
    """FrameworkProcessor puts its code below the usual input folder."""
    server.put({"nested/raw/a.csv": "a", "nested/code/run.py": "b"})
    inputs = [
        make_processing_input("code", server.uri("nested/code/"), f"{INPUT_PATH}/code"),
        make_processing_input("raw", server.uri("nested/raw/"), INPUT_PATH),
    ]
    output = [make_processing_output("out", server.uri("nested/out"), f"{INPUT_PATH}/code/out")]
    script = f"cat {INPUT_PATH}/a.csv {INPUT_PATH}/code/run.py > {INPUT_PATH}/code/out/both"
    job = server.process(script, ProcessingInputs=inputs, ProcessingOutputConfig={"Outputs": output})
    assert job["ProcessingJobStatus"] == "Completed", job
    assert read_files(server, "nested/out") == {"both": "ab"}

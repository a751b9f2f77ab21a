"""Tests of unusual files and output of containers: deep folders, invalid names, huge files, very long lines."""

import tarfile
import time

import pytest

from microjobs.contract import Layout
from tests.conftest import make_image_name
from tests.local.clients import SHELL_IMAGE, LocalServer
from tests.polling import wait_until

pytestmark = pytest.mark.engine

LAYOUT = Layout()


def make_python_command(code: str) -> str:
    return f'cd {LAYOUT.model} && python -c "import os,sys;{code}"'


def make_nesting_code(name: str, count: int) -> str:
    return f"[(os.mkdir({name}),os.chdir({name})) for i in range({count})];open('w','w').write('x')"


def list_model_files(server: LocalServer, job: str) -> set[str]:
    with tarfile.open(server.bucket / f"models/{job}/output/model.tar.gz") as tar:
        return {item.name for item in tar if item.isfile()}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (make_nesting_code("'d'", 1500), "d/" * 1500 + "w"),
        (r"os.mkdir(b'caf\xe9');open(b'caf\xe9/\xff','w').write('x')", "caf\udce9/\udcff"),
        ("os.mkdir('c');open('c/w','w').write('x');os.chmod('c/w',0);os.chmod('c',0)", "c/w"),
    ],
    ids=["deep", "not UTF-8", "unreadable"],
)
def test_model_with_unusual_files_is_archived(server: LocalServer, code: str, expected: str) -> None:
    job = server.train(make_python_command(code))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert list_model_files(server, job["TrainingJobName"]) == {expected}
    wait_until(lambda: list(server.home.work.glob(f"*{job['TrainingJobName']}*")), lambda folders: folders == [])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (make_nesting_code("'d'*80", 60), "the engine cannot copy paths of more than 3839 bytes"),
        ("open('huge.bin','wb').truncate(1<<43)", "huge.bin of 8.8 TB does not fit"),
    ],
    ids=["long", "sparse"],
)
def test_failure_reason_names_a_model_that_cannot_be_copied(server: LocalServer, code: str, reason: str) -> None:
    job = server.train(make_python_command(code))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(f"ClientError: Artifact upload failed: {reason[:12]}"), job["FailureReason"]
    assert reason in job["FailureReason"]


def test_container_finds_an_input_in_500_nested_folders(server: LocalServer) -> None:
    key = "deep/" + "d/" * 500 + "x"
    server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=b"found")
    channel = {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix"}}}
    channel["DataSource"]["S3DataSource"]["S3Uri"] = server.uri("deep/")  # type: ignore[index]
    job = server.train(f"find {LAYOUT.input_data} -type f | wc -c > {LAYOUT.model}/w", InputDataConfig=[channel])
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert int(server.read_archive(job["TrainingJobName"])["w"]) > 1000


def test_slow_metric_regex_does_not_block_other_requests(server: LocalServer) -> None:
    definitions = [
        {"Name": "loss", "Regex": r"loss=([0-9.]+)"},
        {"Name": "quadratic", "Regex": r".*val_loss: ([0-9.]+)"},
        {"Name": "exponential", "Regex": r"(a+)+$b()"},
    ]
    name = server.start_training(
        make_python_command("print('x'*10**5);print('a'*8*10**5);print('loss=9'+chr(13)+'loss=1')"),
        algorithm={"MetricDefinitions": definitions, "TrainingImage": make_image_name(SHELL_IMAGE)},
    )
    max_seconds = 0.0
    while server.describe_training(name)["TrainingJobStatus"] == "InProgress":
        start_time = time.monotonic()
        server.sagemaker.list_training_jobs()
        max_seconds = max(max_seconds, time.monotonic() - start_time)
    assert max_seconds < 10  # a search that holds the interpreter's lock would block other requests for minutes
    job = server.describe_training(name)
    assert [(item["MetricName"], item["Value"]) for item in job["FinalMetricDataList"]] == [("loss", 1.0)]
    lines = server.read_logs("TrainingJobs", name)["algo-1"]
    assert lines[-1] == "loss=1"
    assert sum("metric 'exponential'" in line for line in lines) == 1


def test_metrics_that_are_not_finite_are_left_out(server: LocalServer) -> None:
    definitions = [{"Name": "loss", "Regex": r"loss=(\S+)"}]
    job = server.train("echo loss=0.5; echo loss=nan; echo loss=inf", algorithm={"MetricDefinitions": definitions})
    assert [item["Value"] for item in job["FinalMetricDataList"]] == [0.5]
    assert job["TrainingJobName"] in {
        item["TrainingJobName"] for item in server.sagemaker.list_training_jobs()["TrainingJobSummaries"]
    }

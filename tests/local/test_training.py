"""Tests of training jobs: a boto3 client sends requests to a server that runs containers."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from tests.conftest import make_image_name
from tests.local.clients import (
    LocalServer,
    make_channel,
    make_training_request,
    make_unique_name,
    run_server,
)
from tests.polling import wait_until

pytestmark = pytest.mark.engine

LAYOUT = Layout()


def test_job_reads_inputs_and_configuration(server: LocalServer) -> None:
    server.put({"in/x.csv": "1,2", "in/deep/y.csv": "3"})
    job = server.train(
        f"cd {LAYOUT.root} && cat input/config/*.json > model/config && env > model/env && "
        "find input/data -type f > model/data",
        HyperParameters={"epochs": "3"},
        InputDataConfig=[make_channel("train", server.uri("in/")) | {"ContentType": "text/csv"}],
        Environment={"COLOUR": "blue"},
    )
    model = server.read_archive(job["TrainingJobName"])
    assert '{"epochs": "3"}' in model["config"]
    assert '"current_host": "algo-1", "current_instance_type": "ml.m5.large"' in model["config"]
    assert '"train": {"TrainingInputMode": "File"' in model["config"]
    assert '"ContentType": "text/csv"' in model["config"]
    assert {f"TRAINING_JOB_NAME={job['TrainingJobName']}", "COLOUR=blue"} <= set(model["env"].splitlines())
    assert sorted(model["data"].split()) == ["input/data/train/deep/y.csv", "input/data/train/x.csv"]


def test_describe_returns_statuses_metrics_and_times(server: LocalServer) -> None:
    job = server.train("echo 'loss: 0.5'; echo 'loss: 0.25'", algorithm={"MetricDefinitions": [LOSS_METRIC]})
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    assert [(metric["MetricName"], metric["Value"]) for metric in job["FinalMetricDataList"]] == [("loss", 0.25)]
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == server.uri(
        f"models/{job['TrainingJobName']}/output/model.tar.gz"
    )
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert job["OutputDataConfig"]["KmsKeyId"] == ""


LOSS_METRIC = {"Name": "loss", "Regex": r"loss: ([0-9.]+)"}


def test_writes_to_an_input_do_not_change_the_bucket(server: LocalServer) -> None:
    server.put({"writable/a": "original"})
    script = f"cd {LAYOUT.channel('train')} && echo changed > a && echo new > b && rm a && cp b {LAYOUT.model}"
    job = server.train(script, InputDataConfig=[make_channel("train", server.uri("writable"))])
    assert server.read_archive(job["TrainingJobName"]) == {"b": "new\n"}
    assert [path.name for path in (server.bucket / "writable").iterdir()] == ["a"]
    assert (server.bucket / "writable/a").read_text() == "original"


def test_hosts_get_shards_and_resolve_each_other(server: LocalServer) -> None:
    server.put({f"shards/{number}": "" for number in range(5)})
    script = (
        f"ls {LAYOUT.channel('train')} > {LAYOUT.model}/$(hostname); "
        # As on SageMaker, a host may start before the others.
        "for host in algo-1 algo-2 algo-3; do until getent hosts $host; do sleep 0.1; done; done; sleep 3"
    )
    shards = make_channel("train", server.uri("shards/"), "ShardedByS3Key")
    job = server.train(script, instances=3, InputDataConfig=[shards])
    model = server.read_archive(job["TrainingJobName"])
    assert [model[f"algo-{number}"].split() for number in (1, 2, 3)] == [["0", "3"], ["1", "4"], ["2"]]
    assert job["TrainingJobStatus"] == "Completed"


def test_models_of_hosts_are_merged_and_conflicts_are_logged(server: LocalServer) -> None:
    script = f"hostname > {LAYOUT.model}/clash; hostname > {LAYOUT.model}/$(hostname); echo same > {LAYOUT.model}/same"
    name = server.train(script, instances=2)["TrainingJobName"]
    assert server.read_archive(name) == {
        "clash": "algo-1\n", "algo-1": "algo-1\n", "algo-2": "algo-2\n", "same": "same\n",
    }  # fmt: skip
    notes = [line for line in server.read_logs("TrainingJobs", name)["algo-1"] if line.startswith("[microjobs]")]
    problem = "clash of algo-2 differs from the file of another host"
    assert notes == [f"[microjobs] {problem} and was not stored: use a different file name on each host"]


def test_failure_file_is_the_failure_reason(server: LocalServer) -> None:
    job = server.train(f"echo too few rows > {LAYOUT.failure}; echo kept > {LAYOUT.output_data}/log; exit 7")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"] == "AlgorithmError: too few rows, exit code: 7"
    name = job["TrainingJobName"]
    assert server.read_archive(name, "output.tar.gz") == {"log": "kept\n"}
    assert not (server.bucket / f"models/{name}/output/model.tar.gz").exists()


TRAP_SCRIPT = f"trap 'echo saved > {LAYOUT.model}/weights; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
"""Runs until SIGTERM, and then saves the model and ends with code 0."""


def test_failed_host_stops_the_other_hosts(server: LocalServer) -> None:
    script = f"test $(hostname) = algo-2 || {{ {TRAP_SCRIPT}; }}; echo lost my data > {LAYOUT.failure}; exit 3"
    job = server.train(script, instances=2)
    assert job["FailureReason"] == "AlgorithmError: lost my data, exit code: 3 on algo-2"
    assert (job["TrainingEndTime"] - job["TrainingStartTime"]).total_seconds() < 60


def test_stopped_job_saves_its_model(server: LocalServer) -> None:
    name = server.start_training(TRAP_SCRIPT)
    wait_until(lambda: server.read_logs("TrainingJobs", name), lambda lines: lines.get("algo-1") == ["ready"])
    server.sagemaker.stop_training_job(TrainingJobName=name)
    assert server.wait_for_end(name)["SecondaryStatus"] == "Stopped"
    assert server.read_archive(name) == {"weights": "saved\n"}
    with pytest.raises(ClientError, match="because the training job is in status Stopped"):
        server.sagemaker.stop_training_job(TrainingJobName=name)


def test_job_is_stopped_after_max_runtime(server: LocalServer) -> None:
    job = server.train(TRAP_SCRIPT, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert server.read_archive(job["TrainingJobName"]) == {"weights": "saved\n"}


def test_checkpoints_are_downloaded_and_uploaded(server: LocalServer) -> None:
    server.put({"checkpoints/epoch-1": "one", "checkpoints/old": "old"})
    script = (
        f"cd {LAYOUT.checkpoints} && cat epoch-1 > {LAYOUT.model}/resumed && echo two > epoch-2 && rm old && sleep 12"
    )
    job = server.train(script, CheckpointConfig={"S3Uri": server.uri("checkpoints")})
    assert server.read_archive(job["TrainingJobName"]) == {"resumed": "one"}
    assert (server.bucket / "checkpoints/epoch-2").read_text() == "two\n"
    assert (server.bucket / "checkpoints/epoch-1").read_text() == "one"
    assert not (server.bucket / "checkpoints/old").exists()


def test_tensorboard_files_are_uploaded_while_the_job_runs(server: LocalServer) -> None:
    script = f"echo one > {LAYOUT.tensorboard}/events.1; {TRAP_SCRIPT}"
    name = server.start_training(script, TensorBoardOutputConfig={"S3OutputPath": server.uri("board")})
    wait_until((server.bucket / f"board/{name}/tensorboard-output/events.1").exists, bool)
    server.sagemaker.stop_training_job(TrainingJobName=name)
    assert server.wait_for_end(name)["SecondaryStatus"] == "Stopped"


def test_folder_of_tensorboard_files_outside_the_contract_is_refused(server: LocalServer) -> None:
    config = {"S3OutputPath": server.uri("board"), "LocalPath": "/etc"}
    with pytest.raises(ClientError, match=r"LocalPath '/etc' must be .* or a folder below it"):
        server.start_training("true", TensorBoardOutputConfig=config)


CONNECT_PROGRAM = "import socket; socket.create_connection(('1.1.1.1', 53), timeout=2)"


def test_isolated_job_has_no_network_and_no_credentials(server: LocalServer) -> None:
    job = server.train(f'env; python3 -c "{CONNECT_PROGRAM}"', EnableNetworkIsolation=True)
    assert job["TrainingJobStatus"] == "Failed"
    lines = server.read_logs("TrainingJobs", job["TrainingJobName"])["algo-1"]
    assert any("Network is unreachable" in line for line in lines)
    assert not [line for line in lines if line.startswith("AWS_ACCESS")]


def test_uncompressed_model_is_a_folder(server: LocalServer) -> None:
    script = f"mkdir {LAYOUT.model}/1 && echo w > {LAYOUT.model}/1/weights && ln -s weights {LAYOUT.model}/1/link"
    output = {"S3OutputPath": server.uri("plain/"), "CompressionType": "NONE"}
    name = server.train(script, OutputDataConfig=output)["TrainingJobName"]
    folder = server.bucket / f"plain/{name}/output/model"
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == ["1/weights"]


def test_entrypoint_and_arguments_replace_train(server: LocalServer) -> None:
    job_with_arguments = server.train(
        "", algorithm={"ContainerEntrypoint": ["echo", "entry"], "ContainerArguments": ["a b"]}
    )
    assert server.read_logs("TrainingJobs", job_with_arguments["TrainingJobName"]) == {"algo-1": ["entry a b"]}
    request_without_arguments = make_training_request(server, "")
    request_without_arguments["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["echo", "alone"]}
    del request_without_arguments["AlgorithmSpecification"]["ContainerArguments"]
    server.sagemaker.create_training_job(**request_without_arguments)
    server.wait_for_end(name := request_without_arguments["TrainingJobName"])
    assert server.read_logs("TrainingJobs", name) == {"algo-1": ["alone"]}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"InputDataConfig": [make_channel("train", "s3://nowhere/x")]},
            'No S3 objects found under S3 URL "s3://nowhere/x"',
        ),
        ({"OutputDataConfig": {"S3OutputPath": "s3://nowhere/x"}}, "nowhere"),
        ({"algorithm": {"MetricDefinitions": [{"Name": "loss", "Regex": "loss: ("}]}}, "is not a regular expression"),
        ({"algorithm": {"MetricDefinitions": [{"Name": "loss", "Regex": "loss"}]}}, "has no group"),
        ({"TrainingJobName": "not_valid"}, "Member must satisfy regular expression pattern"),
    ],
)
def test_invalid_request_raises(server: LocalServer, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError) as error:
        server.start_training("true", **members)
    assert message in str(error.value)


def test_duplicate_name_raises(server: LocalServer) -> None:
    request = make_training_request(server, "true")
    server.sagemaker.create_training_job(**request)
    with pytest.raises(server.sagemaker.exceptions.ResourceInUse, match="already exists"):
        server.sagemaker.create_training_job(**request)


def test_failure_reason_names_the_missing_image(server: LocalServer) -> None:
    job = server.train("", algorithm={"TrainingImage": "nowhere.invalid/none:1"})
    assert "image nowhere.invalid/none:1 is not on this machine and cannot be pulled" in job["FailureReason"]


def test_job_has_the_credentials_of_the_home_and_reaches_the_server(server: LocalServer) -> None:
    script = "import os, urllib.request as web; web.urlopen(os.environ['AWS_ENDPOINT_URL'] + '/health')"
    job = server.train(f'env; python3 -c "{script}"')
    assert job["TrainingJobStatus"] == "Completed"
    lines = server.read_logs("TrainingJobs", job["TrainingJobName"])["algo-1"]
    assert f"AWS_ACCESS_KEY_ID={server.address.access_key_id}" in lines


def test_jobs_are_listed_in_pages_and_deleted(server: LocalServer) -> None:
    prefix = make_unique_name("listed")
    for number in range(3):
        server.start_training("true", TrainingJobName=f"{prefix}-{number}")
        server.wait_for_end(f"{prefix}-{number}")
    pages = server.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains=prefix, SortBy="Name", SortOrder="Descending", PaginationConfig={"PageSize": 2}
    )
    name_pages = [[job["TrainingJobName"] for job in page["TrainingJobSummaries"]] for page in pages]
    assert name_pages == [[f"{prefix}-2", f"{prefix}-1"], [f"{prefix}-0"]]
    server.sagemaker.delete_training_job(TrainingJobName=f"{prefix}-0")
    with pytest.raises(ClientError, match="Could not find training job"):
        server.sagemaker.describe_training_job(TrainingJobName=f"{prefix}-0")


def test_tags_are_added_and_deleted(server: LocalServer) -> None:
    arn = server.train("true", Tags=[{"Key": "team", "Value": "a"}])["TrainingJobArn"]
    server.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "cost", "Value": "b"}])
    server.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team"])
    assert server.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "cost", "Value": "b"}]


SMALL_INSTANCE = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
"""An instance type with 4 GiB of memory."""


def test_image_alias_and_instance_limits_apply(tmp_path: Path) -> None:
    """The server maps AWS's image URI to a local image, and limits a host to the memory of its instance type."""
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
    aliases = {"*.dkr.ecr.*.amazonaws.com/sagemaker-scikit-learn:*": make_image_name("serve")}
    with run_server(tmp_path, runtime="docker", images=aliases, limits=True) as server:
        job = server.train(
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
            algorithm={"TrainingImage": uri},
            ResourceConfig=SMALL_INSTANCE,
        )
        assert job["AlgorithmSpecification"]["TrainingImage"] == uri
        assert server.read_logs("TrainingJobs", job["TrainingJobName"])["algo-1"] == [str(4 << 30)]


def test_failure_reason_reports_lack_of_memory(tmp_path: Path) -> None:
    with run_server(tmp_path, runtime="docker", limits=True) as server:
        job = server.train("python3 -c 'x = bytearray(5 << 30)'; exit $?", ResourceConfig=SMALL_INSTANCE)
        reason = "AlgorithmError: it ran out of memory, exit code: 137"
        assert (job["TrainingJobStatus"], job["FailureReason"]) == ("Failed", reason)
        assert server.train("true")["TrainingJobStatus"] == "Completed"


SCRIPT = """
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
epochs = parser.parse_args().epochs
with open(os.path.join(os.environ["SM_MODEL_DIR"], "weights"), "w") as file:
    file.write(f"{epochs} epochs on {os.environ['SM_CURRENT_HOST']}")
"""


def test_script_is_downloaded_from_the_bucket(server: LocalServer) -> None:
    """The request uses script mode like framework estimators of the SDK: JSON values, and the code in an archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("train.py")
        info.size = len(SCRIPT.encode())
        tar.addfile(info, io.BytesIO(SCRIPT.encode()))
    server.s3.put_object(Bucket=server.address.bucket, Key="code/sourcedir.tar.gz", Body=buffer.getvalue())
    request = make_training_request(server, "")
    request["AlgorithmSpecification"] = {"TrainingImage": make_image_name("train-pytorch"), "TrainingInputMode": "File"}
    uri = json.dumps(server.uri("code/sourcedir.tar.gz"))
    request["HyperParameters"] = {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": uri,
        "sagemaker_region": '"us-east-1"',
        "epochs": "3",
    }
    server.sagemaker.create_training_job(**request)
    job = server.wait_for_end(request["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert server.read_archive(job["TrainingJobName"]) == {"weights": "3 epochs on algo-1"}

"""Tests of both workflows from the first request to the results. Each request is validated against AWS's model.

In the names of the tests, "the notebook" is the one on which this project is based: `tests/clients/notebook_cells.py`
has its cells.
"""

import io
from pathlib import Path

import numpy as np
import pytest

from microjobs_orchestrator.report.blocks import BatchScoreReport, Metrics, Predictions, Trials
from microjobs_orchestrator.workflows.housing import WORKFLOW, Options, run_housing
from microjobs_orchestrator.workflows.straight_line import Options as LineOptions
from microjobs_orchestrator.workflows.straight_line import run_straight_line
from tests.launcher.cloud import Cloud
from tests.launcher.conftest import StartRun, find_block


def test_housing_sends_the_requests_of_the_notebook(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    results = run_housing(run, Options(), tmp_path)
    operations = [name for name, _ in cloud.requests if name.startswith(("Create", "Invoke", "DeleteEndpoint"))]
    assert operations == [
        "CreateProcessingJob",
        "CreateProcessingJob",
        "CreateTrainingJob",
        "CreateHyperParameterTuningJob",
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "InvokeEndpoint",
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "CreateProcessingJob",
    ]
    assert find_block(results, BatchScoreReport).text == "Test MSE : 0.25"
    assert find_block(results, Metrics).values == [("Test MSE, trained", 30.0), ("Test MSE, tuned", 21.0)]


def test_scaling_distributes_files_to_four_hosts(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    run_housing(run, Options(tuning=False), tmp_path)
    dataset_request, scaling_request, _ = cloud.find_requests("CreateProcessingJob")
    assert dataset_request["AppSpecification"]["ContainerArguments"] == ["dataset", "diabetes", "--shards", "4"]
    assert scaling_request["ProcessingResources"]["ClusterConfig"]["InstanceCount"] == 4
    assert scaling_request["ProcessingInputs"][0]["S3Input"]["S3DataDistributionType"] == "ShardedByS3Key"


def test_tuning_has_the_ranges_of_the_notebook(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    results = run_housing(run, Options(), tmp_path)
    config = cloud.find_requests("CreateHyperParameterTuningJob")[0]["HyperParameterTuningJobConfig"]
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 3}
    ranges = {item["Name"]: item for items in config["ParameterRanges"].values() for item in items}
    assert {name: (item["MinValue"], item["MaxValue"]) for name, item in ranges.items()} == {
        "learning_rate": ("0.001", "0.2"),
        "epochs": ("10", "50"),
        "batch_size": ("64", "256"),
    }
    assert [trial.objective for trial in find_block(results, Trials).trials] == [21.0, 22.0, 23.0, 24.0, 25.0, 26.0]


def test_best_model_is_served_and_scored(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    run_housing(run, Options(), tmp_path)
    tuned_model = f"s3://bucket/{run.id}/models/{run.id}-tune-001-abcd1234/output/model.tar.gz"
    assert cloud.find_requests("CreateModel")[0]["PrimaryContainer"]["ModelDataUrl"] == tuned_model
    assert cloud.find_requests("CreateProcessingJob")[-1]["ProcessingInputs"][0]["S3Input"]["S3Uri"] == tuned_model


def test_worse_tuned_model_is_not_served(
    cloud: Cloud, start_run: StartRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cloud,
        "_end_HyperParameterTuningJob",
        lambda name, resource: make_tuned_model_worse(cloud, name, resource),
        raising=True,
    )
    run = start_run()
    run_housing(run, Options(), tmp_path)
    assert f"{run.id}-train/" in cloud.find_requests("CreateModel")[0]["PrimaryContainer"]["ModelDataUrl"]


def make_tuned_model_worse(cloud: Cloud, name: str, resource: dict[str, object]) -> None:
    Cloud._end_HyperParameterTuningJob(cloud, name, resource)
    cloud._end_TrainingJob(f"{name}-001-abcd1234", cloud.resources["TrainingJob", f"{name}-001-abcd1234"], mse=99.0)


def test_endpoint_predicts_ten_rows_of_all_shards(start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    results = run_housing(run, Options(tuning=False), tmp_path)
    assert find_block(results, Predictions).predictions == pytest.approx([0.9] * 4 + [1.2] * 6)
    assert find_block(results, Predictions).targets == list(range(10))


def test_user_data_is_uploaded_and_split(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    data = tmp_path / "houses.npz"
    np.savez(data, x=np.zeros((5, 2)), y=np.zeros(5))
    run = start_run()
    WORKFLOW.execute(run, Options(data=str(data), instance_count=2, tuning=False), tmp_path)
    assert cloud.objects[f"s3://bucket/{run.id}/source/data.npz"] == data.read_bytes()
    dataset_request = cloud.find_requests("CreateProcessingJob")[0]
    arguments = dataset_request["AppSpecification"]["ContainerArguments"]
    assert arguments == ["dataset", "boston", "--from", "data.npz", "--shards", "2"]


def test_pytorch_metrics_match_its_log(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    run_housing(run, Options(framework="pytorch"), tmp_path)
    definition = cloud.find_requests("CreateHyperParameterTuningJob")[0]["TrainingJobDefinition"][
        "AlgorithmSpecification"
    ]
    assert definition["TrainingImage"] == "microjobs/train-pytorch:dev"
    assert definition["MetricDefinitions"][1] == {"Name": "val_loss", "Regex": r"Test loss: ([0-9\.]+)"}


def test_straight_line_shows_table_weight_and_bias(start_run: StartRun, tmp_path: Path) -> None:
    run = start_run("straight-line")
    results = run_straight_line(run, LineOptions(), tmp_path)
    assert results.log == ["Epoch: 0 | Train loss: 0.757 | Test loss: 0.725"]
    metrics = dict(find_block(results, Metrics).values)
    assert metrics["weight"] == pytest.approx(0.3)
    assert metrics["bias"] == 0.9


def test_plain_progress_names_steps_and_trials(start_run: StartRun, tmp_path: Path, screen: io.StringIO) -> None:
    run = start_run()
    run_housing(run, Options(), tmp_path)
    text = screen.getvalue()
    assert "Scaling on 4 hosts …" in text
    assert "✓ Tuning" in text
    assert text.count("-tune-003-abcd1234  Completed  23") == 1
    assert "\x1b" not in text


def test_log_of_a_tuning_job_has_the_logs_of_its_trials(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    run_housing(run, Options(), tmp_path)
    log_streams = {
        (request["logGroupName"], request.get("logStreamNamePrefix"))
        for request in cloud.find_requests("DescribeLogStreams")
    }
    assert ("/aws/sagemaker/TrainingJobs", f"{run.id}-tune-") in log_streams
    assert (f"/aws/sagemaker/Endpoints/{run.id}-endpoint", None) in log_streams


def test_running_training_job_shows_its_log_and_running_tuning_job_does_not(
    cloud: Cloud, start_run: StartRun, tmp_path: Path
) -> None:
    log_read_counts: dict[str, list[int]] = {}
    cloud.on_describe = lambda name: log_read_counts.setdefault(name, []).append(
        len(cloud.find_requests("GetLogEvents"))
    )
    run = start_run()
    run_housing(run, Options(), tmp_path)
    count_before, count_after, *_ = log_read_counts[f"{run.id}-train"]
    assert count_after == count_before + 1
    count_before, count_after, *_ = log_read_counts[f"{run.id}-tune"]
    assert count_after == count_before


def test_verbose_progress_streams_the_logs(start_run: StartRun, tmp_path: Path, screen: io.StringIO) -> None:
    run = start_run("straight-line", verbose=True)
    run_straight_line(run, LineOptions(), tmp_path)
    assert "algo-1  Epoch: 0 | Train loss: 0.757 | Test loss: 0.725" in screen.getvalue()

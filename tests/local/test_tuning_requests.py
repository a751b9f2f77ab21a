"""Tests that tuning jobs with invalid searches are refused when they are created."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.clients import FINAL_STATUSES, LocalServer, make_training_request, make_unique_name
from tests.local.test_tuning import CATEGORICAL_RANGES, RANGES_OF_ALL_TYPES, make_hyperband_config, make_warm_start
from tests.polling import wait_until


def make_tuning_request(server: LocalServer, ranges: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return a request for a tuning job with at most four trials."""
    definition = make_training_request(server, "")
    del definition["TrainingJobName"]
    metrics = [{"Name": "val_loss", "Regex": r"val_loss: (\S+)"}]
    algorithm = {"TrainingImage": "trainer", "TrainingInputMode": "File", "MetricDefinitions": metrics}
    settings = {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "val_loss"},
        "ResourceLimits": {"MaxParallelTrainingJobs": 2, "MaxNumberOfTrainingJobs": 4},
        "ParameterRanges": ranges,
    }
    return {
        "HyperParameterTuningJobName": make_unique_name("tune"),
        "HyperParameterTuningJobConfig": {**settings, **config},
        "TrainingJobDefinition": {**definition, "AlgorithmSpecification": algorithm},
    }


def make_integer_range(low: str, high: str) -> dict[str, Any]:
    return {"IntegerParameterRanges": [{"Name": "n", "MinValue": low, "MaxValue": high}]}


def make_continuous_range(low: str, high: str, scaling: str = "Auto") -> dict[str, Any]:
    return {"ContinuousParameterRanges": [{"Name": "x", "MinValue": low, "MaxValue": high, "ScalingType": scaling}]}


def make_categories(*values: str) -> dict[str, Any]:
    return {"CategoricalParameterRanges": [{"Name": "c", "Values": values}]}


def make_huge_grid() -> dict[str, Any]:
    """Return ranges with more combinations than a machine can list."""
    values = [str(number) for number in range(30)]
    return {"CategoricalParameterRanges": [{"Name": f"c{number}", "Values": values} for number in range(30)]}


INVALID_REQUESTS = [
    ({"IntegerParameterRanges": [{"Name": "n", "MinValue": "5", "MaxValue": "1"}]}, {}, "must not be greater"),
    (make_integer_range("1.5", "3"), {}, "Integer parameter 'n': '1.5' is not a whole number"),
    (make_integer_range("1_0", "2_0"), {}, "Integer parameter 'n': '1_0' is not a whole number"),
    (make_integer_range("1", "\u0663"), {}, "is not a whole number"),
    (make_integer_range("1", "9" * 200), {}, "is too large"),
    (make_integer_range("1", "1"), {}, "MinValue and MaxValue are both 1. Widen the range"),
    (make_continuous_range("-1e308", "1e308"), {}, "the range from -1e+308 to 1e+308 is too wide. Narrow it."),
    (make_continuous_range("1", "1.0"), {}, "MinValue and MaxValue are both 1.0. Widen the range"),
    (make_continuous_range("0", "inf"), {}, "Continuous parameter 'x': 'inf' is not a number such as"),
    (make_continuous_range("nan", "1"), {}, "Continuous parameter 'x': 'nan' is not a number such as"),
    (make_continuous_range("0", "1_0.0"), {}, "Continuous parameter 'x': '1_0.0' is not a number such as"),
    (make_continuous_range("0", "1e999"), {}, "is too large"),
    (make_continuous_range("0", "1", "Logarithmic"), {}, "Logarithmic scaling needs a MinValue above 0, not 0.0"),
    (make_continuous_range("-0.1", "0.9", "ReverseLogarithmic"), {}, "is for continuous ranges in [0, 1)"),
    (make_continuous_range("0", "1", "ReverseLogarithmic"), {}, "is for continuous ranges in [0, 1)"),
    (make_continuous_range("0", "1.1", "ReverseLogarithmic"), {}, "is for continuous ranges in [0, 1)"),
    (make_categories("a"), {}, "Categorical parameter 'c': there is only one value, 'a'. Add values"),
    (make_categories("a", "b", "a"), {}, "Categorical parameter 'c': 'a' is listed twice"),
    (make_categories("a", "b"), {}, "there are 2, and MaxNumberOfTrainingJobs is 4"),
    (make_integer_range("1", "3"), {"Strategy": "Random"}, "there are 3, and MaxNumberOfTrainingJobs is 4"),
    (
        make_huge_grid(),
        {"Strategy": "Grid", "ResourceLimits": {"MaxParallelTrainingJobs": 1}},
        "and 1000 is the maximum",
    ),
    (make_categories("a", "b", "c"), {"Strategy": "Grid"}, "You don't have enough combinations"),
    (RANGES_OF_ALL_TYPES, {"Strategy": "Grid"}, "takes categorical parameters only"),
    (CATEGORICAL_RANGES, {"Strategy": "Hyperband"}, "MaxResource of HyperbandStrategyConfig is missing"),
    (CATEGORICAL_RANGES, make_hyperband_config(5, 4), "must be at least MinResource"),
    (CATEGORICAL_RANGES, make_hyperband_config(1, 20_001), "at most 20000"),
    (
        CATEGORICAL_RANGES,
        {**make_hyperband_config(1, 9), "TrainingJobEarlyStoppingType": "Auto"},
        "must be Off to use Hyperband",
    ),
    (
        CATEGORICAL_RANGES,
        {**make_hyperband_config(1, 9), "Strategy": "Random"},
        "StrategyConfig is for the strategy Hyperband only",
    ),
    (
        CATEGORICAL_RANGES,
        {"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"}},
        "has no regular expression",
    ),
]


@pytest.mark.parametrize(("ranges", "config", "message"), INVALID_REQUESTS)
def test_invalid_search_raises(
    process_server: LocalServer, ranges: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError) as error:
        process_server.sagemaker.create_hyper_parameter_tuning_job(
            **make_tuning_request(process_server, ranges, config)
        )
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert message in str(error.value)


def test_identical_warm_start_requires_the_image_and_data_of_its_parent(process_server: LocalServer) -> None:
    client = process_server.sagemaker
    parent = make_tuning_request(process_server, make_integer_range("1", "9"), {})
    name = {"HyperParameterTuningJobName": parent["HyperParameterTuningJobName"]}
    client.create_hyper_parameter_tuning_job(**parent)
    client.stop_hyper_parameter_tuning_job(**name)
    wait_until(
        lambda: client.describe_hyper_parameter_tuning_job(**name)["HyperParameterTuningJobStatus"],
        lambda status: status in FINAL_STATUSES,
    )
    definition = parent["TrainingJobDefinition"]
    image = {"AlgorithmSpecification": {**definition["AlgorithmSpecification"], "TrainingImage": "other"}}
    process_server.s3.put_object(Bucket=process_server.address.bucket, Key="other/x.npy", Body=b"x")
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{process_server.address.bucket}/other"}}
    data = {"InputDataConfig": [{"ChannelName": "train", "DataSource": source}]}
    for change, message in ((image, "training image must be the same"), (data, "input data must be the same")):
        request = {**parent, "TrainingJobDefinition": {**definition, **change}}
        request["HyperParameterTuningJobName"] = make_unique_name("tune")
        with pytest.raises(ClientError, match=message):
            client.create_hyper_parameter_tuning_job(**request, WarmStartConfig=make_warm_start(*name.values()))
        transfer = make_warm_start(*name.values(), warm_start_type="TransferLearning")
        client.create_hyper_parameter_tuning_job(**request, WarmStartConfig=transfer)

"""Files and variables of the contract: readers return the values that writers wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from microjobs import contract
from microjobs.contract import Channel, InstanceGroup, Layout, ResourceConfig
from microjobs.errors import UserError


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_environment_overrides_the_default_root() -> None:
    assert Layout.from_environment({}).root == Path("/opt") / "ml"
    assert Layout.from_environment({"SAGEMAKER_BASE_DIR": "/elsewhere"}).model == Path("/elsewhere/model")


def test_local_paths_of_requests_map_below_the_root(layout: Layout) -> None:
    local_path = f"{contract.DEFAULT_ROOT}/processing/train"
    assert layout.resolve_local_path(local_path) == layout.processing("train")
    assert layout.to_contract_path(layout.processing("train")) == local_path
    assert layout.resolve_local_path("/data/mine") == Path("/data/mine")


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("70", 70),  # SDK v2, plain estimator: str(70)
        ("abc", "abc"),  # SDK v2, plain estimator: str("abc")
        ("True", "True"),  # SDK v2, plain estimator: str(True), which is not JSON
        ('"abc"', "abc"),  # SDK v2, framework estimator: json.dumps
        ("true", True),  # SDK v2, framework estimator, and v3
        ("[1, 2]", [1, 2]),
    ],
)
def test_hyperparameters_of_all_sdk_encodings_are_decoded(encoded: str, value: object) -> None:
    assert contract.decode_hyperparameter(encoded) == value


def test_hyperparameters_are_written_as_strings(layout: Layout) -> None:
    contract.write_hyperparameters(layout, {"epochs": 70, "optimizer": "sgd", "flag": True, "sizes": [1, 2]})
    hyperparameters = contract.read_hyperparameters(layout)
    assert hyperparameters == {"epochs": "70", "optimizer": "sgd", "flag": "true", "sizes": "[1, 2]"}
    assert contract.decode_hyperparameter(hyperparameters["sizes"]) == [1, 2]


def test_input_data_config_round_trips(layout: Layout) -> None:
    channels = {
        "train": Channel(content_type="text/csv"),
        "test": Channel(input_mode="Pipe", distribution="ShardedByS3Key", record_wrapper="RecordIO"),
    }
    contract.write_input_data_config(layout, channels)
    assert contract.read_input_data_config(layout) == channels


def test_training_resource_config_round_trips_with_groups(layout: Layout) -> None:
    groups = (InstanceGroup("cpus", "ml.m5.large", ("algo-1", "algo-2")), InstanceGroup("gpus", "ml.p3", ("algo-3",)))
    resources = ResourceConfig("algo-2", ("algo-1", "algo-2", "algo-3"), "ml.m5.large", "cpus", groups)
    contract.write_training_resource_config(layout, resources)
    assert contract.read_training_resource_config(layout) == resources
    assert (resources.rank, resources.is_first) == (1, False)


def test_training_resource_config_has_the_keys_of_a_real_job(layout: Layout) -> None:
    contract.write_training_resource_config(layout, ResourceConfig(instance_type="ml.c5.xlarge"))
    assert json.loads((layout.input_config / "resourceconfig.json").read_text()) == {
        "current_host": "algo-1",
        "current_instance_type": "ml.c5.xlarge",
        "current_group_name": "homogeneousCluster",
        "hosts": ["algo-1"],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": "ml.c5.xlarge", "hosts": ["algo-1"]}
        ],
        "network_interface_name": "eth0",
        "topology": None,
    }


def test_processing_resource_config_has_only_the_hosts(layout: Layout) -> None:
    resources = ResourceConfig("algo-1", ("algo-1", "algo-2"))
    contract.write_processing_resource_config(layout, resources)
    assert contract.read_processing_resource_config(layout) == resources
    config = json.loads((layout.processing_config / "resourceconfig.json").read_text())
    assert sorted(config) == ["current_host", "hosts"]


def test_hosts_are_read_in_natural_order(layout: Layout) -> None:
    contract.write_processing_resource_config(layout, ResourceConfig("algo-10", ("algo-10", "algo-9", "algo-1")))
    assert contract.read_processing_resource_config(layout).hosts == ("algo-1", "algo-9", "algo-10")


def test_processing_job_config_contains_the_request(layout: Layout) -> None:
    request = {
        "ProcessingJobName": "scale",
        "AppSpecification": {"ImageUri": "microjobs/preprocess:dev"},
        "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1}},
        "RoleArn": "arn:aws:iam::000000000000:role/r",
    }
    contract.write_processing_job_config(layout, request, "arn:aws:sagemaker:::processing-job/scale")
    config = json.loads((layout.processing_config / "processingjobconfig.json").read_text())
    assert config["ProcessingJobName"] == "scale"
    assert config["AppSpecification"]["ContainerArguments"] is None
    assert config["ProcessingInputs"] == []


def test_request_sets_the_checkpoint_folder(layout: Layout) -> None:
    assert contract.read_checkpoint_folder(layout) == layout.checkpoints
    contract.write_checkpoint_config(layout, f"{contract.DEFAULT_ROOT}/mine")
    assert contract.read_checkpoint_folder(layout) == layout.root / "mine"


def test_first_failure_is_kept_and_cut_at_1024_characters(layout: Layout) -> None:
    contract.write_failure(layout, "reason: " + "é" * 2000)
    contract.write_failure(layout, "its consequence")
    failure = contract.read_failure(layout)
    assert failure is not None
    assert len(failure) == len(layout.failure.read_text()) == 1024
    assert failure.startswith("reason: é")


def test_reason_may_contain_invalid_unicode(layout: Layout) -> None:
    """File names may contain any bytes."""
    contract.write_failure(layout, "donn\udce9es.csv is no array")
    contract.write_message(layout, "donn\udce9es.csv is no array")
    assert contract.read_failure(layout) == contract.read_message(layout) == "donn\\udce9es.csv is no array"


def test_failed_write_of_a_reason_does_not_prevent_the_next_write(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_write(path: Path, _: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail_to_write)
        with pytest.raises(OSError, match="No space"):
            contract.write_failure(layout, "the first")
    assert list(layout.output.iterdir()) == []
    contract.write_failure(layout, "the second")
    assert contract.read_failure(layout) == "the second"


def test_message_is_cut_between_characters_at_1_kb(layout: Layout) -> None:
    contract.write_message(layout, "é" * 1000 + "x")
    message = contract.read_message(layout)
    assert message == "é" * 512


def test_message_must_be_utf8(layout: Layout) -> None:
    layout.output.mkdir()
    layout.message.write_bytes(b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        contract.read_message(layout)


def test_missing_files_have_defaults(layout: Layout) -> None:
    assert contract.read_hyperparameters(layout) == {}
    assert contract.read_input_data_config(layout) == {}
    assert contract.read_training_resource_config(layout) == ResourceConfig()
    assert contract.read_failure(layout) is None
    assert contract.read_message(layout) is None


def test_training_variables_are_name_arn_and_region() -> None:
    arn = "arn:aws:sagemaker:::training-job/job"
    assert contract.make_training_variables("job", arn, "eu-west-1") == {
        "TRAINING_JOB_NAME": "job",
        "TRAINING_JOB_ARN": arn,
        "AWS_REGION": "eu-west-1",
    }


def test_transform_variables_omit_unset_members() -> None:
    assert contract.make_transform_variables(
        max_payload_mb=None, batch_strategy=None, max_concurrent_transforms=None
    ) == {"SAGEMAKER_BATCH": "true"}
    variables = contract.make_transform_variables(
        max_payload_mb=0, batch_strategy="MULTI_RECORD", max_concurrent_transforms=4
    )
    assert variables["SAGEMAKER_BATCH_STRATEGY"] == "MULTI_RECORD"
    assert variables["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] == "4"
    assert contract.read_hosting_variables(variables) == (8080, 0)


def test_hosting_variables_have_defaults_and_must_be_numbers() -> None:
    assert contract.read_hosting_variables({}) == (8080, None)
    assert contract.read_hosting_variables({"SAGEMAKER_BIND_TO_PORT": "9000"}) == (9000, None)
    with pytest.raises(UserError, match="SAGEMAKER_BIND_TO_PORT is 'http': set it to a number"):
        contract.read_hosting_variables({"SAGEMAKER_BIND_TO_PORT": "http"})


def test_contract_and_entry_point_need_only_the_standard_library() -> None:
    """The import in an isolated interpreter (-I -S: no site-packages) succeeds and prints nothing."""
    modules = (
        "contract, run, supervisor, hyperparameters, bundle, columns, scaler, files, stopping, arguments, hosts, errors"
    )
    shared = str(Path(contract.__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {shared!r}); from microjobs import {modules}"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

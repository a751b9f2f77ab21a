"""Tests of model packages: training jobs register them, endpoints serve them, and transform jobs use them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local import control
from tests.bundles import write_linear_bundle
from tests.conftest import REPOSITORY, make_image_name
from tests.local.clients import FINAL_STATUSES, ROOT, LocalServer, make_channel, make_unique_name
from tests.local.resources.examples.models import put_linear_model
from tests.polling import wait_until

PAGE = (REPOSITORY / "docs" / "using" / "model-registry.md").read_text(encoding="utf-8")
COPY_SCRIPT = f"cp {ROOT}/input/data/model/* {ROOT}/model"
"""Script of a training job that copies the model from its channel."""


def create_group(server: LocalServer) -> str:
    name = make_unique_name("group")
    server.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    return name


def register_version(server: LocalServer, key: str, **members: Any) -> str:
    """Register an approved version with the model archive at a key; return its ARN."""
    containers = [{"Image": make_image_name("serve"), "ModelDataUrl": server.uri(key)}]
    package = server.sagemaker.create_model_package(
        ModelPackageGroupName=create_group(server),
        InferenceSpecification={"Containers": containers},
        ModelApprovalStatus="Approved",
        **members,
    )
    return str(package["ModelPackageArn"])


def make_model(server: LocalServer, package: str) -> str:
    name = make_unique_name("model")
    container = {"ModelPackageName": package}
    server.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=server.address.role_arn)
    return name


def deploy(server: LocalServer, model: str) -> dict[str, Any]:
    """Deploy a model to an endpoint with the model's name; return the endpoint's description."""
    variant = {"VariantName": "main", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    server.sagemaker.create_endpoint_config(EndpointConfigName=model, ProductionVariants=[variant])
    server.sagemaker.create_endpoint(EndpointName=model, EndpointConfigName=model)
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_endpoint(EndpointName=model),
        lambda endpoint: endpoint["EndpointStatus"] in ("InService", "Failed"),
    )
    return description


def test_package_is_deployed_and_transforms(any_runtime_server: LocalServer) -> None:
    key = f"{make_unique_name('data')}.tar.gz"
    put_linear_model(any_runtime_server, key, 1.0)
    model = make_model(any_runtime_server, register_version(any_runtime_server, key))
    endpoint = deploy(any_runtime_server, model)
    assert endpoint["EndpointStatus"] == "InService", endpoint
    images = endpoint["ProductionVariants"][0]["DeployedImages"]
    assert [image["SpecifiedImage"] for image in images] == [make_image_name("serve")]
    response = any_runtime_server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=model, Body=b"1,2,3\n", ContentType="text/csv", Accept="text/csv"
    )
    assert response["Body"].read() == b"6.0\n"
    any_runtime_server.sagemaker.delete_endpoint(EndpointName=model)
    assert transform(any_runtime_server, model)["TransformJobStatus"] == "Completed"
    assert (any_runtime_server.bucket / model / "out" / "rows.csv.out").read_text() == "6.0\n"


def transform(server: LocalServer, model: str) -> dict[str, Any]:
    """Transform one row with a model; return the description of the ended job."""
    server.put({f"{model}/in/rows.csv": "1,2,3\n"})
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": server.uri(f"{model}/in/")}}
    server.sagemaker.create_transform_job(
        TransformJobName=model,
        ModelName=model,
        TransformInput={"DataSource": source, "ContentType": "text/csv"},
        TransformOutput={"S3OutputPath": server.uri(f"{model}/out"), "Accept": "text/csv"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_transform_job(TransformJobName=model),
        lambda job: job["TransformJobStatus"] in FINAL_STATUSES,
    )
    return description


def test_changed_model_data_is_never_used(process_server: LocalServer) -> None:
    """The ETag of the data is checked when hosts start, not only when the model is created."""
    key = f"{make_unique_name('data')}.tar.gz"
    put_linear_model(process_server, key, 1.0)
    model = make_model(process_server, register_version(process_server, key))
    put_linear_model(process_server, key, 2.0)
    for description in (deploy(process_server, model), transform(process_server, model)):
        assert "Failed" in (description.get("EndpointStatus"), description.get("TransformJobStatus"))
        assert f"model data at {process_server.uri(key)} has changed" in description["FailureReason"]


# --- training jobs ---


def put_bundle(server: LocalServer, prefix: str) -> None:
    folder = server.home.root / "bundles" / prefix
    write_linear_bundle(folder, [1.0] * 3, 0.0)
    (server.bucket / prefix).mkdir()
    for path in folder.iterdir():
        (server.bucket / prefix / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize("compression", ["GZIP", "NONE"])
def test_completed_training_job_registers_its_model(process_server: LocalServer, compression: str) -> None:
    group, prefix, client = create_group(process_server), make_unique_name("bundle"), process_server.sagemaker
    put_bundle(process_server, prefix)
    job = process_server.train(
        COPY_SCRIPT,
        InputDataConfig=[make_channel("model", process_server.uri(f"{prefix}/"))],
        OutputDataConfig={"S3OutputPath": process_server.uri("models"), "CompressionType": compression},
        ModelPackageConfig={"ModelPackageGroupArn": find_group_arn(process_server, group)},
    )
    assert job["TrainingJobStatus"] == "Completed", job
    package = client.describe_model_package(ModelPackageName=job["OutputModelPackageArn"])
    assert (package["ModelPackageGroupName"], package["ModelPackageVersion"]) == (group, 1)
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["MetadataProperties"]["GeneratedBy"] == job["TrainingJobArn"]
    client.update_model_package(ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus="Approved")
    assert (
        transform(process_server, make_model(process_server, package["ModelPackageArn"]))["TransformJobStatus"]
        == "Completed"
    )


def find_group_arn(server: LocalServer, name: str) -> str:
    return str(server.sagemaker.describe_model_package_group(ModelPackageGroupName=name)["ModelPackageGroupArn"])


def test_failed_training_job_registers_nothing(process_server: LocalServer) -> None:
    group = create_group(process_server)
    job = process_server.train(
        "exit 3", ModelPackageConfig={"ModelPackageGroupArn": find_group_arn(process_server, group)}
    )
    assert (job["TrainingJobStatus"], "OutputModelPackageArn" in job) == ("Failed", False)
    assert process_server.sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"] == []


def test_group_of_a_training_job_must_exist(process_server: LocalServer) -> None:
    group = create_group(process_server)
    config = {"ModelPackageGroupArn": find_group_arn(process_server, group)}
    name = process_server.start_training("sleep 1", ModelPackageConfig=config)
    process_server.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    message = f"ModelPackageGroup {config['ModelPackageGroupArn']} does not exist."
    job = process_server.wait_for_end(name)
    assert (job["TrainingJobStatus"], job["FailureReason"]) == ("Failed", f"ClientError: {message}")
    with pytest.raises(ClientError, match=message):
        process_server.start_training("true", ModelPackageConfig=config)


# --- the documentation ---


def test_program_of_the_page_registers_approves_and_deploys(process_server: LocalServer, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    put_bundle(process_server, "page")
    process_server.train(
        COPY_SCRIPT, TrainingJobName="my-job", InputDataConfig=[make_channel("model", process_server.uri("page/"))]
    )
    (tmp_path / "program.py").write_text(program.replace("microjobs/serve:dev", make_image_name("serve")))
    environment = {**os.environ, **control.make_environment(process_server.home, process_server.address)}
    command = [sys.executable, "program.py"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["PendingManualApproval", "6.0"]
    # The examples of the page about hosting use the same names, and their tests run on this server, too.
    process_server.sagemaker.delete_endpoint_config(EndpointConfigName="prices")
    process_server.sagemaker.delete_model(ModelName="prices")

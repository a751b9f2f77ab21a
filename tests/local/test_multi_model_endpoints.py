"""Multi-model endpoints with the image serve, in containers and as processes."""

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.bundles import linear_bundle
from tests.conftest import REPOSITORY, image_name
from tests.local.clients import LocalServer, unique
from tests.local.test_hosting import make_config, wait_for_endpoint


def put_model(local: LocalServer, key: str, weight: float, **files: str) -> None:
    """Store the archive of a model that returns the weighted sum of three features, or that consists of some files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        if not files:
            folder = local.home.root / "bundles" / unique("bundle")
            linear_bundle(folder, [weight] * 3, 0.0)
            tar.add(folder, ".")
        for name, text in files.items():
            info = tarfile.TarInfo(f"code/{name}.py")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    local.s3.put_object(Bucket=local.address.bucket, Key=key, Body=content.getvalue())


class MultiModelEndpoint:
    """An endpoint with the models below a prefix of its own."""

    def __init__(self, local: LocalServer, **variant: Any) -> None:
        self.local = local
        self.name = unique("many")
        self._runtime = local.client("sagemaker-runtime")
        container = {
            "Image": image_name("serve"),
            "Mode": "MultiModel",
            "ModelDataUrl": local.uri(f"{self.name}/"),
            **variant,
        }
        local.sagemaker.create_model(
            ModelName=self.name, PrimaryContainer=container, ExecutionRoleArn=local.address.role_arn
        )
        local.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=make_config(local, self.name))
        description = wait_for_endpoint(local, self.name)
        assert description["EndpointStatus"] == "InService", description.get("FailureReason")

    def put(self, target: str, weight: float = 0.0, **files: str) -> None:
        put_model(self.local, f"{self.name}/{target}", weight, **files)

    def invoke(self, target: str) -> str:
        response = self._runtime.invoke_endpoint(
            EndpointName=self.name, TargetModel=target, Body=b"1,2,3", ContentType="text/csv", Accept="text/csv"
        )
        return str(response["Body"].read().decode().strip())

    def read_error(self, target: str) -> Any:
        with pytest.raises(ClientError) as caught:
            self.invoke(target)
        return caught.value.response


@pytest.fixture
def endpoint(anywhere: LocalServer) -> Iterator[MultiModelEndpoint]:
    made = MultiModelEndpoint(anywhere)
    yield made
    anywhere.sagemaker.delete_endpoint(EndpointName=made.name)


def test_models_of_a_prefix_are_served_replaced_and_refused(endpoint: MultiModelEndpoint) -> None:
    program = (
        "def model_fn(folder): return 7\ndef transform_fn(model, body, type_, accept): return str(model), accept\n"
    )
    endpoint.put("one.tar.gz", 1.0)
    endpoint.put("folder/two.tar.gz", 2.0)
    endpoint.put("code.tar.gz", inference=program)
    with ThreadPoolExecutor(6) as pool:
        targets = ["one.tar.gz", "folder/two.tar.gz", "code.tar.gz"] * 2
        assert list(pool.map(endpoint.invoke, targets)) == ["6.0", "12.0", "7"] * 2
    endpoint.put("one.tar.gz", 3.0)
    assert endpoint.invoke("one.tar.gz") == "18.0"

    endpoint.put("broken.tar.gz", other="x = 1")
    error = endpoint.read_error("broken.tar.gz")
    assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 400)
    assert "the model cannot be loaded" in error["OriginalMessage"]
    assert endpoint.read_error("missing.tar.gz")["Error"]["Code"] == "ValidationError"
    described = endpoint.local.sagemaker.describe_model(ModelName=endpoint.name)["PrimaryContainer"]
    assert (described["Mode"], described["ModelDataUrl"]) == ("MultiModel", endpoint.local.uri(f"{endpoint.name}/"))


def test_example_of_the_documentation_works(processes: LocalServer, capsys: pytest.CaptureFixture[str]) -> None:
    section = (REPOSITORY / "docs/using/hosting.md").read_text().partition("## Multi-model endpoints")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    for weight, city in ((1.0, "berlin"), (2.0, "oslo")):
        put_model(processes, f"cities/{city}.tar.gz", weight)
    names = {
        "sagemaker": processes.sagemaker,
        "runtime": processes.client("sagemaker-runtime"),
        "bucket": processes.address.bucket,
        "role": processes.address.role_arn,
    }
    try:
        exec(example, names)  # noqa: S102  the code of the page
    finally:
        processes.sagemaker.delete_endpoint(EndpointName="cities")
    berlin, oslo = capsys.readouterr().out.splitlines()
    assert (berlin.split()[0], oslo.split()[0]) == ("berlin.tar.gz", "oslo.tar.gz")
    assert ("6.0" in berlin, "12.0" in oslo) == (True, True)

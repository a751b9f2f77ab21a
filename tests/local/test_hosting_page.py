"""Tests of the examples of the page about hosting. Each section with an example has a test."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer
from tests.local.resources.examples.models import put_linear_model
from tests.local.test_hosting import make_config, make_words_model, wait_for_endpoint
from tests.local.test_inference_pipelines import put_models
from tests.polling import wait_until

PAGE = (REPOSITORY / "docs/using/hosting.md").read_text(encoding="utf-8")
HANDLER_DEFINITIONS = ("def model_fn", "def predict_fn")
"""Texts of examples that define handlers. Other tests run these examples: test_inference_pipelines.py, and the tests of
the images."""
CONFIGURATIONS = {"Serverless variants": "on-demand", "Shadow variants": "shadowed", "Data capture": "captured"}
"""The endpoint configurations of examples that create no endpoint, by the heading of their section."""
PRINTED_TEXTS: Mapping[str, Sequence[str]] = {
    "Endpoints": ["b'6.0\\n'"],
    "Updates in steps": [],
    "Asynchronous endpoints": ["/answers/"],
    "Batch transform": [],
    "Response streams": ["one two three"],
    "Inference pipelines": ["b'60.0\\n'", "b'6.0\\n'"],
    "Multi-model endpoints": ["berlin.tar.gz b'6.0\\n'", "oslo.tar.gz b'12.0\\n'"],
    "Inference components": ["b'6.0\\n'"],
    "Automatic scaling": [],
    **dict.fromkeys(CONFIGURATIONS, ()),
}
"""Texts that the examples of a section print."""


def list_examples() -> dict[str, list[str]]:
    """Return the clients' programs of each section of the page, by its heading."""
    _, *parts = re.split(r"^#{2,3} (.*)\n", PAGE, flags=re.MULTILINE)
    examples = {
        heading: [
            code
            for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
            if not any(definition in code for definition in HANDLER_DEFINITIONS)
        ]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {heading: programs for heading, programs in examples.items() if programs}


EXAMPLES = list_examples()


@pytest.fixture(scope="module")
def namespace(process_server: LocalServer) -> Iterator[dict[str, Any]]:
    """The variables that the page's examples use. The archives of the examples exist, and the first example has run."""
    for weight, name in ((1.0, "prices"), (2.0, "prices-2"), (1.0, "cities/berlin"), (2.0, "cities/oslo")):
        put_linear_model(process_server, f"{name}.tar.gz", weight)
    put_models(process_server, "chain")
    process_server.put({"rows.csv": "1,2,3\n4,5,6\n"})
    namespace = {
        "sagemaker": process_server.sagemaker,
        "runtime": process_server.client("sagemaker-runtime"),
        "cloudwatch": process_server.client("cloudwatch"),
        "autoscaling": process_server.client("application-autoscaling"),
        "bucket": process_server.address.bucket,
        "role": process_server.address.role_arn,
        "time": time,
    }
    for code in EXAMPLES["Endpoints"]:
        exec(code, namespace)  # noqa: S102  the code of the page
    container = {"Image": namespace["container"]["Image"], "ModelDataUrl": process_server.uri("prices-2.tar.gz")}
    process_server.sagemaker.create_model(
        ModelName="prices-2", PrimaryContainer=container, ExecutionRoleArn=process_server.address.role_arn
    )
    yield namespace
    delete_endpoints(process_server)
    delete_models(process_server)


def delete_endpoints(server: LocalServer) -> None:
    """Delete the endpoints of the examples that have run, after their inference components."""
    client = server.sagemaker
    for component in client.list_inference_components(NameContains="first")["InferenceComponents"]:
        client.delete_inference_component(InferenceComponentName=component["InferenceComponentName"])
    wait_until(
        lambda: client.list_inference_components(EndpointNameEquals="shared")["InferenceComponents"],
        lambda components: not components,
    )
    endpoint_names = re.findall(r'create_endpoint\(EndpointName="(.*?)"', PAGE)
    existing_names = {endpoint["EndpointName"] for endpoint in client.list_endpoints(MaxResults=100)["Endpoints"]}
    for name in {*endpoint_names, *CONFIGURATIONS.values(), "words"} & existing_names:
        client.delete_endpoint(EndpointName=name)


def delete_models(server: LocalServer) -> None:
    """Delete the models and configurations of the examples: programs of other pages use the same names."""
    for config in re.findall(r'create_endpoint_config\(\s*EndpointConfigName="(.*?)"', PAGE):
        with suppress(ClientError):  # the example of the endpoint has not run
            server.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    for model in ("prices-2", *re.findall(r'create_model\(\s*ModelName="(.*?)"', PAGE)):
        with suppress(ClientError):
            server.sagemaker.delete_model(ModelName=model)


def test_each_example_has_an_expected_result() -> None:
    assert EXAMPLES.keys() == PRINTED_TEXTS.keys()


@pytest.mark.parametrize("section", EXAMPLES)
def test_example_works(
    process_server: LocalServer, namespace: dict[str, Any], section: str, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = dict(namespace)
    if section == "Response streams":
        create_endpoint(process_server, "words", make_config(process_server, make_words_model(process_server)))
    for code in EXAMPLES[section]:
        # The fixture has created the resources of the first example.
        exec(code.rpartition("\n\n")[2] if section == "Endpoints" else code, variables)  # noqa: S102
    if section in CONFIGURATIONS:
        create_endpoint(process_server, CONFIGURATIONS[section], CONFIGURATIONS[section])
        request = {"EndpointName": CONFIGURATIONS[section], "ContentType": "text/csv", "Accept": "text/csv"}
        assert namespace["runtime"].invoke_endpoint(**request, Body=b"1,2,3")["Body"].read() == b"6.0\n"
    output = capsys.readouterr().out
    positions = [output.find(text) for text in PRINTED_TEXTS[section]]
    assert -1 not in positions, output
    assert positions == sorted(positions)


def create_endpoint(server: LocalServer, name: str, config: str) -> None:
    server.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    assert wait_for_endpoint(server, name)["EndpointStatus"] == "InService"

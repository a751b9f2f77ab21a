"""Tests in Chromium of the console's pages of endpoints, with a runtime whose models return the request."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations
from tests.polling import wait_until


def create_endpoint(server: LocalServer, name: str, **config: Any) -> None:
    """Create an endpoint with its configuration and its model, and wait until it is in service."""
    start_endpoint(server, name, **config)
    wait_until(
        lambda: server.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"],
        lambda status: status == "InService",
        seconds=20,
    )


def start_endpoint(server: LocalServer, name: str, container: dict[str, Any] | None = None, **config: Any) -> None:
    sagemaker = server.sagemaker
    sagemaker.create_model(
        ModelName=name,
        PrimaryContainer={"Image": "serve", **(container or {})},
        ExecutionRoleArn=server.address.role_arn,
    )
    config_members = {"ProductionVariants": [make_variant(name, "blue")], **config}
    sagemaker.create_endpoint_config(EndpointConfigName=name, **config_members)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def make_variant(model: str, name: str, **members: Any) -> dict[str, Any]:
    instances = {} if members else {"InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    return {"VariantName": name, "ModelName": model, **instances, **members}


def open_endpoint(page: Page, server: LocalServer, name: str) -> None:
    page.goto(f"{server.address.url}/_microjobs/console/#/endpoints/{name}")
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def test_endpoint_has_a_page_and_curves_of_its_invocations(stub_page: Page, stub_server: LocalServer) -> None:
    create_endpoint(stub_server, "prices")
    stub_page.goto(f"{stub_server.address.url}/_microjobs/console/#/jobs")
    row = stub_page.get_by_role("row").filter(has_text="prices")
    expect(row).to_contain_text("InService")
    for _ in range(3):
        stub_server.client("sagemaker-runtime").invoke_endpoint(EndpointName="prices", Body=b"1")
    row.get_by_role("link").click()
    stub_page.get_by_role("link", name="Metrics").click()
    expect(stub_page.get_by_role("img", name="Curves of ModelLatency")).to_be_visible()
    expect(stub_page.locator(".chart").filter(has_text="Invocations").first).to_contain_text("blue")


def test_new_endpoint_is_listed_and_shows_its_requests(stub_page: Page, stub_server: LocalServer) -> None:
    stub_page.get_by_role("link", name="Endpoints").click()
    create_endpoint(stub_server, "listed", ShadowProductionVariants=[make_variant("listed", "copy")])
    stub_page.get_by_role("link", name="listed").click()
    variants = stub_page.get_by_role("table", name="Variants")
    expect(variants.get_by_role("row").filter(has_text="blue")).to_contain_text("real-time")
    expect(variants.get_by_role("row").filter(has_text="copy")).to_contain_text("shadow")
    runtime = stub_server.client("sagemaker-runtime")
    for body in (b"1", b"2"):
        runtime.invoke_endpoint(EndpointName="listed", Body=body)
    with pytest.raises(runtime.exceptions.ModelError):
        runtime.invoke_endpoint(EndpointName="listed", Body=b"fail")
    row = stub_page.get_by_role("table", name="Requests").get_by_role("row").filter(has_text="blue")
    expect(row).to_have_text(re.compile(r"blue\s*3\s*0\s*1\s*\d\S* ms"))
    assert find_accessibility_violations(stub_page) == []


def test_kinds_of_variants_are_named_and_have_their_own_fields(stub_page: Page, stub_server: LocalServer) -> None:
    serverless = make_variant("small", "blue", ServerlessConfig={"MemorySizeInMB": 2048, "MaxConcurrency": 5})
    create_endpoint(stub_server, "small", ProductionVariants=[serverless])
    open_endpoint(stub_page, stub_server, "small")
    expect(stub_page.get_by_role("table", name="Variants")).to_contain_text("2048 MB, at most 5 requests at once")
    start_endpoint(stub_server, "many", {"Mode": "MultiModel", "ModelDataUrl": stub_server.uri("models/")})
    open_endpoint(stub_page, stub_server, "many")
    expect(stub_page.get_by_role("table", name="Variants")).to_contain_text("multi-model")
    expect(stub_page.get_by_label("Target model")).to_be_visible()
    containers = [{"Image": "serve", "ContainerHostname": name} for name in ("first", "second")]
    stub_server.sagemaker.create_model(
        ModelName="direct",
        Containers=containers,
        InferenceExecutionConfig={"Mode": "Direct"},
        ExecutionRoleArn=stub_server.address.role_arn,
    )
    create_endpoint(stub_server, "chosen", ProductionVariants=[make_variant("direct", "blue")])
    open_endpoint(stub_page, stub_server, "chosen")
    stub_page.get_by_label("Target container").fill("second")
    stub_page.get_by_label("Body").fill("[1]")
    stub_page.get_by_role("button", name="Send").click()
    expect(stub_page.get_by_label("Response")).to_contain_text("variant blue")


def test_inference_components_receive_requests(stub_page: Page, stub_server: LocalServer) -> None:
    role, variant = stub_server.address.role_arn, make_variant("", "main")
    del variant["ModelName"]
    create_endpoint(stub_server, "shared", ProductionVariants=[variant], ExecutionRoleArn=role)
    open_endpoint(stub_page, stub_server, "shared")
    stub_server.sagemaker.create_inference_component(
        InferenceComponentName="part",
        EndpointName="shared",
        VariantName="main",
        Specification={
            "ModelName": "shared",
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 1},
        },
        RuntimeConfig={"CopyCount": 1},
    )
    expect(stub_page.get_by_role("table", name="Inference components")).to_contain_text("InService")
    stub_page.get_by_label("Body").fill("[1]")
    stub_page.get_by_role("button", name="Send").click()
    expect(stub_page.get_by_label("Response")).to_contain_text("variant main")


def test_request_and_its_response_are_shown(stub_page: Page, stub_server: LocalServer) -> None:
    create_endpoint(stub_server, "echo")
    open_endpoint(stub_page, stub_server, "echo")
    stub_page.get_by_label("Body").fill('{"rows":[1]}')
    stub_page.get_by_label("Body").press("Tab")
    stub_page.keyboard.press("Enter")  # the button has the focus
    response = stub_page.get_by_label("Response")
    expect(response).to_contain_text('"rows": [')
    expect(response).to_contain_text("application/json, 12 B")
    stub_page.get_by_label("Content type").select_option("text/csv")
    stub_page.get_by_label("Body").fill("1,2\n3,4")
    stub_page.get_by_role("button", name="Send").click()
    expect(response.locator("pre")).to_have_text("1,2\r\n3,4")
    assert find_accessibility_violations(stub_page) == []


def test_stream_is_shown_while_it_arrives(stub_page: Page, stub_server: LocalServer) -> None:
    create_endpoint(stub_server, "streams")
    open_endpoint(stub_page, stub_server, "streams")
    stub_page.get_by_label("Receive").select_option("as a stream")
    stub_page.get_by_label("Body").fill("parts")
    stub_page.get_by_role("button", name="Send").click()
    response = stub_page.get_by_label("Response")
    expect(response.locator("pre")).to_have_text("part 0\n")
    expect(response).to_contain_text("Receiving")
    expect(response.locator("pre")).to_have_text("part 0\npart 1\npart 2\npart 3\n")
    expect(response).to_contain_text("text/plain, 28 B")
    expect(response).to_contain_text("variant blue")
    stub_page.get_by_label("Body").fill("fail")
    stub_page.get_by_role("button", name="Send").click()
    expect(stub_page.get_by_role("alert", name="Error")).to_contain_text("ModelError")


def test_result_of_an_asynchronous_request_appears(stub_page: Page, stub_server: LocalServer) -> None:
    output = {
        "OutputConfig": {"S3OutputPath": stub_server.uri("results"), "S3FailurePath": stub_server.uri("failures")}
    }
    create_endpoint(stub_server, "queued", AsyncInferenceConfig=output)
    open_endpoint(stub_page, stub_server, "queued")
    expect(stub_page.get_by_role("table", name="Variants")).to_contain_text("asynchronous")
    for body, status in (('{"rows":[1]}', "Success"), ("fail", "Failed")):
        stub_page.get_by_label("Body").fill(body)
        stub_page.get_by_role("button", name="Send").click()
        response = stub_page.get_by_label("Response")
        expect(response).to_contain_text(status)
        expect(response.locator("pre")).to_contain_text("rows" if status == "Success" else "fail")
        expect(response.get_by_role("link")).to_have_count(2)
    assert find_accessibility_violations(stub_page) == []


def test_file_is_sent_and_its_response_can_be_stored(stub_page: Page, stub_server: LocalServer, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192  # the content exceeds the limit for other operations
    (tmp_path / "x.npy").write_bytes(content)
    create_endpoint(stub_server, "files")
    open_endpoint(stub_page, stub_server, "files")
    stub_page.get_by_label("Content type").select_option("application/x-npy")
    stub_page.get_by_label("File").set_input_files(tmp_path / "x.npy")
    stub_page.get_by_role("button", name="Send").click()
    expect(stub_page.get_by_label("Response")).to_contain_text("2.1 MB")
    with stub_page.expect_download() as download:
        stub_page.get_by_role("link", name="Download the response").click()
    assert download.value.path().read_bytes() == content


def test_error_of_the_model_is_shown(stub_page: Page, stub_server: LocalServer) -> None:
    create_endpoint(stub_server, "broken")
    open_endpoint(stub_page, stub_server, "broken")
    stub_page.get_by_label("Body").fill("fail")
    stub_page.get_by_role("button", name="Send").click()
    error = stub_page.get_by_role("alert", name="Error")
    expect(error).to_contain_text("ModelError")
    expect(error).to_contain_text("Status 500. The container's message:")
    assert find_accessibility_violations(stub_page) == []

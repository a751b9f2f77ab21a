"""The pages of an endpoint in Chromium, with a runtime whose models return the request."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer, wait_until
from tests.local.security.stubbed import stubbed


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with stubbed(tmp_path_factory.mktemp("endpoints")) as server:
        yield server


def create_endpoint(server: LocalServer, name: str) -> None:
    sagemaker = server.sagemaker
    sagemaker.create_model(
        ModelName=name, PrimaryContainer={"Image": "serve"}, ExecutionRoleArn=server.address.role_arn
    )
    variant = {
        "VariantName": "blue",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_until(
        lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"], lambda status: status == "InService"
    )


def test_endpoint_has_a_page_and_curves_of_its_invocations(browser: Browser, stub: LocalServer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(control.make_console_address(stub.home, stub.address))
    create_endpoint(stub, "prices")
    row = page.get_by_role("row").filter(has_text="prices")
    expect(row).to_contain_text("InService")
    for _ in range(3):
        stub.client("sagemaker-runtime").invoke_endpoint(EndpointName="prices", Body=b"1")
    row.get_by_role("link").click()
    page.get_by_role("link", name="Metrics").click()
    expect(page.get_by_role("img", name="Curves of ModelLatency")).to_be_visible()
    expect(page.locator(".chart").filter(has_text="Invocations").first).to_contain_text("blue")
    context.close()

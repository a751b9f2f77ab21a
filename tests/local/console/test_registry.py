"""The pages of the model registry in Chromium, with a runtime that starts no hosts."""

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer, unique
from tests.local.console.checks import find_violations
from tests.local.resources.examples.model_registry import make_package_request


@pytest.fixture
def group(stub: LocalServer) -> str:
    return create_group(stub, unique("group"))


def create_group(server: LocalServer, name: str) -> str:
    """Create a group with two versions; return its name."""
    server.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    statistics = {"ContentType": "application/json", "S3Uri": server.uri("mse.json")}
    for number in (1, 2):
        server.sagemaker.create_model_package(
            ModelPackageGroupName=name,
            ModelApprovalStatus="PendingManualApproval",
            ModelMetrics={"ModelQuality": {"Statistics": statistics}},
            CustomerMetadataProperties={"mse": f"{number}.5"},
            **make_package_request(server, name),
        )
    return name


def open_group(page: Page, server: LocalServer, group: str) -> None:
    page.goto(f"{server.address.url}/_microjobs/console/#/registry")
    page.get_by_role("link", name=group, exact=True).click()
    expect(page.get_by_role("heading", name="Version 2")).to_be_visible()


def test_version_is_approved_and_rejected(console: Page, stub: LocalServer, group: str) -> None:
    open_group(console, stub, group)
    version = console.get_by_role("region", name="Version 2")
    expect(version.get_by_text("mse.json", exact=False).first).to_be_visible()
    console.get_by_role("button", name="Approve").click()
    row = console.get_by_role("table", name="Versions").get_by_role("row").filter(has_text="Version 2")
    expect(row).to_contain_text("Approved")
    assert find_violations(console) == []
    console.get_by_role("button", name="Reject").click()
    expect(row).to_contain_text("Rejected")
    expect(console.get_by_role("button", name="Deploy")).to_have_count(0)
    rejected = stub.sagemaker.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Rejected")
    assert [one["ModelPackageVersion"] for one in rejected["ModelPackageSummaryList"]] == [2]


def test_another_version_is_chosen_by_its_link(console: Page, stub: LocalServer, group: str) -> None:
    open_group(console, stub, group)
    console.get_by_role("link", name="Version 1").click()
    expect(console.get_by_role("region", name="Version 1").locator("dl").last).to_contain_text("1.5")


def test_approved_version_is_deployed(console: Page, stub: LocalServer, group: str) -> None:
    open_group(console, stub, group)
    console.get_by_role("button", name="Approve").click()
    console.get_by_label("Name of the endpoint").fill(group)
    console.get_by_role("button", name="Deploy").click()
    expect(console.locator(".actions .status")).to_have_text("InService")
    expect(console.get_by_role("heading", name=group)).to_be_visible()


def test_failed_deployment_leaves_nothing_behind(console: Page, stub: LocalServer, group: str) -> None:
    open_group(console, stub, group)
    console.get_by_role("button", name="Approve").click()
    console.get_by_label("Name of the endpoint").fill(group)
    console.get_by_label("Instance type").fill("ml.nonsense")
    console.get_by_role("button", name="Deploy").click()
    expect(console.get_by_role("alert")).to_contain_text("ml.nonsense")
    assert stub.sagemaker.list_models(NameContains=group)["Models"] == []
    assert stub.sagemaker.list_endpoint_configs(NameContains=group)["EndpointConfigs"] == []

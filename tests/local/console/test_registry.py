"""Tests in Chromium of the console's pages of the model registry, with a runtime that starts no hosts."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer, make_unique_name
from tests.local.console.checks import find_accessibility_violations
from tests.local.resources.examples.model_registry import make_package_request


@pytest.fixture
def group(stub_server: LocalServer) -> str:
    return create_group(stub_server, make_unique_name("group"))


def create_group(server: LocalServer, name: str) -> str:
    """Create a group with two versions; return its name."""
    server.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    for number in (1, 2):
        report = {"regression_metrics": {"mse": {"value": number + 0.5, "standard_deviation": 0.1}}}
        server.put({f"{name}/{number}/mse.json": json.dumps(report), f"{name}/{number}/bias.json": "no JSON"})
        quality, bias = (
            {"ContentType": "application/json", "S3Uri": server.uri(f"{name}/{number}/{file}.json")}
            for file in ("mse", "bias")
        )
        server.sagemaker.create_model_package(
            ModelPackageGroupName=name,
            ModelApprovalStatus="PendingManualApproval",
            ModelMetrics={"ModelQuality": {"Statistics": quality}, "Bias": {"Report": bias}},
            DriftCheckBaselines={"ModelQuality": {"Statistics": {**quality, "S3Uri": server.uri("absent.json")}}},
            CustomerMetadataProperties={"mse": f"{number}.5"},
            **make_package_request(server, name),
        )
    return name


def open_group(page: Page, server: LocalServer, group: str) -> None:
    page.goto(f"{server.address.url}/_microjobs/console/#/registry")
    page.get_by_role("link", name=group, exact=True).click()
    expect(page.get_by_role("heading", name="Version 2")).to_be_visible()


def test_version_is_approved_and_rejected(stub_page: Page, stub_server: LocalServer, group: str) -> None:
    open_group(stub_page, stub_server, group)
    stub_page.get_by_role("button", name="Approve").click()
    row = stub_page.get_by_role("table", name="Versions").get_by_role("row").filter(has_text="Version 2")
    expect(row).to_contain_text("Approved")
    assert find_accessibility_violations(stub_page) == []
    stub_page.get_by_role("button", name="Reject").click()
    expect(row).to_contain_text("Rejected")
    expect(stub_page.get_by_role("button", name="Deploy")).to_have_count(0)
    response = stub_server.sagemaker.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Rejected")
    assert [package["ModelPackageVersion"] for package in response["ModelPackageSummaryList"]] == [2]


def test_metrics_of_versions_are_shown_and_compared(stub_page: Page, stub_server: LocalServer, group: str) -> None:
    open_group(stub_page, stub_server, group)
    table = stub_page.get_by_role("table", name="Versions")
    header = table.get_by_role("columnheader").all_inner_texts()
    assert header[3:5] == ["regression_metrics.mse", "regression_metrics.mse.standard_deviation"]
    for number in (1, 2):
        row = table.get_by_role("row").filter(has_text=f"Version {number}")
        expect(row.get_by_role("cell").nth(3)).to_have_text(f"{number}.5")
    metrics = stub_page.get_by_role("table", name="Metrics").get_by_role("row")
    expect(metrics.filter(has_text="Bias.Report")).to_contain_text("The file is not JSON.")
    expect(metrics.filter(has_text="DriftCheckBaselines.ModelQuality.Statistics")).to_contain_text("does not exist")
    expect(metrics.filter(has_text="regression_metrics.mse")).to_have_count(2)


def test_another_version_is_chosen_by_its_link(stub_page: Page, stub_server: LocalServer, group: str) -> None:
    open_group(stub_page, stub_server, group)
    stub_page.get_by_role("link", name="Version 1").click()
    expect(stub_page.get_by_role("region", name="Version 1").locator("dl").last).to_contain_text("1.5")


def test_approved_version_is_deployed(stub_page: Page, stub_server: LocalServer, group: str) -> None:
    open_group(stub_page, stub_server, group)
    stub_page.get_by_role("button", name="Approve").click()
    stub_page.get_by_label("Name of the endpoint").fill(group)
    stub_page.get_by_role("button", name="Deploy").click()
    expect(stub_page.locator(".actions .status")).to_have_text("InService")
    expect(stub_page.get_by_role("heading", name=group)).to_be_visible()


def test_approved_version_updates_a_variant_of_an_endpoint(
    stub_page: Page, stub_server: LocalServer, group: str
) -> None:
    endpoint = {"EndpointName": group, "EndpointConfigName": group}
    stub_server.sagemaker.create_model(
        ModelName=group, PrimaryContainer={"Image": "serve"}, ExecutionRoleArn=stub_server.address.role_arn
    )
    variants = [
        {"VariantName": name, "ModelName": group, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        for name in ("blue", "green")
    ]
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 50,
        "DestinationS3Uri": stub_server.uri("capture"),
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    stub_server.sagemaker.create_endpoint_config(
        EndpointConfigName=group, ProductionVariants=variants, DataCaptureConfig=capture
    )
    stub_server.sagemaker.create_endpoint(**endpoint)
    open_group(stub_page, stub_server, group)
    stub_page.get_by_role("button", name="Approve").click()
    stub_page.get_by_label("Deploy to").select_option(group)
    stub_page.get_by_label("Variant").select_option("green")
    stub_page.get_by_label("Instances").fill("2")
    stub_page.get_by_role("button", name="Update the endpoint").click()
    expect(stub_page.get_by_role("heading", name=group)).to_be_visible()
    rows = stub_page.get_by_role("table", name="Variants").get_by_role("row")
    expect(rows.filter(has_text="green").get_by_role("link")).to_have_text(re.compile(f"{group}-"))
    expect(stub_page.locator(".actions .status")).to_have_text("InService")
    name = stub_server.sagemaker.describe_endpoint(EndpointName=group)["EndpointConfigName"]
    config = stub_server.sagemaker.describe_endpoint_config(EndpointConfigName=name)
    models = {
        variant["VariantName"]: (variant["ModelName"], variant["InitialInstanceCount"])
        for variant in config["ProductionVariants"]
    }
    assert models == {"blue": (group, 1), "green": (name, 2)}
    assert config["DataCaptureConfig"] == capture
    assert config["EndpointConfigName"] != group


def test_failed_deployment_leaves_nothing_behind(stub_page: Page, stub_server: LocalServer, group: str) -> None:
    open_group(stub_page, stub_server, group)
    stub_page.get_by_role("button", name="Approve").click()
    stub_page.get_by_label("Name of the endpoint").fill(group)
    stub_page.get_by_label("Instance type").fill("ml.nonsense")
    stub_page.get_by_role("button", name="Deploy").click()
    expect(stub_page.get_by_role("alert")).to_contain_text("ml.nonsense")
    assert stub_server.sagemaker.list_models(NameContains=group)["Models"] == []
    assert stub_server.sagemaker.list_endpoint_configs(NameContains=group)["EndpointConfigs"] == []

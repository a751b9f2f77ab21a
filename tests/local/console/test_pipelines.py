"""Tests in Chromium of the console's pages of pipelines and their executions."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations
from tests.local.resources.pipelines.steps import (
    create_pipeline,
    make_get,
    make_processing_step,
    make_step,
    start_execution,
    wait_for_end,
)

CACHE = {"Enabled": True, "ExpireAfter": "PT1H"}
DEPLOY_CONDITION = {"Type": "Equals", "LeftValue": make_get("Parameters.Deploy"), "RightValue": "yes"}
PARAMETERS = [{"Name": "Deploy", "Type": "String", "DefaultValue": "no", "EnumValues": ["no", "yes"]}]


def create_pipeline_with_branches(server: LocalServer) -> str:
    """Create a pipeline with the cached step `prepare`, the step `slow`, and a condition with two branches."""
    fail = make_step("fail", "Fail", {"ErrorMessage": "the error is too high"})
    branches = {
        "Conditions": [DEPLOY_CONDITION],
        "IfSteps": [make_processing_step(server, "deploy")],
        "ElseSteps": [fail],
    }
    return create_pipeline(
        server,
        make_processing_step(server, "prepare", CacheConfig=CACHE),
        make_processing_step(server, "slow", "sleep 1", "prepare"),
        make_step("check", "Condition", branches, "slow"),
        Parameters=PARAMETERS,
    )


LIST_NAMES_BY_LAYER = """async (nodes) => {
  const { makeLayers } = await import(new URL("pages/execution/layout.js", document.querySelector("script[src]").src));
  return makeLayers(nodes).map((layer) => layer.map((node) => node.name));
}"""
"""A function that returns the names of the steps in each layer of the graph."""


def test_graph_of_a_damaged_definition_with_a_cycle_shows_all_steps(page: Page, console_url: str) -> None:
    page.goto(console_url)
    dependency_by_name = {"first": "last", "last": "first", "own": "own"}
    nodes = [{"name": name, "dependencies": [{"name": dependency}]} for name, dependency in dependency_by_name.items()]
    assert page.evaluate(LIST_NAMES_BY_LAYER, nodes) == [["last", "own"], ["first"]]


def get_row(page: Page, step: str) -> Locator:
    cell = page.get_by_role("cell", name=step, exact=True)
    return page.get_by_role("table", name="Steps").get_by_role("row").filter(has=cell)


def test_execution_is_started_with_parameters_and_followed(page: Page, server: LocalServer, console_url: str) -> None:
    pipeline = create_pipeline_with_branches(server)
    page.goto(f"{console_url}#/pipelines")
    page.get_by_role("link", name=pipeline).click()
    page.get_by_label("Deploy").select_option("yes")
    page.get_by_role("button", name="Start").click()
    expect(page).to_have_url(re.compile(f"#/pipelines/{pipeline}/"))
    expect(get_row(page, "prepare")).to_contain_text(re.compile("Executing|Succeeded"))
    expect(page.locator(".actions .status")).to_have_text("Succeeded")
    expect(get_row(page, "deploy")).to_contain_text("Succeeded")
    expect(get_row(page, "fail")).to_have_count(0)
    graph = page.get_by_label("Graph of the steps")
    expect(graph.get_by_role("link").filter(has_text="deploy")).to_contain_text("Succeeded")
    expect(graph.locator(".node").filter(has_text="fail")).to_contain_text("not started")
    assert find_accessibility_violations(page) == []


def test_cache_hits_and_failures_are_shown(page: Page, server: LocalServer, console_url: str) -> None:
    pipeline = create_pipeline_with_branches(server)
    for _ in range(2):
        arn = start_execution(server, pipeline)
        assert wait_for_end(server, arn)["PipelineExecutionStatus"] == "Failed"
    page.goto(f"{console_url}#/pipelines/{pipeline}/{arn.rpartition('/')[2]}")
    expect(get_row(page, "prepare")).to_contain_text("cache hit: result of execution")
    expect(page.get_by_label("Graph of the steps").locator(".node").filter(has_text="prepare")).to_contain_text(
        "cache hit"
    )
    expect(get_row(page, "fail")).to_contain_text("the error is too high")
    page.get_by_role("link", name="Description").click()
    page.get_by_role("link", name="Steps").click()
    get_row(page, "slow").get_by_role("link").click()
    expect(page.get_by_text("processing job")).to_be_visible()


def test_execution_is_stopped_and_retried(page: Page, server: LocalServer, console_url: str) -> None:
    pipeline = create_pipeline(server, make_processing_step(server, "wait", "sleep 100"))
    arn = start_execution(server, pipeline)
    page.goto(f"{console_url}#/pipelines/{pipeline}/{arn.rpartition('/')[2]}")
    expect(get_row(page, "wait")).to_contain_text("Executing")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".actions .status")).to_have_text("Stopped")
    page.get_by_role("button", name="Retry").click()
    expect(get_row(page, "wait")).to_contain_text("Executing")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".actions .status")).to_have_text("Stopped")


def test_nodes_of_a_wide_graph_have_different_places_in_three_layers(
    page: Page, server: LocalServer, console_url: str
) -> None:
    names = [f"branch-{number}" for number in range(12)]
    fail = {"ErrorMessage": "-"}
    middle_steps = [make_step(name, "Fail", fail, "first") for name in names]
    pipeline = create_pipeline(
        server, make_step("first", "Fail", fail), *middle_steps, make_step("last", "Fail", fail, *names, "first")
    )
    arn = start_execution(server, pipeline)
    wait_for_end(server, arn)
    page.goto(f"{console_url}#/pipelines/{pipeline}/{arn.rpartition('/')[2]}")
    nodes = page.get_by_label("Graph of the steps").locator(".node rect")
    expect(nodes).to_have_count(14)
    boxes = [node.bounding_box() for node in nodes.all()]
    corners = {(box["x"], box["y"]) for box in boxes if box}
    assert len(corners) == 14
    assert len({y for _, y in corners}) == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280

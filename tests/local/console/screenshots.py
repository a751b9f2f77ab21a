"""Takes the screenshots of the documentation: `make screenshots`.

Two servers run a few jobs. Each item of `PAGES` and `STUB_PAGES` is one screenshot in `docs/using/screenshots`.
`python -m tests.local.console.screenshots NAME...` takes only the screenshots with these names.
"""

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Page, Playwright, sync_playwright

from microjobs_orchestrator.local import control
from tests.conftest import REPOSITORY
from tests.local.clients import ROOT, LocalServer, make_channel, run_server
from tests.local.console.browsers import launch
from tests.local.console.test_registry import create_group
from tests.local.console.test_tuning import start_tuning, wait_for_tuning
from tests.local.resources.pipelines.steps import (
    create_pipeline,
    list_statuses,
    list_steps,
    make_processing_step,
    make_step,
    make_training_step,
    start_execution,
)
from tests.local.security.stub_runner import run_stub_server
from tests.local.test_hosting import make_model, wait_for_endpoint
from tests.polling import wait_until

FOLDER = REPOSITORY / "docs" / "using" / "screenshots"
SIZE = {"width": 1000, "height": 620}

PAGES = {
    "jobs": "#/jobs",
    "job": "#/jobs/training-job/housing-train-2",
    "code": "#/code/training-job/housing-train-1",
    "logs": "#/logs/training-job/housing-train-1",
    "metrics": "#/metrics/training-job/housing-train-1",
    "endpoint": "#/endpoints/housing",
    "pipeline": "#/pipelines/{execution}",
    "object": "#/buckets/housing-data/raw%2Fhouses.csv",
}
"""Addresses of pages, by the names of the screenshots. `{execution}` is the name and the id of an execution."""

STUB_PAGES = {
    "tuning": "#/tuning/tune",
    "compare": "#/compare?source=tuning&of=tune",
    "registry": "#/registry/housing",
}
"""Addresses of pages of a server whose runtime starts no hosts."""

TOP_HEADINGS = {"compare": "Parallel coordinates"}
"""For pages that are scrolled: the heading at the top of the screenshot."""

PRINTF_ARGUMENTS = r"'\033[36mepoch %s/8\033[0m loss=%s mse=%s\n' $epoch 0.$((90 / epoch)) $((4000 / epoch))"
TRAINING_SCRIPT = (
    f"for epoch in 1 2 3 4 5 6 7 8; do printf {PRINTF_ARGUMENTS}; sleep 1; done; "
    "printf '\\033[32mmodel saved\\033[0m\\n'"
)
METRICS = {
    "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}, {"Name": "mse", "Regex": "mse=([0-9.]+)"}]
}
FAILURE_SCRIPT = f"echo 'x_train has 12 columns, x_test has 13' >{ROOT}/output/failure; exit 1"


def run_jobs(server: LocalServer) -> None:
    """Run the jobs that the pages show."""
    server.put({"housing/x_train.npy": "data"})
    server.s3.create_bucket(Bucket="housing-data")
    rows = "".join(f"{rooms},{20 * rooms + 7},{rooms % 3},{110 * rooms + 40}\n" for rooms in range(1, 12))
    server.s3.put_object(Bucket="housing-data", Key="raw/houses.csv", Body=f"rooms,area,floor,price\n{rows}".encode())
    inputs = [make_channel("train", server.uri("housing"))]
    server.process("echo done", ProcessingJobName="housing-preprocess")
    for number, rate in ((4, "0.01"), (1, "0.1")):
        name, script = f"housing-train-{number}", TRAINING_SCRIPT.replace("4000", str(4000 + 500 * number))
        hyperparameters = {"learning-rate": rate, "hidden": "32"}
        server.train(
            script, TrainingJobName=name, algorithm=METRICS, InputDataConfig=inputs, HyperParameters=hyperparameters
        )
    server.train(FAILURE_SCRIPT, TrainingJobName="housing-train-2", InputDataConfig=inputs)
    server.start_training("sleep 90", TrainingJobName="housing-train-3", InputDataConfig=inputs)


def deploy_endpoint(server: LocalServer) -> None:
    """Create an endpoint with two variants, and send requests to it."""
    instances = {"InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    model = make_model(server, 1.0)
    variants = [{"VariantName": name, "ModelName": model, **instances} for name in ("current", "candidate")]
    server.sagemaker.create_endpoint_config(EndpointConfigName="housing", ProductionVariants=variants)
    server.sagemaker.create_endpoint(EndpointName="housing", EndpointConfigName="housing")
    assert wait_for_endpoint(server, "housing")["EndpointStatus"] == "InService"
    runtime = server.client("sagemaker-runtime")
    for _ in range(40):
        runtime.invoke_endpoint(EndpointName="housing", Body=b"1,2,3", ContentType="text/csv")
        time.sleep(0.1)


def execute_pipeline(server: LocalServer) -> str:
    """Execute a pipeline twice; return its name and the id of the second execution, which is running."""
    request = make_processing_step(server, "score")["Arguments"]
    branches = {
        "Conditions": [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}],
        "IfSteps": [make_processing_step(server, "register"), make_processing_step(server, "publish")],
        "ElseSteps": [make_step("too-inaccurate", "Fail", {"ErrorMessage": "the error is too high"})],
    }
    pipeline = create_pipeline(
        server,
        make_processing_step(server, "preprocess", CacheConfig={"Enabled": True, "ExpireAfter": "P1D"}),
        make_training_step(server, "train-pytorch", "sleep 2", "preprocess"),
        make_training_step(server, "train-tensorflow", "sleep 3", "preprocess"),
        make_step("score", "Processing", request, "train-pytorch", "train-tensorflow"),
        make_step("accurate-enough", "Condition", branches, "score"),
        make_step("report", "Processing", make_processing_step(server, "-", "sleep 90")["Arguments"], "score"),
    )
    for _ in range(2):
        arn = start_execution(server, pipeline)
        wait_for_step(server, arn, "publish")
    return f"{pipeline}/{arn.rpartition('/')[2]}"


def wait_for_step(server: LocalServer, arn: str, step: str) -> None:
    wait_until(lambda: list_statuses(list_steps(server, arn)).get(step), lambda status: status == "Succeeded")


def take_screenshot(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.locator("tbody tr, pre, .log > div, canvas").first.wait_for()
    page.wait_for_timeout(1000)  # after this time, charts and live data are complete
    if name in TOP_HEADINGS:
        page.get_by_role("heading", name=TOP_HEADINGS[name]).evaluate("heading => heading.scrollIntoView()")
    page.screenshot(path=FOLDER / f"{name}.png")


def take_screenshots(server: LocalServer, playwright: Playwright, pages: Mapping[str, str]) -> None:
    browser = launch(playwright)
    page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]  # a TypedDict
    page.goto(control.make_console_address(server.home, server.address))
    page.locator("tbody tr").first.wait_for()
    for name in pages.keys() & (sys.argv[1:] or pages.keys()):
        take_screenshot(page, f"{server.address.url}/_microjobs/console/{pages[name]}", name)
    browser.close()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_server(Path(folder), runtime="process") as server,
        sync_playwright() as playwright,
    ):
        run_jobs(server)
        deploy_endpoint(server)
        execution = execute_pipeline(server)
        take_screenshots(server, playwright, {name: page.format(execution=execution) for name, page in PAGES.items()})
    with (
        tempfile.TemporaryDirectory() as folder,
        run_stub_server(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        start_tuning(server, "tune", 40)
        wait_for_tuning(server, "tune")
        create_group(server, "housing")
        take_screenshots(server, playwright, STUB_PAGES)


if __name__ == "__main__":
    main()

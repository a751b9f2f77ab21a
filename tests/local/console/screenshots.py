"""Takes the screenshots of the documentation: `make screenshots`.

A server on the process runtime runs a few jobs. Each line of `PAGES` is one screenshot in `docs/using/screenshots`.
`python -m tests.local.console.screenshots NAME...` takes those of the named pages.
"""

import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from microjobs_orchestrator.local import control
from tests.conftest import REPOSITORY
from tests.local.clients import ROOT, LocalServer, channel, running_server
from tests.local.console.browsers import launch
from tests.local.test_hosting import make_model, wait_for_endpoint

FOLDER = REPOSITORY / "docs" / "using" / "screenshots"
SIZE = {"width": 1000, "height": 620}

PAGES = {
    "jobs": "#/jobs",
    "job": "#/jobs/training-job/housing-train-2",
    "logs": "#/logs/training-job/housing-train-1",
    "metrics": "#/metrics/training-job/housing-train-1",
    "endpoint": "#/endpoints/housing",
}
"""Addresses of pages, by the names of the screenshots."""

LINE = r"'\033[36mepoch %s/8\033[0m loss=%s mse=%s\n' $epoch 0.$((90 / epoch)) $((4000 / epoch))"
TRAINING = f"for epoch in 1 2 3 4 5 6 7 8; do printf {LINE}; sleep 1; done; printf '\\033[32mmodel saved\\033[0m\\n'"
METRICS = {
    "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}, {"Name": "mse", "Regex": "mse=([0-9.]+)"}]
}
FAILURE = f"echo 'x_train has 12 columns, x_test has 13' >{ROOT}/output/failure; exit 1"


def run_jobs(server: LocalServer) -> None:
    """Run the jobs that the pages show."""
    server.put({"housing/x_train.npy": "data"})
    inputs = [channel("train", server.uri("housing"))]
    server.process("echo done", ProcessingJobName="housing-preprocess")
    server.train(TRAINING, TrainingJobName="housing-train-1", algorithm=METRICS, InputDataConfig=inputs)
    server.train(FAILURE, TrainingJobName="housing-train-2", InputDataConfig=inputs)
    server.start_training("sleep 90", TrainingJobName="housing-train-3", InputDataConfig=inputs)


def deploy(server: LocalServer) -> None:
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


def take(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.locator("tbody tr, .log > div, canvas").first.wait_for()
    page.wait_for_timeout(1000)  # charts and live data
    page.screenshot(path=FOLDER / f"{name}.png")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), runtime="process") as server,
        sync_playwright() as playwright,
    ):
        run_jobs(server)
        deploy(server)
        browser = launch(playwright)
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]  # a TypedDict
        page.goto(control.make_console_address(server.home, server.address))
        page.locator("tbody tr").first.wait_for()
        for name in sys.argv[1:] or PAGES:
            take(page, f"{server.address.url}/_microjobs/console/{PAGES[name]}", name)
        browser.close()


if __name__ == "__main__":
    main()

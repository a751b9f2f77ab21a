"""The web console with many jobs and a long log, in Chromium: first paint, bytes, memory, and requests of idle pages.

    uv run python bench/console.py [--jobs 10000] [--log-megabytes 1000] [--rounds 5]

The peer is the web interface of MLflow without runs. The script installs MLflow from the lock of MLflow tracking
servers. No page uses cached files: MLflow's page is opened in a new browser context, and the cache is disabled for the
console's pages. Prints medians and ratios.
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness import REPOSITORY, create_virtual_environment, print_table, run_interleaved
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from search import add_jobs

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.console.assets import Assets
from microjobs_orchestrator.local.home import Home

CONSOLE_COUNT = 10
MEGABYTE = 1_000_000
TIMEOUT_MILLISECONDS = 30_000
MAX_ATTEMPTS = 5
IDLE_SECONDS = 10
START_TIMEOUT_SECONDS = 400
"""Timeout for MLflow, which imports many packages."""
MLFLOW_LOCK = REPOSITORY / "orchestrator" / "local" / "resources" / "mlflow" / "requirements.lock"
LAST_LINE = "the last line"
PAGES = ("#/jobs", "#/logs/training-job/job-0", "#/jobs/training-job/job-1", "#/compare?jobs=job-1,job-2", "#/buckets")
TRANSFERRED_BYTES = "performance.getEntries().reduce((sum, one) => sum + (one.transferSize ?? 0), 0)"
"""A JavaScript expression for the size of all responses that a page has received."""
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
"""A JavaScript expression for the milliseconds from the start of the navigation to the first paint."""


class MlflowServer(NamedTuple):
    url: str
    pid: int


class Opening(NamedTuple):
    """The opening of a page. Times are in seconds since the start of the navigation."""

    first_paint_seconds: float
    contents_seconds: float
    """The time at which the contents were in the page."""
    transferred_bytes: int
    """The size of all responses, with headers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--log-megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        homes = {name: Home(folder / name) for name in ("console", "memory")}
        for home in homes.values():
            add_jobs(home, options.jobs)
            write_log(home, "job-0", options.log_megabytes)
            write_log(home, "job-1", 1)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        stack.callback(browser.close)
        peer = stack.enter_context(run_mlflow(folder))
        compare_openings(browser, homes["console"], peer, options.rounds, markdown=options.markdown)
        compare_memory(browser, homes["memory"], peer, markdown=options.markdown)


def find_browser() -> str:
    names = ["chromium", "chromium-headless-shell", "google-chrome"]
    output = subprocess.run(["which", *names], capture_output=True, text=True, check=False).stdout
    if not output:
        raise SystemExit("Chromium is not installed: install Debian's package chromium")
    return output.splitlines()[0]


def write_log(home: Home, job: str, megabytes: int) -> None:
    """Write the log of a training job."""
    path = home.logs / "aws/sagemaker/TrainingJobs" / job / "algo-1-1700000000000"
    path.parent.mkdir(parents=True)
    lines = (b"1700000000000 epoch %d: loss=0.123456 accuracy=0.987654\n" % number for number in range(20_000))
    block = b"".join(lines)
    with path.open("wb") as log:
        for _ in range(max(1, megabytes * MEGABYTE // len(block))):
            log.write(block)
        log.write(b"1700000000000 %s\n" % LAST_LINE.encode())


@contextlib.contextmanager
def run_mlflow(folder: Path) -> Iterator[MlflowServer]:
    python = create_virtual_environment("mlflow", MLFLOW_LOCK)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        str(python),
        "-m",
        "mlflow",
        "server",
        "--port",
        str(port),
        "--backend-store-uri",
        f"sqlite:///{folder}/m.db",
    ]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield MlflowServer(f"http://127.0.0.1:{port}/", process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.2)
    raise SystemExit(f"{url} does not answer within {START_TIMEOUT_SECONDS} s")


# --- opening pages ---


def compare_openings(browser: Browser, home: Home, peer: MlflowServer, rounds: int, *, markdown: bool) -> None:
    with control.use_server(home, Config(port=0, runtime="process")) as address:
        open_console = partial(open_session, browser, home, address)
        candidates: dict[str, Callable[[], Opening]] = {
            "MLflow, no runs": partial(open_mlflow, browser, peer.url),
            "list of jobs": partial(measure_console, open_console, "#/jobs", "job-"),
            "log of 1 MB": partial(measure_console, open_console, "#/logs/training-job/job-1", LAST_LINE),
            "long log": partial(measure_console, open_console, "#/logs/training-job/job-0", LAST_LINE),
        }
        candidates = {name: partial(retry, measure) for name, measure in candidates.items()}
        for measure in candidates.values():  # the first requests load botocore's models and fill the system's caches
            measure()
        results = run_interleaved(candidates, rounds)
    baseline = compute_medians(results["MLflow, no runs"])
    rows = [format_opening(name, compute_medians(openings), baseline) for name, openings in results.items()]
    compressed_bytes = sum(len(asset.compressed_content) for asset in Assets().list_all())
    print_table("Opening of a page", ["page", "first paint s", "contents s", "KB", "ratio"], rows, markdown=markdown)
    print(f"\nall files of the console, compressed: {compressed_bytes / 1000:.0f} KB")


def compute_medians(openings: Sequence[Opening]) -> Opening:
    return Opening(*(statistics.median(column) for column in zip(*openings, strict=True)))


def format_opening(name: str, opening: Opening, baseline: Opening) -> list[str]:
    times = [f"{opening.first_paint_seconds:.2f}", f"{opening.contents_seconds:.2f}"]
    kilobytes = f"{opening.transferred_bytes / 1000:,.0f}"
    return [name, *times, kilobytes, f"{opening.contents_seconds / baseline.contents_seconds:.2f}"]


def open_session(browser: Browser, home: Home, address: control.Address) -> Page:
    """Open the console in a new browser context, by an address with a new token. Return the page."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(TIMEOUT_MILLISECONDS)
    page.goto(control.make_console_address(home, address))
    return page


def measure_console(open_console: Callable[[], Page], path: str, text: str) -> Opening:
    """Open the console to get a session. Then measure the opening of a page without cached files."""
    page = open_console()
    page.locator("tbody tr").first.wait_for()
    session = page.context.new_cdp_session(page)
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    console_url = page.url.partition("#")[0]
    page.goto("about:blank")
    return measure_opening(page, console_url + path, text)


def open_mlflow(browser: Browser, address: str) -> Opening:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(TIMEOUT_MILLISECONDS)
    return measure_opening(page, f"{address}#/experiments", "Default")


def retry(measure: Callable[[], Opening]) -> Opening:
    """Measure again after an error. Chromium aborts requests when network interfaces change: for example, when another
    program starts a container."""
    for _ in range(MAX_ATTEMPTS - 1):
        with contextlib.suppress(PlaywrightError):
            return measure()
    return measure()


def measure_opening(page: Page, address: str, text: str) -> Opening:
    page.goto(address)
    page.get_by_text(text).first.wait_for()
    contents_seconds = page.evaluate("performance.now()") / 1000
    opening = Opening(page.evaluate(FIRST_PAINT) / 1000, contents_seconds, int(page.evaluate(TRANSFERRED_BYTES)))
    page.context.close()
    return opening


# --- memory, and requests of idle pages ---


def compare_memory(browser: Browser, home: Home, peer: MlflowServer, *, markdown: bool) -> None:
    with control.use_server(home, Config(port=0, runtime="process")) as address:
        bytes_without_consoles = read_memory(address.pid)
        pages = [open_page(browser, home, address, path) for path in PAGES * (CONSOLE_COUNT // len(PAGES))]
        pages[0].wait_for_timeout(3000)  # after this time, the page has all its contents
        bytes_with_consoles = read_memory(address.pid)
        requests = count_requests(pages)
    rows = [
        ["MLflow, no consoles", f"{read_memory(peer.pid) / MEGABYTE:.0f}"],
        ["no consoles", f"{bytes_without_consoles / MEGABYTE:.0f}"],
        [f"{CONSOLE_COUNT} consoles", f"{bytes_with_consoles / MEGABYTE:.0f}"],
    ]
    print_table("Memory of the server", ["", "MB"], rows, markdown=markdown)
    print(f"\nrequests of {CONSOLE_COUNT} consoles in {IDLE_SECONDS} s without changes: {requests}")


def open_page(browser: Browser, home: Home, address: control.Address, path: str) -> Page:
    for _ in range(MAX_ATTEMPTS):
        page = open_session(browser, home, address)
        with contextlib.suppress(PlaywrightError):
            page.locator("tbody tr").first.wait_for()
            page.goto(page.url.partition("#")[0] + path)
            page.locator("h1").wait_for()
            return page
        page.context.close()
    raise SystemExit("the console cannot be opened: see the log of the server")


def count_requests(pages: Sequence[Page]) -> int:
    requests: list[str] = []
    for page in pages:
        page.on("request", lambda request: requests.append(request.url))
    pages[0].wait_for_timeout(IDLE_SECONDS * 1000)
    return len(requests)


def read_memory(pid: int) -> int:
    """Return the bytes that a process and its children occupy. Shared pages are divided between processes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    process_bytes = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return process_bytes + sum(read_memory(int(child)) for child in children)


if __name__ == "__main__":
    main()

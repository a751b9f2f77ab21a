"""Tests in Chromium of the console's log page."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations

LINE_COUNT = 50_000
# The page receives the scroll event in the next frame, so this script waits for two frames.
SCROLL_SCRIPT = """(element, edge) => new Promise(resolve => {
  element.scrollTop = edge === "start" ? 0 : element.scrollHeight;
  requestAnimationFrame(() => requestAnimationFrame(resolve));
})"""


@pytest.fixture(scope="module")
def long_job(server: LocalServer) -> str:
    """A job whose log has LINE_COUNT lines: `seq` has printed the first lines, and the fixture writes the others into
    the file."""
    name = str(server.train("seq 1 3")["TrainingJobName"])
    (file,) = (server.home.logs / "aws/sagemaker/TrainingJobs" / name).iterdir()
    time = file.read_bytes().split(b" ")[0]
    with file.open("ab") as log:
        log.writelines(b"%s line %d of the log\n" % (time, number) for number in range(LINE_COUNT))
    return name


def test_lines_appear_while_the_job_runs(page: Page, server: LocalServer, console_url: str) -> None:
    colored_text = r"\033[31mred\033[30mblack\033[0m\n"
    name = server.start_training(f"echo first; sleep 2; printf '{colored_text}'; sleep 100")
    page.goto(f"{console_url}#/logs/training-job/{name}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("first")
    red = log.locator(".fg-1")
    expect(red).to_have_text("red")
    expect(log.locator(".fg-0")).to_have_text("black")
    server.sagemaker.stop_training_job(TrainingJobName=name)


def test_each_host_has_its_log(page: Page, server: LocalServer, console_url: str) -> None:
    job = server.train("echo I am $(hostname) $RANDOM; cat $SM_RESOURCE_CONFIG 2>/dev/null; true", instances=2)
    page.goto(f"{console_url}#/logs/training-job/{job['TrainingJobName']}")
    host = page.get_by_label("Host")
    expect(host.locator("option")).to_have_count(2)
    host.select_option(index=1)
    expect(page.get_by_role("log")).to_contain_text("I am")
    assert "stream=" in page.url


def test_page_shows_the_end_of_a_long_log_and_keeps_a_limited_number_of_lines(
    page: Page, long_job: str, console_url: str
) -> None:
    page.goto(f"{console_url}#/logs/training-job/{long_job}")
    log = page.get_by_role("log")
    lines = log.locator("> div > div")
    expect(lines.last).to_have_text(f"line {LINE_COUNT - 1} of the log")
    for _ in range(12):
        first_text = lines.first.inner_text()
        log.evaluate("element => { element.scrollTop = 0; }")
        expect(lines.first).not_to_have_text(first_text)
    assert lines.count() <= 4000
    page.get_by_role("button", name="Show the end").click()
    expect(lines.last).to_have_text(f"line {LINE_COUNT - 1} of the log")
    expect(lines.last).to_be_in_viewport()


def test_search_finds_lines_and_shows_their_place(page: Page, long_job: str, console_url: str) -> None:
    page.goto(f"{console_url}#/logs/training-job/{long_job}")
    page.get_by_label("Find lines with").fill("line 12345 of")
    page.keyboard.press("Enter")
    result_button = page.get_by_role("button", name="line 12345 of the log")
    expect(result_button).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text(["1 line contains “line 12345 of”."])
    assert find_accessibility_violations(page) == []
    result_button.click()
    chosen_line = page.locator(".chosen")
    expect(chosen_line).to_have_text("line 12345 of the log")
    expect(chosen_line).to_be_in_viewport()
    blocks = page.locator(".log > div")
    expect(blocks).to_have_count(2)  # the block of the line, and the block before it
    page.get_by_role("log").evaluate(SCROLL_SCRIPT, "end")
    expect(blocks).to_have_count(3)


def test_scrolling_during_a_load_loads_more_lines_afterwards(page: Page, long_job: str, console_url: str) -> None:
    page.goto(f"{console_url}#/logs/training-job/{long_job}?find=line 12345 of")
    page.get_by_role("button", name="line 12345 of the log").click()
    log = page.get_by_role("log")
    blocks = log.locator("> div")
    expect(blocks).to_have_count(2)
    held_routes: list[Route] = []
    page.route("**/logs/GetLogEvents", lambda route: held_routes.append(route))
    with page.expect_request("**/logs/GetLogEvents"):
        log.evaluate(SCROLL_SCRIPT, "end")
    log.evaluate(SCROLL_SCRIPT, "start")
    page.unroute("**/logs/GetLogEvents")
    for route in held_routes:
        route.fallback()
    expect(blocks).to_have_count(4)


def test_log_is_downloaded(page: Page, long_job: str, console_url: str, tmp_path: Path) -> None:
    page.goto(f"{console_url}#/logs/training-job/{long_job}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "log")
    lines = (tmp_path / "log").read_text().splitlines()
    assert (lines[:3], lines[-1], len(lines)) == (["1", "2", "3"], f"line {LINE_COUNT - 1} of the log", LINE_COUNT + 3)
    assert download.value.suggested_filename.endswith(".log")


def test_markup_in_a_log_is_text(page: Page, server: LocalServer, console_url: str) -> None:
    name = server.train("echo '<img src=x onerror=alert(1)><b>bold</b>'")["TrainingJobName"]
    page.goto(f"{console_url}#/logs/training-job/{name}")
    expect(page.get_by_role("log")).to_contain_text("<b>bold</b>")

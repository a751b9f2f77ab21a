"""Tests in Chromium of the updates of the console's pages.

The pages follow the server's feed, and send no requests while nothing changes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.server_addresses import LOOPBACK
from tests.local.clients import LocalServer
from tests.local.console.shell import Shell
from tests.local.console.test_endpoints import create_endpoint
from tests.local.drills.proxy import run_proxy

TAB_COUNT = 7
"""Number of tabs. It is larger than six, the number of connections that a browser opens to a server."""
ARRIVAL_MS = 1000
"""Milliseconds in which the feed sends all earlier changes to the page."""

SET_HIDDEN = """isHidden => {
    Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""A function that hides a tab or shows it again, because all tabs of a headless Chromium are visible."""


@pytest.fixture
def shell(server: LocalServer, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(server, tmp_path)
    yield shell
    shell.stop()


@pytest.fixture
def own_stub_page(stub_page: Page) -> Iterator[Page]:
    """Return a new page in the session of `stub_page`."""
    page = stub_page.context.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("address", ["jobs", "endpoints/quiet", "logs/endpoint/quiet", "metrics/endpoint/quiet"])
def test_page_requests_nothing_while_nothing_changes(
    own_stub_page: Page, stub_server: LocalServer, address: str
) -> None:
    if stub_server.sagemaker.list_endpoints(NameContains="quiet")["Endpoints"] == []:
        create_endpoint(stub_server, "quiet")
        stub_server.client("sagemaker-runtime").invoke_endpoint(EndpointName="quiet", Body=b"1")
    own_stub_page.clock.install()
    own_stub_page.goto(f"{stub_server.address.url}/_microjobs/console/#/{address}")
    own_stub_page.get_by_text("quiet").or_(own_stub_page.get_by_role("log")).first.wait_for()
    own_stub_page.wait_for_timeout(1500)  # in this time, the page requests the last changes
    requests: list[str] = []
    own_stub_page.on("request", lambda request: requests.append(request.url))
    own_stub_page.clock.fast_forward("10:00")
    own_stub_page.wait_for_timeout(300)
    assert requests == []


def test_new_line_appears_in_many_tabs_of_a_browser(session_page: Page, shell: Shell, console_url: str) -> None:
    shell.run("echo first")
    tabs = [session_page.context.new_page() for _ in range(TAB_COUNT)]
    for tab in tabs:
        tab.goto(f"{console_url}#/logs/training-job/{shell.name}")
    for tab in tabs:
        expect(tab.get_by_role("log")).to_contain_text("first")
    shell.run("echo second")
    for tab in tabs:
        expect(tab.get_by_role("log")).to_contain_text("second")
        tab.close()  # another tab now reads the stream


def test_page_shows_lines_that_were_written_while_it_had_no_connection(
    browser: Browser, server: LocalServer, shell: Shell
) -> None:
    address = urlsplit(control.make_console_address(server.home, server.address))
    assert address.port
    shell.run("echo first")
    with run_proxy((LOOPBACK, 0), (LOOPBACK, address.port)) as proxy, browser.new_context() as context:
        page = context.new_page()
        page.goto(urlunsplit(address._replace(netloc=f"{LOOPBACK}:{proxy.address[1]}")))
        page.get_by_role("link", name=shell.name).click()
        page.get_by_role("link", name="Logs").click()
        expect(page.get_by_role("log")).to_contain_text("first")
        proxy.disconnect()
        shell.run("echo second")
        server.wait_for_log(shell.name, "second")
        proxy.listen()
        expect(page.locator(".log > div > div")).to_have_text(["first", "second"])


def test_hidden_tab_requests_nothing_until_it_is_visible(
    new_page: Page, server: LocalServer, shell: Shell, console_url: str
) -> None:
    shell.run("echo first")
    new_page.goto(f"{console_url}#/logs/training-job/{shell.name}")
    lines = new_page.locator(".log > div > div")
    expect(lines).to_have_text(["first"])
    new_page.wait_for_timeout(ARRIVAL_MS)  # in this time, the feed sends the last changes that belong to the first line
    new_page.evaluate(SET_HIDDEN, True)
    requests: list[str] = []
    new_page.on("request", lambda request: requests.append(request.url))
    shell.run("echo second")
    server.wait_for_log(shell.name, "second")
    new_page.wait_for_timeout(ARRIVAL_MS)
    assert requests == []
    new_page.evaluate(SET_HIDDEN, False)
    expect(lines).to_have_text(["first", "second"])


def test_page_loads_although_some_files_do_not_arrive(new_page: Page, console_url: str) -> None:
    failures = iter(("internetdisconnected",) * 2)

    def abort_first_requests(route: Route) -> None:
        code = next(failures, None)
        route.abort(code) if code else route.fallback()

    new_page.route(re.compile(r"/(main|ui)\.js$"), abort_first_requests)
    new_page.goto(console_url)
    expect(new_page.get_by_role("heading", name="Jobs, endpoints and executions")).to_be_visible()


def test_request_that_gets_no_response_is_sent_again(own_stub_page: Page, stub_server: LocalServer) -> None:
    failures = iter(("internetdisconnected",) * 2)

    def fail_twice(route: Route) -> None:
        code = next(failures, None)
        route.abort(code) if code else route.fallback()

    own_stub_page.route("**/sagemaker/ListTrainingJobs", fail_twice)
    own_stub_page.goto(f"{stub_server.address.url}/_microjobs/console/#/jobs?kind=training-job")
    expect(own_stub_page.get_by_role("status").filter(has_text=re.compile("found|shown"))).to_be_visible()
    expect(own_stub_page.get_by_role("alert")).to_have_count(0)


@pytest.mark.slow
def test_new_lines_do_not_move_the_lines_that_are_read(page: Page, shell: Shell, console_url: str) -> None:
    shell.run("seq 1 400")
    page.goto(f"{console_url}#/logs/training-job/{shell.name}")
    log = page.get_by_role("log")
    lines, end_button = log.locator("> div > div"), page.get_by_role("button", name="Show the end")
    expect(lines.last).to_have_text("400")
    log.evaluate("element => { element.scrollTop = 0; }")
    shell.run("echo added")
    expect(end_button).to_be_visible()
    expect(lines.first).to_be_in_viewport()
    end_button.click()
    expect(lines.last).to_have_text("added")
    shell.run("seq 401 9000")  # the job prints more lines than a block has
    expect(lines.last).to_have_text("9000")
    for number in range(12):  # the loop adds more blocks than the page keeps
        shell.run(f"echo slow {number}")
        expect(lines.last).to_have_text(f"slow {number}")
        expect(lines.last).to_be_in_viewport()
    assert lines.count() > 400

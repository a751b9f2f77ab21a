"""A server on the process runtime, a server that starts no hosts, and a Chromium, for all tests of the console."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer, run_server
from tests.local.console.browsers import launch, require_chromium
from tests.local.security.stub_runner import run_stub_server

TIMEOUT_MILLISECONDS = 15_000
expect.set_options(timeout=TIMEOUT_MILLISECONDS)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with run_server(tmp_path_factory.mktemp("console"), runtime="process") as server:
        yield server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    require_chromium()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def session_page(browser: Browser, server: LocalServer) -> Iterator[Page]:
    """Return a page that has opened a session of `server`. Other pages of its context have the same session."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    page = context.new_page()
    page.goto(control.make_console_address(server.home, server.address))
    page.get_by_role("heading", name="Jobs, endpoints and executions").wait_for()
    yield page
    context.close()


@pytest.fixture(scope="package")
def stub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Return a server whose runtime starts no hosts."""
    with run_stub_server(tmp_path_factory.mktemp("stub")) as server:
        yield server


@pytest.fixture(scope="package")
def stub_page(browser: Browser, stub_server: LocalServer) -> Iterator[Page]:
    """Return a page with an open session of `stub_server`, for all tests."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    page = context.new_page()
    page.goto(control.make_console_address(stub_server.home, stub_server.address))
    page.get_by_role("heading", name="Jobs, endpoints and executions").wait_for()
    yield page
    context.close()


@pytest.fixture(scope="package")
def shared_page(session_page: Page) -> Iterator[tuple[Page, list[str]]]:
    """Return a page for all tests, and the errors that it logs. The page loads the console once."""
    page = session_page.context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: _record_error(message, errors))
    yield page, errors
    page.close()


@pytest.fixture
def page(shared_page: tuple[Page, list[str]]) -> Iterator[Page]:
    """Return the shared page. The test fails if the page logs an error."""
    page, errors = shared_page
    errors.clear()
    yield page
    page.set_viewport_size({"width": 1280, "height": 800})
    assert errors == []


@pytest.fixture
def new_page(session_page: Page) -> Iterator[Page]:
    """Return a new page in the open session, for a test that changes more than the address. The page may log errors."""
    page = session_page.context.new_page()
    yield page
    page.close()


def _record_error(message: ConsoleMessage, errors: list[str]) -> None:
    if message.type == "error" and "Failed to load resource" not in message.text:  # the page itself shows such errors
        errors.append(message.text)


@pytest.fixture
def console_url(server: LocalServer) -> str:
    """Return the address of the console without a token."""
    return f"{server.address.url}/_microjobs/console/"

"""Tests of the console's sessions: one-time addresses, and the data that a browser stores."""

import re

from playwright.sync_api import Browser, Page, Route, expect

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer

NO_SESSION = "This browser has no session."


def test_address_opens_a_session_once(browser: Browser, server: LocalServer) -> None:
    address = control.make_console_address(server.home, server.address)
    for expected_text in ("No resource matches.|found|shown", NO_SESSION):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.locator("main").filter(has_text=re.compile(expected_text)).wait_for()
        assert "token" not in page.url
        context.close()


def test_address_opens_a_session_although_the_response_is_lost(browser: Browser, server: LocalServer) -> None:
    context = browser.new_context()
    page = context.new_page()
    statuses: list[int] = []

    def lose_first_response(route: Route) -> None:
        response = route.fetch()
        statuses.append(response.status)
        route.abort("connectionreset") if len(statuses) == 1 else route.fulfill(response=response)

    page.route("**/api/sessions", lose_first_response)
    page.goto(control.make_console_address(server.home, server.address))
    expect(page.get_by_role("heading")).to_have_text("Jobs, endpoints and executions")
    assert statuses == [200, 200]
    context.close()


def test_session_survives_a_reload_and_is_shared_by_tabs(page: Page, console_url: str) -> None:
    page.goto(console_url)
    page.reload()
    expect(page.get_by_role("heading")).to_have_text("Jobs, endpoints and executions")


def test_script_cannot_read_the_cookie(session_page: Page) -> None:
    cookies = session_page.context.cookies()
    assert [(cookie["httpOnly"], cookie["sameSite"], cookie["path"]) for cookie in cookies] == [
        (True, "Strict", "/_microjobs/console/")
    ]
    assert session_page.evaluate("document.cookie") == ""


def test_another_browser_has_no_session(browser: Browser, console_url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(console_url)
    expect(page.locator("main")).to_contain_text(NO_SESSION)
    context.close()


def test_markup_with_inline_code_cannot_be_assigned(new_page: Page, console_url: str) -> None:
    new_page.goto(console_url)
    script = """() => {
        const element = document.createElement("a");
        try { element.innerHTML = "<img src=x onerror='window.ran = true'>"; } catch (error) { return error.name; }
        return "assigned";
    }"""
    assert new_page.evaluate(script) == "TypeError"


def test_page_of_a_bucket_cannot_use_the_session(new_page: Page, server: LocalServer) -> None:
    """A job can store an HTML page in a bucket. Its presigned address has the console's origin."""
    html = "<title>-</title><script>document.title = 'ran'; document.title = localStorage.length</script>"
    server.s3.put_object(Bucket=server.address.bucket, Key="page.html", Body=html.encode(), ContentType="text/html")
    url = server.s3.generate_presigned_url("get_object", {"Bucket": server.address.bucket, "Key": "page.html"})
    new_page.goto(url)
    assert new_page.title() == "-"
    assert new_page.evaluate("origin") == "null"


def test_page_reports_the_end_of_its_session(browser: Browser, server: LocalServer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(control.make_console_address(server.home, server.address))
    page.locator("table").wait_for()
    context.clear_cookies()  # without its cookie, the browser has no session, as after a restart of the server
    page.get_by_label("Kind").select_option("endpoint")
    expect(page.locator("main")).to_contain_text(NO_SESSION)
    context.close()

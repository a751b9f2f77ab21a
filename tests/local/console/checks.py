"""Checks that the tests of all pages share."""

from collections.abc import Mapping
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

AXE_OPTIONS: Mapping[Literal["light", "dark"], dict[str, list[str]]] = {
    "light": {},
    "dark": {"runOnly": ["color-contrast"]},
}
"""Options of axe by mode. The modes differ only in their colours, so only the contrast is checked in the dark mode."""
RUN_AXE = "options => axe.run(options).then(({ violations }) => violations)"


def find_accessibility_violations(page: Page) -> list[str]:
    """Return the accessibility problems that axe finds on a page, in the light and in the dark mode."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    problems = []
    for mode, options in AXE_OPTIONS.items():
        page.emulate_media(color_scheme=mode)
        violations: list[dict[str, Any]] = page.evaluate(RUN_AXE, {**options, "resultTypes": ["violations"]})
        for violation in violations:
            targets = [node["target"] for node in violation["nodes"]]
            problems.append(f"{mode}: {violation['id']}: {targets}")
    page.emulate_media(color_scheme="light")
    return problems

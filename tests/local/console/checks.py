"""Checks that the tests of all pages share."""

from collections.abc import Mapping
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

RULES: Mapping[Literal["light", "dark"], dict[str, list[str]]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}
"""Options of axe by mode. The modes differ only in their colours."""


def find_violations(page: Page) -> list[str]:
    """Return the accessibility problems that axe finds on a page, in the light and in the dark mode."""
    found = []
    for scheme, options in RULES.items():
        page.emulate_media(color_scheme=scheme)
        for violation in Axe().run(page, options=options).response["violations"]:
            targets = [node["target"] for node in violation["nodes"]]
            found.append(f"{scheme}: {violation['id']}: {targets}")
    return found

"""Chromium, as Debian or Google packages it."""

import shutil

from playwright.sync_api import Browser, Playwright


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome; None if none is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])

"""Chromium, as Debian or Google packages it."""

import os
import shutil

import pytest
from playwright.sync_api import Browser, Playwright

from tests.conftest import REQUIRE_ENGINE


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome; None if none is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def require_chromium() -> None:
    """Skip the test if no browser is installed, or fail it where all tests must run."""
    if find_chromium() is None:
        if os.environ.get(REQUIRE_ENGINE):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])

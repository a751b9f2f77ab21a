"""Functions that find and start Chromium, as Debian or Google packages it."""

import os
import shutil

import pytest
from playwright.sync_api import Browser, Playwright

from tests.conftest import REQUIRE_ENGINE_VARIABLE

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
"""Names of Chromium's programs. The first one opens no windows, and needs a quarter of the CPU time of the others."""


def find_chromium() -> str | None:
    """Return the path of the first installed program of PROGRAMS; None if none is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def require_chromium() -> None:
    """Skip the test if no browser is installed. Fail the test instead in CI, where all tests must run."""
    if find_chromium() is None:
        if os.environ.get(REQUIRE_ENGINE_VARIABLE):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])

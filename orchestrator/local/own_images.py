"""The images of the ready-made jobs: their folders, their names, and the packages in their locks."""

import os
import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED_JOBS = _PACKAGE / "jobs" / "containers"

JOBS_FOLDER = _INSTALLED_JOBS if _INSTALLED_JOBS.is_dir() else _PACKAGE.parent / "containers"
"""The folder that contains the ready-made jobs. A wheel contains them in the package."""
PYTHON_VERSION = "3.11"
"""The version of Python in the images and on the process runtime."""


def find_registry() -> str:
    """Return the prefix of the images' names: REGISTRY, or `microjobs`."""
    return os.environ.get("REGISTRY") or "microjobs"


def format_name(job: str, variant: str = "cpu") -> str:
    """Return the name that `make build` gives the image of a job."""
    suffix = "" if variant == "cpu" else f"-{variant}"
    return f"{find_registry()}/{job}:{os.environ.get('TAG') or 'dev'}{suffix}"


def find_locked_version(job: str, package: str, variant: str = "cpu") -> str | None:
    """Return a package's version in the lock of a job; None if the lock is missing or does not have the package."""
    lock = JOBS_FOLDER / job / f"{variant}.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    match = re.search(rf"^{re.escape(package)}==([^\s+;]+)", text, re.MULTILINE)
    return match[1] if match else None

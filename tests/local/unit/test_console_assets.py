"""The files of the web console: locked libraries, the size of all files, and imports that browsers can resolve."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from microjobs_orchestrator.local.console.assets import CONTENT_TYPES, FOLDER

VENDOR = FOLDER / "vendor"
LOCK = json.loads((VENDOR / "lock.json").read_text())
MAX_COMPRESSED_BYTES = 150_000
"""Maximum size of all files together, each compressed with gzip."""
LICENSES = {"MIT": "Permission is hereby granted, free of charge", "Apache-2.0": "Apache License"}
IMPORT_PATTERN = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']""")


def test_libraries_match_their_lock() -> None:
    expected = {file["name"]: file["sha256"] for package in LOCK["packages"] for file in package["files"]}
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    other_names = {"lock.json", *(package["licenseFile"] for package in LOCK["packages"])}
    assert {name: digest for name, digest in digests.items() if name not in other_names} == expected


@pytest.mark.parametrize("package", LOCK["packages"], ids=lambda package: package["name"])
def test_libraries_have_their_licences(package: dict[str, str]) -> None:
    assert package["integrity"].startswith("sha512-")
    assert LICENSES[package["license"]] in (VENDOR / package["licenseFile"]).read_text()


def test_all_files_together_are_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.suffix in CONTENT_TYPES]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) <= MAX_COMPRESSED_BYTES


@pytest.mark.parametrize("module", sorted(FOLDER.rglob("*.js")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_imports_lead_to_files(module: Path) -> None:
    names = IMPORT_PATTERN.findall(module.read_text())
    assert [name for name in names if not (name.startswith(".") and (module.parent / name).is_file())] == []


def test_preloaded_modules_exist() -> None:
    names = re.findall(r'href="assets/([^"]+)"', (FOLDER / "index.html").read_text())
    assert "lib/ui.js" in names
    assert [name for name in names if not (FOLDER / name).is_file()] == []


def test_every_page_is_in_the_table() -> None:
    table = (FOLDER / "pages.js").read_text()
    assert [path.name for path in (FOLDER / "pages").glob("*.js") if f"./pages/{path.name}" not in table] == []

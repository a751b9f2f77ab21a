"""Writes the JavaScript libraries of the web console from npm's packages: `make console-libraries`.

`lock.json` names the packages and their files, with the hashes of the packages. This script downloads the packages
with npm, adapts the files to browsers, because there is no build step, and writes the files, their licences and their
hashes.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).resolve().parent.parent / "orchestrator" / "local" / "console" / "assets" / "vendor"
LOCK = VENDOR / "lock.json"

REPLACEMENTS = {
    'from"preact"': 'from"./preact.js"',
    'from"htm"': 'from"./htm.js"',
    "//# sourceMappingURL=preact.mjs.map": "",
    "//# sourceMappingURL=hooks.mjs.map": "",
}
"""Changes of the files: browsers resolve no names of packages, and the source maps are not served."""
SUFFIXES = {"uplot.js": "export default uPlot;\n"}
"""For each file, a text to append. The package of uPlot has no minified module, so an export makes its
minified script a module."""


def main() -> None:
    lock: dict[str, Any] = json.loads(LOCK.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for package in lock["packages"]:
            _write_package(package, Path(folder))
    LOCK.write_text(json.dumps(lock, indent=2) + "\n")


def _write_package(package: dict[str, Any], folder: Path) -> None:
    """Write the files and the licence of a package, and set the hashes in its entry of the lock."""
    archive = _download(package, folder)
    with tarfile.open(archive) as tar:
        sources = {**{file["name"]: file["source"] for file in package["files"]}, package["licenseFile"]: "LICENSE"}
        texts = {name: _read(tar, source) for name, source in sources.items()}
    for name, text in texts.items():
        for old, new in REPLACEMENTS.items():
            text = text.replace(old, new)
        (VENDOR / name).write_text(text.rstrip() + "\n" + SUFFIXES.get(name, ""))
    for file in package["files"]:
        file["sha256"] = hashlib.sha256((VENDOR / file["name"]).read_bytes()).hexdigest()


def _download(package: dict[str, Any], folder: Path) -> Path:
    """Download a package. Compare its hash with the hash in the lock, or add it if the lock has none."""
    name = f"{package['name']}@{package['version']}"
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
    archive = folder / subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout.strip()
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if package.setdefault("integrity", f"sha512-{digest}") != f"sha512-{digest}":
        sys.exit(f"{name} has the hash sha512-{digest}; the lock has {package['integrity']}")
    return archive


def _read(tar: tarfile.TarFile, source: str) -> str:
    file = tar.extractfile(f"package/{source}")
    if file is None:
        sys.exit(f"the package has no file {source}")
    return file.read().decode()


if __name__ == "__main__":
    main()

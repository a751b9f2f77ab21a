"""The packages of an environment and their installer.

The settings are those of image builds (docs/maintaining/building.md), so that both install the same files.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator.local.package_settings import find_certificates, find_package_folder, hide_password

SOURCE_ONLY = frozenset({"sagemaker-training"})
"""Packages that are published as source only and need a compiler. Script mode needs `sagemaker-training`.
Without it, `microjobs.script_mode` raises an error with an explanation."""

TORCH_INDEX_URL = "https://download.pytorch.org/whl/cpu"


def merge_locks(*locks: str) -> str:
    """Merge lock files, without the packages of `SOURCE_ONLY` and the packages that only these need.

    The comments below a package state what requires it: `-r` and a file, or another package.
    """
    entries = {
        _parse_name(entry): entry for lock in locks for entry in re.split(r"^(?=[\w])", lock, flags=re.MULTILINE)[1:]
    }
    required_by = {
        name: set(re.findall(r"^ +#(?: +via)? +(\S+)", entry, re.MULTILINE)) for name, entry in entries.items()
    }
    kept: set[str] = set()
    while added := {name for name in entries.keys() - kept - SOURCE_ONLY if required_by[name] & (kept | {"-r"})}:
        kept |= added
    return "".join(entries[name] for name in sorted(kept))


def _parse_name(entry: str) -> str:
    return re.split(r"[\[=]", entry, maxsplit=1)[0]


@dataclass(frozen=True)
class Installer:
    """The program that installs packages: uv, which is ten times as fast, or pip, which every Python has."""

    uv: str | None
    packages: Path
    """A folder with wheels, and with a file of certificates if the package index needs one."""

    @classmethod
    def find(cls, packages: Path, environ: Mapping[str, str] = os.environ) -> "Installer":
        """Return uv, from PATH or next to this interpreter, or pip. LOCAL_PACKAGES replaces the folder of wheels."""
        places = [environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]
        uv = shutil.which("uv", path=os.pathsep.join(places))
        works = uv is not None and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0
        return cls(uv if works else None, find_package_folder(environ, packages))

    @property
    def name(self) -> str:
        return "uv" if self.uv else "pip"

    def make_commands(self, folder: Path, package_list: str) -> Sequence[Sequence[str]]:
        """Return the commands that make a virtual environment with the result of `merge_locks`."""
        python, file = str(folder / "bin" / "python"), folder / "requirements.txt"
        file.write_text(package_list, encoding="utf-8")
        venv = [sys.executable, "-m", "venv", str(folder)]
        # Nothing is compiled: jobs import a tenth of the modules, and Python stores the bytecode of these.
        options = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
        options += ["--find-links", str(self.packages), "--requirement", str(file)]
        if self.uv is None:
            pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
            return [venv, [*pip, *options]]
        return [[*venv, "--without-pip"], [self.uv, "pip", "install", "--python", python, *options]]

    def describe_sources(self, package_list: str, environ: Mapping[str, str] = os.environ) -> str:
        """Return a sentence that names the sources of the packages, and the setting for each source."""
        index = hide_password(environ.get("INDEX_URL") or "the package index")
        text = f"Packages come from {index} (INDEX_URL) and from wheels in {self.packages} (LOCAL_PACKAGES)"
        if "+cpu" in package_list:
            torch_index = hide_password(environ.get("TORCH_INDEX_URL", TORCH_INDEX_URL)) or "no index"
            text += f", PyTorch's CPU build from {torch_index} (TORCH_INDEX_URL)"
        return f'{text}: docs/maintaining/building.md, "Air-gapped", explains these settings'

    def make_environment(self, package_list: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the caller's environment, with its proxies and caches, and the settings of image builds."""
        values = {**environ, "UV_INDEX_STRATEGY": "unsafe-best-match", "UV_NO_PROGRESS": "1"}
        if index := environ.get("INDEX_URL"):
            values |= {"UV_DEFAULT_INDEX": index, "PIP_INDEX_URL": index}
        # Only PyTorch's own index has its builds for CPUs.
        if "+cpu" in package_list and (index := environ.get("TORCH_INDEX_URL", TORCH_INDEX_URL)):
            values |= {"UV_INDEX": index, "PIP_EXTRA_INDEX_URL": index}
        if certificates := find_certificates(self.packages):
            values |= {"SSL_CERT_FILE": str(certificates), "PIP_CERT": str(certificates)}
        elif file := environ.get("SSL_CERT_FILE"):  # which the pip of Python 3.11 does not read
            values.setdefault("PIP_CERT", file)
        return values

"""The packages of an environment and their installer.

The settings are those of image builds (docs/maintaining/building.md), so that environments and images have the same
files.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator.local.own_images import JOBS_FOLDER
from microjobs_orchestrator.local.package_settings import find_certificates, find_package_folder, hide_password

INSTALLER_LOCK = JOBS_FOLDER / "installer.lock"
"""The lock of uv, and of the package that builds the packages of `SOURCE_ONLY_PACKAGES`."""

INSTALLER_FOLDER = "installer"
"""The folder in a new environment for the environment of uv, if uv is not installed."""

SOURCE_ONLY_PACKAGES = ("inotify-simple", "sagemaker-training")
"""Packages that are published as source only. All other packages must be wheels: the machine may have no compiler."""

EMPTY_MODULE_COMPILER = """sh -c 'while [ "$1" != -o ]; do shift; done; : > "${2%/*}/gethostname.py"' compiler"""
"""A command that writes an empty module in place of `gethostname`, the only compiled module of `sagemaker-training`.
Only code that needs AWS's network uses this module."""

IGNORED_VARIABLES = (
    "PIP_CONSTRAINT",
    "PIP_PREFIX",
    "PIP_REQUIREMENT",
    "PIP_TARGET",
    "PIP_USER",
    "UV_CONSTRAINT",
    "UV_EXCLUDE",
    "UV_OVERRIDE",
)
"""Variables of the user that make installers use another folder, or packages that are not in the lock."""

TORCH_INDEX_URL = "https://download.pytorch.org/whl/cpu"


def merge_locks(*locks: str) -> str:
    """Merge lock files. If several lock files contain a package, the entry of the last file is used."""
    entries = {
        re.split(r"[\[=]", entry, maxsplit=1)[0]: entry
        for lock in locks
        for entry in re.split(r"^(?=[\w])", lock, flags=re.MULTILINE)[1:]
    }
    return "".join(entries[name] for name in sorted(entries))


def describe_build(package_list: str) -> str:
    """Return the settings that, besides the list of packages, determine the files of an environment.

    Only a package that is built from source depends on settings. The addresses of indexes are not among these
    settings, because the lock contains the hashes of the files.
    """
    built_packages = [name for name in SOURCE_ONLY_PACKAGES if re.search(rf"^{name}==", package_list, re.MULTILINE)]
    return (
        f"{built_packages} {EMPTY_MODULE_COMPILER} {INSTALLER_LOCK.read_text(encoding='utf-8')}"
        if built_packages
        else ""
    )


@dataclass(frozen=True)
class Installer:
    """uv, which installs packages. If uv is not installed, pip first installs it into an environment of its own."""

    uv: str | None
    """The path of uv; None if it is not installed."""
    wheels_folder: Path
    """A folder with wheels, and with a file of certificates if the package index needs one."""

    @classmethod
    def find(cls, wheels_folder: Path, environ: Mapping[str, str] = os.environ) -> "Installer":
        """Find uv on PATH or next to this interpreter. The variable LOCAL_PACKAGES replaces `wheels_folder`."""
        places = [environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]
        uv = shutil.which("uv", path=os.pathsep.join(places))
        works = uv is not None and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0
        return cls(uv if works else None, find_package_folder(environ, wheels_folder))

    def make_commands(self, folder: Path, package_list: str) -> Sequence[Sequence[str]]:
        """Write the result of `merge_locks` to a file; return the commands that make a virtual environment from it."""
        python, file = str(folder / "bin" / "python"), folder / "requirements.txt"
        file.write_text(package_list, encoding="utf-8")
        venv = [sys.executable, "-m", "venv"]
        # No bytecode is compiled: jobs import only a tenth of the modules, and Python stores the bytecode of imported
        # modules.
        options = ["--require-hashes", "--find-links", str(self.wheels_folder), "--only-binary", ":all:"]
        install = ["pip", "install", "--python", python, "--no-deps", *options, "--requirement", str(file)]
        for name in SOURCE_ONLY_PACKAGES:
            install += ["--no-binary", name]
        # uv caches the packages that it builds, by their settings. Without a setting of its own, the package with the
        # empty module would also be installed into the user's other environments, which need the compiled module.
        install += ["--config-settings", "compiler=empty-module"]
        make = [*venv, "--without-pip", str(folder)]
        if self.uv is not None:
            return [make, [self.uv, *install]]
        # uv is installed in a separate environment: the job's environment must not contain pip unless the image does.
        tools = folder / INSTALLER_FOLDER
        pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        install_uv = [*pip, "--no-compile", *options, "--requirement", str(INSTALLER_LOCK)]
        return [make, [*venv, str(tools)], install_uv, [str(tools / "bin" / "uv"), *install]]

    def describe_sources(self, package_list: str, environ: Mapping[str, str] = os.environ) -> str:
        """Return a sentence that names the sources of the packages, and the setting for each source."""
        index = hide_password(environ.get("INDEX_URL") or "the package index")
        text = f"Packages come from {index} (INDEX_URL) and from wheels in {self.wheels_folder} (LOCAL_PACKAGES)"
        if "+cpu" in package_list:
            torch_index = hide_password(environ.get("TORCH_INDEX_URL", TORCH_INDEX_URL)) or "no index"
            text += f", PyTorch's CPU build from {torch_index} (TORCH_INDEX_URL)"
        return f'{text}: docs/maintaining/building.md, "Air-gapped", explains these settings'

    def make_variables(self, package_list: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the variables of the installer: the caller's, including proxies, and the settings of image builds."""
        values = {name: value for name, value in environ.items() if name not in IGNORED_VARIABLES}
        values |= {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_NO_PROGRESS": "1"}
        values["UV_BUILD_CONSTRAINT"] = str(INSTALLER_LOCK)
        values["CC"] = values["LDSHARED"] = EMPTY_MODULE_COMPILER
        if index := environ.get("INDEX_URL"):
            values |= {"UV_DEFAULT_INDEX": index, "PIP_INDEX_URL": index}
        # Only PyTorch's own index has its builds for CPUs.
        if "+cpu" in package_list and (index := environ.get("TORCH_INDEX_URL", TORCH_INDEX_URL)):
            values["UV_INDEX"] = index
        if certificates := find_certificates(self.wheels_folder):
            values |= {"SSL_CERT_FILE": str(certificates), "PIP_CERT": str(certificates)}
        elif file := environ.get("SSL_CERT_FILE"):  # pip of Python 3.11 does not read this variable
            values.setdefault("PIP_CERT", file)
        return values

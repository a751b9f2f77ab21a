"""Settings for the sources of Python packages: image builds, environments and the package cache use the same sources.

`docs/maintaining/building.md` describes them.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from microjobs_orchestrator.local.own_images import JOBS_FOLDER

DEFAULT_PACKAGE_FOLDER = JOBS_FOLDER / "local-packages"


def hide_password(url: str) -> str:
    """Return an address without user and password, for messages."""
    return re.sub(r"//[^/]*@", "//", url)


def find_package_folder(environ: Mapping[str, str], default: Path = DEFAULT_PACKAGE_FOLDER) -> Path:
    """Return the folder with wheels, and with a file of certificates if the package index needs one."""
    return Path(environ.get("LOCAL_PACKAGES") or default).absolute()


def find_certificates(folder: Path) -> Path | None:
    """Return the file of certificates in a folder of packages; None if it is missing or empty."""
    file = folder / "ca-certificates.crt"
    return file if file.is_file() and file.stat().st_size else None


def choose_certificates(environ: Mapping[str, str]) -> str | bool:
    """Return the certificates for requests to the package index, as a value of `verify` in requests."""
    file = find_certificates(find_package_folder(environ))
    return str(file or "") or environ.get("SSL_CERT_FILE") or environ.get("PIP_CERT") or True

"""Virtual environments that extend another environment: they find their own packages first, then the packages of the
other environment.

Packages that are installed into the new environment do not change the extended environment. Standard library only.
"""

import sysconfig
import venv
from collections.abc import Iterable
from pathlib import Path


def create(folder: Path, package_folders: Iterable[str]) -> Path:
    """Create an environment without pip in a new folder, and return the path of its interpreter.

    Args:
        package_folders: the `site-packages` folders of the extended environment. Their `.pth` files are read too.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    lines = (f"import site; site.addsitedir({path!r})\n" for path in package_folders)
    (get_site_packages(folder) / "extended-environment.pth").write_text("".join(lines), encoding="utf-8")
    return folder / "bin" / "python"


def get_site_packages(folder: Path) -> Path:
    """Return the folder `site-packages` of an environment of this version of Python."""
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))

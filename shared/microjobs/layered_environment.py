"""Virtual environments on top of another environment: they find their own packages first, then those below.

Packages that are installed into the upper environment do not change the lower one. Standard library only.
"""

import sysconfig
import venv
from collections.abc import Iterable
from pathlib import Path


def create(folder: Path, below: Iterable[str]) -> Path:
    """Create an environment in a new folder, without pip of its own, and return its interpreter.

    Args:
        below: the `site-packages` folders of the lower environment. Their `.pth` files are read too.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    lines = (f"import site; site.addsitedir({path!r})\n" for path in below)
    (find_packages(folder) / "below.pth").write_text("".join(lines), encoding="utf-8")
    return folder / "bin" / "python"


def find_packages(folder: Path) -> Path:
    """Return the folder `site-packages` of an environment of this version of Python."""
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))

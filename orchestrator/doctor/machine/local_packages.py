"""The folder of packages for builds behind a gateway, if one is set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator.doctor.check import Finding


@dataclass(frozen=True)
class LocalPackages:
    environ: Mapping[str, str]
    name: str = "LOCAL_PACKAGES"

    def run(self) -> Iterator[Finding]:
        folder = self.environ.get("LOCAL_PACKAGES")
        if folder and not Path(folder).is_dir():
            message = f"LOCAL_PACKAGES={folder} is not a folder"
            yield Finding("problem", message, "create it, or unset LOCAL_PACKAGES")

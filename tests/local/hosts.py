"""A base class for fakes of hosts."""

from pathlib import Path


class HostWithoutFolders:
    """A host that ignores added folders."""

    def add_folder(self, source: Path, path: str) -> None:
        """Do nothing."""

    def remove_folder(self, path: str) -> None:
        """Do nothing."""

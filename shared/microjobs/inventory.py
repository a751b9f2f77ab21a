"""Inventory of the input files of all hosts, which is checked before anything is computed or written."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from microjobs.arrays import FILE_NAME_PATTERN, ArrayFile, check_shards, open_array
from microjobs.errors import UserError

CODE_FOLDER = "code"
"""Folder that the SDK's script processors create in the default input folder, for the user's script."""

SKIPPED_NAMES = ("Thumbs.db", "desktop.ini", "lost+found")
"""Files that other systems create in folders. Names that begin with `.` or `_` are skipped too, as in Hadoop and Spark.
Examples are .DS_Store, .ipynb_checkpoints, _SUCCESS and __MACOSX."""

EXPECTED_NAMES = "x_train.npy y_train.npy x_test.npy y_test.npy, or shards such as x_train-00000-of-00004.npy"


@dataclass(frozen=True)
class ArrayDescription:
    """Name, shape (from the header) and size in bytes of an array file."""

    name: str
    shape: tuple[int, ...]
    size: int

    @property
    def is_features(self) -> bool:
        return self.name.startswith("x_")

    @property
    def split(self) -> str:
        return "train" if self.name[2:].startswith("train") else "test"

    @property
    def partner_name(self) -> str:
        """Name of the file of targets that belongs to this file of features, or the reverse."""
        return ("y" if self.is_features else "x") + self.name[1:]


class InputFile(Protocol):
    """The description of an array file or a table. Descriptions of equal files on different hosts are equal."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...


F = TypeVar("F", bound=InputFile)

logger = logging.getLogger("microjobs")


def describe_arrays(folder: Path) -> list[ArrayDescription]:
    """Return the descriptions of the input files on this host. Files of other programs are skipped with a warning.

    Raises:
        UserError: a file has an unexpected name, or is not a valid array.
    """
    descriptions = []
    for path in find_data(folder):
        if FILE_NAME_PATTERN.fullmatch(path.name) is None or not path.is_file():
            hint = "; preprocess reads tables with --columns" if path.suffix in (".csv", ".parquet") else ""
            raise UserError(f"unexpected {path.name!r} in the input: it may contain {EXPECTED_NAMES}{hint}")
        descriptions.append(_describe(open_array(path)))
    return descriptions


def find_data(folder: Path) -> Iterator[Path]:
    """Yield the data files and folders in a folder, sorted. Log a warning that names the other files and folders. The
    folder `code` is skipped without a warning."""
    skipped_names = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name in SKIPPED_NAMES or path.name.startswith((".", "_")) or _is_empty_folder(path):
            skipped_names.append(path.name)
        elif not (path.is_dir() and path.name == CODE_FOLDER):
            yield path
    if skipped_names:
        logger.warning("files in %s that are not data are skipped: %s", folder, ", ".join(skipped_names))


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _describe(array: ArrayFile) -> ArrayDescription:
    name = array.path.name
    if name.startswith("x_") and len(array.shape) != 2:
        raise UserError(f"{name} has shape {array.shape}: features must be (rows, features); use reshape(-1, 1)")
    if name.startswith("x_") and not array.width:
        raise UserError(f"{name} has shape {array.shape}: it needs at least one feature")
    return ArrayDescription(name, array.shape, array.path.stat().st_size)


def check_files_match(files: Mapping[str, ArrayDescription]) -> None:
    """Check that the files of all hosts belong together.

    No shard is missing, all features have the same width, and targets have the same number of rows as their features.

    Raises:
        UserError: a file is missing, or does not match the other files; the message names the file.
    """
    for prefix, split in (("x", "train"), ("y", "train"), ("x", "test"), ("y", "test")):
        check_shards(name for name in files if name.startswith(f"{prefix}_{split}"))
    feature_files = [file for file in files.values() if file.is_features]
    for file in feature_files:
        if file.shape[1] != feature_files[0].shape[1]:
            raise UserError(
                f"{file.name} has {file.shape[1]} features but {feature_files[0].name} has "
                f"{feature_files[0].shape[1]}: write all files with the same features"
            )
    for file in files.values():
        if not file.is_features:
            _check_partner(file, files)


def _check_partner(targets: ArrayDescription, files: Mapping[str, ArrayDescription]) -> None:
    if targets.partner_name not in files:
        raise UserError(f"{targets.name} has no features: {targets.partner_name} is missing")
    rows = files[targets.partner_name].shape[0]
    if targets.shape[0] != rows:
        raise UserError(
            f"{targets.name} has {targets.shape[0]} rows but {targets.partner_name} has {rows}: write one target per "
            "row"
        )


def require_rows(files: Mapping[str, ArrayDescription], split: str) -> None:
    """Raise UserError if no host has a row of features for this split."""
    if not sum(file.shape[0] for file in files.values() if file.is_features and file.split == split):
        contents = ", ".join(files) or "no files"
        split_name = "training" if split == "train" else split
        raise UserError(f"no {split_name} data on any host: the input contains {contents}; add x_{split}.npy")


def merge(files_by_host: Mapping[str, Sequence[F]]) -> dict[str, F]:
    """Return the descriptions of the files of all hosts by file name, sorted.

    Raises:
        UserError: files of the same name differ between hosts.
    """
    files: dict[str, F] = {}
    for host, host_files in files_by_host.items():
        for file in host_files:
            if files.setdefault(file.name, file) != file:
                problem = f"{file.name} on {host} is not the same file as on another host"
                raise UserError(f"{problem}: use different names for different files")
    return dict(sorted(files.items()))


def assign(files_by_host: Mapping[str, Sequence[F]]) -> dict[str, list[str]]:
    """Assign each file to exactly one of the hosts that have it, and return the file names by host.

    With `FullyReplicated` inputs, every host has every file, but only one host may write the result of a file. Larger
    files are assigned first. Each file goes to the host that has the file and the fewest assigned bytes so far.
    """
    names_by_host: dict[str, list[str]] = {host: [] for host in files_by_host}
    bytes_by_host = dict.fromkeys(files_by_host, 0)
    hosts_by_file: dict[str, list[str]] = {}
    for host, host_files in files_by_host.items():
        for file in host_files:
            hosts_by_file.setdefault(file.name, []).append(host)
    for file in sorted(merge(files_by_host).values(), key=lambda file: (-file.size, file.name)):
        host = min(hosts_by_file[file.name], key=lambda host: bytes_by_host[host])
        names_by_host[host].append(file.name)
        bytes_by_host[host] += file.size
    return {host: sorted(names) for host, names in names_by_host.items()}

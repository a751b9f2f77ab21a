"""What lies where: the files of every host, checked together before anything is computed or written."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microjobs.arrays import NAME, ArrayFile, check_shards, open_array
from microjobs.errors import UserError

CODE_FOLDER = "code"
"""Where the SDK's script processors put their script, inside the usual input folder."""

NO_DATA = ("Thumbs.db", "desktop.ini", "lost+found")
"""What other systems leave in folders. Names that begin with `.` or `_` are no data either, as for Hadoop and Spark:
.DS_Store, .ipynb_checkpoints, _SUCCESS, __MACOSX."""

EXPECTED = "x_train.npy y_train.npy x_test.npy y_test.npy, or shards such as x_train-00000-of-00004.npy"


@dataclass(frozen=True)
class Entry:
    """One input file, as its header describes it."""

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
    def partner(self) -> str:
        """The file with the targets of these features, or the features of these targets."""
        return ("y" if self.is_features else "x") + self.name[1:]


logger = logging.getLogger("microjobs")


def survey(folder: Path) -> list[Entry]:
    """The input files on this host; files that other programs leave beside data are skipped with a warning.

    Raises:
        UserError: a file that is no array of the housing data, or a bad array.
    """
    entries = []
    for path in _data_in(folder):
        if NAME.fullmatch(path.name) is None or not path.is_file():
            raise UserError(f"unexpected {path.name!r} in the input: it may hold {EXPECTED}")
        entries.append(_entry(open_array(path)))
    return entries


def _data_in(folder: Path) -> Iterator[Path]:
    skipped = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name in NO_DATA or path.name.startswith((".", "_")) or _is_empty_folder(path):
            skipped.append(path.name)
        elif not (path.is_dir() and path.name == CODE_FOLDER):
            yield path
    if skipped:
        logger.warning("skipped in %s, because it is no data: %s", folder, ", ".join(skipped))


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _entry(array: ArrayFile) -> Entry:
    name = array.path.name
    if name.startswith("x_") and len(array.shape) != 2:
        raise UserError(f"{name} has shape {array.shape}: features must be (rows, features); use reshape(-1, 1)")
    if name.startswith("x_") and not array.width:
        raise UserError(f"{name} has shape {array.shape}: it needs at least one feature")
    return Entry(name, array.shape, array.path.stat().st_size)


def check(files: Mapping[str, Entry]) -> None:
    """Check that all files of all hosts belong together: shards, widths, rows of features and their targets.

    Raises:
        UserError: names the file that is missing or does not fit.
    """
    for kind, split in (("x", "train"), ("y", "train"), ("x", "test"), ("y", "test")):
        check_shards(name for name in files if name.startswith(f"{kind}_{split}"))
    features = [entry for entry in files.values() if entry.is_features]
    for entry in features:
        if entry.shape[1] != features[0].shape[1]:
            raise UserError(
                f"{entry.name} has {entry.shape[1]} features but {features[0].name} has {features[0].shape[1]}"
            )
    for entry in files.values():
        if entry.is_features:
            continue
        if entry.partner not in files:
            raise UserError(f"{entry.name} has no features: {entry.partner} is missing")
        rows = files[entry.partner].shape[0]
        if entry.shape[0] != rows:
            raise UserError(f"{entry.name} has {entry.shape[0]} rows but {entry.partner} has {rows}")


def need(files: Mapping[str, Entry], split: str) -> None:
    """Raises UserError if no host has a row of this split's features."""
    if not sum(entry.shape[0] for entry in files.values() if entry.is_features and entry.split == split):
        there = ", ".join(files) or "no files"
        kind = "training" if split == "train" else split
        raise UserError(f"no {kind} data on any host: the input holds {there}, and x_{split}.npy is needed")


def merge(surveys: Mapping[str, Sequence[Entry]]) -> dict[str, Entry]:
    """All files by name.

    Raises:
        UserError: two hosts hold different files of one name.
    """
    files: dict[str, Entry] = {}
    for host, entries in surveys.items():
        for entry in entries:
            if files.setdefault(entry.name, entry) != entry:
                raise UserError(f"{entry.name} on {host} is not the same file as on another host")
    return dict(sorted(files.items()))


def assign(surveys: Mapping[str, Sequence[Entry]]) -> dict[str, list[str]]:
    """Each file to one host that has it, the larger files first to whoever has the least to do.

    With `ShardedByS3Key` there is no choice; with `FullyReplicated` this is what keeps a file from being written twice.
    """
    work: dict[str, list[str]] = {host: [] for host in surveys}
    load = dict.fromkeys(surveys, 0)
    holders: dict[str, list[str]] = {}
    for host, entries in surveys.items():
        for entry in entries:
            holders.setdefault(entry.name, []).append(host)
    for entry in sorted(merge(surveys).values(), key=lambda entry: (-entry.size, entry.name)):
        host = min(holders[entry.name], key=lambda host: load[host])
        work[host].append(entry.name)
        load[host] += entry.size
    return {host: sorted(names) for host, names in work.items()}

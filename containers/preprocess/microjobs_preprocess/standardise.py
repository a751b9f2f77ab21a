"""Standardises features with the mean and scale of the training data of all hosts.

Each host runs three rounds: list files (headers), measure (first pass), transform (second pass). Nothing is written
before all input has been checked. Hosts exchange only headers and moments.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from microjobs import inventory
from microjobs.arrays import ArrayFile, fold_rows, map_parts, open_array, refuse_bad_row, write_array
from microjobs.contract import Layout
from microjobs.files import atomic_group, atomic_write
from microjobs.hosts import Hosts
from microjobs.scaler import FILE_NAME, Scaler, write_scaler

from .moments import Moments, measure

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class Task:
    """Folders of input and results, and how to handle NaN in features.

    Folders are `LocalPath`s of a request, because each host resolves them below its own root.
    allow_missing: None raises an error for NaN; "nan" keeps it; "mean" replaces it by the mean, which is 0 after
        scaling. Statistics ignore NaN.
    """

    input: str
    train: str
    test: str
    allow_missing: str | None = None

    def source(self, name: str) -> Path:
        return _resolve_folder(self.input) / name

    def output(self, name: str) -> Path:
        return _resolve_folder(self.train if "_train" in name else self.test) / name


def _resolve_folder(folder: str) -> Path:
    return Layout.from_environment().resolve_local_path(folder)


def standardise(task: Task, hosts: Hosts) -> None:
    """Run the three rounds; write scaler.json to the training folder of the first host.

    Raises:
        UserError: the input is invalid; nothing was written.
        PlatformError: a host was lost.
    """
    surveys = hosts.gather(survey(task))
    files = inventory.merge(surveys)
    inventory.require_rows(files, "train")
    inventory.check_files_match(files)
    work, is_first = inventory.assign(surveys), hosts.resources.is_first
    for host, files_of_host in work.items() if is_first else ():
        logger.info("%s has %s", host, ", ".join(files_of_host) or "no files")
    names = work[hosts.resources.current_host]
    measured = hosts.gather(measure_files(task, names))
    # In the order of names, so that the sum does not depend on which host has which file.
    parts = sorted((name, moments) for part in measured.values() for name, moments in part.items())
    scaler = reduce(Moments.merge, [moments for _, moments in parts]).make_scaler()
    with atomic_group() as register:
        if is_first:  # the scaler first: arrays without it would look unscaled
            write_scaler(_resolve_folder(task.train), scaler)
            register(_resolve_folder(task.train) / FILE_NAME)
        transform_files(task, names, scaler, register)
        hosts.gather(None)  # if another host fails, this host removes its files
    if is_first:
        logger.info("scaled %d features with the statistics of %d training rows", scaler.features, max(scaler.count))


def survey(task: Task) -> list[inventory.Entry]:
    """Return this host's input files. Create its output folders, which are needed even if they stay empty."""
    for folder in (task.train, task.test):
        _resolve_folder(folder).mkdir(parents=True, exist_ok=True)
    return inventory.survey(_resolve_folder(task.input))


def measure_files(task: Task, names: list[str]) -> dict[str, Moments]:
    """Check all of this host's files. Return the moments of its training features."""
    measured = {}
    for name in names:
        array = open_array(task.source(name))
        if name.startswith("x_"):
            moments = measure(array, allow_missing=task.allow_missing is not None)
            if "_train" in name:
                measured[name] = moments
        else:
            check_targets(array)
        logger.info("read %s: %d rows", name, array.rows)
    return measured


def check_targets(array: ArrayFile) -> None:
    def check(part: range) -> None:
        for start, block in array.blocks(part):
            refuse_bad_row(array.path, start, block)

    map_parts(array, check)


def transform_files(task: Task, names: list[str], scaler: Scaler, register: Callable[[Path], None]) -> None:
    """Write this host's files, and call `register` with each file."""
    for name in names:
        if name.startswith("x_"):
            transform(open_array(task.source(name)), task.output(name), scaler, task.allow_missing)
        else:
            with atomic_write(task.output(name)) as partial:
                shutil.copyfile(task.source(name), partial)
        register(task.output(name))
        logger.info("wrote %s", name)


def transform(array: ArrayFile, output: Path, scaler: Scaler, missing: str | None) -> None:
    """Write (x - mean) / scale, computed in double precision; integers become doubles, floats keep their type."""
    mean, scale = np.asarray(scaler.mean), np.asarray(scaler.scale)
    keeps_dtype = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    dtype = array.dtype.newbyteorder("=") if keeps_dtype else np.dtype(np.float64)
    with write_array(output, array.shape, dtype) as writer:

        def scale_part(part: range) -> None:
            for start, block in array.blocks(part):
                scaled = fold_rows(block.astype(np.float64, copy=False))
                repeats = scaled.shape[1] // array.width
                scaled -= np.tile(mean, repeats)
                scaled /= np.tile(scale, repeats)
                writer.write(start, np.nan_to_num(scaled, copy=False) if missing == "mean" else scaled)

        map_parts(array, scale_part)


EXCHANGED_TYPES = (inventory.Entry, Moments)
"""Dataclasses in the values that the hosts exchange."""

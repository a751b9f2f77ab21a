"""Standardises features with the mean and scale of the training data of all hosts.

The first host calls three functions on all hosts: `survey` lists files (headers), `measure_files` is the first pass
over the data, and `transform_files` is the second one. Nothing is written before all input has been checked. Only
headers, moments and the scaler travel between hosts.
"""

import logging
import shutil
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from microjobs import inventory
from microjobs.arrays import ArrayFile, fold_rows, map_parts, open_array, refuse_bad_row, write_array
from microjobs.contract import Layout
from microjobs.files import atomic_write
from microjobs.hosts import Hosts, Register
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
    """Call the three functions on the hosts; the first host writes scaler.json to its training folder.

    Raises:
        UserError: the input is invalid; nothing was written.
        PlatformError: a host was lost.
    """
    surveys = hosts.call(survey, dict.fromkeys(hosts.resources.hosts, (task,)))
    files = inventory.merge(surveys)
    inventory.require_rows(files, "train")
    inventory.check_files_match(files)
    work = inventory.assign(surveys)
    for host, names in work.items():
        logger.info("%s has %s", host, ", ".join(names) or "no files")
    measured = hosts.call(measure_files, {host: (task, names) for host, names in work.items()})
    # In the order of names, so that the sum does not depend on which host has which file.
    parts = sorted((name, moments) for part in measured.values() for name, moments in part.items())
    scaler = reduce(Moments.merge, [moments for _, moments in parts]).make_scaler()
    # The scaler is written first, because arrays without it would look unscaled.
    hosts.write(write_scaler_file, {hosts.resources.first_host: (task, scaler)})
    hosts.write(transform_files, {host: (task, names, scaler) for host, names in work.items()})
    logger.info("scaled %d features with the statistics of %d training rows", scaler.features, max(scaler.count))


def write_scaler_file(register: Register, task: Task, scaler: Scaler) -> None:
    write_scaler(_resolve_folder(task.train), scaler)
    register(_resolve_folder(task.train) / FILE_NAME)


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


def transform_files(register: Register, task: Task, names: list[str], scaler: Scaler) -> None:
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

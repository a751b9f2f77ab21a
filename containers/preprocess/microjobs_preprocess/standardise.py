"""Standardise features with the mean and scale of all training data, wherever the files lie.

Three rounds over the hosts: survey (headers), measure (one pass), transform (a second pass). Nothing is written before
all input was found good, and only headers, moments and the scaler travel between hosts.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microjobs import inventory
from microjobs.arrays import ArrayFile, each_part, folded, open_array, refuse_bad_row, write_array
from microjobs.contract import Layout
from microjobs.files import together, whole
from microjobs.hosts import Calls, Hosts
from microjobs.scaler import FILE_NAME, Scaler, write_scaler

from .moments import Moments, measure, merge_all

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class Task:
    """Where a host finds its files and puts its results, and what becomes of NaN in features.

    The folders are spelled as a request's `LocalPath`, because each host looks them up below its own root.
    `missing`: None refuses it; "nan" leaves it out of the statistics and as it is; "mean" turns it into the feature's
    mean, which is 0 after scaling.
    """

    input: str
    train: str
    test: str
    missing: str | None = None

    def input_folder(self) -> Path:
        return Layout.from_environment().local(self.input)

    def output_folder(self, split: str) -> Path:
        return Layout.from_environment().local(self.train if split == "train" else self.test)

    def source(self, name: str) -> Path:
        return self.input_folder() / name

    def output(self, name: str) -> Path:
        return self.output_folder("train" if "_train" in name else "test") / name


def standardise(task: Task, hosts: Hosts) -> None:
    """Run the three rounds and write scaler.json beside the training arrays of the first host.

    Raises:
        UserError: the input is wrong; nothing was written.
        PlatformError: a host was lost.
    """
    surveys = hosts.each(survey, dict.fromkeys(hosts.names, (task,)))
    files = inventory.merge(surveys)
    inventory.require(files, "train")
    inventory.check(files)
    work = inventory.assign(surveys)
    for host, names in work.items():
        logger.info("%s has %s", host, ", ".join(names) or "no files")
    measured = hosts.each(measure_files, {host: (task, names) for host, names in work.items()})
    # In the order of their names, so that the sum does not depend on which host holds what.
    parts = sorted((name, moments) for part in measured.values() for name, moments in part.items())
    scaler = merge_all([moments for _, moments in parts]).scaler()
    with together() as written:  # the scaler first: arrays without it would look as if never scaled
        write_scaler(task.output_folder("train"), scaler)
        written(task.output_folder("train") / FILE_NAME)
        hosts.each(transform_files, {host: (task, names, scaler) for host, names in work.items()})
    logger.info("scaled %d features by %d training rows", scaler.features, max(scaler.count))


def survey(task: Task) -> list[inventory.Entry]:
    """This host's input files; its output folders are there from now on, even if it writes nothing to them."""
    for split in ("train", "test"):
        task.output_folder(split).mkdir(parents=True, exist_ok=True)
    return inventory.survey(task.input_folder())


def measure_files(task: Task, names: list[str]) -> dict[str, Moments]:
    """Check all of this host's files, and measure the training features among them."""
    measured = {}
    for name in names:
        array = open_array(task.source(name))
        if name.startswith("x_"):
            moments = measure(array, allow_missing=task.missing is not None)
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

    each_part(array, check)


def transform_files(task: Task, names: list[str], scaler: Scaler) -> None:
    """Write this host's files, all of them or none."""
    with together() as written:
        for name in names:
            if name.startswith("x_"):
                transform(open_array(task.source(name)), task.output(name), scaler, task.missing)
            else:
                with whole(task.output(name)) as partial:
                    shutil.copyfile(task.source(name), partial)
            written(task.output(name))
            logger.info("wrote %s", name)


def transform(array: ArrayFile, output: Path, scaler: Scaler, missing: str | None) -> None:
    """(x - mean) / scale in double precision, written in the input's own floating type (double for whole numbers)."""
    mean, scale = np.asarray(scaler.mean), np.asarray(scaler.scale)
    keeps = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    dtype = array.dtype.newbyteorder("=") if keeps else np.dtype(np.float64)
    with write_array(output, array.shape, dtype) as writer:

        def scale_part(part: range) -> None:
            for start, block in array.blocks(part):
                scaled = folded(block.astype(np.float64, copy=False))
                times = scaled.shape[1] // array.width
                scaled -= np.tile(mean, times)
                scaled /= np.tile(scale, times)
                writer.write(start, np.nan_to_num(scaled, copy=False) if missing == "mean" else scaled)

        each_part(array, scale_part)


CALLS = Calls((survey, measure_files, transform_files), (Task, inventory.Entry, Moments, Scaler))
"""What travels between the hosts."""

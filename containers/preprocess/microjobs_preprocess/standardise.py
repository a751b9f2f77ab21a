"""Standardises features with the mean and scale of the training data of all hosts.

The first host calls three functions on all hosts: `describe_inputs` reads the headers of the files, `measure_files` is
the first pass over the data, and `transform_files` is the second pass. Nothing is written before all input has been
checked. Hosts send only headers, moments and the scaler to each other.
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
from microjobs.hosts import Hosts, RegisterFile
from microjobs.scaler import FILE_NAME, Scaler, write_scaler

from .moments import Moments, measure

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class ArrayOptions:
    """Folders of input and results, and how to handle NaN in features.

    The folders are values of `LocalPath` in a request; each host resolves them below its own root.

    allow_missing: with None, NaN is an error. With "nan", NaN is kept. With "mean", the mean replaces NaN, so that the
        value is 0 after scaling. Statistics ignore NaN.
    """

    input: str
    train: str
    test: str
    allow_missing: str | None = None

    def source_path(self, name: str) -> Path:
        return _resolve_folder(self.input) / name

    def output_path(self, name: str) -> Path:
        return _resolve_folder(self.train if "_train" in name else self.test) / name


def _resolve_folder(folder: str) -> Path:
    return Layout.from_environment().resolve_local_path(folder)


def standardise(options: ArrayOptions, hosts: Hosts) -> None:
    """Call the three functions on the hosts; the first host writes scaler.json to its training folder.

    Raises:
        UserError: the input is invalid; nothing was written.
        PlatformError: a host was lost.
    """
    files_by_host = hosts.call(describe_inputs, dict.fromkeys(hosts.resources.hosts, (options,)))
    files = inventory.merge(files_by_host)
    inventory.require_rows(files, "train")
    inventory.check_files_match(files)
    names_by_host = inventory.assign(files_by_host)
    for host, names in names_by_host.items():
        logger.info("%s has %s", host, ", ".join(names) or "no files")
    moments_by_host = hosts.call(measure_files, {host: (options, names) for host, names in names_by_host.items()})
    # Moments are merged in the order of names, so that the sum does not depend on which host has which file.
    named_moments = sorted(item for moments_by_name in moments_by_host.values() for item in moments_by_name.items())
    scaler = reduce(Moments.merge, [moments for _, moments in named_moments]).make_scaler()
    # The scaler is written first, because arrays without it would look unscaled.
    hosts.write(write_scaler_file, {hosts.resources.first_host: (options, scaler)})
    hosts.write(transform_files, {host: (options, names, scaler) for host, names in names_by_host.items()})
    logger.info("scaled %d features with the statistics of %d training rows", scaler.features, max(scaler.count))


def write_scaler_file(register_file: RegisterFile, options: ArrayOptions, scaler: Scaler) -> None:
    write_scaler(_resolve_folder(options.train), scaler)
    register_file(_resolve_folder(options.train) / FILE_NAME)


def describe_inputs(options: ArrayOptions) -> list[inventory.ArrayDescription]:
    """Return this host's input files. Create its output folders, which are needed even if they stay empty."""
    for folder in (options.train, options.test):
        _resolve_folder(folder).mkdir(parents=True, exist_ok=True)
    return inventory.describe_arrays(_resolve_folder(options.input))


def measure_files(options: ArrayOptions, names: list[str]) -> dict[str, Moments]:
    """Check all of this host's files. Return the moments of its training features."""
    moments_by_name = {}
    for name in names:
        array = open_array(options.source_path(name))
        if name.startswith("x_"):
            moments = measure(array, allow_missing=options.allow_missing is not None)
            if "_train" in name:
                moments_by_name[name] = moments
        else:
            check_targets(array)
        logger.info("read %s: %d rows", name, array.rows)
    return moments_by_name


def check_targets(array: ArrayFile) -> None:
    def check_part(part: range) -> None:
        for start, block in array.blocks(part):
            refuse_bad_row(array.path, start, block)

    map_parts(array, check_part)


def transform_files(register_file: RegisterFile, options: ArrayOptions, names: list[str], scaler: Scaler) -> None:
    """Write this host's files, and call `register_file` with each file."""
    for name in names:
        if name.startswith("x_"):
            transform(open_array(options.source_path(name)), options.output_path(name), scaler, options.allow_missing)
        else:
            with atomic_write(options.output_path(name)) as partial:
                shutil.copyfile(options.source_path(name), partial)
        register_file(options.output_path(name))
        logger.info("wrote %s", name)


def transform(array: ArrayFile, output: Path, scaler: Scaler, allow_missing: str | None) -> None:
    """Write (x - mean) / scale, computed in double precision. Floats of up to 64 bits keep their type; all other types
    become doubles."""
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
                writer.write(start, np.nan_to_num(scaled, copy=False) if allow_missing == "mean" else scaled)

        map_parts(array, scale_part)

"""Preprocessing: scales features for training, or writes example data. Serves users' models of scikit-learn.

(no arguments)                    standardise x_* and copy y_* from input to train and test
--columns FILE                    make features from tables with named columns
dataset NAME [--from FILE]        write raw arrays to output
"""

import logging
from argparse import Namespace

from microjobs.arguments import Parser
from microjobs.contract import Layout, ResourceConfig, read_processing_resource_config
from microjobs.errors import UserError
from microjobs.hosts import run_on_hosts

from .standardise import ArrayOptions, standardise

logger = logging.getLogger("microjobs")


def process(arguments: list[str]) -> None:
    if arguments[:1] == ["dataset"]:
        _write_dataset(arguments[1:])
    else:
        _preprocess(arguments)


def serve() -> None:
    """Serve the model in the model folder; see `microjobs.hosting.server.serve`."""
    from microjobs.hosting import server  # preprocessing does not need this module

    from .model_source import find_model_source

    server.serve(find_model_source)


def _preprocess(arguments: list[str]) -> None:
    description = "Standardise x_* with the mean and scale of the training data, and copy y_*."
    parser = Parser("preprocess", description=description)
    parser.add_folders("input", "train", "test")
    parser.add_argument(
        "--allow-missing",
        choices=("nan", "mean"),
        nargs="?",
        const="nan",
        help="accept NaN in features as missing values, and ignore them in the statistics: nan keeps NaN, mean "
        "replaces it with the mean",
    )
    parser.add_argument(
        "--columns", metavar="FILE", help="make features from tables with named columns; the file declares the columns"
    )
    parser.add_argument(
        "--format", choices=("npy", "parquet", "csv"), help="format of the results of --columns; default: npy"
    )
    parser.epilog = "`preprocess dataset --help` describes how to write example data."
    options = parser.parse_args(arguments)
    resources = read_processing_resource_config(Layout.from_environment())
    if options.columns is not None:
        _encode_tables(options, resources)
        return
    if options.format is not None:
        raise UserError(f"--format {options.format} is only for tables: add --columns, or remove --format")
    array_options = ArrayOptions(options.input, options.train, options.test, options.allow_missing)
    run_on_hosts(resources, lambda hosts: standardise(array_options, hosts))


def _encode_tables(options: Namespace, resources: ResourceConfig) -> None:
    from . import encode_tables  # this module imports pyarrow, which arrays do not need

    if options.allow_missing is not None:
        raise UserError(f"--allow-missing is for arrays: set `missing` for the columns in {options.columns}")
    table_options = encode_tables.TableOptions(
        options.input, options.train, options.test, options.columns, options.format or "npy"
    )
    run_on_hosts(resources, lambda hosts: encode_tables.encode_tables(table_options, hosts))


def _write_dataset(arguments: list[str]) -> None:
    from . import datasets

    layout = Layout.from_environment()
    parser = Parser("preprocess dataset", description="Write raw arrays, 80 % for training and 20 % for testing.")
    parser.add_argument("name", choices=datasets.DATASETS)
    parser.add_argument("--from", dest="source", help="boston: the .npz file, relative to the input folder")
    parser.add_folders("output")
    parser.add_argument("--shards", type=int, choices=range(1, 100), default=1, metavar="N", help="files per array")
    options = parser.parse_args(arguments)
    source = None if options.source is None else layout.processing("input") / layout.resolve_local_path(options.source)
    names = datasets.write_arrays(
        datasets.make_arrays(options.name, source), layout.resolve_local_path(options.output), options.shards
    )
    logger.info("wrote %s", ", ".join(names))

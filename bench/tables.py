"""Features from tables: the preprocess job, compared with scikit-learn and pandas in memory, and with plain Dask.

    uv run python bench/tables.py [--megabytes 300] [--runs 3] [--markdown]
    uv run python bench/tables.py --megabytes 20000 --shards 10 --memory-limit 2000 --only csv --runs 1

The tables have 10 columns of numbers, a one-hot column, an ordinal column, an identifier that is dropped, and a target.
All candidates write the features and the targets as arrays. With more than one shard, only the job runs.
`--memory-limit` (MB) limits the job with prlimit --data. `--missing median` also measures the search for medians.
`--folder` is for the tables and the arrays: the second command needs 30 GB.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Usage

from microjobs.contract import Layout

BYTES_PER_ROW = {"csv": 249, "parquet": 146}
FORMATS = tuple(BYTES_PER_ROW)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="approximate size of each format")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--memory-limit", type=int, metavar="MB", help="for the job")
    parser.add_argument("--missing", choices=("mean", "median"), default="mean")
    parser.add_argument("--only", choices=FORMATS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    for table_format in [options.only] if options.only else FORMATS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure_format(Layout(Path(folder)), table_format, options)


def measure_format(layout: Layout, table_format: str, options: argparse.Namespace) -> None:
    """Measure all candidates on tables of one format, and print the results."""
    source, output = layout.processing("input"), layout.processing("train")
    rows = options.megabytes * 1_000_000 // BYTES_PER_ROW[table_format]
    python = harness.create_peer_environment("tables")
    make_tables = harness.PEERS / "make_tables.py"
    harness.measure([python, make_tables, source, table_format, str(rows), str(options.shards)])
    (source / "columns.json").write_text(json.dumps(make_column_declarations(options.missing)))
    command, environment = harness.make_job_command("preprocess", layout.root)
    limit = ["prlimit", f"--data={options.memory_limit * 1_000_000}"] if options.memory_limit else []
    job = [*limit, *command, "--columns", "columns.json"]
    candidates = {"preprocess": lambda: harness.measure(job, environment)}
    if options.shards == 1:
        for name, script in (("scikit-learn and pandas", "column_transformer"), ("Dask", "dask_tables")):
            candidates[name] = make_peer_run(python, script, source / f"train.{table_format}", output)
    prepared_candidates = {name: with_empty_output(run, output) for name, run in candidates.items()}
    size = sum(path.stat().st_size for path in source.glob("train*"))
    title = f"{table_format}, {size / 1e6:,.0f} MB, {rows:,} rows"
    report(title, harness.run_interleaved(prepared_candidates, options.runs), markdown=options.markdown)


def make_column_declarations(missing: str) -> dict[str, object]:
    numbers = {f"n{index}": {"type": "numeric", "missing": missing} for index in range(10)}
    return numbers | {
        "city": {"type": "one-hot", "missing": "most-frequent"},
        "grade": {"type": "ordinal", "missing": "most-frequent"},
        "id": "drop",
        "price": "target",
    }


def make_peer_run(python: Path, script: str, source: Path, output: Path) -> Callable[[], Usage]:
    """Return a function that measures a peer."""
    return lambda: harness.measure([python, harness.PEERS / f"{script}.py", source, output])


def with_empty_output(run: Callable[[], Usage], output: Path) -> Callable[[], Usage]:
    def measure() -> Usage:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        return run()

    return measure


def report(title: str, results: dict[str, list[Usage]], *, markdown: bool) -> None:
    baseline = harness.compute_median_seconds(results["preprocess"])
    lines = [
        [
            name,
            f"{harness.compute_median_seconds(runs):.2f} s",
            f"{harness.compute_median_seconds(runs) / baseline:.2f}x",
            f"{min(run.seconds for run in runs):.2f}-{max(run.seconds for run in runs):.2f} s",
            f"{harness.find_peak_bytes(runs) / 1e6:.0f} MB",
        ]
        for name, runs in results.items()
    ]
    versions = harness.format_versions(harness.PEERS / "tables.lock", "scikit-learn", "pandas", "dask", "pyarrow")
    title = f"{title}; {harness.describe_machine()}, {versions}"
    harness.print_table(title, ["", "median", "ratio to preprocess", "range", "peak memory"], lines, markdown=markdown)


if __name__ == "__main__":
    main()

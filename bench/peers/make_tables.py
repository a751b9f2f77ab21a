"""Writes tables for `bench/tables.py`: 10 columns of numbers, 2 of categories, an identifier and a target.

Arguments: FOLDER FORMAT (csv or parquet) ROWS SHARDS. All rows of all shards are different.
"""

import sys
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

CHUNK_ROWS = 100_000
CITIES = np.array(["Berlin", "Bonn", "Hamburg", "Köln", None])
GRADES = np.array(["a", "b", "c", "d", "e", None])

folder, suffix, rows, shards = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
random = np.random.default_rng(0)


def make_batch(count: int) -> pa.RecordBatch:
    numbers = random.normal(100, 25, (count, 10))
    numbers[random.random((count, 10)) < 0.02] = np.nan
    columns = {f"n{index}": pa.array(numbers[:, index], from_pandas=True) for index in range(10)}
    columns["city"] = pa.array(CITIES[random.integers(0, len(CITIES), count)], pa.string())
    columns["grade"] = pa.array(GRADES[random.integers(0, len(GRADES), count)], pa.string())
    columns["id"] = pa.array([str(uuid.UUID(bytes=random.bytes(16))) for _ in range(count)])
    columns["price"] = pa.array(random.normal(size=count))
    return pa.RecordBatch.from_pydict(columns)


folder.mkdir(parents=True, exist_ok=True)
names = [f"train-{shard:05}-of-{shards:05}.{suffix}" for shard in range(shards)] if shards > 1 else [f"train.{suffix}"]
schema = make_batch(1).schema
writer_class = pa.csv.CSVWriter if suffix == "csv" else pa.parquet.ParquetWriter
for name in names:
    with writer_class(folder / name, schema) as writer:
        for start in range(0, rows // shards, CHUNK_ROWS):
            writer.write_batch(make_batch(min(CHUNK_ROWS, rows // shards - start)))

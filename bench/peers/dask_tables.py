"""Features from a table with Dask's data frames, in threads; one array per partition. Arguments: SOURCE OUTPUT."""

import sys
from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

NUMBERS = [f"n{index}" for index in range(10)]


def encode(
    part: pd.DataFrame, number: int, output: str, mean: pd.Series, scale: pd.Series, levels: dict[str, list[str]]
) -> None:
    """Write the features and targets of one partition."""
    scaled = ((part[NUMBERS].fillna(mean) - mean) / scale).to_numpy()
    city, grade = (
        pd.Categorical(part[name].fillna(levels[name][-1]), sorted(levels[name])).codes for name in ("city", "grade")
    )
    x = np.hstack([scaled, np.eye(len(levels["city"]))[city], grade[:, np.newaxis]])
    np.save(Path(output) / f"x_train-{number}.npy", x)
    np.save(Path(output) / f"y_train-{number}.npy", part["price"].to_numpy())


def main(source: Path, output: Path) -> None:
    table = dd.read_csv(source) if source.suffix == ".csv" else dd.read_parquet(source, split_row_groups=True)
    table = table[[*NUMBERS, "city", "grade", "price"]]
    mean, variance, count, rows, city, grade = dask.compute(
        table[NUMBERS].mean(),
        table[NUMBERS].var(ddof=0),
        table[NUMBERS].count(),
        table["price"].count(),
        table["city"].value_counts(),
        table["grade"].value_counts(),
    )
    # Filled values equal the mean, so they add nothing to the sum of squares.
    scale = np.sqrt(variance * count / rows)
    levels = {"city": city.sort_values().index.tolist(), "grade": grade.sort_values().index.tolist()}
    tasks = [
        dask.delayed(encode)(part, number, str(output), mean, scale, levels)
        for number, part in enumerate(table.to_delayed())
    ]
    dask.compute(*tasks)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

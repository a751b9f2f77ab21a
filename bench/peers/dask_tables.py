"""Features from a table with Dask's data frames, in threads; one array per partition. Arguments: SOURCE OUTPUT."""

import sys
from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

NUMERIC_COLUMNS = [f"n{index}" for index in range(10)]


def encode(
    part: pd.DataFrame, number: int, output: str, mean: pd.Series, scale: pd.Series, categories: dict[str, list[str]]
) -> None:
    """Write the features and targets of one partition.

    Args:
        categories: the categories of each text column, the most frequent one last.
    """
    scaled = ((part[NUMERIC_COLUMNS].fillna(mean) - mean) / scale).to_numpy()
    city, grade = (
        pd.Categorical(part[name].fillna(categories[name][-1]), sorted(categories[name])).codes
        for name in ("city", "grade")
    )
    x = np.hstack([scaled, np.eye(len(categories["city"]))[city], grade[:, np.newaxis]])
    np.save(Path(output) / f"x_train-{number}.npy", x)
    np.save(Path(output) / f"y_train-{number}.npy", part["price"].to_numpy())


def main(source: Path, output: Path) -> None:
    table = dd.read_csv(source) if source.suffix == ".csv" else dd.read_parquet(source, split_row_groups=True)
    table = table[[*NUMERIC_COLUMNS, "city", "grade", "price"]]
    mean, variance, count, rows, city, grade = dask.compute(
        table[NUMERIC_COLUMNS].mean(),
        table[NUMERIC_COLUMNS].var(ddof=0),
        table[NUMERIC_COLUMNS].count(),
        table["price"].count(),
        table["city"].value_counts(),
        table["grade"].value_counts(),
    )
    # Filled values equal the mean, so they add nothing to the sum of squares.
    scale = np.sqrt(variance * count / rows)
    categories = {"city": city.sort_values().index.tolist(), "grade": grade.sort_values().index.tolist()}
    tasks = [
        dask.delayed(encode)(part, number, str(output), mean, scale, categories)
        for number, part in enumerate(table.to_delayed())
    ]
    dask.compute(*tasks)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

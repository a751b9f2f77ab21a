"""Features from a table with pandas and scikit-learn, in memory. Arguments: SOURCE OUTPUT."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

source, output = map(Path, sys.argv[1:])
read_table = pd.read_csv if source.suffix == ".csv" else pd.read_parquet
table = read_table(source)
numbers = [f"n{index}" for index in range(10)]
most_frequent = SimpleImputer(strategy="most_frequent")
transformer = ColumnTransformer(
    [
        ("numbers", make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()), numbers),
        ("city", make_pipeline(most_frequent, OneHotEncoder(sparse_output=False)), ["city"]),
        ("grade", make_pipeline(most_frequent, OrdinalEncoder()), ["grade"]),
    ]
)
np.save(output / "x_train.npy", transformer.fit_transform(table))
np.save(output / "y_train.npy", table["price"].to_numpy())

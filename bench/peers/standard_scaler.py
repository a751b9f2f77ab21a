"""Standard scaling with scikit-learn: the whole array in memory. Arguments: SOURCE OUTPUT."""

import sys
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

source, output = map(Path, sys.argv[1:])
np.save(output / "x_train.npy", StandardScaler().fit_transform(np.load(source / "x_train.npy")))
np.save(output / "y_train.npy", np.load(source / "y_train.npy"))
